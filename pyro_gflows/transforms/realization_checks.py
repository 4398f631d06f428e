"""Checks of what is said about a map that residual layers shall realize."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.numerics.precision import full_precision

__all__ = ["check_constants", "check_map"]

_ROWS = 256
_SCALES = (0.3, 1.0, 3.0)
_ELEMENTS = 8


def check_constants(lipschitz: Any, bound: float) -> None:
    """Raise ValueError unless the constants can be those of a map and of its inverse, and the bound is in (0, 1).

    Args:
        lipschitz: The Lipschitz constants of a map and of its inverse.
        bound: The largest Lipschitz constant of a residual part.
    """
    constants = tuple(lipschitz) if isinstance(lipschitz, tuple | list) else ()
    if len(constants) != 2 or not all(math.isfinite(constant) and constant > 0 for constant in constants):
        raise ValueError(
            f"expected lipschitz=(L, L_inverse), positive and finite constants of the map and of its inverse, got "
            f"{lipschitz!r}"
        )
    if math.prod(constants) < 1 - 1e-9:
        raise ValueError(
            f"expected constants whose product is at least 1, as it is for a map and its inverse, got {constants[0]:g} "
            f"and {constants[1]:g}; state larger ones"
        )
    if not 0 < bound < 1:
        raise ValueError(f"expected bound in (0, 1), the largest Lipschitz constant of a residual part, got {bound}")


@full_precision
@torch.no_grad()
def check_map(
    function: Callable[[Tensor], Tensor],
    inverse: Callable[[Tensor], Tensor],
    *,
    action: LinearAction,
    lipschitz: tuple[float, float],
    points: Tensor | None = None,
) -> None:
    """Raise ValueError unless, at the points, a map is equivariant, has this inverse and keeps its constants.

    Args:
        function: The map.
        inverse: Its inverse.
        action: How the group acts on events.
        lipschitz: The Lipschitz constants of the map and of its inverse.
        points: Events of shape ``(rows,) + action.event_shape``; by default normal draws of three scales.
    """
    x = _points(action, _like(function, inverse)) if points is None else points
    action.check_event(x, "points")
    if x.ndim != action.event_dim + 1 or len(x) < 2:
        raise ValueError(f"expected points of shape (rows, ...) with at least 2 rows, got {tuple(x.shape)}")
    y = function(x)
    action.check_event(y, "F(points)")
    tolerance = torch.finfo(x.dtype).eps ** 0.5
    _require_close(inverse(y), x, tolerance, "inverse(F(x)) to be x", x, action)
    generator = torch.Generator().manual_seed(0)
    for element in [*action.generators(), *action.sample(_ELEMENTS, generator)]:
        what = "F(g x) to be g F(x) for every group element g"
        _require_close(function(action.act(element, x)), action.act(element, y), tolerance, what, x, action)
    _require_lipschitz(x, y, lipschitz[0], tolerance, action, "F")
    _require_lipschitz(y, x, lipschitz[1], tolerance, action, "the inverse")


def _like(*functions: Callable[[Tensor], Tensor]) -> Tensor:
    """A tensor of the dtype and on the device of the weights; float64 on the CPU where there are none."""
    modules = [function for function in functions if isinstance(function, nn.Module)]
    weights = itertools.chain.from_iterable(itertools.chain(m.parameters(), m.buffers()) for m in modules)
    return next((w for w in weights if w.is_floating_point()), torch.empty(0, dtype=torch.float64, device="cpu"))


def _points(action: LinearAction, like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (len(_SCALES), _ROWS, *action.event_shape)
    draws = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
    scales = torch.tensor(_SCALES, dtype=torch.float64, device="cpu")
    return (draws * scales.reshape(-1, *[1] * (draws.ndim - 1))).flatten(0, 1).to(like)


def _require_close(got: Tensor, expected: Tensor, tolerance: float, what: str, x: Tensor, action: LinearAction) -> None:
    error = (got - expected).flatten(-action.event_dim).abs().amax(-1)
    allowed = tolerance * expected.flatten(-action.event_dim).abs().amax(-1).clamp(min=1)
    if not (error <= allowed).all():
        row = int((error / allowed).nan_to_num(nan=math.inf).argmax())
        raise ValueError(f"expected {what}, got an error of {float(error[row]):.3g} at x = {_text(x[row])}")


def _require_lipschitz(
    x: Tensor, y: Tensor, constant: float, tolerance: float, action: LinearAction, what: str
) -> None:
    """Raise ValueError unless |y_i - y_j| <= constant |x_i - x_j| for all pairs."""
    flat_x, flat_y = x.flatten(-action.event_dim), y.flatten(-action.event_dim)
    # distances as norms of differences: products would lose half of the digits of close pairs
    before, after = (torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist") for flat in (flat_x, flat_y))
    ratio = after / before.clamp(min=tolerance * before.max())
    worst = int(ratio.argmax())
    first, second = divmod(worst, len(x))
    if not float(ratio.flatten()[worst]) <= constant * (1 + tolerance):
        raise ValueError(
            f"expected {what} to keep the Lipschitz constant {constant:g}, but it stretches the distance of "
            f"{_text(x[first])} and {_text(x[second])} by {float(ratio.flatten()[worst]):.6g}; state a larger constant"
        )


def _text(x: Tensor) -> str:
    entries = [f"{entry:.4g}" for entry in x.flatten().tolist()]
    return f"({', '.join(entries[:6])}{', ...' if len(entries) > 6 else ''})"
