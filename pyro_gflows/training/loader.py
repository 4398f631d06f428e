"""An endless stream of the batches of a torch DataLoader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pyro_gflows.datasets.rows import event_part

__all__ = ["LoaderBatches"]


class LoaderBatches:
    """The batches of a ``DataLoader`` in its own order, over as many passes as needed.

    The position is the random state at the start of the pass and the number of batches since then. To restore it, these
    batches are read once more; their order is the same if torch's generators determine it.

    Args:
        loader: The loader.
        generator: The random generator for augmentation.
    """

    def __init__(self, loader: DataLoader[Any], generator: torch.Generator) -> None:
        self.loader = loader
        self.generator = generator
        self.batch_size: int = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None) or 1
        self._pass: Iterator[Any] | None = None
        self._used = 0
        self._began: dict[str, Tensor] = {}

    def next(self, *, whole: bool = False) -> Tensor:
        for _ in range(2):
            if self._pass is None:
                self._began, self._used = self._random_state(), 0
                self._pass = iter(self.loader)
            batch = next(self._pass, None)
            if batch is not None:
                self._used += 1
                return event_part(batch)
            self._pass = None
        raise ValueError(
            "expected a DataLoader with batches of events, got none; a dataset that is an iterator can be read only "
            "once, so pass one that can be read again"
        )

    def state(self) -> dict[str, Tensor]:
        used = {"used": torch.tensor(self._used)} if self._pass is not None else {}
        return {"generator": self.generator.get_state(), **used, **self._began}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.generator.set_state(state["generator"])
        self._pass = None
        if "used" not in state:
            return
        self._began = {name: state[name] for name in ("pass", "pass_loader") if name in state}
        self._used = int(state["used"])
        torch.set_rng_state(self._began["pass"])
        own = getattr(self.loader, "generator", None)
        if own is not None and "pass_loader" in self._began:
            own.set_state(self._began["pass_loader"])
        self._pass = iter(self.loader)
        for _ in range(self._used):
            next(self._pass)

    def _random_state(self) -> dict[str, Tensor]:
        own = getattr(self.loader, "generator", None)
        return {"pass": torch.get_rng_state(), **({} if own is None else {"pass_loader": own.get_state()})}
