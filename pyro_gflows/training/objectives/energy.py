"""The objective of fitting to an energy, which is a density known up to a constant."""

from __future__ import annotations

from typing import Any

import pyro
from torch import Tensor

from pyro_gflows.flows.learnable import Learnable, learnable
from pyro_gflows.targets import LogDensity
from pyro_gflows.training.objectives.base import Objective
from pyro_gflows.training.objectives.mixing import Mixing
from pyro_gflows.training.objectives.path_gradient import reverse_kl_loss
from pyro_gflows.training.settings import FitSettings, Schedule

__all__ = ["Energy"]


class Energy(Objective):
    r"""The reverse divergence from a density that is known up to a constant, optionally mixed with a second loss.

    :func:`fit_energy` minimizes it. The loss is :math:`E_q[\log q(x) - \beta \log p(x)]` for the trained density q and
    the unnormalized target p. With a second loss of share w, it is (1 - w) times this plus w times the second loss.

    Args:
        target: The trained density: a flow, or a distribution with a module, as for :func:`fit_energy`.
        log_density: The log of the unnormalized target density.
        settings: The settings of the run; by default ``FitSettings()``.
        annealing: The inverse temperature :math:`\beta` as a schedule, or None for 1.
        mixing: The second loss, or None.

    Example:
        >>> from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
        >>> action = VectorAction.plane("C4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        >>> objective = Energy(flow, lambda x: -0.5 * x.square().sum(-1), settings=FitSettings(batch_size=1000))
        >>> round(objective.loss(0).item(), 4)  # - log(2 pi), since q is p without its normalizer
        -1.8379
    """

    def __init__(
        self,
        target: Any,
        log_density: LogDensity,
        *,
        settings: FitSettings | None = None,
        annealing: Schedule | None = None,
        mixing: Mixing | None = None,
    ) -> None:
        target = target if isinstance(target, Learnable) else learnable(target)
        super().__init__(target.module, settings)
        self.batch_size = self._settings.batch_size
        self._target = target
        # in a tuple, so that an energy or a proposal that is a module does not become a part of this one
        self._terms = (log_density, annealing, mixing)

    def forward(self, batch: None, step: int) -> Tensor:
        """Returns the loss of fresh draws, in nats per event.

        Args:
            batch: Not used.
            step: The number of steps that are already done.
        """
        log_density, annealing, mixing = self._terms
        done = step / self._settings.steps
        beta = 1.0 if annealing is None else annealing(done)
        part = 0.0 if mixing is None else mixing.weight(done)
        draws = self.share.count(self.batch_size)
        # NaN in a draw gets a better message from the trainer than from a support check
        with pyro.validation_enabled(False):
            distribution = self._target.distribution
            loss = reverse_kl_loss(distribution, log_density, draws, inverse_temperature=beta)
            if mixing is not None and part != 0.0:
                loss = (1 - part) * loss + part * mixing.loss(distribution, log_density, draws)
        return loss if self.share.size == 1 else loss * self.weight(draws)

    def remedy(self, lr: float, clip_norm: float | None) -> str:
        """Returns advice about a run that has diverged.

        Args:
            lr: The learning rate of the run.
            clip_norm: The norm to which gradients are clipped, or None.
        """
        return (
            f"lower the learning rate (now lr={lr}), clip harder (now clip_norm={clip_norm}), start at a higher "
            "temperature (annealing=Ramp(start=0.1)), or search for NaN in the log-density; if it is -inf at some "
            "draws (hard edges), the reverse divergence is infinite: minimize the forward divergence by fit(flow, "
            "OwnDraws(flow, log_density))"
        )
