"""G-autoregressive flows over the blocks of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction, Split
from pyro_gflows.actions.splits.base import require_split
from pyro_gflows.actions.splits.default import split_of
from pyro_gflows.nn import AutoregressiveNetwork
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.one_way import Fast, OneWayTransform
from pyro_gflows.transforms.split_basis import SplitBasis
from pyro_gflows.transforms.transformers import Transformer, default_transformer

__all__ = ["GAutoregressive", "GInverseAutoregressive", "g_autoregressive"]


@registered
class GAutoregressive(OneWayTransform):
    r"""Moves each of k invariant blocks as the blocks before it say: one pass one way, k passes the other.

    .. math:: y_j = A_j(x_{<j})\,x_j + t_j(x_{<j}), \qquad \log|\det J| = \sum_j \log|\det A_j|

    Bijective because each A_j is invertible by construction; equivariant because the masked conditioner is, and its
    outputs carry the actions that make A_j commute.

    Args:
        split: how the event falls into blocks, in order.
        transformer: makes the element map from a block's action (ElementwiseAffine, IrrepScale, MatrixScale); by
            default ElementwiseAffine where possible, else IrrepScale.
        width: hidden fields of the conditioner for each block.
        depth: its hidden layers.
        fast: "score": data to base is one pass (density estimation); "sample": base to data (IAF, guides).
        context_action: how the group moves a context that every block reads; None: there is none.

    Raises:
        TypeError: not a split.
        ValueError: blocks that are not slices of the event (a MaskSplit: use GCoupling).

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649; IAF, arXiv:1606.04934; MAF, arXiv:1705.07057.

    Example:
        >>> from pyro_gflows import CoordinateSplit, VectorAction
        >>> layer = GAutoregressive(CoordinateSplit(VectorAction.regular("C4", copies=3)))
        >>> layer(torch.zeros(3, 12)).shape
        torch.Size([3, 12])
    """

    def __init__(
        self,
        split: Split,
        *,
        transformer: Callable[[LinearAction], Transformer] | None = None,
        width: int = 8,
        depth: int = 2,
        fast: Fast = "score",
        context_action: LinearAction | None = None,
    ) -> None:
        super().__init__(require_split(split).action, fast=fast, context_action=context_action)
        if not split.is_slicing:
            raise ValueError(f"expected a split into slices of the event, got {split}; use GCoupling with masks")
        self.split = split
        self.split_basis = SplitBasis.of(split)
        make = default_transformer if transformer is None else transformer
        elements = [make(part).require(part) for part in split.parts]
        self.transformers = nn.ModuleList(elements)
        outputs = [element.params_action for element in elements]
        self.network = AutoregressiveNetwork(split.parts, outputs, width=width, depth=depth, context=context_action)
        self.network.scale_last_(max(element.start for element in elements))

    def one_pass(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        parts = self.split.split(x)
        params = self._params(parts, context)
        moved = [element(*pair) for element, *pair in zip(self.transformers, parts, params, strict=True)]
        values, ladjs = zip(*moved, strict=True)
        return self.split.merge(list(values)), sum(ladjs[1:], ladjs[0])

    def many_passes(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        parts = list(self.split.split(y))
        known = [torch.zeros_like(part) for part in parts]
        total = torch.zeros((), dtype=y.dtype, device=y.device)
        for index, element in enumerate(self.transformers):
            params = self._params(known, context)[index]
            known[index], ladj = element.inverse(parts[index], params)  # type: ignore[operator]
            total = total + ladj
        return self.split.merge(known), total

    def _params(self, parts: Sequence[Tensor], context: Tensor | None) -> tuple[Tensor, ...]:
        params: tuple[Tensor, ...] = self.network(self.inputs(parts, context))
        return params

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {len(self.transformers)} blocks"


@registered
class GInverseAutoregressive(GAutoregressive):
    """The inverse autoregressive flow: :class:`GAutoregressive` with one-pass sampling, for guides and posteriors.

    Map, log-det, equivariance and arguments are those of :class:`GAutoregressive`, with ``fast="sample"``.

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649; IAF, arXiv:1606.04934.

    Example:
        >>> from pyro_gflows import CoordinateSplit, VectorAction
        >>> GInverseAutoregressive(CoordinateSplit(VectorAction.regular("C4", copies=3))).fast
        'sample'
    """

    def __init__(
        self,
        split: Split,
        *,
        transformer: Callable[[LinearAction], Transformer] | None = None,
        width: int = 8,
        depth: int = 2,
        context_action: LinearAction | None = None,
    ) -> None:
        super().__init__(
            split, transformer=transformer, width=width, depth=depth, fast="sample", context_action=context_action
        )


def g_autoregressive(
    action: LinearAction,
    *,
    split: Split | None = None,
    transformer: Callable[[LinearAction], Transformer] | None = None,
    width: int = 8,
    depth: int = 2,
    fast: Fast = "score",
    context_action: LinearAction | None = None,
) -> GAutoregressive:
    """An autoregressive layer over the blocks of ``split`` (by default that of ``default_split``).

    With ``fast="sample"`` it is the inverse autoregressive flow of variational guides.

    Args:
        action: how the group moves events.
        split: how the event falls into blocks; by default ``default_split(action)``.
        transformer: as for :class:`GAutoregressive`; so are ``width``, ``depth``, ``fast`` and ``context_action``.

    Raises:
        ValueError: the event cannot be split, or the split is one of another action.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> g_autoregressive(VectorAction.regular("C4", copies=2), fast="sample").fast
        'sample'
    """
    chosen = split_of(action, split)
    if fast == "sample":
        return GInverseAutoregressive(
            chosen, transformer=transformer, width=width, depth=depth, context_action=context_action
        )
    return GAutoregressive(
        chosen, transformer=transformer, width=width, depth=depth, fast=fast, context_action=context_action
    )
