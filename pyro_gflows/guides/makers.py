"""Checks the functions that make a guide's base, layers and initial values, and calls the one for the layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch.distributions import Distribution, Transform

from pyro_gflows.actions import VectorAction
from pyro_gflows.transforms import EquivariantTransform

__all__ = ["check_makers", "made_layers"]


def check_makers(base: Any, transforms: Any, init_loc_fn: Any) -> None:
    """Checks that the base, the transforms and the initial values are functions, since only the guide knows the action.

    Args:
        base: The ``base=`` of a guide, or None.
        transforms: The ``transforms=`` of a guide, or None.
        init_loc_fn: The ``init_loc_fn=`` of a guide, or None.

    Raises:
        TypeError: One of them is not a function.
    """
    if base is not None and (not callable(base) or isinstance(base, Distribution)):
        raise TypeError(
            "expected base= to be a function that makes the base from the action on the unconstrained vector, such as "
            f"OrbitFlow, Canonicalized or lambda action: InvariantNormal(action, mean=True), got {_said(base)}"
        )
    if transforms is not None and (not callable(transforms) or isinstance(transforms, Transform)):
        raise TypeError(
            "expected transforms= to be a function that makes the layers from the action on the unconstrained vector, "
            f"such as lambda action: [g_coupling(action), GActNorm(action)], got {_said(transforms)}"
        )
    if init_loc_fn is not None and not callable(init_loc_fn):
        raise TypeError(
            "expected init_loc_fn= to be a function from a site to a value, such as init_to_value(values={...}), got "
            f"{_said(init_loc_fn)}"
        )


def made_layers(
    transforms: Callable[[VectorAction], Sequence[EquivariantTransform]], action: VectorAction
) -> list[EquivariantTransform]:
    """The layers that a function makes for an action.

    Args:
        transforms: The ``transforms=`` of a guide.
        action: The action on the unconstrained vector.

    Raises:
        TypeError: The function does not return a list of layers.
    """
    layers: Any = transforms(action)
    if isinstance(layers, str | Transform) or not isinstance(layers, Iterable):
        raise TypeError(f"expected transforms= to return a list of layers, got {_said(layers)}; return [layer, ...]")
    return list(layers)


def _said(value: Any) -> str:
    return repr(value) if isinstance(value, str) else type(value).__name__
