"""The size of the largest tensor that a computation makes, as a measure of its memory."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["LargestTensor"]


class LargestTensor(TorchDispatchMode):
    """A context in which ``numel`` is the largest number of entries of any tensor that an operation has returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        storages = [t.untyped_storage().nbytes() // t.element_size() for t in tree_leaves(made) if torch.is_tensor(t)]
        self.numel = max([self.numel, *storages])
        return made
