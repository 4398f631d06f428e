"""FixedProbes: the base class of deterministic log-dets that are averages over fixed probes."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from pyro_gflows.numerics.log_det import LogDet
from pyro_gflows.numerics.probe_images import OrbitAverage
from pyro_gflows.numerics.probes import fixed_probes
from pyro_gflows.numerics.residual_map import ResidualMap

__all__ = ["FixedProbes"]

_Self = TypeVar("_Self", bound="FixedProbes")
_AS_THEY_ARE = OrbitAverage(lambda probes: probes.unsqueeze(0))


class FixedProbes(LogDet):
    """The base class of log-dets that are averages over fixed probes, or over their images under the group.

    The probes are the same for every row, call, device and dtype. An average can be split into independent ones, whose
    spread shows its error (:func:`pyro_gflows.evaluation.log_det_error`).

    Attributes:
        probes: The number of probe vectors; None where the estimate needs none.
        seed: The seed of the probe vectors.

    Example:
        >>> from pyro_gflows.numerics import SeriesLogDet
        >>> isinstance(SeriesLogDet(8), FixedProbes)
        True
    """

    probes: int | None
    seed: int
    _part: tuple[int, int] | None = None  # the first and the last probe, if this is a part of another estimator

    def average(
        self,
        residual_map: ResidualMap,
        x: Tensor,
        sum_over: Callable[[Tensor], tuple[Tensor, Tensor]],
        *,
        at_once: int,
    ) -> tuple[Tensor, Tensor]:
        """The value f(x), and the average of estimates over the probes and their images.

        Args:
            residual_map: The map.
            x: The input, of shape ``batch_shape + event_shape``.
            sum_over: The value f(x) and the sum of the estimates over the first axis of probes, which broadcast with x.
            at_once: The most components in the copies of x that are held at once, unless one copy has more.
        """
        assert self.probes is not None
        event_dim, images = residual_map.event_dim, residual_map.images or _AS_THEY_ARE
        first, last = (0, self.probes) if self._part is None else self._part
        probes = fixed_probes(self.probes, x.shape[x.dim() - event_dim :], seed=self.seed, like=x)[first:last]
        found = images(probes, x, event_dim).flatten(0, 1)
        sums = [sum_over(part) for part in found.split(max(1, at_once // max(1, x.numel())))]
        return sums[0][0], torch.stack([total for _, total in sums]).sum(0) / len(found)

    def parts(self: _Self, count: int) -> list[_Self]:
        """Independent estimators that share the probes, whose mean is this estimator if the shares are equal.

        Args:
            count: The number of estimators, at most the number of probes.

        Raises:
            ValueError: If there are not enough probes.

        Example:
            >>> from pyro_gflows.numerics import SeriesLogDet
            >>> len(SeriesLogDet(10, probes=8).parts(4))
            4
        """
        if self.probes is None or not 1 <= count <= self.probes:
            raise ValueError(f"expected at most one part for each probe, got {count} parts of {self.named_probes()}")
        bounds = [index * self.probes // count for index in range(count + 1)]
        return [self._changed(part=part) for part in itertools.pairwise(bounds)]

    def reseeded(self: _Self, shift: int) -> _Self:
        """The same estimator with other probes, from the seed ``seed + shift``.

        Args:
            shift: The change of the seed.

        Example:
            >>> from pyro_gflows.numerics import SeriesLogDet
            >>> SeriesLogDet(10, seed=1).reseeded(2).seed
            3
        """
        return self._changed(seed=self.seed + shift)

    def _changed(self: _Self, *, part: tuple[int, int] | None = None, seed: int | None = None) -> _Self:
        other = copy.copy(self)
        other._part = self._part if part is None else part
        other.seed = self.seed if seed is None else seed
        return other

    def truncation_error(self, *, lipschitz: float | Tensor, dim: int) -> float:
        """A certified bound of the error of an estimate for given probes, in nats; inf if the bound is not below 1.

        Args:
            lipschitz: The Lipschitz bound of the branch.
            dim: The number of components of an event.
        """
        raise NotImplementedError

    def named_probes(self) -> str:
        """The number of probes in words."""
        if self.probes is None:
            return "exact traces"
        return "1 fixed probe" if self.probes == 1 else f"{self.probes} fixed probes"
