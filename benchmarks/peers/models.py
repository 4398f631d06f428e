"""A flow of any library as the three tasks see it: a training step, scoring and sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.peers.clocks import Work
from benchmarks.peers.contest import Entry, Maker, parameters
from pyro_gflows import EquivariantFlow

__all__ = ["TASKS", "Model", "ModelMaker", "entries", "ours", "training_step"]


@dataclass(frozen=True)
class Model:
    """A flow.

    Attributes:
        module: All of its parameters.
        log_prob: The log-density of events.
        sample: That many draws.
        after_step: Called after every update of the weights.
    """

    module: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int], object]
    after_step: Callable[[], object] | None = None


ModelMaker = Callable[[torch.device], Model]


def ours(flow: EquivariantFlow) -> Model:
    """A flow of this package, used as the README does."""
    return Model(flow, lambda x: flow.dist.log_prob(x), lambda n: flow.dist.sample((n,)))


def training_step(module: nn.Module, loss: Callable[[], Tensor], after: Callable[[], object] | None = None) -> Work:
    """A step of Adam, with the defaults of torch."""
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()
        if after is not None:
            after()

    return step


def _train(model: Model, x: Tensor) -> Work:
    return training_step(model.module.train(), lambda: -model.log_prob(x).mean(), model.after_step)


def _score(model: Model, x: Tensor) -> Work:
    model.module.eval()
    return torch.no_grad()(lambda: model.log_prob(x))


def _draw(model: Model, x: Tensor) -> Work:
    model.module.eval()
    return torch.no_grad()(lambda: model.sample(len(x)))


#: What is timed, from a flow and a batch of events.
TASKS: Mapping[str, Callable[[Model, Tensor], Work]] = {
    "training step": _train,
    "scoring": _score,
    "sampling": _draw,
}


def entries(makers: Mapping[str, ModelMaker], task: str, shape: tuple[int, ...]) -> dict[str, Maker]:
    """Makers for a contest: that task of each flow, for a batch of normal events of that shape."""

    def maker(make: ModelMaker) -> Maker:
        def entry(device: torch.device) -> Entry:
            model = make(device)
            x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device)
            return Entry(TASKS[task](model, x), parameters(model.module))

        return entry

    return {name: maker(make) for name, make in makers.items()}
