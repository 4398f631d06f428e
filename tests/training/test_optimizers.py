"""Every optimizer class of torch, its state in checkpoints, and its settings."""

import dataclasses
import functools

import pyro
import pytest
import torch
from pyro.optim.clipped_adam import ClippedAdam
from torch import nn

from pyro_gflows.training import Adam, Constant, FitSettings, TorchOptimizer, fit
from pyro_gflows.training.average import MovingAverage
from tests.small_flows import points, small_flow

FUSED = Adam().make([nn.Parameter(torch.zeros(2))]).defaults["fused"]

# need a closure, sparse gradients, or matrices alone
OTHERS = {"LBFGS", "SparseAdam", "Muon"}
CLASSES = [
    kind
    for kind in vars(torch.optim).values()
    if isinstance(kind, type)
    and issubclass(kind, torch.optim.Optimizer)
    and kind is not torch.optim.Optimizer
    and kind.__name__ not in OTHERS
] + [ClippedAdam]


def weights(flow):
    return torch.cat([p.detach().flatten().clone() for p in flow.parameters()])


def run(optimizer, *, steps=6, **options):
    flow = small_flow()
    settings = FitSettings(steps=steps, batch_size=64, optimizer=optimizer, schedule=Constant(), checkpoint_every=2)
    fit(flow, points(), settings=settings, progress=False, **options)
    return weights(flow)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
@pytest.mark.long
def test_every_class_trains_and_a_broken_run_ends_as_an_unbroken_one(kind, tmp_path):
    optimizer = TorchOptimizer(kind, lr=1e-3)
    whole = run(optimizer)

    def fails(step, losses, flow):
        if step == 5:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(optimizer, folder=tmp_path, callbacks=fails)
    assert torch.equal(run(optimizer, folder=tmp_path, resume=True), whole)
    with pytest.raises(ValueError, match="other settings.*optimizer"):
        run(dataclasses.replace(optimizer, lr=2e-3), folder=tmp_path, resume=True)


@pytest.mark.long
def test_a_class_alone_and_a_partial_are_taken():
    assert torch.equal(run(torch.optim.AdamW), run(TorchOptimizer(torch.optim.AdamW)))
    partial = functools.partial(torch.optim.SGD, lr=3e-3, momentum=0.5)
    assert torch.equal(run(partial), run(TorchOptimizer(torch.optim.SGD, lr=3e-3, options={"momentum": 0.5})))
    assert torch.equal(
        run(TorchOptimizer(torch.optim.Adam, lr=2e-2, clip_norm=5.0, options={"betas": (0.9, 0.99), "fused": FUSED})),
        run(Adam(lr=2e-2, clip_norm=5.0)),
    )


@pytest.mark.parametrize(
    ("optimizer", "error", "message"),
    [
        (torch.optim.Adam([nn.Parameter(torch.zeros(2))]), TypeError, "got Adam object, which holds parameters"),
        (pyro.optim.Adam({"lr": 1e-3}), TypeError, "expected optimizer=Adam.*, got PyroOptim"),
        ("adam", TypeError, "expected optimizer=Adam.*, got str"),
        (nn.Linear, TypeError, "got Linear"),
        (torch.optim.LBFGS, ValueError, "LBFGS, whose step needs a closure"),
    ],
)
def test_what_is_no_optimizer_class_is_named(optimizer, error, message):
    with pytest.raises(error, match=message):
        FitSettings(optimizer=optimizer)


def test_adam_is_fused_where_torch_has_it_and_takes_the_same_steps():
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    assert bool(FUSED) == (version >= (2, 4))
    assert not Adam().make([nn.Parameter(torch.zeros(2, dtype=torch.complex64))]).defaults["fused"]
    assert not Adam().make([nn.Parameter(torch.zeros(2, device="meta"))]).defaults["fused"]
    ours, plain = (nn.Parameter(torch.linspace(-1, 1, 5, dtype=torch.float64)) for _ in range(2))
    settings = Adam(lr=0.1, betas=(0.8, 0.9), weight_decay=0.3)
    first = settings.make([ours])
    second = torch.optim.Adam([plain], lr=0.1, betas=(0.8, 0.9), weight_decay=0.3, fused=False)
    for _ in range(5):
        for parameter, optimizer in ((ours, first), (plain, second)):
            optimizer.zero_grad()
            parameter.pow(4).sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-13)


def test_impossible_settings_of_a_class_are_refused():
    for options in ({"lr": 0.0}, {"clip_norm": -1.0}):
        with pytest.raises(ValueError, match="expected a positive"):
            TorchOptimizer(torch.optim.SGD, **options)
    with pytest.raises(TypeError, match="got Adam object"):
        TorchOptimizer(torch.optim.Adam([nn.Parameter(torch.zeros(2))]))
    with pytest.raises(TypeError, match="schedule such as OneCycle"):
        FitSettings(schedule=0.1)


def first_step(optimizer):
    """What one step adds to each weight, and the weights before it."""
    flow = small_flow()
    flow.initialize(points(64))
    before = weights(flow)
    settings = FitSettings(steps=1, batch_size=64, optimizer=optimizer, schedule=Constant())
    fit(flow, points(64), settings=settings, progress=False)  # one batch, so that initializing again changes nothing
    return weights(flow) - before, before


@pytest.mark.parametrize(
    "make", [Adam, lambda **o: TorchOptimizer(torch.optim.Adam, options={"weight_decay": o.pop("weight_decay")}, **o)]
)
def test_weight_decay_pulls_every_weight_towards_zero(make):
    """The penalty outweighs all gradients, and Adam's first step is lr against the sign of the gradient."""
    step, before = first_step(make(lr=1e-3, weight_decay=1e9, clip_norm=None))
    away = before.abs() > 1e-3
    assert away.sum() > 10
    torch.testing.assert_close(step[away], -1e-3 * before[away].sign(), atol=1e-9, rtol=1e-5)
    free, before = first_step(make(lr=1e-3, weight_decay=0.0, clip_norm=None))
    assert not torch.allclose(free[away], step[away], atol=1e-4)


def test_the_moving_average_is_that_of_its_definition():
    """m <- d m + (1 - d) w with d = min(decay, (1 + t) / (10 + t)), against plain numbers."""
    for decay in (0.5, 0.99):
        module = nn.Linear(1, 1, bias=False).double()
        values = [3.0, -1.0, 4.0, 1.5, -5.0, 9.0, 2.0, 6.0, 5.0, -3.5]
        with torch.no_grad():
            module.weight.fill_(values[0])
        average, expected = MovingAverage(module, decay), values[0]
        for step, value in enumerate(values[1:], start=1):
            with torch.no_grad():
                module.weight.fill_(value)
            average.update(step)
            rate = min(decay, (1 + step) / (10 + step))
            expected = rate * expected + (1 - rate) * value
            assert average.values["weight"].item() == pytest.approx(expected, abs=1e-12)


def test_the_returned_weights_are_the_average_of_those_of_the_steps():
    flow, seen = small_flow(), []
    settings = FitSettings(steps=12, batch_size=64, ema_decay=0.4)
    start = []

    def augment(x, generator):
        start.append(weights(flow))  # the second call is that of the first step, after the flow was initialized
        return x

    def watch(step, losses, flow):
        seen.append(weights(flow))

    fit(flow, points(), settings=settings, callbacks=watch, augment=augment, progress=False)
    expected = start[1]
    for step, value in enumerate(seen, start=1):
        rate = min(0.4, (1 + step) / (10 + step))
        expected = rate * expected + (1 - rate) * value
    torch.testing.assert_close(weights(flow), expected, atol=1e-12, rtol=0)
