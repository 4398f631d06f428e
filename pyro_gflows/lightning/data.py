"""FlowData: the batches of fit as a data module of Lightning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pyro_gflows.datasets.array_rows import starts
from pyro_gflows.datasets.processes import Processes, on_all
from pyro_gflows.datasets.rows import Rows, as_rows
from pyro_gflows.datasets.share import Share
from pyro_gflows.lightning.loaders import OWN_VALIDATION, Blocks, NoEvents, Steps
from pyro_gflows.lightning.stream import Stream
from pyro_gflows.numerics.random_state import random_state_kept
from pyro_gflows.training.augmentation import Augmentation
from pyro_gflows.training.batches import Sampler
from pyro_gflows.training.objectives.base import Objective
from pyro_gflows.training.objectives.likelihood import Likelihood
from pyro_gflows.training.settings import FitSettings
from pyro_gflows.training.sources import rows_of, source_of

__all__ = ["FlowData"]

_BLOCK = 1024  # validation events that are scored at a time, as in fit


class FlowData(LightningDataModule):
    """The data of a :class:`FlowModule`: the same batches in the same order as :func:`~pyro_gflows.training.fit` takes.

    Each process takes its share of every batch, so that the loss curve does not depend on the number of processes. The
    Trainer's own sampler for several processes is neither needed nor used. The position in the data is a part of the
    Trainer's checkpoints, so that a run that is resumed in the middle of an epoch sees the rows that an unbroken run
    sees. An epoch is as many batches as one pass over the data has; of a sampler, as many as the settings have steps.

    Args:
        data: Events, as :func:`~pyro_gflows.training.fit` takes them: a tensor, an array, a file or its path, a
            ``Dataset``, a ``DataLoader`` or a sampler.
        validation: Validation events, or None.
        settings: The batch size, which counts the events of all processes together, and the seed; by default those of
            the FlowModule.
        augment: A function ``augment(x, generator)`` that is applied to every batch, or None.

    Raises:
        ValueError: When the Trainer sets it up: the data have the wrong shape or are not finite, or a batch has fewer
            events than there are processes.

    Example:
        >>> import lightning
        >>> from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
        >>> from pyro_gflows.lightning import FlowModule
        >>> action = VectorAction.plane("C4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        >>> data = FlowData(torch.randn(100, 2), settings=FitSettings(steps=3, batch_size=20))
        >>> trainer = lightning.Trainer(
        ...     max_steps=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
        ... )
        >>> trainer.fit(FlowModule(flow, settings=data.settings), data)
        >>> trainer.global_step, trainer.num_training_batches  # in an epoch
        (3, 5)
    """

    def __init__(
        self,
        data: Any,
        validation: Any = None,
        *,
        settings: FitSettings | None = None,
        augment: Augmentation | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self._given = (data, validation, augment)
        self._stream: Objective | None = None
        self._rows: Rows | DataLoader[Any] | Sampler | None = None
        self._validation: Rows | None = None
        self._restored: dict[str, Any] = {}

    @property
    def stream(self) -> Objective:
        """The batches, once the Trainer has set up the data.

        Raises:
            RuntimeError: The Trainer has not set up the data.
        """
        if self._stream is None:
            raise RuntimeError("expected a Trainer to set up the data: call trainer.fit(FlowModule(flow), data)")
        return self._stream

    def setup(self, stage: str) -> None:
        """Checks the data, and prepares the share of this process.

        Args:
            stage: What the Trainer is about to do.
        """
        assert self.trainer is not None
        self._processes = Processes(Share(self.trainer.global_rank, self.trainer.world_size))
        on_all(self._processes, self._prepare)

    def _prepare(self) -> None:
        assert self.trainer is not None
        module: Any = self.trainer.lightning_module
        settings = self.settings = self.settings or module.settings
        objective = module.objective
        data, validation, augment = self._given
        if isinstance(objective, Likelihood):
            like = next(objective.flow.parameters())
            self._rows = source_of(data, objective.flow, like)
            if validation is not None:
                self._validation = rows_of(validation, objective.flow, like, source="validation")
            stream: Objective = Likelihood(objective.flow, self._rows, settings=settings, augment=augment)
        else:
            self._rows = _plain_source(data)
            self._validation = None if validation is None else as_rows(validation, source="validation")
            stream = Stream(objective, self._rows, settings=settings, augment=augment)
        if self._processes.share.size > 1:
            stream.divide(self._processes.share)
        self._stream = stream

    def train_dataloader(self) -> Iterable[Any]:
        """The batches of an epoch."""
        return Steps(lambda: self.stream.batch(0), self._batches_of_an_epoch())

    def val_dataloader(self) -> Iterable[Any]:
        """The validation events of this process, in blocks; without any, what the objective itself has."""
        rows = self._validation
        if rows is None:
            return OWN_VALIDATION
        share = self.stream.share
        count = len(starts(len(rows), _BLOCK, share))
        return Blocks(lambda: rows.blocks(_BLOCK, share), count) if count else Blocks(lambda: [NoEvents()], 1)

    def state_dict(self) -> dict[str, Any]:
        """The position of every process in the data."""
        return {"streams": self._processes.gather(self.stream.state())} if self._stream is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the position.

        Args:
            state_dict: The state of :meth:`state_dict`, of any number of processes.

        Raises:
            ValueError: The earlier run had other data.
        """
        states = state_dict.get("streams", [])
        if states:
            on_all(self._processes, lambda: self._restore(states))

    def _restore(self, states: list[dict[str, Tensor]]) -> None:
        """Restores the position that this process had, or if there were another number of them, that of the first."""
        share = self.stream.share
        if len(states) != share.size:
            self.stream.restore(states[0])
            return
        with random_state_kept():
            self.stream.check_same(states[share.rank])
        self.stream.restore(states[share.rank])

    def _batches_of_an_epoch(self) -> int:
        rows, size = self._rows, self.stream.batch_size
        assert self.settings is not None
        if isinstance(rows, DataLoader):
            try:
                return len(rows)
            except TypeError:  # a stream has no length
                return self.settings.steps
        return self.settings.steps if rows is None or callable(rows) else len(rows) // size


def _plain_source(data: Any) -> Any:
    """The rows, the loader or the sampler of data that no flow checks."""
    is_source = isinstance(data, DataLoader) or (callable(data) and not isinstance(data, Dataset | torch.Tensor))
    return data if is_source else as_rows(data)
