"""The common part of multi-scale flows of images: the scales, the steps at each, and the memory that training takes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Literal

from pyro_gflows.actions import ImageAction, IrrepSplit
from pyro_gflows.actions.requirements import require_exact, require_image
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.transforms import (
    Compose,
    EquivariantTransform,
    GActNorm,
    GConvExponential,
    GLinear,
    GSpectralConv,
    GSplit,
    GSqueeze,
    Recompute,
)

__all__ = [
    "ChannelMixing",
    "Factor",
    "Memory",
    "Preprocess",
    "Steps",
    "check_memory",
    "check_mixing",
    "mixing",
    "multi_scale",
    "sparing",
]

#: How much training stores of each step: "plain", all activations; "recompute", only the input of the step; "constant",
#: a few events, from which the gradient of an estimated log-det follows.
Memory = Literal["plain", "recompute", "constant"]

#: Makes the layers on one grid from the action on it.
Steps = Callable[[ImageAction], list[EquivariantTransform]]

#: Makes the layer in which the details leave the flow, from the split (means | details) and the flow of the means.
Factor = Callable[[IrrepSplit, Compose], GSplit]

#: Makes the last layer, whose values are the data, from the action on the images.
Preprocess = Callable[[ImageAction], EquivariantTransform]

#: How a step mixes the channels: "1x1", an invertible 1x1 convolution (GLinear); "convolution", the exponential of a
#: 3x3 convolution (GConvExponential); "spectral", an invertible convolution of support 5 on the periodic grid
#: (GSpectralConv); or a function from the action on the images to a layer.
ChannelMixing = Literal["1x1", "convolution", "spectral"] | Callable[[ImageAction], EquivariantTransform]

_MIXINGS: Mapping[str, Callable[[ImageAction], EquivariantTransform]] = {
    "convolution": GConvExponential,
    "spectral": functools.partial(GSpectralConv, support=5),
}


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


def mixing(action: ImageAction, channel_mixing: ChannelMixing) -> list[EquivariantTransform]:
    """The layers before each coupling or residual layer: a normalization, and a linear map of channels (and pixels)."""
    if channel_mixing == "1x1":
        return [GActNorm(action), *([GLinear(action)] if action.channels > 1 else [])]
    make = _MIXINGS[channel_mixing] if isinstance(channel_mixing, str) else channel_mixing
    return [GActNorm(action), make(action)]


def check_mixing(channel_mixing: ChannelMixing) -> None:
    """Raise ValueError or TypeError unless ``channel_mixing`` is one of the names or a factory of layers."""
    if isinstance(channel_mixing, str):
        if channel_mixing not in ("1x1", *_MIXINGS):
            raise ValueError(
                f"expected channel_mixing among {['1x1', *_MIXINGS]}, or a factory such as "
                f"functools.partial(GConvExponential, kernel_size=5), got {channel_mixing!r}"
            )
    elif isinstance(channel_mixing, EquivariantTransform) or not callable(channel_mixing):
        raise TypeError(
            "expected channel_mixing to be a function from the action of a step to a layer, such as "
            f"functools.partial(GConvExponential, kernel_size=5), got {type(channel_mixing).__name__}"
        )


def sparing(layers: list[EquivariantTransform], memory: Memory) -> list[EquivariantTransform]:
    """The layers of a step, wrapped where only the input of the step is to be stored."""
    return layers if memory == "plain" else [Recompute(Compose(layers))]


def check_memory(memory: str, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless ``memory`` is one of the allowed values."""
    if memory not in allowed:
        hint = "; a coupling has no series whose gradient could be kept" if memory == "constant" else ""
        raise ValueError(f"expected memory among {list(allowed)}, got {memory!r}{hint}")
