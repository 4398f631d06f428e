"""TiedTensor: a tensor of learnable entries that are equal, up to signs, along orbits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows.nn.coefficients import register_coefficients
from pyro_gflows.nn.tying import tied_to

__all__ = ["TiedTensor"]


class TiedTensor(nn.Module):
    """A tensor with one weight for each orbit of its entries.

    The weights are gathered by one lookup. Where no entry depends on another one, as under the trivial group, the
    weights are the tensor itself and nothing is gathered. What is needed is decided in the constructor.

    Args:
        index: The index of the orbit of each entry, with as many entries as ``sign`` has.
        sign: The sign of each entry, which is 0 where the entry vanishes; its shape is that of the tensor.
        start: The weights of the orbits at the start, shape ``(orbits,)``.

    Example:
        >>> TiedTensor(torch.tensor([0, 0, 1]), torch.tensor([1.0, -1.0, 1.0]), torch.tensor([2.0, 3.0])).tensor()
        tensor([ 2., -2.,  3.], grad_fn=<MulBackward0>)
    """

    weights: Tensor
    index: Tensor
    sign: Tensor
    has_order = False

    def __init__(self, index: Tensor, sign: Tensor, start: Tensor) -> None:
        super().__init__()
        self._shape, self._has_signs = sign.shape, not bool((sign == 1).all())
        self._is_zero = len(start) == 0
        self._is_free = len(start) == sign.numel() and not self._has_signs
        dtype = torch.get_default_dtype()
        # the names of buffers that are not saved: they follow from the actions
        self.register_buffer("index", index.flatten(), persistent=False)
        self.register_buffer("sign", sign.to(dtype), persistent=False)
        if self._is_free:
            self.weights = nn.Parameter(start.to(dtype)[self.index].view(self._shape))
            return
        register_coefficients(self, "weights", len(start))
        with torch.no_grad():
            self.weights.copy_(start)

    def tensor(self) -> Tensor:
        """The tensor for the present weights."""
        return self.weights if self._is_free else self._gathered("index", "sign")

    def keep_order(self, places: Tensor) -> None:
        """Prepare :meth:`in_order`, which then takes a single lookup as :meth:`tensor` does.

        Args:
            places: The indices along the first dimension, each once, in the order that is wanted.
        """
        self.has_order = True
        index = places if self._is_free else self.index.view(self._shape).index_select(0, places).flatten()
        self.register_buffer("ordered_index", index, persistent=False)
        self.register_buffer("ordered_sign", self.sign.index_select(0, places), persistent=False)

    def in_order(self) -> Tensor:
        """The tensor in the order along the first dimension that :meth:`keep_order` was told."""
        return self._gathered("ordered_index", "ordered_sign")

    def _gathered(self, index: str, sign: str) -> Tensor:
        weights, shape = self.weights, self._shape
        if self._is_zero:
            return weights.new_zeros(shape)
        # torch looks an attribute up in three dictionaries, which takes as long as a small gather
        buffers: Any = self._buffers
        gathered = weights.index_select(0, buffers[index])
        if gathered.ndim != len(shape):
            gathered = gathered.view(shape)
        return gathered * buffers[sign] if self._has_signs else gathered

    def weights_for(self, entries: Tensor) -> Tensor:
        """The weights for which the tensor is nearest to given entries.

        Args:
            entries: The entries, of the shape of the tensor.
        """
        if self._is_free:
            return entries.to(self.weights)
        return tied_to(self.weights.detach(), entries, self.index, self.sign)
