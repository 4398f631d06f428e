"""G-coupling flows: one part of the event moves, as the others say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction, Split
from pyro_gflows.actions.splits.base import require_split
from pyro_gflows.actions.splits.default import split_of
from pyro_gflows.nn import Conditioner, conditioner, conditioner_from
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.compose import Compose
from pyro_gflows.transforms.conditional import ConditionalTransform
from pyro_gflows.transforms.split_basis import SplitBasis
from pyro_gflows.transforms.transformers import Transformer, default_transformer

__all__ = ["GCoupling", "g_coupling"]

_T = TypeVar("_T")


@registered
class GCoupling(ConditionalTransform):
    r"""Moves one invariant part of the event by a map whose parameters depend on the other parts.

    .. math:: y_1 = x_1, \qquad y_2 = A(x_1)\,x_2 + t(x_1), \qquad \log|\det J| = \log|\det A(x_1)|

    Bijective because A is invertible by construction; equivariant because the conditioner is, and the transformer's
    parameters carry the action that makes A commute. Both directions cost one evaluation.

    Args:
        split: how the event falls into invariant parts (CoordinateSplit, IrrepSplit, ChannelSplit, MaskSplit).
        moved: which part moves; it depends on all others.
        transformer: the map of that part; by default ElementwiseAffine where possible, else IrrepScale.
        network: the conditioner, from the other parts and the context (side by side) to
            ``transformer.params_action``; by default an equivariant network of ``width`` regular fields and ``depth``
            hidden layers, zero at the start.
        context_action: how the group moves the context; None: there is none.

    Raises:
        TypeError: not a split.
        ValueError: no such part, a transformer of another one, or a context that does not go with the event.

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649; RealNVP, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> from pyro_gflows import CoordinateSplit, VectorAction
        >>> layer = GCoupling(CoordinateSplit(VectorAction.regular("C4", copies=2)))
        >>> layer(torch.zeros(3, 8)).shape
        torch.Size([3, 8])
    """

    belongs: Tensor | None

    def __init__(
        self,
        split: Split,
        *,
        moved: int = 1,
        transformer: Transformer | None = None,
        network: nn.Module | None = None,
        width: int = 16,
        depth: int = 2,
        context_action: LinearAction | None = None,
    ) -> None:
        super().__init__(require_split(split).action, context_action=context_action)
        if not 0 <= moved < len(split.parts):
            raise ValueError(f"expected moved in 0..{len(split.parts) - 1} for {split}, got {moved}")
        self.split, self.moved = split, moved
        self.split_basis = SplitBasis.of(split)
        part = split.parts[moved]
        self.transformer = default_transformer(part) if transformer is None else transformer.require(part)
        mask = None if split.is_slicing else split.restrict(moved, torch.ones(part.event_shape))
        self.register_buffer("belongs", mask, persistent=False)
        if network is None:
            inputs = self.inputs_action(*self._others(split.parts))
            params_action, start = self.transformer.params_action, self.transformer.start
            network = conditioner(inputs, params_action, width=width, depth=depth, start=start)
        self.network = network

    def _others(self, parts: Sequence[_T]) -> list[_T]:
        return [part for index, part in enumerate(parts) if index != self.moved]

    def _apply_map(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        parts = list(self.split.split(x))
        params = self.network(self.inputs(self._others(parts), context))
        move = self.transformer.inverse if inverse else self.transformer
        parts[self.moved], ladj = move(parts[self.moved], params, self.belongs)
        return self.split.merge(parts), ladj

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_map(x, context, inverse=False)

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_map(y, context, inverse=True)

    def extra_repr(self) -> str:
        return f"{self.split}, part {self.moved} moves"


def g_coupling(
    action: LinearAction,
    *,
    split: Split | None = None,
    transformer: Callable[[LinearAction], Transformer] | None = None,
    network: Conditioner | None = None,
    width: int = 16,
    depth: int = 2,
    context_action: LinearAction | None = None,
) -> Compose:
    """One coupling step in which every part of the split moves once, as the others say.

    Args:
        action: how the group moves events.
        split: how the event falls into parts; by default the first kind that the action allows (``default_split``).
        transformer: makes the element map from a part's action (ElementwiseAffine, IrrepScale, MatrixScale); by
            default ElementwiseAffine where possible, else IrrepScale.
        network: more keywords of the default conditioners, equivariant networks that start at zero, such as
            ``{"activation": "splines"}``; or what makes a conditioner from the actions of its input and of the
            parameters, which then starts as it is made.
        width: hidden fields of the default conditioners.
        depth: hidden layers of the default conditioners.
        context_action: how the group moves the context that all of them read; None: there is none.

    Raises:
        ValueError: the event cannot be split (one irreducible vector): use g_residual or GRadial there.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> g_coupling(VectorAction.regular("C4", copies=2))(torch.zeros(8)).shape
        torch.Size([8])
    """
    chosen = split_of(action, split)
    make = default_transformer if transformer is None else transformer
    layers = []
    for moved in reversed(range(len(chosen.parts))):
        element_map = make(chosen.parts[moved])
        conditioned = None
        if network is not None:
            others = [part for index, part in enumerate(chosen.parts) if index != moved]
            first, *rest = [*others, *([] if context_action is None else [context_action])]
            inputs, outputs = first.direct_sum(*rest), element_map.params_action
            conditioned = conditioner_from(network, inputs, outputs, width=width, depth=depth, start=element_map.start)
        layers.append(
            GCoupling(
                chosen,
                moved=moved,
                transformer=element_map,
                network=conditioned,
                width=width,
                depth=depth,
                context_action=context_action,
            )
        )
    return Compose(layers)
