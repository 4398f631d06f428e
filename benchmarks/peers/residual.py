"""Residual layers beside those of normflows, at an equal network and an equal Lipschitz bound."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers.contest import Contest, Entry, Maker, parameters
from benchmarks.peers.models import training_step
from pyro_gflows import ImageAction, VectorAction, g_residual
from pyro_gflows.actions import LinearAction
from pyro_gflows.nn import LipschitzNetwork, kernels_once
from pyro_gflows.transforms import GResidual

__all__ = ["CONTESTS"]

LAYER_BOUND = 0.97  # of each of the two linear layers, the default of normflows
BOUND = LAYER_BOUND**2
STEEP = 10.0  # both sides' weights are multiplied by it, so that the layers reach their bounds
REPEATS, FEWER, EVENTS, FEW_IMAGES = (
    32,
    8,
    8,
    2,
)  # of a log-det for its standard deviation; the same on images; events; images to evaluate

Task = Callable[..., Entry]


def _negative_log_likelihood(z: Tensor, ladj: Tensor) -> Tensor:
    return (0.5 * z.flatten(1).square().sum(1) - ladj).mean()


def _steep(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if weight.ndim > 1 or name.endswith("weights"):
                weight.mul_(STEEP)
    return module


def _spread(log_det: Callable[[Tensor], Tensor], x: Tensor, *, repeats: int) -> dict[str, float]:
    """The standard deviation of an estimate of the log-det at an event, and that of its mean over events."""
    values = torch.stack([log_det(x[:EVENTS]).detach() for _ in range(repeats)])
    return {
        "log-det, standard deviation": float(values.std(0).mean()),
        "log-det, over events": float(values.mean(0).std()),
    }


class Ours:
    """A residual layer of this package.

    Args:
        layer: Makes the layer.
    """

    def __init__(self, layer: Callable[[], GResidual]) -> None:
        self.make = layer

    def prepare(self, x: Tensor) -> None:
        """Make the layer, with steep weights, on the device of x."""
        self.layer = self.make()
        _steep(self.layer)
        self.layer.to(x.device)

    @property
    def module(self) -> nn.Module:
        """All parameters."""
        return self.layer

    def score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From data to base."""
        return self.layer.inv_call_and_ladj(x)

    def value(self, x: Tensor) -> Tensor:
        """From data to base, without the log-det."""
        return x + self.layer.branch(x)

    def invert(self, z: Tensor) -> Tensor:
        """From base to data, the direction that is solved for, without the log-det."""
        branch = self.layer.branch
        with kernels_once(branch):
            return self.layer.solver(branch, z, z.ndim - 1, lipschitz=branch.lipschitz_bound())[0]

    def after_step(self) -> None:
        """Nothing: the bound holds for all weights."""


class Normflows:
    """A residual layer of normflows with the network of one of ours, and with its weights.

    Its networks begin with an activation, which ours do not; it is left out here.

    Args:
        twin: Our layer.
        images: Whether the network is convolutional.
    """

    def __init__(self, twin: Ours, *, images: bool) -> None:
        self.twin, self.images = twin, images

    def prepare(self, x: Tensor) -> None:
        """Make the layer, with the weights of ours and a converged estimate of their norms, on the device of x."""
        import normflows
        from normflows.nets.lipschitz import LipschitzCNN, LipschitzMLP

        self.twin.prepare(x)
        ours = self.twin.layer.branch.layers
        kernels = [layer.kernel().detach() for layer in ours]
        channels = [kernels[0].shape[1], *(kernel.shape[0] for kernel in kernels)]
        if self.images:
            network = LipschitzCNN(channels, [3, 3], lipschitz_const=LAYER_BOUND)
        else:
            network = LipschitzMLP(channels, lipschitz_const=LAYER_BOUND)
        network.net = network.net[1:]
        self.layer = normflows.flows.Residual(network).to(x.device)
        with torch.no_grad():
            self.layer.inverse(x[:2])  # convolutions learn the size of the image at the first call
            for layer, kernel, twin in zip(network.net[::2], kernels, ours, strict=True):
                layer.weight.copy_(kernel)
                at_zero = twin(x.new_zeros(twin.action_in.event_shape))
                layer.bias.copy_(at_zero.flatten(1)[:, 0] if self.images else at_zero)
            slope = 1 / self.twin.layer.branch.hidden_scale  # ours is s * swish(x / s) with the slope 1
            network.net[1].beta.fill_(math.log(math.expm1(slope)))
        self.update = functools.partial(normflows.utils.update_lipschitz, self.layer)
        self.update(200)
        with torch.no_grad():
            torch.testing.assert_close(self.value(x[:2]), self.twin.value(x[:2]), rtol=1e-3, atol=1e-3)

    @property
    def module(self) -> nn.Module:
        """All parameters."""
        return self.layer

    def score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From data to base."""
        return self.layer.inverse(x)

    def value(self, x: Tensor) -> Tensor:
        """From data to base, without the log-det."""
        return self.layer.iresblock(x)

    def invert(self, z: Tensor) -> Tensor:
        """From base to data, the direction that is solved for, without the log-det."""
        return self.layer.iresblock.inverse(z)

    def after_step(self) -> None:
        """Five steps of the power iteration, as its documentation has it."""
        self.update(5)


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


def _network(action: LinearAction, width: int) -> Callable[[], Ours]:
    """Our layer with the network of normflows: one hidden layer of LipSwish."""

    def branch(action: LinearAction) -> LipschitzNetwork:
        return LipschitzNetwork(action, width=width, depth=1, bound=BOUND, activation="lipswish")

    return lambda: Ours(lambda: g_residual(action, branch=branch))


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
    "branch 'as it comes' is the default one, with the bound 0.99"
)


def _vectors(d: int, action: LinearAction, hidden: int, limit: float) -> list[Contest]:
    order, batch = action.group.order, 256
    plain = VectorAction.trivial("C1", copies=d)
    ours: dict[str, Callable[[], Ours]] = {
        f"ours, {action.group.name}": _network(action, hidden // order),
        "ours, C1": _network(plain, hidden),
        DEFAULT: lambda: Ours(lambda: g_residual(action)),
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
    family: str, size: str, ours: Mapping[str, Callable[[], Ours]], shape: tuple[int, ...], limit: float
) -> list[Contest]:
    images = len(shape) > 2
    twins = {mine: _peer(mine) for mine in ours if mine != DEFAULT}
    peers = {peer: functools.partial(_normflows, ours[mine], images) for mine, peer in twins.items()}
    limits = {(mine, twins.get(mine, twins["ours, C1"])): limit for mine in ours}
    return [
        Contest(
            family,
            task,
            size,
            {name: _maker(make, task, shape) for name, make in ours.items()},
            {name: _maker(make, task, shape) for name, make in peers.items()},
            limits=limits if task == "training step" else {},
            facts={name: dict.fromkeys(twins.items(), one) for name, one in _FACTS[task].items()},
            notes={**dict.fromkeys(list(peers)[:1], _NOTE), "ours": _OURS},
            rounds=9 if images else 15,
        )
        for task in TASKS
    ]


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
