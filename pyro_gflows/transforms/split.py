"""GSplit: an inner flow on one part of the event, and a conditional affine map on the other part."""

from __future__ import annotations

from torch import Tensor

from pyro_gflows.actions import LinearAction, Split
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.actions.splits.default import split_of
from pyro_gflows.deprecation import split_first
from pyro_gflows.nn import Conditioner, takes_factories
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.base import EquivariantTransform
from pyro_gflows.transforms.by_network import ByNetwork
from pyro_gflows.transforms.split_basis import SplitBasis
from pyro_gflows.transforms.transformers import TransformerFactory

__all__ = ["GSplit"]


@split_first(Split)
@takes_factories("transformer", "network")
@registered
class GSplit(ByNetwork):
    r"""A multi-scale layer: an inner flow on one part of the event, and a conditional affine map on the other part.

    .. math:: y_1 = T(x_1), \qquad y_2 = A(y_1)\,x_2 + t(y_1), \qquad
        \log|\det J| = \log|\det J_T(x_1)| + \log|\det A(y_1)|

    Here x_1 and x_2 are the two parts of the event, J_T is the Jacobian of T, and a network computes the matrix A and
    the shift t from y_1. The second part leaves the flow early: given the first part, it is a Gaussian. So the deeper
    layers, inside T, work on smaller events, as in the multi-scale flows of images, and the whole still is a bijection
    of the same event with one base. Events keep their shape. The map is bijective because T is and A is invertible. It
    is equivariant because T and the network are.

    Args:
        action: How the group acts on events.
        inner: T, a transform of the action on the first part.
        split: How the event falls into two invariant parts.
        transformer: Makes the map of the second part from the action on it; by default ElementwiseAffine where
            possible, else IrrepScale.
        network: Makes the conditioner from the action on the first part (and the context, side by side) and from
            ``transformer.params_action``; by default an equivariant network that starts at zero.
        width: Hidden fields of the default network.
        depth: Hidden layers of the default network.
        context_action: How the group acts on a context that the map of the second part reads; ``inner`` may take the
            same one.

    Raises:
        TypeError: ``split`` is not a split, or a factory is none.
        ValueError: There are not two parts, or ``split``, ``inner`` or what a factory makes is of another action or
            context.

    Source: RealNVP, arXiv:1605.08803; Glow, arXiv:1807.03039.

    Example:
        >>> import torch
        >>> from pyro_gflows import CoordinateSplit, GActNorm, VectorAction
        >>> action = VectorAction.regular("C4", copies=2)
        >>> split = CoordinateSplit(action)
        >>> GSplit(action, GActNorm(split.parts[0]), split=split)(torch.zeros(3, 8)).shape
        torch.Size([3, 8])
    """

    def __init__(
        self,
        action: LinearAction,
        inner: EquivariantTransform,
        *,
        split: Split,
        transformer: TransformerFactory | None = None,
        network: Conditioner | None = None,
        width: int = 16,
        depth: int = 2,
        context_action: LinearAction | None = None,
    ) -> None:
        super().__init__(require_linear(action), context_action=context_action)
        split = split_of(action, split)
        if len(split.parts) != 2:
            raise ValueError(f"expected a split into 2 parts, got {split}")
        first, second = split.parts
        if not split.is_slicing:
            raise ValueError(f"expected a split into slices of the event, got {split}; a mask leaves no smaller event")
        if inner.action_in != first or inner.action_out != first:
            raise ValueError(f"expected an inner transform of {first}, got {inner.action_in} -> {inner.action_out}")
        if inner.context_action not in (None, self.context_action):
            raise ValueError(
                f"expected an inner transform with the context of this one, {self.context_action}, got one with a "
                f"context of {inner.context_action}"
            )
        self.split, self.inner = split, inner
        self.split_basis = SplitBasis.of(split)
        inputs = self.inputs_action(first)
        self._set_up(second, inputs, transformer=transformer, network=network, width=width, depth=depth)

    @property
    def reaches_all(self) -> bool:
        return self.inner.reaches_all

    def reaches(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self.inner.reaches(self.split.split(y)[0], context)

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        first, second = self.split.split(x)
        first, inner_ladj = self.inner.call_and_ladj(first, context)
        second, ladj = self.transformer(second, self.network(self.inputs([first], context)))
        return self.split.merge([first, second]), inner_ladj + ladj

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        first, second = self.split.split(y)
        second, ladj = self.transformer.inverse(second, self.network(self.inputs([first], context)))
        first, inner_ladj = self.inner.inv_call_and_ladj(first, context)
        return self.split.merge([first, second]), inner_ladj + ladj

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.inner.initialize(self.split.split(x)[0], context)
        return super().initialize(x, context)

    def initialize_inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        self.inner.initialize_inverse(self.split.split(y)[0], context)
        return super().initialize_inverse(y, context)

    def extra_repr(self) -> str:
        return f"{self.split}"
