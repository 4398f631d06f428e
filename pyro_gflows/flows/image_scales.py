"""What multi-scale flows of images share: the scales, what is done at each, and what training stores of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pyro_gflows.actions import ImageAction, IrrepSplit
from pyro_gflows.actions.requirements import require_exact, require_image
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.transforms import Compose, EquivariantTransform, GActNorm, GLinear, GSplit, GSqueeze, Recompute

__all__ = ["Factor", "Memory", "Preprocess", "Steps", "check_memory", "mixing", "multi_scale", "sparing"]

Memory = Literal["plain", "recompute", "constant"]
"""What training stores of each step: all activations; its input; or what little a log-det's gradient needs."""

Steps = Callable[[ImageAction], list[EquivariantTransform]]
"""The layers on one grid."""

Factor = Callable[[IrrepSplit, Compose], GSplit]
"""The layer in which details leave the flow, from means | details and the coarser scales of the means."""

Preprocess = Callable[[ImageAction], EquivariantTransform]
"""The layer that makes the data."""


def multi_scale(
    action: ImageAction,
    steps: Steps,
    *,
    scales: int,
    blocks: int,
    factor: Factor,
    preprocess: Preprocess | None,
) -> EquivariantFlow:
    """The flow with these layers at every scale; its errors are those of the constructors."""
    require_exact(action)
    action = require_image(action)
    if scales < 1 or blocks < 1:
        raise ValueError(f"expected scales >= 1 and blocks >= 1, got {scales} and {blocks}")
    layers = [*_scale(action, steps, scales, factor), GActNorm(action)]
    if preprocess is not None:
        layers.append(preprocess(action))
    return EquivariantFlow(InvariantNormal(action), layers)


def _scale(action: ImageAction, steps: Steps, scales: int, factor: Factor) -> list[EquivariantTransform]:
    if scales == 1:
        return steps(action)
    squeeze = GSqueeze(action)
    deep = require_image(squeeze.action_out)
    halves = IrrepSplit(deep)  # means | details
    coarse = Compose(_scale(require_image(halves.parts[0]), steps, scales - 1, factor))
    return [squeeze, factor(halves, coarse), *steps(deep), squeeze.inv, *steps(action)]


def mixing(action: ImageAction) -> list[EquivariantTransform]:
    """What comes before each layer; a single channel has nothing to mix."""
    return [GActNorm(action), *([GLinear(action)] if action.channels > 1 else [])]


def sparing(layers: list[EquivariantTransform], memory: Memory) -> list[EquivariantTransform]:
    """The layers of a step; as one that stores its input alone, where asked."""
    return layers if memory == "plain" else [Recompute(Compose(layers))]


def check_memory(memory: str, allowed: tuple[str, ...]) -> None:
    if memory not in allowed:
        hint = "; a coupling has no series whose gradient could be kept" if memory == "constant" else ""
        raise ValueError(f"expected memory among {list(allowed)}, got {memory!r}{hint}")
