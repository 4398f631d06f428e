"""Compose: several transforms, one after the other, as one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_gflows.actions import Action
from pyro_gflows.nn.kernel import kernels_together
from pyro_gflows.serialization.registry import registered
from pyro_gflows.spaces import Space
from pyro_gflows.transforms.base import EquivariantTransform
from pyro_gflows.transforms.by_contraction import ByContraction
from pyro_gflows.transforms.conditional import ConditionalTransform
from pyro_gflows.transforms.masked import TakesMask, require_mask_taken

__all__ = ["Compose"]


@registered
class Compose(TakesMask, ConditionalTransform):
    r"""Several transforms as one, :math:`T_n \circ \dots \circ T_1`: the first in the list is applied first.

    Each :math:`T_i` is one of the transforms in the list (a part), and n is their number. Events keep their shape,
    unless a part such as :class:`GSqueeze` changes it. The log-det is the sum of the log-dets of the parts. The
    composition is equivariant because every part is; the constructor checks that the actions of neighboring parts
    agree. A context goes to every part that takes one.

    Args:
        transforms: At least one transform; the ``action_in`` of each must be the ``action_out`` of the one before.

    Raises:
        TypeError: A part is not an EquivariantTransform.
        ValueError: The list is empty, the actions of two neighbors differ, or two parts take different contexts.

    Example:
        >>> import torch
        >>> from pyro_gflows import GActNorm, GRadial, VectorAction
        >>> action = VectorAction.plane("O(2)")
        >>> Compose([GActNorm(action), GRadial(action)])(torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """

    spaces = (Space,)

    def __init__(self, transforms: Sequence[EquivariantTransform]) -> None:
        if isinstance(transforms, EquivariantTransform):
            raise TypeError(f"expected a list of transforms, got one {type(transforms).__name__}; write [transform]")
        transforms = list(transforms)
        if not transforms:
            raise ValueError("expected at least one transform, got an empty list")
        for position, transform in enumerate(transforms):
            if not isinstance(transform, EquivariantTransform):
                raise TypeError(
                    f"transform {position}: expected an EquivariantTransform such as g_residual(action), "
                    f"got {type(transform).__name__}"
                )
        for position, (first, second) in enumerate(itertools.pairwise(transforms)):
            if first.action_out != second.action_in:
                raise ValueError(
                    f"transforms {position} and {position + 1} do not fit: the values of the first one are events of "
                    f"{first.action_out}, the second one expects {second.action_in}"
                )
        super().__init__(transforms[0].action_in, transforms[-1].action_out, context_action=_common_context(transforms))
        self.parts = nn.ModuleList(transforms)

    @property
    def transforms(self) -> list[EquivariantTransform]:
        """The transforms, in the order in which they are applied."""
        return list(self.parts)  # type: ignore[arg-type]

    @property
    def domain(self) -> constraints.Constraint:
        return self.transforms[0].domain

    @property
    def codomain(self) -> constraints.Constraint:
        return self.transforms[-1].codomain

    @property
    def reaches_all(self) -> bool:
        return all(part.reaches_all for part in self.parts)

    @torch.no_grad()
    def reaches(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        inside = torch.ones(y.shape[: y.ndim - self.action_out.event_dim], dtype=torch.bool, device=y.device)
        for position, part in reversed(list(enumerate(self.transforms))):
            inside = inside & part.reaches(y, context)
            if all(earlier.reaches_all for earlier in self.transforms[:position]):
                break
            y = part.inv_call_and_ladj(y, context)[0]
        return inside

    @property
    def steps(self) -> list[EquivariantTransform]:
        """The transforms in the order in which they are applied, with compositions among them taken apart."""
        found: list[EquivariantTransform] = []
        for part in self.parts:
            found += part.steps if isinstance(part, Compose) else [part]  # type: ignore[list-item]
        return found

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        first, *others = self.steps
        with self._kernels_together():
            x, total = first.call_and_ladj(x, context)
            for part in others:
                x, ladj = part.call_and_ladj(x, context)
                total = total + ladj
        return x, total

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        *others, last = self.steps
        with self._kernels_together():
            y, total = last.inv_call_and_ladj(y, context)
            for part in reversed(others):
                y, ladj = part.inv_call_and_ladj(y, context)
                total = total + ladj
        return y, total

    def _kernels_together(self) -> AbstractContextManager[None]:
        """A context in which the kernels of layers that are alike are made at once."""
        layers = [layer for part in self.steps if isinstance(part, ByContraction) for layer in part.kernel_layers()]
        # a compiler merges small operations by itself, and reads no generators
        return kernels_together(layers) if layers and not torch.compiler.is_compiling() else nullcontext()

    def mask_refusal(self) -> str:
        for part in self.steps:
            require_mask_taken(part)
        return ""

    def apply_masked(self, x: Tensor, mask: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[:-1])
        for part in reversed(self.steps) if inverse else self.steps:
            x, ladj = require_mask_taken(part).apply_masked(x, mask, context, inverse=inverse)
            total = total + ladj
        return x, total

    def initialize_masked(self, x: Tensor, mask: Tensor, context: Tensor | None, *, inverse: bool) -> Tensor:
        for part in reversed(self.steps) if inverse else self.steps:
            x = require_mask_taken(part).initialize_masked(x, mask, context, inverse=inverse)
        return x

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        for part in self.transforms:
            shape = part.forward_shape(shape)
        return torch.Size(shape)

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        for part in reversed(self.transforms):
            shape = part.inverse_shape(shape)
        return torch.Size(shape)

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        for part in self.transforms:
            x = part.initialize(x, context)
        return x

    def initialize_inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        for part in reversed(self.transforms):
            y = part.initialize_inverse(y, context)
        return y

    def extra_repr(self) -> str:
        return f"{len(self.parts)} transforms, {super().extra_repr()}"


def _common_context(transforms: Sequence[EquivariantTransform]) -> Action | None:
    known: Action | None = None
    for position, transform in enumerate(transforms):
        action = transform.context_action
        if known is not None and action is not None and action != known:
            raise ValueError(f"transform {position} takes a context of {action}, one before it a context of {known}")
        known = known if action is None else action
    return known
