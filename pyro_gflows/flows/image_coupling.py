"""Multi-scale coupling flows of images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pyro_gflows.actions import (
    ChannelSplit,
    ImageAction,
    IrrepSplit,
    OffGridAction,
    Split,
    checkerboard_split,
    isotypic_split,
    plain_checkerboard_split,
)
from pyro_gflows.actions.requirements import require_image
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.flows.image_scales import Memory, Preprocess, check_memory, mixing, multi_scale, sparing
from pyro_gflows.groups import Group
from pyro_gflows.nn import Conditioner, SoftNetwork, conditioner_from
from pyro_gflows.transforms import Compose, EquivariantTransform, GSplit, Transformer, g_coupling
from pyro_gflows.transforms.transformers import default_transformer

__all__ = ["SplitKind", "g_coupling_image_flow"]

#: What splits the events of an image action, such as ``checkerboard_split`` or ``ChannelSplit``.
SplitKind = Callable[[ImageAction], Split]


def g_coupling_image_flow(
    action: ImageAction | OffGridAction,
    *,
    scales: int = 2,
    blocks: int = 4,
    width: int = 16,
    depth: int = 2,
    transformer: Callable[[ImageAction], Transformer] | None = None,
    splits: Sequence[SplitKind] | None = None,
    network: Conditioner | None = None,
    soft: bool = False,
    preprocess: Preprocess | None = None,
    memory: Memory = "plain",
) -> EquivariantFlow:
    """A multi-scale coupling flow of images over the isotropic normal distribution; under C1, a RealNVP.

    Base to data, at every scale but the last: squeeze; the details given the means of the 2 x 2 blocks, which go
    through the coarser scales themselves (``GSplit``); then ``blocks`` steps on both; unsqueeze; ``blocks`` steps on
    the pixels. A step is activation normalization, an invertible 1x1 map of the channels, and a coupling in which each
    part moves once, split by the mirrored checkerboard, by channels and by irreps in turn. Every layer is exactly
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
            ``[checkerboard_split, ChannelSplit, isotypic_split]``.
        network: more keywords of the conditioners (EquivariantCNN; SoftNetwork where ``soft``), such as
            ``{"bias": "pixels"}`` for centered images; or what makes other conditioners from the actions of their input
            and of their output, which then start as they are made.
        soft: let only the networks carry the group.
        preprocess: makes the last layer, which makes the data, from the action of the layers: for logit preprocessing
            ``lambda action: GSigmoid(action, scaling.interval())``. None: the data are modeled as they are.
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
    check_memory(memory, ("plain", "recompute"))

    kinds: Sequence[SplitKind] = splits or [checkerboard_split, ChannelSplit, isotypic_split]
    if soft and isinstance(action, ImageAction | OffGridAction):
        network = network if callable(network) else _soft(action.group, width, depth, network or {})
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
            layers += sparing([*mixing(action), coupling], memory)
        return layers

    def factor(halves: IrrepSplit, coarse: Compose) -> GSplit:
        affine = default_transformer(halves.parts[1])
        inputs, outputs = halves.parts[0], affine.params_action
        conditioned = conditioner_from(network, inputs, outputs, width=width, depth=depth, start=affine.start)
        return GSplit(halves, coarse, transformer=affine, network=conditioned)

    return multi_scale(action, steps, scales=scales, blocks=blocks, factor=factor, preprocess=preprocess)


def _soft(group: Group, width: int, depth: int, more: Mapping[str, Any]) -> Conditioner:
    """Makes conditioners that carry the group in their hidden layers, and start at zero."""
    keywords = {"width": width, "depth": depth, "start": 0.0, **more}
    return lambda inputs, outputs: SoftNetwork(require_image(inputs), require_image(outputs), group=group, **keywords)


def _splits(action: ImageAction, kinds: Sequence[SplitKind]) -> Iterator[Split]:
    """All of these kinds of splits that the action allows, in turn, for ever."""
    found: list[Split] = []
    for kind in kinds:
        try:
            found.append(kind(action))
        except ValueError:  # shifts exchange the colors of a checkerboard; one orbit of channels; one channel
            continue
    if not found:
        raise ValueError(
            f"{action} cannot be split, so no coupling can be there; take fewer scales, other splits, or "
            "g_residual_image_flow"
        )
    return itertools.cycle(found)
