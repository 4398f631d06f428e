"""GAffine: an affine map whose parameters a network computes from the context."""

from __future__ import annotations

from torch import Tensor

from pyro_gflows.actions import LinearAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.actions.row_mask import coordinates_there, require_maskable
from pyro_gflows.nn import Conditioner, takes_factories
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.by_network import ByNetwork
from pyro_gflows.transforms.masked import TakesMask
from pyro_gflows.transforms.transformers import TransformerFactory

__all__ = ["GAffine"]


@takes_factories("transformer", "network")
@registered
class GAffine(TakesMask, ByNetwork):
    r"""An affine map of the whole event, with parameters that depend on the context.

    .. math:: y = A(c)\,x + t(c), \qquad \log|\det J| = \log|\det A(c)|

    Here x is an event, c its context, and a network computes the matrix A(c) and the shift t(c). On a standard normal
    base this layer is the Gaussian posterior of an amortized guide, with a mean and a covariance that are equivariant
    functions of the data. The map is bijective because A(c) is invertible by construction. It is equivariant, T(g x |
    g c) = g T(x | c) for every group element g, because the network is: :math:`A(g c) = g A(c) g^{-1}` and
    :math:`t(g c) = g\,t(c)`. Both directions cost one evaluation of the network. Events keep their shape.

    Args:
        action: How the group acts on events.
        context_action: How it acts on the context.
        transformer: Makes the map from ``action``; by default ElementwiseAffine where possible, else IrrepScale
            (of rows RowScale).
        network: Makes the network from ``context_action`` and from ``transformer.params_action``; by default an
            equivariant network that starts at zero.
        width: Hidden fields of the default network.
        depth: Hidden layers of the default network.

    Raises:
        TypeError: ``action`` or ``context_action`` is not a LinearAction.
        ValueError: The context does not go with the event, or the factory makes a transformer of another action.

    Source: Auto-Encoding Variational Bayes, arXiv:1312.6114.

    Example:
        >>> import torch
        >>> from pyro_gflows import EquivariantFlow, InvariantNormal, VectorAction
        >>> action = VectorAction.plane("D4")
        >>> layer = GAffine(action, context_action=VectorAction.regular("D4"))
        >>> EquivariantFlow(InvariantNormal(action), [layer]).condition(torch.randn(5, 8)).sample().shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        action: LinearAction,
        *,
        context_action: LinearAction,
        transformer: TransformerFactory | None = None,
        network: Conditioner | None = None,
        width: int = 16,
        depth: int = 1,
    ) -> None:
        super().__init__(action, context_action=context_action)
        require_linear(action)
        inputs = self.inputs_action()
        self._set_up(action, inputs, transformer=transformer, network=network, width=width, depth=depth)

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        image: tuple[Tensor, Tensor] = self.transformer(x, self.network(self.inputs([], context)))
        return image

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transformer.inverse(y, self.network(self.inputs([], context)))

    def mask_refusal(self) -> str:
        return self._network_refusal()

    def apply_masked(self, x: Tensor, mask: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        there = coordinates_there(require_maskable(self.action_in), mask).to(x.dtype)
        element_map = self.transformer.inverse if inverse else self.transformer
        return element_map(x, self._params_of(self.inputs([], context), mask), there)
