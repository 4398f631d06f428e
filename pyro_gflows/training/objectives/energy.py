"""Fitting to an energy, a density known up to a constant, as an objective."""

from __future__ import annotations

import pyro
from torch import Tensor

from pyro_gflows.flows.learnable import Learnable
from pyro_gflows.targets import LogDensity
from pyro_gflows.training.objectives.base import Objective
from pyro_gflows.training.objectives.mixing import Mixing
from pyro_gflows.training.objectives.path_gradient import reverse_kl_loss
from pyro_gflows.training.settings import FitSettings, Schedule

__all__ = ["Energy"]


class Energy(Objective):
    """The reverse divergence from a density that is known up to a constant, and a share of a second loss.

    Args:
        target: what is trained.
        log_density: what it is trained for.
        settings: how.
        annealing: the inverse temperature, or None for 1.
        mixing: the second loss, or None.
    """

    def __init__(
        self,
        target: Learnable,
        log_density: LogDensity,
        *,
        settings: FitSettings,
        annealing: Schedule | None,
        mixing: Mixing | None,
    ) -> None:
        super().__init__(target.module)
        self._settings, self.batch_size = settings, settings.batch_size
        self._target, self._log_density = target, log_density
        self._annealing, self._mixing = annealing, mixing

    def loss(self, step: int) -> Tensor:
        done = step / self._settings.steps
        beta = 1.0 if self._annealing is None else self._annealing(done)
        share = 0.0 if self._mixing is None else self._mixing.weight(done)
        draws = self.batch_size
        # NaN in a draw gets a better message from the trainer than from a support check
        with pyro.validation_enabled(False):
            distribution = self._target.distribution
            loss = reverse_kl_loss(distribution, self._log_density, draws, inverse_temperature=beta)
            if self._mixing is None or share == 0.0:
                return loss
            return (1 - share) * loss + share * self._mixing.loss(distribution, self._log_density, draws)

    def remedy(self, lr: float, clip_norm: float | None) -> str:
        return (
            f"lower the learning rate (now lr={lr}), clip harder (now clip_norm={clip_norm}), begin at a higher "
            "temperature (annealing=Ramp(start=0.1)), or look for NaN in the log-density; if it is -inf at some draws "
            "(hard edges), the reverse divergence is infinite, and fit(flow, OwnDraws(flow, log_density)) fits the "
            "forward one"
        )
