"""What a training step costs, counted: operations that are launched, arithmetic, and bytes read and written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Costs", "costs_of"]


@dataclass(frozen=True)
class Costs:
    """The costs of a call.

    Attributes:
        launches: Operations that compute something; a GPU launches at least one kernel for each. Views are left out.
        products: Floating-point operations of matrix products and convolutions, two for a multiplication and addition.
        others: Entries of the results of all other operations, as one floating-point operation each.
        bytes: What all operations read and write, each by itself.
    """

    launches: int
    products: int
    others: int
    bytes: int


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.launches = self.entries = self.bytes = self.product_entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        is_view = any(one.alias_info is not None and not one.alias_info.is_write for one in returns)
        if is_view or func._schema.name in ("aten::detach", "aten::_unsafe_view", "aten::empty", "aten::empty_like"):
            return result
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        inputs = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        self.launches += 1
        size = sum(leaf.numel() for leaf in outputs)
        self.entries += size
        if any(word in func._schema.name for word in ("mm", "convolution", "bmm")):
            self.product_entries += size
        self.bytes += sum(leaf.numel() * leaf.element_size() for leaf in (*inputs, *outputs))
        return result


def costs_of(work: Callable[[], object]) -> Costs:
    """The costs of a call.

    Example:
        >>> import torch
        >>> costs_of(lambda: torch.ones(2, 3) @ torch.ones(3, 4)).products
        48
    """
    counting, flops = _Counting(), FlopCounterMode(display=False)
    with counting, flops:
        work()
    return Costs(
        counting.launches, flops.get_total_flops(), counting.entries - counting.product_entries, counting.bytes
    )
