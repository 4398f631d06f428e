"""How designs are trained: by likelihood on exact draws, by energy alone, or by flow matching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from benchmarks.particles.clock import MANY_STEPS, Clock
from benchmarks.particles.cnf import ContinuousTransform
from benchmarks.particles.problems import Problem
from pyro_gflows.flows import AugmentedFlow, placement_on_grids, to_train
from pyro_gflows.nn.placement_grids import PlacementGrids
from pyro_gflows.training import Adam, FitSettings, OneCycle, Ramp, Validation, fit, fit_energy, random_elements
from pyro_gflows.training.average import MovingAverage, copy_weights

__all__ = ["ByEnergy", "ByLikelihood", "FlowMatching", "OnFinerGrids"]


@dataclass(frozen=True)
class ByLikelihood:
    """Maximum likelihood on the fixed training draws, by :func:`pyro_gflows.training.fit`.

    Attributes:
        lr: Peak of the learning rate.
        batch_size: Draws a step.
        augment: Whether a random element of the group acts on every draw of a batch, for a flow without the symmetry.
        centers: Of a flow that places particles around a center: over how many central ones a score sums.
        ema_decay: Of the average of the weights.
    """

    lr: float = 5e-3
    batch_size: int = 256
    augment: bool = False
    centers: int = 4
    ema_decay: float | None = 0.999

    def __call__(self, model: Any, problem: Problem, clock: Clock, seed: int) -> int:
        """Train until the clock has run, and return the number of steps."""
        result = fit(
            to_train(model, centers=self.centers),
            problem.training,
            settings=settings(self, clock, seed),
            augment=random_elements(problem.action) if self.augment else None,
            callbacks=clock.stop,
            progress=False,
        )
        return result.steps


@dataclass(frozen=True)
class OnFinerGrids:
    """A placement flow trained on its own grids, where a step is quick, then on finer ones, where it is accurate.

    Attributes:
        first: The training on its own grids.
        then: The training on the finer ones.
        grids: The finer grids.
        share: The part of the time that the first training takes.
    """

    first: ByLikelihood
    then: ByLikelihood
    grids: PlacementGrids
    share: float

    def __call__(self, model: Any, problem: Problem, clock: Clock, seed: int) -> int:
        """Train until the clock has run, and return the number of steps."""
        steps = self.first(model, problem, clock.part(self.share), seed)
        finer = placement_on_grids(model, self.grids)
        steps += self.then(finer, problem, clock.part(1 - self.share), seed)
        copy_weights(dict(finer.named_parameters()), model)
        return steps


@dataclass(frozen=True)
class ByEnergy:
    """The reverse divergence from the energy, without draws of the target, by :func:`pyro_gflows.training.fit_energy`.

    Attributes:
        lr: Peak of the learning rate.
        batch_size: Own draws a step.
        hot: The inverse temperature at the start.
        until: The fraction of the training after which it is 1.
        above: The energy of a pair above which it grows slowly in training, so that draws whose particles overlap do
            not rule the gradient.
        ema_decay: Of the average of the weights.
    """

    lr: float = 5e-3
    batch_size: int = 256
    hot: float = 0.1
    until: float = 0.4
    above: float = 50.0
    ema_decay: float | None = 0.999

    def __call__(self, model: Any, problem: Problem, clock: Clock, seed: int) -> int:
        """Train until the clock has run, and return the number of steps."""
        target: Any = problem.target.softened(above=self.above)
        if isinstance(model, AugmentedFlow):  # on the joint space, where q(a | x) stays what it is
            target, model = model.padded_log_density(target), model.flow
        else:
            model = to_train(model)
        report = fit_energy(
            model,
            target,
            settings=settings(self, clock, seed),
            annealing=clock.schedule(Ramp(start=self.hot, until=self.until)),
            callbacks=clock.stop,
            progress=False,
        )
        assert report.run is not None
        return report.run.steps


def settings(training: ByLikelihood | ByEnergy, clock: Clock, seed: int) -> FitSettings:
    """The settings of a training that a clock ends."""
    return FitSettings(
        steps=MANY_STEPS,
        batch_size=training.batch_size,
        seed=seed,
        optimizer=Adam(lr=training.lr),
        schedule=clock.schedule(OneCycle(warmup=0.1)),
        ema_decay=training.ema_decay,
        validation=Validation(patience=None),
        check_symmetry=False,
    )


@dataclass(frozen=True)
class FlowMatching:
    """Conditional flow matching on the training draws: the velocity of straight lines from draws of the base.

    It needs no solution of the differential equation and no divergence, so its steps are the cheapest of a continuous
    flow. With ``align``, the particles of each draw of the base are permuted to those of its partner with the least
    squared distance, then rotated and reflected onto them (equivariant optimal transport, arXiv:2306.15030). That makes
    lines short, and an equivariant field does not see it: its loss is the same if a random element of the group acts on
    both ends, and then the draws of the base are draws of it again.

    Attributes:
        lr: Peak of the learning rate.
        batch_size: Pairs a step.
        align: Whether draws of the base are aligned.
        ema_decay: Of the average of the weights.
    """

    lr: float = 2e-3
    batch_size: int = 256
    align: bool = True
    ema_decay: float = 0.999

    def __call__(self, model: Any, problem: Problem, clock: Clock, seed: int) -> int:
        """Train until the clock has run, and return the number of steps."""
        (layer,) = model.transforms
        assert isinstance(layer, ContinuousTransform)
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.lr)
        rate = clock.schedule(OneCycle(warmup=0.1))
        average, steps = MovingAverage(model, self.ema_decay), 0
        model.train()
        while not steps or not clock.stop():
            for group in optimizer.param_groups:
                group["lr"] = self.lr * rate(0.0)
            loss = self._loss(layer, problem, generator)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            steps += 1
            average.update(steps)
        copy_weights(average.values, model)
        model.eval()
        return steps

    def _loss(self, layer: ContinuousTransform, problem: Problem, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(problem.training), (self.batch_size,), generator=generator)
        data = problem.training[rows] / layer.scale
        start = problem.action.space.project(torch.randn(data.shape, generator=generator))
        if self.align:
            start = aligned(start, data)
        t = torch.rand(self.batch_size, generator=generator)
        now = torch.lerp(start, data, t[:, None, None])
        return (layer.field(t, now) - (data - start)).square().sum((-2, -1)).mean()


def aligned(x: Tensor, y: Tensor) -> Tensor:
    """The images of configurations x under a permutation, then a rotation or reflection, that take them close to y."""
    costs = torch.cdist(y, x).square().numpy()
    order = torch.from_numpy(np.stack([linear_sum_assignment(cost)[1] for cost in costs]))
    x = x.gather(1, order.unsqueeze(-1).expand_as(x))
    u, _, vh = torch.linalg.svd(x.mT @ y)
    return x @ (u @ vh)
