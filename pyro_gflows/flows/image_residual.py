"""Multi-scale residual flows of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from torch import nn

from pyro_gflows.actions import ImageAction, IrrepSplit, LinearAction
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.flows.image_scales import (
    ChannelMixing,
    Memory,
    Preprocess,
    check_memory,
    check_mixing,
    mixing,
    multi_scale,
    sparing,
)
from pyro_gflows.nn import LipschitzNetwork, takes_factories
from pyro_gflows.nn.factories import from_keywords
from pyro_gflows.numerics import ConstantMemory, LogDet
from pyro_gflows.transforms import Compose, EquivariantTransform, Fast, GResidual, GSplit, g_residual

__all__ = ["g_residual_image_flow"]


@takes_factories("branch")
def g_residual_image_flow(
    action: ImageAction,
    *,
    scales: int = 1,
    blocks: int = 8,
    width: int = 8,
    depth: int = 1,
    bound: float = 0.98,
    branch: Callable[[LinearAction], nn.Module] | None = None,
    log_det: LogDet | None = None,
    fast: Fast = "score",
    preprocess: Preprocess | None = None,
    memory: Memory = "plain",
    channel_mixing: ChannelMixing = "1x1",
) -> EquivariantFlow:
    """A multi-scale residual flow of images over the isotropic normal distribution; under C1, a plain residual flow.

    The scales are those of :func:`g_coupling_image_flow`. A step is an activation normalization, an invertible 1x1 map
    of the channels (or another linear map, see ``channel_mixing``), and a residual layer, whose branch is a steerable
    CNN with a certified Lipschitz bound. Every layer is exactly equivariant, so the density is exactly invariant.

    Args:
        action: How the group acts on images.
        scales: The number of grid sizes; each but the first is half the one before.
        blocks: Steps on each grid.
        width: Hidden fields of the branches, and of the networks that compute the details.
        depth: Hidden layers of the branches.
        bound: Lipschitz bound of every branch, in (0, 1).
        branch: Makes each branch from the action of a step, such as ``LipschitzDenseNetwork`` or
            ``functools.partial(LipschitzNetwork, bound=0.98, activation="curves", units="field")``; by default a
            LipschitzNetwork of ``width``, ``depth`` and ``bound``.
        log_det: The estimator of the log-det; by default that of :func:`~pyro_gflows.transforms.g_residual`, by the
            size of the event.
        fast: Which direction takes one pass: "score" (density estimation) or "sample".
        preprocess: Makes the last layer, as for :func:`g_coupling_image_flow`.
        memory: "plain"; or "recompute": training stores one event for each step and computes each step twice, the
            log-det included; or "constant": training stores a few events for each step, and computes the log-det
            once (:class:`~pyro_gflows.numerics.ConstantMemory`). Values and gradients are the same. "constant" saves
            memory in the fast direction only.
        channel_mixing: How each step mixes the channels, as for :func:`g_coupling_image_flow`.

    Raises:
        TypeError: ``action`` is not an ImageAction.
        ValueError: The grid cannot be halved so often, an argument is below 1, ``memory`` has another value, or
            ``bound`` is outside (0, 1).

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649; Residual Flows, arXiv:1906.02735.

    Example:
        >>> flow = g_residual_image_flow(ImageAction("C4", size=4), blocks=1, width=2)
        >>> [type(layer).__name__ for layer in flow.transforms]
        ['GActNorm', 'GResidual', 'GActNorm']
    """
    check_mixing(channel_mixing)
    check_memory(memory, get_args(Memory))
    make_branch = from_keywords(branch, LipschitzNetwork, width=width, depth=depth, bound=bound)

    def steps(action: ImageAction) -> list[EquivariantTransform]:
        layers: list[EquivariantTransform] = []
        for _ in range(blocks):
            residual = g_residual(action, branch=make_branch, log_det=log_det, fast=fast)
            if memory == "constant":
                residual = GResidual(action, residual.branch, log_det=ConstantMemory(residual.log_det), fast=fast)
                layers += [*sparing(mixing(action, channel_mixing), "recompute"), residual]
            else:
                layers += sparing([*mixing(action, channel_mixing), residual], memory)
        return layers

    def factor(halves: IrrepSplit, coarse: Compose) -> GSplit:
        return GSplit(halves.action, coarse, split=halves, width=width)

    return multi_scale(action, steps, scales=scales, blocks=blocks, factor=factor, preprocess=preprocess)
