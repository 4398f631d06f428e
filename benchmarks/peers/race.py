"""Flows that train for the same CPU time on 8gaussians: the gap to its exact density, and evaluations a log-density."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers.cnf import ContinuousFlow, equivariant_field, plain_field
from benchmarks.peers.contest import missing_word, pair, parameters, where
from pyro_gflows import EquivariantFlow
from pyro_gflows.experiments.presets import PRESETS
from pyro_gflows.flows.families import build_action, build_flow
from pyro_gflows.targets import Density, density

__all__ = ["RACES", "Race", "Runner"]

TARGET, BATCH, POINTS = "8gaussians", 512, 20_000
CHUNK = 2_000  # points that one call scores
WARM_UP, LEAST = 0.05, 0.01  # fractions: of the time at which the learning rate is highest, and of it at the end


@dataclass(frozen=True)
class Runner:
    """A flow that is trained.

    Attributes:
        module: Its parameters.
        log_prob: The log-density.
        lr: The highest learning rate of Adam.
        evaluations: How many evaluations of a network one call of ``log_prob`` took, measured after it.
    """

    module: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    lr: float
    evaluations: Callable[[], int]


RunnerMaker = Callable[[torch.device], Runner]


def _ours(device: torch.device, **size: float) -> Runner:
    """The preset of the command line, ten residual layers of ridge terms, with its learning rate; or another size."""
    preset = PRESETS[TARGET]
    flow = build_flow(preset.flow, build_action(preset.group, (2,)), size={**preset.size, **size}).to(device)
    flow.initialize(density(TARGET).sample(4096).to(device))
    counted = _count_branches(flow)
    return Runner(flow, lambda x: flow.dist.log_prob(x), preset.settings.optimizer.lr, lambda: counted[0])


def _count_branches(flow: EquivariantFlow) -> list[int]:
    """One evaluation for each residual layer that a score passes."""
    return [sum(hasattr(layer, "branch") for layer in flow.modules())]


def _cnf(field: Callable[[], nn.Module], lr: float, device: torch.device) -> Runner:
    flow = ContinuousFlow(field(), scale=density(TARGET).data_sd).to(device)

    def log_prob(x: Tensor) -> Tensor:
        flow.evaluations = 0
        return flow.log_prob(x)

    return Runner(flow, log_prob, lr, lambda: flow.evaluations)


def train(runner: Runner, target: Density, *, seconds: float, device: torch.device) -> int:
    """Adam on fresh points until that much CPU time (on a CUDA device, time) is spent; the number of steps."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    optimizer = torch.optim.Adam(runner.module.parameters(), lr=runner.lr)
    began, steps, done = clock(), 0, 0.0
    runner.module.train()
    while done < 1:
        rise, fall = min(1.0, done / WARM_UP + 1e-2), 0.5 * (1 + math.cos(math.pi * done))
        optimizer.param_groups[0]["lr"] = runner.lr * rise * (LEAST + (1 - LEAST) * fall)
        optimizer.zero_grad(set_to_none=True)
        (-runner.log_prob(target.sample(BATCH).to(device)).mean()).backward()
        nn.utils.clip_grad_norm_(runner.module.parameters(), 10.0)
        optimizer.step()
        steps += 1
        done = (clock() - began) / seconds
    return steps


def measure(runner: Runner, target: Density, *, points: int, device: torch.device) -> dict[str, float]:
    """The gap in nats with its standard error, and the most evaluations of a call."""
    runner.module.eval()
    x = target.sample(points, torch.Generator().manual_seed(1_000_000_007)).to(device)
    differences, evaluations = [], []
    with torch.no_grad():
        for part in x.split(CHUNK):
            differences.append(target.log_prob(part) - runner.log_prob(part))
            evaluations.append(runner.evaluations())
    gaps = torch.cat(differences).double()
    return {
        "gap": float(gaps.mean()),
        "error": float(gaps.std()) / math.sqrt(len(gaps)),
        "evaluations": sum(evaluations) / len(evaluations),
    }


@dataclass(frozen=True)
class Race:
    """A row of the benchmark: all flows train for the same time.

    Attributes:
        seconds: CPU seconds of training for each.
        ours: Makers by name.
        peers: Makers by name.
        gap_limit: The largest ratio of the gaps that is asked for.
        evaluations_limit: The largest ratio of the evaluations that is asked for.
    """

    seconds: float
    ours: Mapping[str, RunnerMaker]
    peers: Mapping[str, RunnerMaker]
    gap_limit: float = 1 / 10
    evaluations_limit: float = 1 / 20
    family: str = "8gaussians at equal training time"
    task: str = "gap and evaluations"
    device: str = "cpu"
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Family, task and device."""
        return f"{self.family}, {self.task}, {self.device}"

    @property
    def size(self) -> str:
        """The sizes, in words."""
        return f"{self.seconds:g} seconds of training each, batch {BATCH}, gaps over {POINTS} fresh points"

    def labels(self) -> Mapping[str, Any]:
        """What a stored run belongs to."""
        sides = [*self.ours, *self.peers]
        return {"family": self.family, "task": self.task, "size": self.size, "sides": sides, "device": self.device}

    def on(self, device: str) -> Race:
        """The same on another device."""
        return replace(self, device=device)

    def measure(self, *, quick: bool) -> dict[str, Any]:
        """Gaps and evaluations of each flow, and their ratios."""
        device, target = torch.device(self.device), density(TARGET)
        found: dict[str, dict[str, float]] = {}
        missing: dict[str, str] = {}
        for name, make in {**self.ours, **self.peers}.items():
            torch.manual_seed(0)
            try:
                runner = make(device)
                steps = train(runner, target, seconds=0.01 if quick else self.seconds, device=device)
            except ModuleNotFoundError as error:
                missing[name] = missing_word(name, error)
                continue
            measured = measure(runner, target, points=CHUNK if quick else POINTS, device=device)
            found[name] = {**measured, "steps": steps, "parameters": parameters(runner.module)}
        limits = {"gap": self.gap_limit, "evaluations": self.evaluations_limit}
        return {
            "unit": "",
            "values": {},
            "pairs": [
                {
                    **pair(mine, peer, (_ratio(found, mine, peer, figure),) * 3, {(mine, peer): limit}),
                    "unit": {"gap": "gap, nats", "evaluations": "evaluations"}[figure],
                    "values": [found[mine][figure], found[peer][figure]],
                }
                for figure, limit in limits.items()
                for mine in self.ours
                for peer in self.peers
                if peer in found
            ],
            "parameters": {name: int(facts["parameters"]) for name, facts in found.items()},
            "facts": {name: {"gap, standard error": f["error"], "steps": f["steps"]} for name, f in found.items()},
            "notes": dict(self.notes),
            "missing": missing,
            "rounds": 1,
            **where(device),
        }


def _ratio(found: Mapping[str, Mapping[str, float]], mine: str, peer: str, figure: str) -> float:
    return found[mine][figure] / found[peer][figure]


RACES: Sequence[Race] = [
    Race(
        30.0,
        {
            "ours, D8 residual": _ours,
            "ours, D8 residual, 3 layers": lambda device: _ours(device, blocks=3, terms=12),
        },
        {
            "CNF on torchdiffeq": lambda device: _cnf(lambda: plain_field(64), 1e-2, device),
            "D8-equivariant CNF on torchdiffeq": lambda device: _cnf(lambda: equivariant_field("D8", 64), 1e-2, device),
        },
        notes={
            "ours": "the preset of the command line, ten layers, and a shorter flow; each residual layer counts as one "
            "evaluation",
            "CNF on torchdiffeq": "dopri5 at tolerances of 1e-5, with the exact trace (two gradients in each "
            "evaluation, no Hutchinson estimate) and gradients through the solver",
            "D8-equivariant CNF on torchdiffeq": "the same with an EquivariantMLP of this package as its field",
        },
    )
]
