"""Multi-scale flows of images: one constructor for coupling flows, one for residual flows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from pyro_gflows.actions import ChannelSplit, ImageAction, IrrepSplit, Split, checkerboard_split
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flow import EquivariantFlow
from pyro_gflows.nn import LipschitzNetwork
from pyro_gflows.numerics import LogDet
from pyro_gflows.transforms import (
    Compose,
    EquivariantTransform,
    Fast,
    GActNorm,
    GLinear,
    GSplit,
    GSqueeze,
    Transformer,
    g_coupling,
    g_residual,
)

__all__ = ["g_coupling_image_flow", "g_residual_image_flow"]

_Step = Callable[[ImageAction], list[EquivariantTransform]]


def g_coupling_image_flow(
    action: ImageAction,
    *,
    scales: int = 2,
    blocks: int = 4,
    width: int = 16,
    depth: int = 2,
    transformer: Callable[[ImageAction], Transformer] | None = None,
    preprocess: EquivariantTransform | None = None,
) -> EquivariantFlow:
    """A multi-scale coupling flow of images over the isotropic normal distribution; under C1, a RealNVP.

    Base to data, at every scale but the last: squeeze; the details given the means of the 2 x 2 blocks, which go
    through the coarser scales themselves (``GSplit``); then ``blocks`` steps on both; unsqueeze; ``blocks`` steps on
    the pixels. A step is activation normalisation, an invertible 1x1 map of the channels, and a coupling in which each
    part moves once, split by the mirrored checkerboard and by channels or irreps in turn. Every layer is exactly
    equivariant, so the density is exactly invariant.

    Args:
        action: how the group moves images.
        scales: how many sizes of the grid; each but the first halves it.
        blocks: steps on each grid, before and after squeezing.
        width: hidden fields of the conditioners.
        depth: hidden layers of the conditioners.
        transformer: makes the element map from a part's action, as for ``g_coupling``.
        preprocess: the last layer, which makes the data: ``GSigmoid(action, scaling.interval())`` for logit
            preprocessing. None: the data are modelled as they are.

    Raises:
        TypeError: not an ImageAction.
        ValueError: a grid that cannot be halved so often, one so small that nothing is left to split (a single channel
            on 2 x 2 pixels under D4), or numbers below 1.

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649; RealNVP, arXiv:1605.08803; Glow, arXiv:1807.03039.

    Example:
        >>> import torch
        >>> flow = g_coupling_image_flow(ImageAction("D4", channels=1, size=8), blocks=1, width=2)
        >>> flow.dist.sample((3,)).shape
        torch.Size([3, 1, 8, 8])
    """

    def steps(action: ImageAction) -> list[EquivariantTransform]:
        layers: list[EquivariantTransform] = []
        for split in itertools.islice(_splits(action), blocks):
            layers += _mixing(action)
            layers.append(g_coupling(action, split=split, transformer=transformer, width=width, depth=depth))  # type: ignore[arg-type]
        return layers

    return _flow(action, steps, scales=scales, blocks=blocks, preprocess=preprocess)


def g_residual_image_flow(
    action: ImageAction,
    *,
    scales: int = 1,
    blocks: int = 8,
    width: int = 8,
    depth: int = 1,
    bound: float = 0.98,
    log_det: LogDet | None = None,
    fast: Fast = "score",
    preprocess: EquivariantTransform | None = None,
) -> EquivariantFlow:
    """A multi-scale residual flow of images over the isotropic normal distribution; under C1, a plain residual flow.

    The scales are those of :func:`g_coupling_image_flow`; a step is activation normalisation, an invertible 1x1 map of
    the channels, and a residual layer whose branch is a certified steerable CNN.

    Args:
        action: how the group moves images.
        scales: how many sizes of the grid; each but the first halves it.
        blocks: steps on each grid, before and after squeezing.
        width: hidden fields of the branches.
        depth: hidden layers of the branches.
        bound: Lipschitz bound of every branch, in (0, 1).
        log_det: an estimator; by default that of ``g_residual``, by the size of the event.
        fast: "score" (density estimation) or "sample".
        preprocess: as for :func:`g_coupling_image_flow`.

    Raises:
        TypeError: not an ImageAction.
        ValueError: a grid that cannot be halved so often, numbers below 1, or a bound outside (0, 1).

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649; Residual Flows, arXiv:1906.02735.

    Example:
        >>> flow = g_residual_image_flow(ImageAction("C4", channels=1, size=4), blocks=1, width=2)
        >>> [type(layer).__name__ for layer in flow.transforms]
        ['GActNorm', 'GResidual', 'GActNorm']
    """

    def steps(action: ImageAction) -> list[EquivariantTransform]:
        layers: list[EquivariantTransform] = []
        for _ in range(blocks):
            branch = LipschitzNetwork(action, width=width, depth=depth, bound=bound)
            layers += [*_mixing(action), g_residual(action, branch=branch, log_det=log_det, fast=fast)]
        return layers

    return _flow(action, steps, scales=scales, blocks=blocks, preprocess=preprocess)


def _flow(
    action: ImageAction, steps: _Step, *, scales: int, blocks: int, preprocess: EquivariantTransform | None
) -> EquivariantFlow:
    if not isinstance(action, ImageAction):
        raise TypeError(f"expected an ImageAction such as ImageAction('D4', size=8), got {type(action).__name__}")
    if scales < 1 or blocks < 1:
        raise ValueError(f"expected scales >= 1 and blocks >= 1, got {scales} and {blocks}")
    layers = [*_scale(action, steps, scales), GActNorm(action), *([] if preprocess is None else [preprocess])]
    return EquivariantFlow(InvariantNormal(action), layers)


def _scale(action: ImageAction, steps: _Step, scales: int) -> list[EquivariantTransform]:
    if scales == 1:
        return steps(action)
    squeeze = GSqueeze(action)
    deep: ImageAction = squeeze.action_out  # type: ignore[assignment]
    halves = IrrepSplit(deep)  # means | details
    coarse = Compose(_scale(halves.parts[0], steps, scales - 1))  # type: ignore[arg-type]
    return [squeeze, GSplit(halves, coarse), *steps(deep), squeeze.inv, *steps(action)]


def _mixing(action: ImageAction) -> list[EquivariantTransform]:
    """What comes before each layer; a single channel has nothing to mix."""
    return [GActNorm(action), *([GLinear(action)] if action.channels > 1 else [])]


def _splits(action: ImageAction) -> Iterator[Split]:
    """All kinds of splits that the action allows, in turn, for ever."""
    found: list[Split] = []
    for kind in (checkerboard_split, ChannelSplit, IrrepSplit):
        try:
            found.append(kind(action))
        except ValueError:  # shifts exchange the colours of a checkerboard; one orbit of channels; one channel
            continue
    if not found:
        raise ValueError(
            f"{action} cannot be split, so no coupling can be there; take fewer scales, or g_residual_image_flow"
        )
    return itertools.cycle(found)
