"""Filters of the plane for every element of a group, sampled on the offsets of a square kernel."""

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
    """The filters :math:`f_i(g^{-1} q)` for every element g, at the offsets q of a ``size x size`` kernel.

    If every element of the group takes the pixel grid to itself, the filters are single offsets, which span all
    kernels. Otherwise they are escnn's Gaussian rings at radii r = 0, 1, ..., times circular harmonics up to frequency
    r, which are nine filters for a kernel of 5 x 5. (Frequencies up to 2r would give fifteen filters, but these are
    sampled less well: the error under rotations by 45 degrees of smooth images is four times as large.) The elements
    that take the grid to itself act on the filters by an exact gather, so that equivariance under these elements holds
    to rounding.

    Args:
        group: C_n or D_n.
        size: The odd side of the kernel.

    Returns:
        A float64 tensor of shape ``(|G|, filters, size * size)``; averaged over the group, the squares of a filter sum
        to one.

    Raises:
        ImportError: If escnn is needed, since not every element takes the grid to itself, and is not installed.
        ValueError: If the size is even.

    Example:
        >>> steerable_filters(CyclicGroup(4), 3).shape
        torch.Size([4, 9, 9])
    """
    if not isinstance(size, int) or size < 1 or size % 2 == 0:
        raise ValueError(f"expected an odd kernel_size, which has a center to rotate about, got {size!r}")
    carried = OffGridAction(group, size=size).exact_subgroup.group
    exact, targets = places_in(carried, group), pixel_targets(carried, size, size)
    if len(exact) == group.order:
        return _permuted(torch.eye(size * size, dtype=torch.float64), targets)[exact.argsort()]
    filters = torch.stack([_rings(matrix, size) for matrix in group.plane()])
    sampled = torch.empty_like(filters)
    for first in range(group.order):
        coset = group.compose(exact, torch.tensor(first))
        if first == int(coset.min()):  # one element of each coset; its images under the exact elements are permutations
            sampled[coset] = _permuted(filters[first], targets)
    return sampled / sampled.square().sum(-1, keepdim=True).mean(0, keepdim=True).sqrt()


def _permuted(filters: Tensor, targets: Tensor) -> Tensor:
    """Each filter permuted by each row of ``targets``, shape ``(elements, filters, offsets)``."""
    return filters[:, targets.argsort(-1)].transpose(0, 1)


def _rings(matrix: Tensor, size: int) -> Tensor:
    """The filters of escnn at ``g^-1 q`` for every offset q, with x to the right and y upwards."""
    reach = size // 2
    steps = torch.arange(size, dtype=torch.float64) - reach
    offsets = torch.stack([steps.repeat(size), -steps.repeat_interleave(size)])
    radii = list(range(reach + 1))
    widths = [_WIDTH] * reach + [_OUTER_WIDTH]
    return ring_harmonics((matrix.T @ offsets).T, radii, widths, radii)
