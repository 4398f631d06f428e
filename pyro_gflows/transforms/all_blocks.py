"""One element-wise map of all blocks of an autoregressive layer, in place of one map for each block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.transforms.transformers import ElementwiseAffine, Transformer

__all__ = ["AllBlocks"]


class AllBlocks(nn.Module):
    """One element-wise affine map of all blocks side by side, for the parameters of the maps of the single blocks.

    Args:
        transformer: The map.
        places: For each parameter of the map, its index among those of the single maps.
    """

    places: Tensor

    def __init__(self, transformer: ElementwiseAffine, places: Tensor) -> None:
        super().__init__()
        self.transformer = transformer
        self.register_buffer("places", places, persistent=False)

    @classmethod
    def of(cls, elements: Sequence[Transformer]) -> AllBlocks | None:
        """The map that is all the maps of some blocks; None unless all are element-wise affine with one bound."""
        kinds = {(type(element), element.max_log_scale) for element in elements}
        if len(kinds) > 1 or type(elements[0]) is not ElementwiseAffine:
            return None
        first, *others = [require_linear(element.action) for element in elements]
        whole = ElementwiseAffine(first.direct_sum(*others), max_log_scale=elements[0].max_log_scale)
        # the parameters of a block are its log-scales and its shifts; those of the whole are all log-scales, all shifts
        own = torch.arange(whole.params_action.numel).split([element.params_action.numel for element in elements])
        halves = zip(*[indices.chunk(2) for indices in own], strict=True)
        return cls(whole, torch.cat([index for half in halves for index in half]))
