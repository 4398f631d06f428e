"""GAffine: the affine map that a context asks for."""

from __future__ import annotations

from torch import Tensor

from pyro_gflows.actions import LinearAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.nn import Conditioner, takes_factories
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.by_network import ByNetwork
from pyro_gflows.transforms.transformers import TransformerFactory

__all__ = ["GAffine"]


@takes_factories("transformer", "network")
@registered
class GAffine(ByNetwork):
    r"""Moves the whole event by an affine map whose parameters depend on the context.

    .. math:: y = A(c)\,x + t(c), \qquad \log|\det J| = \log|\det A(c)|

    On a standard normal base it is the Gaussian posterior of an amortized guide, with an equivariant mean and
    covariance. Bijective because A is invertible by construction; equivariant, T(g x | g c) = g T(x | c), because the
    network is, and its outputs carry the action that makes A commute. Both directions cost one evaluation.

    Args:
        action: How the group acts on events.
        context_action: How it acts on the context.
        transformer: Makes the map from ``action``; by default ElementwiseAffine where possible, else IrrepScale.
        network: Makes the network from ``context_action`` and from ``transformer.params_action``; by default an
            equivariant network that starts at zero.
        width: Hidden fields of the default network.
        depth: Hidden layers of the default network.

    Raises:
        TypeError: ``action`` or ``context_action`` is not a LinearAction.
        ValueError: A context that does not go with the event, or a transformer of another action.

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
