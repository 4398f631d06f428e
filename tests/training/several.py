"""Runs of several processes for the tests: small fits, and what every process has to say about them afterwards.

``python several.py NAME FOLDER`` is a script as a user writes one: Lightning starts it once more for every further
process, or torchrun starts them all. The first process writes ``FOLDER/NAME.json``.
"""

import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pyro_gflows import EquivariantFlow, FitSettings, GActNorm, InvariantNormal, VectorAction, fit, fit_energy
from pyro_gflows.nn import LipschitzNetwork
from pyro_gflows.numerics import RouletteLogDet
from pyro_gflows.targets import density
from pyro_gflows.training import Adam, Devices, FitDiverged, Objective, OwnDraws, Validation
from pyro_gflows.training.engines.devices import launch
from pyro_gflows.training.trainer import Trainer
from pyro_gflows.transforms import g_coupling, g_residual

FIELDS, PLANE = VectorAction.regular("C4", copies=2), VectorAction.plane("D4")
SETTINGS = FitSettings(
    steps=24, batch_size=33, optimizer=Adam(lr=1e-2), validation=Validation(every=6), ema_decay=0.9, checkpoint_every=7
)


def coupling():
    torch.manual_seed(3)
    layers = [g_coupling(FIELDS, width=4), GActNorm(FIELDS), g_coupling(FIELDS, width=4)]
    return EquivariantFlow(InvariantNormal(FIELDS), layers).double()


def residual():
    torch.manual_seed(4)
    layers = [GActNorm(FIELDS), g_residual(FIELDS), g_residual(FIELDS, branch=lambda a: LipschitzNetwork(a, width=2))]
    return EquivariantFlow(InvariantNormal(FIELDS), layers).double()


def estimated():
    """A flow whose log-det is estimated by random draws from torch's global generator."""
    torch.manual_seed(6)
    layers = [GActNorm(FIELDS), g_residual(FIELDS, log_det=RouletteLogDet())]
    return EquivariantFlow(InvariantNormal(FIELDS), layers).double()


def planar():
    torch.manual_seed(5)
    return EquivariantFlow(InvariantNormal(PLANE), [GActNorm(PLANE), g_residual(PLANE, fast="sample")]).double()


def events(rows=400):
    generator = torch.Generator().manual_seed(1)
    return 0.5 + 2 * torch.randn(rows, 8, generator=generator, dtype=torch.float64)


def train(flow, devices, **options):
    options = {"settings": SETTINGS, "validation": events(1900)[400:], "progress": False, **options}
    data = options.pop("data", None)
    return fit(flow, events() if data is None else data, devices=devices, **options)


def energy(flow, devices):
    settings = FitSettings(steps=20, batch_size=32, optimizer=Adam(lr=3e-2))
    return fit_energy(flow, lambda x: -x.square().sum(-1), settings=settings, devices=devices, progress=False)


def error_of(call):
    try:
        call()
    except (ValueError, FitDiverged, KeyboardInterrupt) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def everyones(value):
    """The values of all processes, in the order of their ranks."""
    values = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def weights(flow):
    return {name: tensor.tolist() for name, tensor in flow.state_dict().items()}


def interrupt_at(step):
    """A callback that sends Ctrl-C to the process that calls it."""
    return lambda now, losses, flow: os.kill(os.getpid(), signal.SIGINT) if now == step else None


def noisy(x, generator):
    return x + 0.1 * torch.randn(x.shape, generator=generator, dtype=x.dtype)


class Endless(IterableDataset):
    """A stream that is the same in every process."""

    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        while True:
            yield torch.randn(8, generator=generator, dtype=torch.float64)


class Counting:
    """A callback that counts its calls and asks to stop at one step."""

    def __init__(self, stop_at):
        self.calls, self.stop_at = 0, stop_at

    def __call__(self, step, losses, flow):
        self.calls += 1
        return step == self.stop_at


def curves(folder, devices):
    found = {}
    for name, make in (("coupling", coupling), ("residual", residual)):
        flow = make()
        result = train(flow, devices)
        found[name] = {
            "train": result.train_curve,
            "validation": result.validation_curve,
            "final": result.validation_nll,
            "weights": everyones(weights(flow)),
        }
    return found


def answers(folder, devices):
    """What each process finds in turn: equal weights, errors and stops of all together."""
    found = {}
    flow = planar()
    report = energy(flow, devices)
    found["energy"] = {"ess": report.ess, "weights": everyones(weights(flow))}

    rank = torch.distributed.get_rank()
    drawn = []
    flow, target = planar(), density("8gaussians")

    def sampler(n, generator):
        x = target(n, generator)
        drawn.append(x.sum().item())
        return x

    settings = FitSettings(steps=5, batch_size=7)
    train(flow, devices, data=sampler, validation=None, settings=settings)
    found["sampler"] = {"drawn": everyones(drawn), "weights": everyones(weights(flow))}
    flow = planar()
    draws = OwnDraws(flow, lambda x: -x.square().sum(-1), pool=200, batches=2)
    found["own draws"] = train(flow, devices, data=draws, validation=None, settings=settings).steps

    counting = Counting(stop_at=4)
    result = train(coupling(), devices, callbacks=counting)
    found["callbacks"] = everyones([counting.calls, result.steps, result.stopped_early])
    other = events() + rank
    found["other data"] = everyones(error_of(lambda: train(coupling(), devices, data=other)))
    wild = FitSettings(steps=9, batch_size=16, optimizer=Adam(lr=1e9))
    flow = coupling()
    diverged = error_of(lambda: train(flow, devices, settings=wild, validation=None))
    found["diverged"] = everyones([diverged, weights(flow)])
    few = FitSettings(steps=1, batch_size=1)
    found["few rows"] = everyones(error_of(lambda: train(coupling(), devices, settings=few)))
    loader = DataLoader(Endless(), batch_size=16)
    found["loader"] = everyones(error_of(lambda: train(coupling(), devices, data=loader)))
    plain = DataLoader(TensorDataset(events()), batch_size=16, shuffle=True)
    found["plain loader"] = everyones(error_of(lambda: train(coupling(), devices, data=plain)))
    found["buffers"] = launch(devices, buffers_of_a_running_mean, module=torch.nn.Identity())
    return found


class Regression(Objective):
    """A network of the user with running means, on events that differ between processes."""

    def batch(self, step):
        return torch.randn(8, 3) + self.share.rank

    def forward(self, batch, step):
        return self.module(batch).square().mean()


def buffers_of_a_running_mean(engine):
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    trainer = Trainer(Regression(network), settings=FitSettings(steps=5), engine=engine)
    trainer.start()
    for _ in range(5):
        trainer.step()
    before = everyones(weights(network))
    trainer.finish()
    return [before, everyones(weights(network))]


def stops(folder, devices):
    """A run that Ctrl-C stops in one process and that goes on, beside the same run without a stop."""
    found = {}
    for name, make, augment in (("plain", coupling, None), ("random", estimated, noisy)):
        whole = make()
        result = train(whole, devices, augment=augment)
        stopped = make()
        place = folder / name
        options = {"augment": augment, "folder": place, "callbacks": interrupt_at(13)}
        message = error_of(lambda flow=stopped, options=options: train(flow, devices, **options))
        resumed = make()
        again = train(resumed, devices, augment=augment, folder=place, resume=True)
        found[name] = {
            "message": everyones(message),
            "curves": [result.train_curve, again.train_curve],
            "weights": [everyones(weights(whole)), everyones(weights(resumed))],
        }
    return found


def dies_at(step, rank, folder):
    """An augmentation that changes nothing, in whose n-th call one process is killed, as by the system."""
    calls = []

    def augment(x, generator):
        calls.append(1)
        if len(calls) == step and torch.distributed.get_rank() == rank:
            (folder / "end").write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    return augment


def killed(folder, devices):
    train(coupling(), devices, folder=folder / "run", augment=dies_at(16, 1, folder))


def resumed(folder, devices):
    flow, unbroken = coupling(), coupling()
    again = train(flow, devices, folder=folder / "run", resume=True, augment=dies_at(0, 1, folder))
    result = train(unbroken, devices)
    return {
        "curves": [again.train_curve, result.train_curve],
        "weights": [everyones(weights(flow)), everyones(weights(unbroken))],
    }


def failing(folder, devices):
    """A run whose second process fails."""

    def sampler(n, generator):
        if torch.distributed.get_rank() == 1:
            (folder / "end").write_text(str(time.time()))
            raise LookupError("no such shelf")
        return torch.randn(n, 8, generator=generator, dtype=torch.float64)

    train(coupling(), devices, data=sampler, validation=None)


def returned(folder, devices):
    """The fit alone is in other processes: what it returns and trains is here afterwards."""
    flow = coupling()
    result = train(flow, devices)
    wild = FitSettings(steps=9, batch_size=16, optimizer=Adam(lr=1e9))
    again = coupling() if devices.strategy == "ddp_fork" else flow  # to spawn takes twice as long
    diverged = "" if again is flow else error_of(lambda: train(again, devices, settings=wild, validation=None))
    dtypes = []
    if devices.strategy == "ddp_fork":
        single = coupling().float()
        train(single, dataclasses.replace(devices, precision="64-true"), settings=FitSettings(steps=1))
        dtypes = [str(weight.dtype) for weight in single.parameters()]
    return {"train": result.train_curve, "weights": weights(flow), "diverged": diverged, "dtypes": sorted({*dtypes})}


def main(name, folder, strategy="ddp"):
    devices = "auto" if strategy == "torchrun" else Devices(2, strategy=strategy, accelerator="cpu")
    found = globals()[name](Path(folder), devices)
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        (Path(folder) / f"{name}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
