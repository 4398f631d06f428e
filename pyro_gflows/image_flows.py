"""Multi-scale flows of images: one constructor for coupling flows, one for residual flows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

from torch import nn

from pyro_gflows.actions import (
    ChannelSplit,
    Group,
    GroupAction,
    ImageAction,
    IrrepSplit,
    OffGridAction,
    Split,
    checkerboard_split,
    plain_checkerboard_split,
)
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flow import EquivariantFlow
from pyro_gflows.nn import LipschitzNetwork, SoftNetwork
from pyro_gflows.numerics import ConstantMemory, LogDet
from pyro_gflows.transforms import (
    Compose,
    EquivariantTransform,
    Fast,
    GActNorm,
    GLinear,
    GResidual,
    GSplit,
    GSqueeze,
    Recompute,
    Transformer,
    g_coupling,
    g_residual,
)
from pyro_gflows.transforms.transformers import default_transformer

__all__ = ["Memory", "g_coupling_image_flow", "g_residual_image_flow"]

Memory = Literal["plain", "recompute", "constant"]
"""What training stores of each step: all activations; its input; or what little a log-det's gradient needs."""

_Step = Callable[[ImageAction], list[EquivariantTransform]]
_SplitKind = Callable[[ImageAction], Split]
_Network = Callable[[GroupAction, GroupAction], nn.Module]


def g_coupling_image_flow(
    action: ImageAction | OffGridAction,
    *,
    scales: int = 2,
    blocks: int = 4,
    width: int = 16,
    depth: int = 2,
    transformer: Callable[[ImageAction], Transformer] | None = None,
    splits: Sequence[_SplitKind] | None = None,
    soft: bool = False,
    preprocess: Callable[[ImageAction], EquivariantTransform] | None = None,
    memory: Memory = "plain",
) -> EquivariantFlow:
    """A multi-scale coupling flow of images over the isotropic normal distribution; under C1, a RealNVP.

    Base to data, at every scale but the last: squeeze; the details given the means of the 2 x 2 blocks, which go
    through the coarser scales themselves (``GSplit``); then ``blocks`` steps on both; unsqueeze; ``blocks`` steps on
    the pixels. A step is activation normalisation, an invertible 1x1 map of the channels, and a coupling in which each
    part moves once, split by the mirrored checkerboard and by channels or irreps in turn. Every layer is exactly
    equivariant, so the density is exactly invariant.

    ``soft=True`` puts the group into the conditioners alone, whose hidden layers are its regular fields
    (:class:`SoftNetwork`; each shows its measured error), and everything else under the part of it that is exact. Of an
    OffGridAction that is ``action.exact_subgroup``. Of an ImageAction it is nothing (C1): the paper's soft variant,
    with the usual checkerboard and halves of the channels. The flow claims, and has, that part only.

    Args:
        action: how the group moves images.
        scales: how many sizes of the grid; each but the first halves it.
        blocks: steps on each grid, before and after squeezing.
        width: hidden fields of the conditioners (regular ones: each has as many channels as the group has elements).
        depth: hidden layers of the conditioners.
        transformer: makes the element map from a part's action, as for ``g_coupling``: ElementwiseAffine (the default),
            ElementwiseSpline.
        splits: the kinds of splits, in turn; those that an action does not allow are left out. By default
            ``[checkerboard_split, ChannelSplit, IrrepSplit]``.
        soft: let only the networks carry the group.
        preprocess: makes the last layer, which makes the data, from the action of the layers: for logit preprocessing
            ``lambda action: GSigmoid(action, scaling.interval())``. None: the data are modelled as they are.
        memory: "plain", or "recompute": training stores one event a step, at the cost of one more forward pass.

    Raises:
        TypeError: not an ImageAction, nor an OffGridAction.
        ValueError: a grid that cannot be halved so often, one so small that nothing is left to split (a single channel
            on 2 x 2 pixels under D4), numbers below 1, another ``memory``,
            an OffGridAction without ``soft``, or ``soft`` for translations.

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649; RealNVP, arXiv:1605.08803; Glow, arXiv:1807.03039.

    Example:
        >>> import torch
        >>> flow = g_coupling_image_flow(ImageAction("D4", channels=1, size=8), blocks=1, width=2)
        >>> flow.dist.sample((3,)).shape
        torch.Size([3, 1, 8, 8])
        >>> g_coupling_image_flow(OffGridAction("C8", size=8), blocks=1, width=1, soft=True).action
        ImageAction(C4 on 1 x 8 x 8: trivial)
    """
    _check_memory(memory, ("plain", "recompute"))

    network: _Network | None = None
    kinds: Sequence[_SplitKind] = splits or [checkerboard_split, ChannelSplit, IrrepSplit]
    if soft:
        _require_image(action)
        network = _soft_networks(action.group, width, depth)
        if isinstance(action, OffGridAction):
            action = action.exact_subgroup
        else:
            action, kinds = action.without_symmetry(), splits or [plain_checkerboard_split, ChannelSplit]

    def steps(action: ImageAction) -> list[EquivariantTransform]:
        layers: list[EquivariantTransform] = []
        for split in itertools.islice(_splits(action, kinds), blocks):
            coupling = g_coupling(
                action,
                split=split,
                transformer=transformer,  # type: ignore[arg-type]
                network=network,
                width=width,
                depth=depth,
            )
            layers += _sparing([*_mixing(action), coupling], memory)
        return layers

    return _flow(action, steps, scales=scales, blocks=blocks, preprocess=preprocess, network=network)


def g_residual_image_flow(
    action: ImageAction,
    *,
    scales: int = 1,
    blocks: int = 8,
    width: int = 8,
    depth: int = 1,
    bound: float = 0.98,
    branch: Callable[[ImageAction], nn.Module] | None = None,
    log_det: LogDet | None = None,
    fast: Fast = "score",
    preprocess: Callable[[ImageAction], EquivariantTransform] | None = None,
    memory: Memory = "plain",
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
        branch: makes the branch of a step from its action, in place of a LipschitzNetwork of that width, depth and
            bound, such as ``lambda action: LipschitzDenseNetwork(action, width=8)``.
        log_det: an estimator; by default that of ``g_residual``, by the size of the event.
        fast: "score" (density estimation) or "sample".
        preprocess: as for :func:`g_coupling_image_flow`.
        memory: "plain"; "recompute": training stores one event a step and computes each step twice, the terms of its
            series too; or "constant": a few events a step, and the terms once (:class:`ConstantMemory`). Values and
            gradients are the same. "constant" spares the fast direction alone.

    Raises:
        TypeError: not an ImageAction.
        ValueError: a grid that cannot be halved so often, numbers below 1, another ``memory``, or a bound outside
            (0, 1).

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649; Residual Flows, arXiv:1906.02735.

    Example:
        >>> flow = g_residual_image_flow(ImageAction("C4", channels=1, size=4), blocks=1, width=2)
        >>> [type(layer).__name__ for layer in flow.transforms]
        ['GActNorm', 'GResidual', 'GActNorm']
    """

    _check_memory(memory, get_args(Memory))

    def steps(action: ImageAction) -> list[EquivariantTransform]:
        layers: list[EquivariantTransform] = []
        for _ in range(blocks):
            f = LipschitzNetwork(action, width=width, depth=depth, bound=bound) if branch is None else branch(action)
            residual = g_residual(action, branch=f, log_det=log_det, fast=fast)
            if memory == "constant":
                residual = GResidual(action, f, log_det=ConstantMemory(residual.log_det), fast=fast)
                layers += [*_sparing(_mixing(action), "recompute"), residual]
            else:
                layers += _sparing([*_mixing(action), residual], memory)
        return layers

    return _flow(action, steps, scales=scales, blocks=blocks, preprocess=preprocess)


def _soft_networks(group: Group, width: int, depth: int) -> _Network:
    """Makes conditioners that carry the group in their hidden layers, and start at zero."""

    def network(action_in: GroupAction, action_out: GroupAction) -> nn.Module:
        return SoftNetwork(action_in, action_out, group=group, width=width, depth=depth, start=0.0)  # type: ignore[arg-type]

    return network


def _require_image(action: GroupAction) -> None:
    if not isinstance(action, ImageAction | OffGridAction):
        raise TypeError(f"expected an ImageAction such as ImageAction('D4', size=8), got {type(action).__name__}")


def _flow(
    action: ImageAction | OffGridAction,
    steps: _Step,
    *,
    scales: int,
    blocks: int,
    preprocess: Callable[[ImageAction], EquivariantTransform] | None,
    network: _Network | None = None,
) -> EquivariantFlow:
    _require_image(action)
    typed: ImageAction = action.require_representation()  # type: ignore[assignment]
    if scales < 1 or blocks < 1:
        raise ValueError(f"expected scales >= 1 and blocks >= 1, got {scales} and {blocks}")
    layers = [*_scale(typed, steps, scales, network), GActNorm(typed)]
    if preprocess is not None:
        layers.append(preprocess(typed))
    return EquivariantFlow(InvariantNormal(typed), layers)


def _scale(action: ImageAction, steps: _Step, scales: int, network: _Network | None) -> list[EquivariantTransform]:
    if scales == 1:
        return steps(action)
    squeeze = GSqueeze(action)
    deep: ImageAction = squeeze.action_out  # type: ignore[assignment]
    halves = IrrepSplit(deep)  # means | details
    coarse = Compose(_scale(halves.parts[0], steps, scales - 1, network))  # type: ignore[arg-type]
    if network is None:
        factored = GSplit(halves, coarse)
    else:
        affine = default_transformer(halves.parts[1])
        conditioned = network(halves.parts[0], affine.params_action)
        factored = GSplit(halves, coarse, transformer=affine, network=conditioned)
    return [squeeze, factored, *steps(deep), squeeze.inv, *steps(action)]


def _mixing(action: ImageAction) -> list[EquivariantTransform]:
    """What comes before each layer; a single channel has nothing to mix."""
    return [GActNorm(action), *([GLinear(action)] if action.channels > 1 else [])]


def _sparing(layers: list[EquivariantTransform], memory: Memory) -> list[EquivariantTransform]:
    """The layers of a step; as one that stores its input alone, where asked."""
    return layers if memory == "plain" else [Recompute(Compose(layers))]


def _check_memory(memory: str, allowed: tuple[str, ...]) -> None:
    if memory not in allowed:
        hint = "; a coupling has no series whose gradient could be kept" if memory == "constant" else ""
        raise ValueError(f"expected memory among {list(allowed)}, got {memory!r}{hint}")


def _splits(action: ImageAction, kinds: Sequence[_SplitKind]) -> Iterator[Split]:
    """All of these kinds of splits that the action allows, in turn, for ever."""
    found: list[Split] = []
    for kind in kinds:
        try:
            found.append(kind(action))
        except ValueError:  # shifts exchange the colours of a checkerboard; one orbit of channels; one channel
            continue
    if not found:
        raise ValueError(
            f"{action} cannot be split, so no coupling can be there; take fewer scales, other splits, or "
            "g_residual_image_flow"
        )
    return itertools.cycle(found)
