"""Networks in which the output for block j depends only on the blocks before j."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.actions.requirements import require_image
from pyro_gflows.nn.activations import Activation
from pyro_gflows.nn.conv import EquivariantConv
from pyro_gflows.nn.linear import EquivariantLinear
from pyro_gflows.nn.networks import LayerChain, hidden_action
from pyro_gflows.nn.norm_activations import GatedNorm
from pyro_gflows.nn.tied_tensor import TiedTensor
from pyro_gflows.serialization.registry import registered

__all__ = ["AutoregressiveNetwork"]


def _side_by_side(actions: Sequence[LinearAction]) -> tuple[LinearAction, list[int]]:
    """The direct sum of some actions, and for each field of the sum the index of the action that it comes from."""
    labels = [index for index, action in enumerate(actions) for _ in action.fields]
    return actions[0].direct_sum(*actions[1:]), labels


@registered
class AutoregressiveNetwork(LayerChain):
    """An equivariant network from k blocks to k outputs, where output j depends only on the blocks before j.

    A block is a part of the event that the group maps to itself. A call maps the blocks (and the context) side by side,
    of shape ``batch_shape + (dim,)``, or ``batch_shape + (C, H, W)`` for images, to a list of k tensors, one for each
    block. An autoregressive flow transforms block j with parameters that this network computes from the blocks before
    j, so that the Jacobian is block-triangular. Every field of every layer has a label, and a mask sets to zero each
    weight that reads a field with a larger label. On vectors the masks act on the copies of each irrep (smallest
    building block) of the action, on images on pairs of fields, so the masks commute with the group. All outputs may
    also depend on a context, which comes after the blocks in the input. Without a context the output for the first
    block is constant.

    Args:
        blocks: How the group acts on each block of the input.
        outputs: How the group acts on the output (the parameters) for each block.
        width: The number of hidden fields for each block.
        depth: The number of hidden layers.
        context: How the group acts on the context; None where there is no context.

    Raises:
        ValueError: If there are fewer than two blocks, or not as many outputs as blocks.

    Source: MADE, arXiv:1502.03509.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> block = VectorAction.regular("C4")
        >>> first, second = AutoregressiveNetwork([block, block], [block, block])(torch.zeros(5, 8))
        >>> second.shape
        torch.Size([5, 4])
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
        if len(blocks) < 2 or len(blocks) != len(outputs):
            raise ValueError(f"expected k >= 2 blocks and as many outputs, got {len(blocks)} and {len(outputs)}")
        event, into = _side_by_side(blocks)
        params, out_of = _side_by_side(outputs)
        # the output for block j reads earlier blocks only, so hidden fields labeled at most j - 1
        first = 0
        if context is not None:  # every block may read the context, so its label is the smallest
            event, into, first = event.direct_sum(context), into + [-1] * len(context.fields), -1
        hidden, labels = _side_by_side([hidden_action(event, width)] * (len(blocks) - 1 - first))
        self._hidden, self._hidden_labels = hidden, [label + first for label in labels]
        if event.event_dim == 1:
            self.default_activations = ("swish", "gated")
        self._labels = itertools.pairwise([into, *[self._hidden_labels] * depth, [label - 1 for label in out_of]])
        super().__init__(event, params, width=width, depth=depth)
        del self._labels, self._hidden, self._hidden_labels  # the hooks below have used them
        self.sizes = [sum(output.field_sizes) for output in outputs]
        self.block_sizes = [sum(block.field_sizes) for block in blocks]
        self.label_size = hidden.numel // (len(blocks) - 1 - first)

    def hidden(self, action: LinearAction, width: int) -> LinearAction:
        return self._hidden

    def layer(self, action_in: LinearAction, action_out: LinearAction) -> nn.Module:
        labels_in, labels_out = next(self._labels)
        if action_in.event_dim == 1:
            return EquivariantLinear(action_in, action_out, autoregressive=(labels_in, labels_out))
        rows = torch.tensor(labels_out).repeat_interleave(torch.tensor(action_out.field_sizes))
        columns = torch.tensor(labels_in).repeat_interleave(torch.tensor(action_in.field_sizes))
        return EquivariantConv(require_image(action_in), require_image(action_out), mask=rows[:, None] >= columns)

    def activation(self, kind: str, action: LinearAction) -> Activation:
        # gates read other fields, so they need the mask as well
        return GatedNorm(action, labels=self._hidden_labels) if kind == "gated" else super().activation(kind, action)

    def in_order(self, x: Tensor, places: Tensor) -> Tensor:
        """The coordinates of all outputs side by side in another order, for networks on vectors.

        Args:
            x: The input, as for a call.
            places: The index of each coordinate among those of all outputs, the same in all calls.
        """
        layers = iter(self.layers)
        for activation in self.activations:
            x = activation(next(layers)(x))
        last = next(layers)
        assert isinstance(last, EquivariantLinear)
        return last.rows(x, places)

    def keep_order(self, places: Tensor) -> None:
        """Save operations in all later calls of :meth:`in_order`, which are for the same ``places``."""
        for part in self.layers[-1].children():
            if isinstance(part, TiedTensor):
                part.keep_order(places)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The outputs for the blocks, one tensor for each block."""
        return self.run(x).split(self.sizes, -self.action_in.event_dim)
