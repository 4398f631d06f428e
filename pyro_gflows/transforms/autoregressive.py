"""G-autoregressive flows over the blocks of a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pyro_gflows.actions import Action, CoordinateSplit, LinearAction, RowsAction, Split, feature_split
from pyro_gflows.actions.requirements import require_splittable
from pyro_gflows.actions.row_mask import coordinates_there, require_maskable
from pyro_gflows.actions.splits.by_feature import feature_sets
from pyro_gflows.actions.splits.default import split_of
from pyro_gflows.deprecation import split_first
from pyro_gflows.nn import AutoregressiveNetwork, MadeInTurn, RowsAutoregressiveNetwork, kernels_once, takes_factories
from pyro_gflows.nn.blockwise import BlockwiseOutputs, blockwise_outputs
from pyro_gflows.serialization.registry import registered
from pyro_gflows.spaces import Euclidean, Torus
from pyro_gflows.transforms.all_blocks import AllBlocks
from pyro_gflows.transforms.masked import TakesMask, map_refusal
from pyro_gflows.transforms.one_way import Fast, OneWayTransform
from pyro_gflows.transforms.part_reading import PartFrame, frame_of, reading_of
from pyro_gflows.transforms.split_basis import SplitBasis
from pyro_gflows.transforms.transformers import TransformerFactory, transformer_from

__all__ = ["GAutoregressive", "GInverseAutoregressive", "g_autoregressive"]

_P = TypeVar("_P")


def _listed(parts: list[_P]) -> Sequence[_P]:
    """A list, which torch registers if its entries are modules."""
    if all(isinstance(part, nn.Module) for part in parts):
        return nn.ModuleList(parts)  # type: ignore[arg-type, return-value]
    return parts


def _feature_by_feature(action: Action) -> Split | None:
    """The split of rows into single features; None for other events, and where the rows have a single one."""
    count = len(feature_sets(action)) if isinstance(action, RowsAction) else 1
    return feature_split(action, [[feature] for feature in range(count)]) if count > 1 else None  # type: ignore[arg-type]


@split_first(Split)
@takes_factories("transformer")
@registered
class GAutoregressive(TakesMask, OneWayTransform):
    r"""A map of k invariant blocks one after the other, each with parameters that depend on the blocks before it.

    One direction is a single pass through the network. The other one finds one block after the other, in k steps; with
    a default network on vectors these compute each hidden feature once, else each step is a pass. ``fast`` chooses
    which direction is which.

    .. math:: y_j = A_j(x_{<j})\,x_j + t_j(x_{<j}), \qquad \log|\det J| = \sum_j \log|\det A_j(x_{<j})|

    A block x_j is a part of the event that every group element maps to itself, and x_{<j} stands for the blocks 1, ...,
    j - 1. A network computes the matrix A_j and the shift t_j (with the default transformers; others replace the affine
    map). The map is bijective because each A_j is invertible by construction. It is equivariant because the network is:
    :math:`A_j(g\,x_{<j}) = g\,A_j(x_{<j})\,g^{-1}` and :math:`t_j(g\,x_{<j}) = g\,t_j(x_{<j})` for every group element
    g. Events keep their shape.

    Args:
        action: How the group acts on events.
        split: How the event falls into blocks, in order; by default the first kind that the action allows
            (:func:`~pyro_gflows.actions.default_split`), and of rows that are permuted feature by feature.
        transformer: Makes the element map of each block from the action on it (ElementwiseAffine, IrrepScale,
            MatrixScale); by default ElementwiseAffine where possible, else IrrepScale (of rows RowScale), and of angles
            ElementwiseCircularSpline.
        width: Hidden fields of the conditioner for each block.
        depth: Hidden layers of the conditioner.
        fast: "score": data to base is one pass (density estimation); "sample": base to data (IAF, guides).
        context_action: How the group acts on a context that every block reads; None: there is none.

    Raises:
        TypeError: ``split`` is not a split.
        ValueError: The split is of another action, or its blocks are not slices of the event (a MaskSplit: use
            GCoupling).

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649; IAF, arXiv:1606.04934; MAF, arXiv:1705.07057.

    Example:
        >>> from pyro_gflows import CoordinateSplit, VectorAction
        >>> action = VectorAction.regular("C4", copies=3)
        >>> split = CoordinateSplit(action, [range(0, 4), range(4, 8), range(8, 12)])
        >>> layer = GAutoregressive(action, split=split)
        >>> layer(torch.zeros(3, 12)).shape
        torch.Size([3, 12])
    """

    spaces = (Euclidean, Torus)

    def __init__(
        self,
        action: Action,
        *,
        split: Split | None = None,
        transformer: TransformerFactory | None = None,
        width: int = 8,
        depth: int = 2,
        fast: Fast = "score",
        context_action: LinearAction | None = None,
    ) -> None:
        super().__init__(require_splittable(action), fast=fast, context_action=context_action)
        split = split_of(action, _feature_by_feature(action) if split is None else split)
        if not split.is_slicing:
            raise ValueError(f"expected a split into slices of the event, got {split}; use GCoupling with masks")
        if len(split.parts) < 2:
            raise ValueError(f"expected a split into at least 2 parts, got {split}; GCoupling transforms a single part")
        self.split = split
        self.split_basis = SplitBasis.of(split)
        places = range(len(split.parts))
        self.readings = _listed([reading_of(split, places[: index + 1], involving=index) for index in places])
        self.frames = _listed([frame_of(split, index, places[:index]) for index in places])
        if all(frame.mask is not None and not bool(frame.mask.any()) for frame in self.frames):
            raise ValueError(
                f"expected a block that the blocks before it can transform, got {split}: the group shifts the angles "
                "of every block by all amounts, and no combination of those before it by as much; take other blocks"
            )
        elements = [
            frame.require(transformer_from(transformer, frame.action, usual=frame.default_transformer))
            for frame in self.frames
        ]
        self.transformers = nn.ModuleList(elements)
        # a class is described by its name; a function cannot be, so that the modules that it made are described
        self._is_described = transformer is None or isinstance(transformer, type)
        outputs = [element.params_action for element in elements]
        blocks = [action for reading in self.readings for action in reading.actions]
        kind = RowsAutoregressiveNetwork if isinstance(action, RowsAction) else AutoregressiveNetwork
        context = None if context_action is None else self.inputs_action()
        self.network = kind(blocks, outputs, width=width, depth=depth, context=context)
        self.network.scale_last_(max(element.start for element in elements))
        self._is_plain = all(isinstance(frame, PartFrame) for frame in self.frames)
        of_vectors = isinstance(self.network, AutoregressiveNetwork) and action.event_dim == 1
        self._together = AllBlocks.of(elements) if self._is_plain and of_vectors else None
        if self._together is not None and isinstance(self.network, AutoregressiveNetwork):
            self.network.keep_order(self._together.places)

    def computed_arguments(self) -> dict[str, Any]:
        """The split, and the transformers that a function made; a file holds no code."""
        made = {} if self._is_described else {"transformer": MadeInTurn(list(self.transformers))}
        return {"split": self.split, **made}

    def one_pass(self, x: Tensor, context: Tensor | None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self._together is not None and isinstance(self.network, AutoregressiveNetwork):
            ordered = self.split.ordered(x)
            together = self.network.in_order(self.inputs([ordered], context), self._together.places)
            after, ladj = self._together.transformer(ordered, together)
            return self.split.unordered(after), ladj
        parts, entries = self.split.split(x), self._entries(mask, x)
        own_params = self._params(parts, context, mask)
        images, ladjs = [], []
        for element, frame, own, there in zip(self.transformers, self.frames, own_params, entries, strict=True):
            before = frame.into(parts)
            after, ladj = element(before, own, there)
            images.append(frame.out(parts, before, after))
            ladjs.append(ladj)
        return self.split.merge(images), sum(ladjs[1:], ladjs[0])

    def many_passes(self, y: Tensor, context: Tensor | None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self._is_plain and isinstance(self.network, AutoregressiveNetwork):
            given = None if self.context_action is None else self.require_context(context)
            stepwise = blockwise_outputs(self.network, y, given)
            if stepwise is not None:
                return self._block_after_block(y, stepwise)
        with kernels_once(self.network):
            return self._pass_after_pass(y, context, mask)

    def _block_after_block(self, y: Tensor, params: BlockwiseOutputs) -> tuple[Tensor, Tensor]:
        known: list[Tensor] = []
        ladjs = []
        for element, part in zip(self.transformers, self.split.split(y), strict=True):
            after, ladj = element.inverse(part, params.output(known), None)  # type: ignore[operator]
            known.append(after)
            ladjs.append(ladj)
        return self.split.merge(known), sum(ladjs[1:], ladjs[0])

    def _pass_after_pass(self, y: Tensor, context: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        parts, entries = list(self.split.split(y)), self._entries(mask, y)
        known = [torch.zeros_like(part) for part in parts]
        total = torch.zeros((), dtype=y.dtype, device=y.device)
        for index, (element, frame) in enumerate(zip(self.transformers, self.frames, strict=True)):
            params = self._params_of(index, known, context, mask)
            known[index] = parts[index]
            before = frame.into(known)
            after, ladj = element.inverse(before, params, entries[index])  # type: ignore[operator]
            known[index] = frame.out(known, before, after)
            total = total + ladj
        return self.split.merge(known), total

    def _inputs(self, parts: Sequence[Tensor], context: Tensor | None) -> Tensor:
        features = [feature for reading in self.readings for feature in reading(parts)]
        return self.inputs(features, context)

    def _entries(self, mask: Tensor | None, x: Tensor) -> Sequence[Tensor | None]:
        """For each block the mask of its entries, or None."""
        if mask is None:
            return [frame.mask for frame in self.frames]
        return self.split.split(coordinates_there(require_maskable(self.action_in), mask).to(x.dtype))

    def _params(
        self, parts: Sequence[Tensor], context: Tensor | None, mask: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        masks = [] if mask is None else [mask]
        params: tuple[Tensor, ...] = self.network(self._inputs(parts, context), *masks)
        return params

    def _params_of(
        self, index: int, parts: Sequence[Tensor], context: Tensor | None, mask: Tensor | None = None
    ) -> Tensor:
        if isinstance(self.network, RowsAutoregressiveNetwork):  # one network for each block
            return self.network.output(index, self._inputs(parts, context), mask)
        return self._params(parts, context)[index]

    def mask_refusal(self) -> str:
        if not isinstance(self.split, CoordinateSplit) or not isinstance(self.network, RowsAutoregressiveNetwork):
            return f"its {type(self.split).__name__} does not split the features of single rows"
        return map_refusal(self.transformers)

    def apply_masked(self, x: Tensor, mask: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        passes = self.one_pass if inverse == (self.fast == "score") else self.many_passes
        return passes(x, context, mask)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {len(self.transformers)} blocks"


@split_first(Split)
@takes_factories("transformer")
@registered
class GInverseAutoregressive(GAutoregressive):
    """The inverse autoregressive flow: :class:`GAutoregressive` with sampling in one pass, for guides and posteriors.

    Map, log-det, equivariance and arguments are those of :class:`GAutoregressive`, with ``fast="sample"``.

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649; IAF, arXiv:1606.04934.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> GInverseAutoregressive(VectorAction.regular("C4", copies=3)).fast
        'sample'
    """

    def __init__(
        self,
        action: Action,
        *,
        split: Split | None = None,
        transformer: TransformerFactory | None = None,
        width: int = 8,
        depth: int = 2,
        context_action: LinearAction | None = None,
    ) -> None:
        super().__init__(
            action,
            split=split,
            transformer=transformer,
            width=width,
            depth=depth,
            fast="sample",
            context_action=context_action,
        )


@takes_factories("transformer")
def g_autoregressive(
    action: Action,
    *,
    split: Split | None = None,
    transformer: TransformerFactory | None = None,
    width: int = 8,
    depth: int = 2,
    fast: Fast = "score",
    context_action: LinearAction | None = None,
) -> GAutoregressive:
    """An autoregressive layer over the blocks of ``split`` (by default that of ``default_split``).

    A block is a part of the event that the group maps to itself. With ``fast="sample"`` the layer is the inverse
    autoregressive flow of variational guides. Events keep their shape.

    Args:
        action: How the group acts on events.
        split: How the event falls into blocks, in order; by default ``default_split(action)``.
        transformer: Makes the element map of each block from the action on it, as for :class:`GAutoregressive`.
        width: Hidden fields of the conditioner for each block.
        depth: Hidden layers of the conditioner.
        fast: "score": data to base is one pass (density estimation); "sample": base to data (IAF, guides).
        context_action: How the group acts on a context that every block reads; None: there is none.

    Raises:
        ValueError: The event cannot be split, or the split is of another action.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> g_autoregressive(VectorAction.regular("C4", copies=2), fast="sample").fast
        'sample'
    """
    size: dict[str, Any] = {"width": width, "depth": depth, "context_action": context_action}
    if fast == "sample":
        return GInverseAutoregressive(action, split=split, transformer=transformer, **size)
    return GAutoregressive(action, split=split, transformer=transformer, fast=fast, **size)
