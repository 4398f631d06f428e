"""GSplit: an inner flow on one part of the event, and the other part given it."""

from __future__ import annotations

from torch import Tensor, nn

from pyro_gflows.actions import LinearAction, Split
from pyro_gflows.actions.splits.base import require_split
from pyro_gflows.nn import conditioner
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.base import EquivariantTransform
from pyro_gflows.transforms.conditional import ConditionalTransform
from pyro_gflows.transforms.split_basis import SplitBasis
from pyro_gflows.transforms.transformers import Transformer, default_transformer

__all__ = ["GSplit"]


@registered
class GSplit(ConditionalTransform):
    r"""A bijection of the same event: an inner flow on one part, a conditional affine map on the other.

    .. math:: y_1 = T(x_1), \qquad y_2 = A(y_1)\,x_2 + t(y_1), \qquad
        \log|\det J| = \log|\det J_T(x_1)| + \log|\det A(y_1)|

    This is a multi-scale flow with one base and no special case: the second part leaves the flow early, with a
    conditional Gaussian given the first; a squeeze inside T ends with its own inverse. Bijective and equivariant as T
    and A are.

    Args:
        split: how the event falls into two invariant parts.
        inner: T, a transform of the first part's action.
        transformer: the map of the second part; by default ElementwiseAffine where possible, else IrrepScale.
        network: the conditioner, from the first part (and the context) to ``transformer.params_action``; by default an
            equivariant network of ``width`` and ``depth`` that starts at zero.
        width: hidden fields of the default conditioner.
        depth: its hidden layers.
        context_action: how the group moves a context that the map of the second part reads; ``inner`` may take the
            same one.

    Raises:
        TypeError: not a split.
        ValueError: not two parts, or ``inner`` or ``transformer`` is made for another action or context.

    Source: RealNVP, arXiv:1605.08803; Glow, arXiv:1807.03039.

    Example:
        >>> import torch
        >>> from pyro_gflows import CoordinateSplit, GActNorm, VectorAction
        >>> split = CoordinateSplit(VectorAction.regular("C4", copies=2))
        >>> GSplit(split, GActNorm(split.parts[0]))(torch.zeros(3, 8)).shape
        torch.Size([3, 8])
    """

    def __init__(
        self,
        split: Split,
        inner: EquivariantTransform,
        *,
        transformer: Transformer | None = None,
        network: nn.Module | None = None,
        width: int = 16,
        depth: int = 2,
        context_action: LinearAction | None = None,
    ) -> None:
        super().__init__(require_split(split).action, context_action=context_action)
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
        self.transformer = default_transformer(second) if transformer is None else transformer.require(second)
        if network is None:
            inputs, params_action = self.inputs_action(first), self.transformer.params_action
            network = conditioner(inputs, params_action, width=width, depth=depth, start=self.transformer.start)
        self.network = network

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
