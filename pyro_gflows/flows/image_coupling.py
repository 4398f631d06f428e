"""Multi-scale coupling flows of images, exactly equivariant ones and soft ones."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pyro_gflows.actions import (
    ChannelSplit,
    ImageAction,
    IrrepSplit,
    LinearAction,
    OffGridAction,
    Split,
    checkerboard_split,
    isotypic_split,
    plain_checkerboard_split,
)
from pyro_gflows.actions.requirements import require_exact, require_image
from pyro_gflows.deprecation import flag_is_a_function
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
from pyro_gflows.nn import Conditioner, SoftNetwork, takes_factories
from pyro_gflows.nn.factories import from_keywords
from pyro_gflows.transforms import Compose, EquivariantTransform, GSplit, g_coupling
from pyro_gflows.transforms.transformers import TransformerFactory

__all__ = ["SplitKind", "g_coupling_image_flow", "g_soft_coupling_image_flow"]

#: Makes a split of images from the action on them, such as ``checkerboard_split`` or ``ChannelSplit``.
SplitKind = Callable[[ImageAction], Split]


@takes_factories("transformer", "network")
def g_soft_coupling_image_flow(
    action: ImageAction | OffGridAction,
    *,
    scales: int = 2,
    blocks: int = 4,
    width: int = 16,
    depth: int = 2,
    transformer: TransformerFactory | None = None,
    splits: Sequence[SplitKind] | None = None,
    network: Conditioner | None = None,
    preprocess: Preprocess | None = None,
    memory: Memory = "plain",
    channel_mixing: ChannelMixing = "1x1",
) -> EquivariantFlow:
    """A multi-scale coupling flow of images in which only the networks carry the group, so that it is nearly invariant.

    It is for groups that the pixels carry only in part, such as rotations by 45 degrees. The hidden layers of the
    conditioners (:class:`~pyro_gflows.nn.SoftNetwork`; each shows its measured error) are regular fields of the whole
    group; all other layers are equivariant under the part of the group that is exact. Under an OffGridAction that part
    is ``action.exact_subgroup``. Under an ImageAction it is the trivial group (C1): this is the soft variant of the
    paper, with the usual checkerboard and halves of the channels. The flow claims, and has, invariance under that part
    only; how far the density is from invariance under the rest of the group has to be measured.

    Args:
        action: How the group acts on images.
        scales: The number of grid sizes; each but the first is half the one before.
        blocks: Steps on each grid.
        width: Hidden regular fields of the group in each conditioner.
        depth: Hidden layers of the conditioners.
        transformer: Makes the element map from the action on a part, as for ``g_coupling``.
        splits: The kinds of splits, in turn. By default ``[checkerboard_split, ChannelSplit, isotypic_split]``, under
            an ImageAction ``[plain_checkerboard_split, ChannelSplit]``.
        network: Makes other conditioners, as for :func:`g_coupling_image_flow`, such as
            ``functools.partial(SoftNetwork, group="C8", width=4, kernel_size=3, start=0.0)``.
        preprocess: Makes the last layer, as for :func:`g_coupling_image_flow`.
        memory: "plain" or "recompute", as for :func:`g_coupling_image_flow`.
        channel_mixing: How each step mixes the channels, as for :func:`g_coupling_image_flow`.

    Raises:
        TypeError: ``action`` is neither an ImageAction nor an OffGridAction.
        ValueError: As for :func:`g_coupling_image_flow`, and for translations.

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649.

    Example:
        >>> g_soft_coupling_image_flow(OffGridAction("C8", size=8), blocks=1, width=1).action
        ImageAction(C4 on 1 x 8 x 8: trivial)
    """
    if not isinstance(action, OffGridAction):
        action = require_image(action)
    soft = functools.partial(_soft_network, group=action.group)
    network = from_keywords(network, soft, width=width, depth=depth, start=0.0)
    if isinstance(action, OffGridAction):
        kinds, exact = splits or _EXACT_KINDS, action.exact_subgroup
    else:
        kinds, exact = splits or [plain_checkerboard_split, ChannelSplit], action.without_symmetry()
    return g_coupling_image_flow(
        exact,
        scales=scales,
        blocks=blocks,
        transformer=transformer,
        splits=kinds,
        network=network,
        preprocess=preprocess,
        memory=memory,
        channel_mixing=channel_mixing,
    )


@flag_is_a_function(soft=g_soft_coupling_image_flow)
@takes_factories("transformer", "network")
def g_coupling_image_flow(
    action: ImageAction,
    *,
    scales: int = 2,
    blocks: int = 4,
    width: int = 16,
    depth: int = 2,
    transformer: TransformerFactory | None = None,
    splits: Sequence[SplitKind] | None = None,
    network: Conditioner | None = None,
    preprocess: Preprocess | None = None,
    memory: Memory = "plain",
    channel_mixing: ChannelMixing = "1x1",
) -> EquivariantFlow:
    """A multi-scale coupling flow of images over the isotropic normal distribution; under C1, a RealNVP.

    From base to data, each scale but the last does the following. It squeezes blocks of 2 x 2 pixels into channels; the
    means of the blocks go through the coarser scales, and the details of the blocks are a Gaussian given the means
    (:class:`~pyro_gflows.transforms.GSplit`); ``blocks`` steps follow on means and details together; then it undoes the
    squeeze and takes ``blocks`` steps on the pixels. A step is an activation normalization, an invertible 1x1 map of
    the channels (or another linear map, see ``channel_mixing``), and a coupling that transforms each part once. The
    steps split by the mirrored checkerboard, by channels and by irreps in turn. Every layer is exactly equivariant, so
    the density is exactly invariant.

    Args:
        action: How the group acts on images.
        scales: The number of grid sizes; each but the first is half the one before.
        blocks: Steps on each grid.
        width: Hidden fields of the default conditioners (regular ones: each has as many channels as the group has
            elements).
        depth: Hidden layers of the default conditioners.
        transformer: Makes the element map from the action on a part, as for ``g_coupling``: ElementwiseAffine (the
            default), ElementwiseSpline.
        splits: The kinds of splits, in turn; those that an action does not allow are left out. By default
            ``[checkerboard_split, ChannelSplit, isotypic_split]``.
        network: Makes each conditioner from the action on its input and on its output, such as
            ``functools.partial(conditioner, width=16, bias="pixels")`` for centered images; by default an
            EquivariantCNN that starts at zero.
        preprocess: Makes the last layer, which makes the data, from the action of the layers: for logit preprocessing
            ``lambda action: GSigmoid(action, scaling.interval())``. None: the data are modeled as they are.
        memory: "plain"; or "recompute": training stores one event for each step, at the cost of one more forward pass.
        channel_mixing: How each step mixes the channels: "1x1", by an invertible 1x1 convolution
            (:class:`~pyro_gflows.transforms.GLinear`; none for a single channel); "convolution", by the exponential of
            a 3x3 convolution (:class:`~pyro_gflows.transforms.GConvExponential`), which mixes neighboring pixels too;
            "spectral", by an invertible convolution of support 5 on the periodic grid
            (:class:`~pyro_gflows.transforms.GSpectralConv`), which joins opposite edges of the image and is equivariant
            all the same; or a function from the action of a step to such a layer.

    Raises:
        TypeError: ``action`` is not an ImageAction.
        ValueError: The grid cannot be halved so often, or is so small that nothing is left to split (a single channel
            on 2 x 2 pixels under D4); an argument is below 1, ``memory`` has another value, or ``action`` is an
            OffGridAction (take :func:`g_soft_coupling_image_flow`).

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649; RealNVP, arXiv:1605.08803; Glow, arXiv:1807.03039.

    Example:
        >>> import torch
        >>> flow = g_coupling_image_flow(ImageAction("D4", size=8), blocks=1, width=2)
        >>> flow.dist.sample((3,)).shape
        torch.Size([3, 1, 8, 8])
    """
    check_mixing(channel_mixing)
    check_memory(memory, ("plain", "recompute"))
    require_exact(action)

    def steps(action: ImageAction) -> list[EquivariantTransform]:
        layers: list[EquivariantTransform] = []
        for split in itertools.islice(_splits(action, splits or _EXACT_KINDS), blocks):
            coupling = g_coupling(
                action, split=split, transformer=transformer, network=network, width=width, depth=depth
            )
            layers += sparing([*mixing(action, channel_mixing), coupling], memory)
        return layers

    def factor(halves: IrrepSplit, coarse: Compose) -> GSplit:
        return GSplit(halves.action, coarse, split=halves, network=network, width=width, depth=depth)

    return multi_scale(action, steps, scales=scales, blocks=blocks, factor=factor, preprocess=preprocess)


_EXACT_KINDS: Sequence[SplitKind] = [checkerboard_split, ChannelSplit, isotypic_split]


def _soft_network(inputs: LinearAction, outputs: LinearAction, **keywords: Any) -> SoftNetwork:
    """A conditioner that carries a group in its hidden layers."""
    return SoftNetwork(require_image(inputs), require_image(outputs), **keywords)


def _splits(action: ImageAction, kinds: Sequence[SplitKind]) -> Iterator[Split]:
    """The kinds of splits that the action allows, one after the other, again and again."""
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
