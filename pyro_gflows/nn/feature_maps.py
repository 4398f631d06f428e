"""Linear maps between the features of one row, which a group H acts on alike in every row."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pyro_gflows.actions import VectorAction
from pyro_gflows.groups import TrivialRepresentation
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.nn.coefficients import register_coefficients
from pyro_gflows.nn.kernel import KernelLayer, LipschitzLayer
from pyro_gflows.nn.linear import EquivariantLinear
from pyro_gflows.nn.lipschitz_linear import LipschitzLinear
from pyro_gflows.numerics import spectral_norm

__all__ = ["Shift", "feature_map", "is_plain", "side_by_side", "size_of"]


def size_of(action: VectorAction | None) -> int:
    """The number of features; None stands for no feature.

    Args:
        action: How H acts on the features.
    """
    return 0 if action is None else action.numel


def is_plain(action: VectorAction | None) -> bool:
    """Whether H leaves every feature as it is.

    Args:
        action: How H acts on the features.
    """
    return action is None or all(isinstance(field, TrivialRepresentation) for field in action.fields)


def side_by_side(actions: Iterable[VectorAction | None]) -> VectorAction | None:
    """How H acts on several lists of features, one after the other.

    Args:
        actions: How H acts on each list.
    """
    found = [action for action in actions if action is not None]
    return found[0].direct_sum(*found[1:]) if found else None


class _NoMap(LipschitzLayer):
    """The map from no feature, or to no feature: it has no weights."""

    zero: Tensor

    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(size_out, size_in), persistent=False)

    def _make_kernel(self) -> Tensor:
        return self.zero

    def lipschitz_bound(self) -> Tensor:
        return self.zero.sum()

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(*x.shape[:-1], len(self.zero))


class _DenseMap(KernelLayer):
    """A linear map of features that H leaves as they are: any matrix."""

    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size_out, size_in) / size_in**0.5)

    def _make_kernel(self) -> Tensor:
        return self.weight

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.kernel().to(x))


class _LipschitzDenseMap(_DenseMap, LipschitzLayer):
    """A linear map of features that H leaves as they are, with norm at most ``bound``."""

    def __init__(self, size_in: int, size_out: int, *, bound: float) -> None:
        super().__init__(size_in, size_out)
        self.bound = bound

    def _make_kernel(self) -> Tensor:
        return self.weight / (spectral_norm(self.weight) / self.bound).clamp_min(1.0)

    def lipschitz_bound(self) -> Tensor:
        return spectral_norm(self._make_kernel().detach())


def feature_map(
    action_in: VectorAction | None, action_out: VectorAction | None, *, bound: float | None = None
) -> KernelLayer:
    """The most general H-equivariant linear map of features, without a shift: any matrix where H does nothing.

    Args:
        action_in: How H acts on the features of the input; None where there are none.
        action_out: How H acts on the features of the output; None where there are none.
        bound: The largest norm of the map, or None.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> scalars = VectorAction.trivial("C1", copies=3)
        >>> feature_map(scalars, scalars)(torch.zeros(5, 3)).shape
        torch.Size([5, 3])
    """
    sizes = size_of(action_in), size_of(action_out)
    if action_in is None or action_out is None:
        return _NoMap(*sizes)
    if is_plain(action_in) and is_plain(action_out) and action_in.group == action_out.group:
        return _DenseMap(*sizes) if bound is None else _LipschitzDenseMap(*sizes, bound=bound)
    linear = EquivariantLinear if bound is None else functools.partial(LipschitzLinear, bound=bound)
    return linear(action_in, action_out, bias=False)


class Shift(nn.Module):
    """A learnable shift of features along the directions that H leaves as they are; it starts at 0.

    Args:
        action: How H acts on the features.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> Shift(VectorAction.regular("C4"))(torch.ones(4)).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """

    bias: Tensor

    def __init__(self, action: VectorAction | None) -> None:
        super().__init__()
        plain = action is None or is_plain(action)
        self.invariants = nn.Identity() if action is None or plain else FixedBasis(action.invariants())
        count = size_of(action) if action is None or plain else len(action.invariants())
        register_coefficients(self, "bias", count)

    def forward(self, x: Tensor) -> Tensor:
        if not self.bias.numel():
            return x
        bias = self.bias.to(x)
        return x + (bias @ self.invariants(bias) if isinstance(self.invariants, FixedBasis) else bias)
