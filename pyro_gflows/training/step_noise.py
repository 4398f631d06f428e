"""The random generator of what a process draws in a step, such as augmentation."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.datasets.share import Share
from pyro_gflows.numerics.random_state import seed_of_rank

__all__ = ["StepNoise"]


class StepNoise:
    """The random generator of what a process draws in a step, such as the elements of an augmentation.

    A run on one device has one generator for everything, whose state is stored. With several processes each has a
    generator of its own, which is seeded anew at every step by the seed of the run, the number of the step and the
    process. So the noise differs between processes, and a resumed run draws the same without a stored state for each.

    Args:
        origin: The random generator of the run, seeded alike in all processes.
        share: Which of several processes this is.

    Attributes:
        origin: The random generator of the run.
        generator: The random generator of this process.

    Example:
        >>> first, second = (StepNoise(torch.Generator().manual_seed(0), Share(rank, 2)) for rank in range(2))
        >>> first.next()
        >>> second.next()
        >>> bool(torch.rand((), generator=first.generator) == torch.rand((), generator=second.generator))
        False
    """

    def __init__(self, origin: torch.Generator, share: Share) -> None:
        self.origin = origin
        self.generator = origin if share.size == 1 else torch.Generator()
        self._seed = origin.initial_seed()
        self._share = share
        self._step = 0

    def next(self, *, whole: bool = False) -> None:
        """Go to the next step.

        Args:
            whole: Whether all processes draw the same in this step.
        """
        if self._share.size > 1:
            self.of(0 if whole else self._share.rank)
        self._step += 1

    def of(self, rank: int) -> torch.Generator:
        """Return the generator, seeded for the next step of one of several processes.

        Args:
            rank: The number of the process.
        """
        return self.generator.manual_seed(seed_of_rank(self._seed, rank, self._share.size, self._step))

    def state(self) -> dict[str, Tensor]:
        """Return the number of steps."""
        return {"steps": torch.tensor(self._step)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore the number of steps, which older files do not hold.

        Args:
            state: The tensors of :meth:`state`, by name.
        """
        self._step = int(state["steps"]) if "steps" in state else 0
