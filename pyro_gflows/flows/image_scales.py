"""The common part of multi-scale flows of images: the scales, the steps at each, and the memory that training takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from pyro_gflows.actions import ImageAction, IrrepSplit
from pyro_gflows.actions.requirements import require_exact, require_image
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.transforms import Compose, EquivariantTransform, GActNorm, GLinear, GSplit, GSqueeze, Recompute

__all__ = ["Factor", "Memory", "Preprocess", "Steps", "check_memory", "mixing", "multi_scale", "sparing"]

#: How much training stores of each step: "plain", all activations; "recompute", only the input of the step; "constant",
#: a few events, from which the gradient of an estimated log-det follows.
Memory = Literal["plain", "recompute", "constant"]

#: Makes the layers on one grid from the action on it.
Steps = Callable[[ImageAction], list[EquivariantTransform]]

#: Makes the layer in which the details leave the flow, from the split (means | details) and the flow of the means.
Factor = Callable[[IrrepSplit, Compose], GSplit]

#: Makes the last layer, whose values are the data, from the action on the images.
Preprocess = Callable[[ImageAction], EquivariantTransform]


def multi_scale(
    action: ImageAction,
    steps: Steps,
    *,
    scales: int,
    blocks: int,
    factor: Factor,
    preprocess: Preprocess | None,
) -> EquivariantFlow:
    """A flow with the given layers at every scale; it raises the errors of the constructors of image flows."""
    require_exact(action)
    action = require_image(action)
    if scales < 1 or blocks < 1:
        raise ValueError(f"expected scales >= 1 and blocks >= 1, got {scales} and {blocks}")
    most = _halvings(action) + 1
    if scales > most:
        height, width = action.event_shape[-2:]
        raise ValueError(f"expected scales <= {most}: {height} x {width} allows at most {most} scales, got {scales}")
    if preprocess is not None and (isinstance(preprocess, EquivariantTransform) or not callable(preprocess)):
        raise TypeError(
            "expected preprocess to be a function from the action to the last layer, such as lambda action: "
            f"GSigmoid(action, scaling.interval()), got {type(preprocess).__name__}"
        )
    layers = [*_scale(action, steps, scales, factor), GActNorm(action)]
    if preprocess is not None:
        layers.append(preprocess(action))
    return EquivariantFlow(InvariantNormal(action), layers)


def _halvings(action: ImageAction) -> int:
    """How often both sides of the grid can be halved."""
    sides = math.gcd(*action.event_shape[-2:])
    return (sides & -sides).bit_length() - 1


def _scale(action: ImageAction, steps: Steps, scales: int, factor: Factor) -> list[EquivariantTransform]:
    if scales == 1:
        return steps(action)
    squeeze = GSqueeze(action)
    deep = require_image(squeeze.action_out)
    halves = IrrepSplit(deep)  # means | details
    coarse = Compose(_scale(require_image(halves.parts[0]), steps, scales - 1, factor))
    return [squeeze, factor(halves, coarse), *steps(deep), squeeze.inv, *steps(action)]


def mixing(action: ImageAction) -> list[EquivariantTransform]:
    """The layers before each coupling or residual layer: a normalization, and a mixing of several channels."""
    return [GActNorm(action), *([GLinear(action)] if action.channels > 1 else [])]


def sparing(layers: list[EquivariantTransform], memory: Memory) -> list[EquivariantTransform]:
    """The layers of a step, wrapped where only the input of the step is to be stored."""
    return layers if memory == "plain" else [Recompute(Compose(layers))]


def check_memory(memory: str, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless ``memory`` is one of the allowed values."""
    if memory not in allowed:
        hint = "; a coupling has no series whose gradient could be kept" if memory == "constant" else ""
        raise ValueError(f"expected memory among {list(allowed)}, got {memory!r}{hint}")
