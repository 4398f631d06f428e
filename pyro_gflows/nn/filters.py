"""Filters of the plane at every element of a group, sampled on the offsets of a square kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.actions import OffGridAction
from pyro_gflows.groups.escnn_adapter import ring_harmonics
from pyro_gflows.groups.finite import CyclicGroup, DihedralGroup
from pyro_gflows.groups.restriction import places_in
from pyro_gflows.groups.wallpaper import pixel_targets

__all__ = ["steerable_filters"]

_WIDTH, _OUTER_WIDTH = 0.6, 0.4  # of the Gaussian rings, as in escnn's convolutions


def steerable_filters(group: CyclicGroup | DihedralGroup, size: int) -> Tensor:
    r"""Filters :math:`f_i(g^{-1} q)` for every element g, on the offsets q of a ``size x size`` kernel.

    Where the grid carries the group, the filters are single offsets, which span all kernels; else escnn's Gaussian
    rings at radii r = 0, 1, ..., with circular harmonics up to frequency r: nine filters of 5 x 5. (Of finer ones the
    pixels tell less; up to 2r, fifteen filters, 45-degree turns of smooth images go wrong four times as far.) Under the
    elements that the grid carries filters are turned by an exact gather, so equivariance under these holds to rounding.

    Args:
        group: C_n or D_n.
        size: odd.

    Returns:
        Shape ``(|G|, filters, size * size)``, float64, of unit square sum on the average over the group.

    Raises:
        ImportError: escnn is not installed, and the grid does not carry the group.
        ValueError: an even size.

    Example:
        >>> steerable_filters(CyclicGroup(4), 3).shape
        torch.Size([4, 9, 9])
    """
    if not isinstance(size, int) or size < 1 or size % 2 == 0:
        raise ValueError(f"expected an odd kernel_size, which has a center to turn about, got {size!r}")
    carried = OffGridAction(group, size=size).exact_subgroup.group
    exact, targets = places_in(carried, group), pixel_targets(carried, size, size)
    if len(exact) == group.order:
        return _turned(torch.eye(size * size, dtype=torch.float64), targets)[exact.argsort()]
    filters = torch.stack([_rings(matrix, size) for matrix in group.plane()])
    sampled = torch.empty_like(filters)
    for first in range(group.order):
        coset = group.compose(exact, torch.tensor(first))
        if first == int(coset.min()):  # each coset once: of its other elements the turns are exact
            sampled[coset] = _turned(filters[first], targets)
    return sampled / sampled.square().sum(-1, keepdim=True).mean(0, keepdim=True).sqrt()


def _turned(filters: Tensor, targets: Tensor) -> Tensor:
    """Each filter moved by each row of ``targets``, shape ``(elements, filters, offsets)``."""
    return filters[:, targets.argsort(-1)].transpose(0, 1)


def _rings(matrix: Tensor, size: int) -> Tensor:
    """escnn's filters at ``g^-1 q`` for every offset q: x to the right, y upwards."""
    reach = size // 2
    steps = torch.arange(size, dtype=torch.float64) - reach
    offsets = torch.stack([steps.repeat(size), -steps.repeat_interleave(size)])
    radii = list(range(reach + 1))
    widths = [_WIDTH] * reach + [_OUTER_WIDTH]
    return ring_harmonics((matrix.T @ offsets).T, radii, widths, radii)
