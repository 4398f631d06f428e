"""The functions from which a guide makes its base, its layers and its start, checked before they are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch.distributions import Distribution, Transform

from pyro_gflows.actions import VectorAction
from pyro_gflows.transforms import EquivariantTransform

__all__ = ["check_makers", "made_layers"]


def check_makers(base: Any, transforms: Any, init_loc_fn: Any) -> None:
    """Raise TypeError unless base, transforms and start are functions: the guide alone knows what to make them from."""
    if not callable(base) or isinstance(base, Distribution):
        raise TypeError(
            "expected base= to be a function that makes the base from the action on the unconstrained vector, such as "
            f"OrbitFlow, OrbitMixture or lambda action: InvariantNormal(action, mean=True), got {_said(base)}"
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
    """The layers that a function makes for an action; TypeError unless it gives several."""
    layers: Any = transforms(action)
    if isinstance(layers, str | Transform) or not isinstance(layers, Iterable):
        raise TypeError(f"expected transforms= to give a list of layers, got {_said(layers)}; return [layer, ...]")
    return list(layers)


def _said(value: Any) -> str:
    return repr(value) if isinstance(value, str) else type(value).__name__
