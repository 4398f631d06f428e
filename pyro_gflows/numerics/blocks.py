"""Block-diagonal matrices in batches (``torch.block_diag`` takes single matrices only)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

__all__ = ["block_diagonal"]


def block_diagonal(blocks: Sequence[Tensor]) -> Tensor:
    """The matrices with the given blocks along the diagonal and zeros elsewhere.

    Args:
        blocks: Square matrices of shapes ``batch + (d_i, d_i)``, all of one batch shape, dtype and device.

    Returns:
        Matrices of shape ``batch + (D, D)``, where D is the sum of the d_i.

    Example:
        >>> import torch
        >>> block_diagonal([torch.ones(1, 1), 2 * torch.ones(2, 2)]).tolist()
        [[1.0, 0.0, 0.0], [0.0, 2.0, 2.0], [0.0, 2.0, 2.0]]
    """
    size = sum(block.shape[-1] for block in blocks)
    out = blocks[0].new_zeros(*blocks[0].shape[:-2], size, size)
    start = 0
    for block in blocks:
        stop = start + block.shape[-1]
        out[..., start:stop, start:stop] = block
        start = stop
    return out
