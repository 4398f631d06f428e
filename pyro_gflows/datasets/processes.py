"""What several processes that share one task say to each other: values, and the errors that all of them raise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor

from pyro_gflows.datasets.share import Share

__all__ = ["COMMON", "Processes", "on_all", "on_first"]

_T = TypeVar("_T")

COMMON = "_in_all_processes"
"""The attribute of an error that all processes raise, so that the first one may report it for all."""


class Processes:
    """The processes that share a task, as one of them sees them: a process alone, or those of ``torch.distributed``.

    With torch alone it is ``Processes(Share(get_rank(), get_world_size()))``, both of ``torch.distributed``.

    Args:
        share: The number of this process, and of all processes; by default this one has its task to itself.

    Attributes:
        share: The number of this process, and of all processes.

    Example:
        >>> alone = Processes()
        >>> alone.gather("a"), alone.mean(torch.ones(2)).tolist()
        (['a'], [1.0, 1.0])
    """

    def __init__(self, share: Share = Share()) -> None:
        self.share = share

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in the order of their ranks, for every process.

        Args:
            value: Any value that can be pickled.
        """
        if self.share.size == 1:
            return [value]
        values: list[Any] = [None] * self.share.size
        torch.distributed.all_gather_object(values, value)
        return values

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of a tensor over the processes, for every process.

        Args:
            values: A tensor of the same shape in all processes.
        """
        return self.begin_mean(values)()

    def begin_mean(self, values: Tensor) -> Callable[[], Tensor]:
        """Begin to compute the mean of a tensor over the processes, and return a function that waits for it.

        What is done in the meantime hides the time that messages take.

        Args:
            values: A tensor of the same shape in all processes.
        """
        if self.share.size == 1:
            return lambda: values
        total = values.clone()
        sent = torch.distributed.all_reduce(total, async_op=True)

        def mean() -> Tensor:
            sent.wait()
            return total / self.share.size

        return mean

    def mean_of_all(self, total: float, count: int) -> float | None:
        """Return the mean of numbers of which each process knows the sum and the count of its own; None of none at all.

        Args:
            total: The sum of the numbers of this process.
            count: How many they are, which may differ between processes.
        """
        parts = self.gather((total, count))  # numbers of Python, in full precision on any device
        everyone = sum(number for _, number in parts)
        return math.fsum(value for value, _ in parts) / everyone if everyone else None

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the tensors of the first one, in place.

        Args:
            tensors: Weights, or buffers such as the running means of a network of the user.
        """
        if self.share.size > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor.data, src=0)


def on_first(processes: Processes, make: Callable[[], _T]) -> _T:
    """Return or raise in every process what a function returns or raises in the first one, which alone calls it.

    Files are read and written in this way, so that all processes go on with the same state or stop with the same error.

    Args:
        processes: The processes.
        make: A function without arguments.

    Example:
        >>> on_first(Processes(), lambda: 3)
        3
    """
    if processes.share.size == 1:
        return make()
    value: Any = None
    error: Exception | None = None
    if processes.share.rank == 0:
        try:
            value = make()
        except Exception as found:  # the other processes are told before it is raised
            error = found
    value, error = processes.gather((value, error))[0]
    if error is not None:
        raise _common(error)
    result: _T = value
    return result


def on_all(processes: Processes, call: Callable[[], _T]) -> _T:
    """Call a function in every process, and raise in all of them what it raised in the first that failed.

    Otherwise the other processes would wait for the one that has failed.

    Args:
        processes: The processes.
        call: A function without arguments that does not wait for other processes.

    Example:
        >>> on_all(Processes(), lambda: 3)
        3
    """
    if processes.share.size == 1:
        return call()
    value: Any = None
    error: Exception | None = None
    try:
        value = call()
    except Exception as found:  # the other processes are told before it is raised
        error = found
    for problem in processes.gather(error):
        if problem is not None:
            raise _common(problem)
    result: _T = value
    return result


def _common(error: Exception) -> Exception:
    vars(error)[COMMON] = True
    return error
