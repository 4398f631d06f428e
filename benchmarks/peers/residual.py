"""Residual layers beside those of normflows, at an equal network and an equal Lipschitz bound."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.contest import Contest, Entry, Maker, parameters
from benchmarks.peers.models import training_step
from benchmarks.peers.residual_sides import BOUND, Normflows, Ours
from pyro_gflows import ImageAction, VectorAction, g_residual
from pyro_gflows.actions import LinearAction
from pyro_gflows.nn import LipschitzNetwork

__all__ = ["CONTESTS"]

LOOSE = 3e-4  # about the error at which normflows stops
REPEATS, FEWER = 32, 8  # of a log-det for its standard deviation, on vectors and on images
EVENTS, FEW_IMAGES = 8, 2  # at which it is taken, and how many images are evaluated


def _negative_log_likelihood(z: Tensor, ladj: Tensor) -> Tensor:
    return (0.5 * z.flatten(1).square().sum(1) - ladj).mean()


def _spread(log_det: Callable[[Tensor], Tensor], x: Tensor, *, repeats: int) -> dict[str, float]:
    """The standard deviation of an estimate of the log-det at an event, and that of its mean over events."""
    values = torch.stack([log_det(x[:EVENTS]).detach() for _ in range(repeats)])
    return {
        "log-det, standard deviation": float(values.std(0).mean()),
        "log-det, over events": float(values.mean(0).std()),
    }


def _train(side: Ours | Normflows, x: Tensor) -> Entry:
    module = side.module.train()
    facts = _spread(lambda few: side.score(few)[1], x, repeats=REPEATS if x.ndim == 2 else FEWER)
    step = training_step(module, lambda: _negative_log_likelihood(*side.score(x)), side.after_step)
    return Entry(step, parameters(module), facts)


def _evaluate(side: Ours | Normflows, x: Tensor) -> Entry:
    module = side.module.eval()
    x = x if x.ndim == 2 else x[:FEW_IMAGES]
    score = torch.no_grad()(lambda events: side.score(events)[1])
    return Entry(lambda: score(x), parameters(module), _spread(score, x, repeats=REPEATS if x.ndim == 2 else 2))


def _invert(side: Ours | Normflows, x: Tensor) -> Entry:
    module = side.module.eval()
    invert = torch.no_grad()(lambda: side.invert(x))
    with torch.no_grad():
        error = float((side.value(invert()) - x).abs().max())
    return Entry(invert, parameters(module), {"largest error of the inverse": error})


TASKS: Mapping[str, Callable[[Any, Tensor], Entry]] = {
    "training step": _train,
    "evaluation": _evaluate,
    "inverse": _invert,
}


def _maker(make_side: Callable[[], Ours | Normflows], task: str, shape: tuple[int, ...]) -> Maker:
    def entry(device: torch.device) -> Entry:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device)
        side = make_side()
        side.prepare(x)
        return TASKS[task](side, x)

    return entry


def _network(action: LinearAction, width: int) -> Callable[..., Ours]:
    """Our layer with the network of normflows: one hidden layer of LipSwish."""

    def branch(action: LinearAction) -> LipschitzNetwork:
        return LipschitzNetwork(action, width=width, depth=1, bound=BOUND, activation="lipswish")

    return functools.partial(Ours, lambda: g_residual(action, branch=branch))


#: What is listed beside the times, and the largest ratio that is asked for.
_FACTS: Mapping[str, Mapping[str, float | None]] = {
    "training step": {"log-det, standard deviation": 1.0},
    "evaluation": {"log-det, standard deviation": None},
    "inverse": {"largest error of the inverse": None},
}

DEFAULT = "ours, as it comes"
_NOTE = (
    "normflows has our network and weights; its log-det in training is a series after which a geometric(0.5) number of "
    "terms follows, whose variance is infinite where the squared Lipschitz constant is 0.5 or more; its bound is an "
    "estimate by power iterations (update_lipschitz, included in the step); in evaluation it takes 20 terms and a "
    "random rest for more than two components; its inverse stops at steps below about 3e-3"
)
_OURS = (
    "bounds are certified; the log-dets are the defaults of g_residual, exact where their standard deviation is 0; the "
    f"branch 'as it comes' is the default one, with the bound 0.99; 'to {LOOSE:g}' has about the error of normflows"
)


def _vectors(d: int, action: LinearAction, hidden: int, limit: float) -> list[Contest]:
    order, batch = action.group.order, 256
    plain = VectorAction.trivial("C1", copies=d)
    ours: dict[str, Callable[..., Ours]] = {
        f"ours, {action.group.name}": _network(action, hidden // order),
        "ours, C1": _network(plain, hidden),
        DEFAULT: functools.partial(Ours, lambda: g_residual(action)),
    }
    return _contests(
        f"residual layer, d = {d}",
        f"{action}, {hidden} hidden units, Lipschitz bound {BOUND:.3f}, batch {batch}",
        ours,
        (batch, d),
        limit,
    )


def _images(limit: float) -> list[Contest]:
    channels, size, hidden, batch = 3, 32, 64, 16
    ours = {
        f"ours, {group}": _network(ImageAction(group, channels, size=size), hidden // order)
        for group, order in (("C4", 4), ("C1", 1))
    }
    return _contests(
        "residual layer, 3 x 32 x 32",
        f"3 x 3 kernels, {hidden} hidden channels, Lipschitz bound {BOUND:.3f}, batch {batch} (evaluation: 2)",
        ours,
        (batch, channels, size, size),
        limit,
    )


def _contests(
    family: str, size: str, ours: Mapping[str, Callable[..., Ours]], shape: tuple[int, ...], limit: float
) -> list[Contest]:
    images = len(shape) > 2
    twins = {mine: _peer(mine) for mine in ours if mine != DEFAULT}
    peers = {peer: functools.partial(_normflows, ours[mine], images) for mine, peer in twins.items()}

    def contest(task: str) -> Contest:
        sides, equal = dict(ours), list(twins.items())
        if task == "inverse":
            sides |= {f"{mine}, to {LOOSE:g}": functools.partial(ours[mine], tolerance=LOOSE) for mine in twins}
            equal += [(f"{mine}, to {LOOSE:g}", peer) for mine, peer in twins.items()]
        compared = [*equal, *((mine, twins["ours, C1"]) for mine in sides if mine == DEFAULT)]
        return Contest(
            family,
            task,
            size,
            {name: _maker(make, task, shape) for name, make in sides.items()},
            {name: _maker(make, task, shape) for name, make in peers.items()},
            limits=dict.fromkeys(compared, limit) if task == "training step" else {},
            compared=compared,
            facts={name: dict.fromkeys(equal, one) for name, one in _FACTS[task].items()},
            notes={next(iter(peers)): _NOTE, "ours": _OURS},
            rounds=9 if images else 15,
        )

    return [contest(task) for task in TASKS]


def _peer(ours: str) -> str:
    """The layer of normflows that has the weights of ours."""
    return f"normflows{ours.removeprefix('ours')}"


def _normflows(twin: Callable[[], Ours], images: bool) -> Normflows:
    return Normflows(twin(), images=images)


CONTESTS: Sequence[Contest] = [
    *_vectors(2, VectorAction.plane("D8"), 64, 0.6),
    *_vectors(8, VectorAction.regular("C4", copies=2), 64, 1.0),
    *_vectors(64, VectorAction.regular("C4", copies=16), 128, 1.0),
    *_images(1.2),
]
