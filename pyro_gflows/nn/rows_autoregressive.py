"""Networks on rows in which the output for block j depends only on the blocks before j."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.nn.rows_network import RowsNetwork
from pyro_gflows.serialization.registry import registered

__all__ = ["RowsAutoregressiveNetwork"]


@registered
class RowsAutoregressiveNetwork(nn.Module):
    """Networks on rows from k blocks of features to k outputs, where output j depends only on the blocks before j.

    It is to rows that are permuted what :class:`AutoregressiveNetwork` is to other vectors. A block holds some of the
    features of every row. There is one :class:`RowsNetwork` for each output, which reads the blocks before it and the
    context, so the cost is linear in the number of rows. Without a context the output for the first block is constant.
    A call maps the blocks (and the context) side by side, of shape ``batch_shape + (dim,)``, to one tensor for each
    block.

    Args:
        blocks: How the group acts on each block of the input.
        outputs: How the group acts on the output (the parameters) for each block.
        width: The number of hidden fields of a row.
        depth: The number of hidden layers.
        context: How the group acts on the context; None where there is no context.

    Raises:
        TypeError: A block is no RowsAction, or holds matrices.
        ValueError: There are fewer than two blocks, or not as many outputs as blocks.

    Example:
        >>> from pyro_gflows import RowsAction
        >>> block = RowsAction(50)
        >>> first, second = RowsAutoregressiveNetwork([block, block], [block, block.copies(2)])(torch.zeros(5, 100))
        >>> second.shape, torch.allclose(first, first[0], atol=1e-5)
        (torch.Size([5, 100]), True)
    """

    def __init__(
        self,
        blocks: Sequence[LinearAction],
        outputs: Sequence[LinearAction],
        *,
        width: int = 8,
        depth: int = 2,
        context: LinearAction | None = None,
    ) -> None:
        super().__init__()
        if len(blocks) < 2 or len(outputs) != len(blocks):
            raise ValueError(f"expected as many outputs as blocks, at least two, got {len(outputs)} and {len(blocks)}")
        contexts = [] if context is None else [context]
        networks = []
        for index, output in enumerate(outputs):
            first, *rest = [*blocks[:index], *contexts] or [blocks[0].trivial_fields(1)]
            networks.append(RowsNetwork(first.direct_sum(*rest), output, width=width, depth=depth))
        self.networks = nn.ModuleList(networks)
        self._sizes = [action.numel for action in (*blocks, *contexts)]
        self._count = len(blocks)

    def output(self, index: int, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The output for one block.

        Args:
            index: The index of the block.
            x: The blocks and the context side by side; only the blocks before this one are read.
            mask: Which rows are there, boolean, shape ``batch_shape + (n,)``; None where all are.
        """
        parts = x.split(self._sizes, -1)
        read = [*parts[:index], *parts[self._count :]] or [torch.ones_like(x[..., :1])]
        found: Tensor = self.networks[index](torch.cat(read, -1), mask)
        return found

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """The outputs for the blocks, one tensor for each block."""
        return tuple(self.output(index, x, mask) for index in range(self._count))

    def scale_last_(self, factor: float) -> RowsAutoregressiveNetwork:
        """Multiply the weights of the last layers by a factor; with 0 the outputs start at zero.

        Args:
            factor: The factor.
        """
        for network in self.networks:
            assert isinstance(network, RowsNetwork)
            network.scale_last_(factor)
        return self
