"""The outputs of an autoregressive network block after block, where each hidden feature is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_gflows.nn.activations import Swish
from pyro_gflows.nn.autoregressive import AutoregressiveNetwork
from pyro_gflows.nn.linear import EquivariantLinear

__all__ = ["BlockwiseOutputs", "blockwise_outputs"]


class _Chain(NamedTuple):
    """What an autoregressive network on vectors consists of.

    Attributes:
        layers: The kernel and the shift (or None) of each linear layer.
        activations: The pointwise activations between them.
        blocks: The number of coordinates of each block of the input; the context comes after the blocks.
        hidden: The number of hidden features of each label.
        outputs: The number of coordinates of each output.
    """

    layers: list[tuple[Tensor, Tensor | None]]
    activations: Sequence[nn.Module]
    blocks: list[int]
    hidden: int
    outputs: list[int]


class BlockwiseOutputs:
    """Computes the output for each block as soon as the blocks before it are known.

    The inverse of an autoregressive layer finds one block after the other. A hidden feature depends on some of the
    first blocks alone, so it keeps its value once these are known. All outputs together then cost about as much as one
    pass of the network, in place of one pass for each block. Nothing is kept beyond the blocks of one call.

    Args:
        chain: The network: hidden features of label l read blocks up to l, and the output for block j reads hidden
            features of labels up to j - 1. With a context the first label is -1, without it 0.
        like: A tensor with the batch shape, dtype and device of the events.
        context: The context, of the batch shape of the events, or None.
    """

    def __init__(self, chain: _Chain, like: Tensor, context: Tensor | None) -> None:
        self._chain, self._like, self._context = chain, like, context
        self._features: list[list[Tensor]] = [[] for _ in chain.activations]  # of each layer, by label
        self._first = 0 if context is None else -1
        self._read = [sum(chain.blocks[:count]) for count in range(len(chain.blocks) + 1)]
        self._written = [sum(chain.outputs[:count]) for count in range(len(chain.outputs) + 1)]

    def output(self, known: Sequence[Tensor]) -> Tensor:
        """The output for the first block that is not known; it is called once for each block, in their order.

        Args:
            known: All blocks before it.
        """
        chain, label = self._chain, len(known) - 1
        if label >= self._first:
            self._add_features(known, label)
        kernel, shift = chain.layers[-1]
        rows = slice(self._written[label + 1], self._written[label + 2])
        if self._features:
            return self._linear(kernel, shift, rows, self._features[-1])
        return self._of_inputs(kernel, shift, rows, known)

    def _add_features(self, known: Sequence[Tensor], label: int) -> None:
        """Compute the hidden features of one label, layer after layer."""
        position = label - self._first
        rows = slice(position * self._chain.hidden, (position + 1) * self._chain.hidden)
        for depth, activation in enumerate(self._chain.activations):
            kernel, shift = self._chain.layers[depth]
            if depth == 0:
                raw = self._of_inputs(kernel, shift, rows, known)
            else:
                raw = self._linear(kernel, shift, rows, self._features[depth - 1])
            self._features[depth].append(activation(raw))

    def _of_inputs(self, kernel: Tensor, shift: Tensor | None, rows: slice, known: Sequence[Tensor]) -> Tensor:
        out = self._linear(kernel, shift, rows, known)
        if self._context is None:
            return out
        return out + functional.linear(self._context, kernel[rows, self._read[-1] :])

    def _linear(self, kernel: Tensor, shift: Tensor | None, rows: slice, parts: Sequence[Tensor]) -> Tensor:
        own = None if shift is None else shift[rows]
        if parts:
            x = parts[0] if len(parts) == 1 else torch.cat(list(parts), -1)
            return functional.linear(x, kernel[rows, : x.shape[-1]], own)
        constant = self._like.new_zeros(rows.stop - rows.start) if own is None else own
        return constant.expand(*self._like.shape[:-1], -1)


def blockwise_outputs(network: AutoregressiveNetwork, like: Tensor, context: Tensor | None) -> BlockwiseOutputs | None:
    """The outputs of a network as blocks become known; None if the network is on images or its activation reads fields.

    Args:
        network: The network.
        like: A tensor with the batch shape, dtype and device of the events.
        context: The context, of the same batch shape, or None.
    """
    linear = [layer for layer in network.layers if isinstance(layer, EquivariantLinear)]
    if len(linear) < len(network.layers) or not all(isinstance(made, Swish) for made in network.activations):
        return None
    layers = [(layer.kernel().to(like), layer.constant()) for layer in linear]
    chain = _Chain(layers, list(network.activations), network.block_sizes, network.label_size, network.sizes)
    return BlockwiseOutputs(chain, like, context)
