"""Runs of the Trainer on two processes, whose results a test reads: python two_processes.py FOLDER.

The Trainer starts this script once more for the second process.
"""

import logging
import sys
import warnings
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parents[2]))

warnings.simplefilter("error")
warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated", category=FutureWarning)
warnings.filterwarnings("ignore", message=".*does not have many workers")  # a loader without any is meant here
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

import lightning  # noqa: E402

from pyro_gflows.lightning import FlowModule  # noqa: E402
from pyro_gflows.numerics import RouletteLogDet  # noqa: E402
from pyro_gflows.training import Energy, FitDiverged, FitSettings  # noqa: E402
from tests.lightning.curves import QUIET, TRAIN, VALIDATION, Curve, trained  # noqa: E402
from tests.small_flows import points, small_flow  # noqa: E402

DDP = {"devices": 2, "strategy": "ddp"}


def weights(module):
    return torch.cat([weight.detach().flatten() for weight in module.parameters()])


def of_run(curve, flow):
    return {"train": curve.train, "validation": curve.validation, "rows": curve.rows, "weights": weights(flow)}


def nan_in_the_second_process(n, generator):
    events = points(n, seed=int(torch.randint(999, (1,), generator=generator)))
    calls.append(n)  # of the batch that sets the layers, both processes draw both parts
    return events * (float("nan") if len(calls) == 4 and torch.distributed.get_rank() == 1 else 1.0)


def log_density(x):
    seen.append(x.detach().clone())
    return -(x.square().sum(-1) - 2.0).square()


if __name__ == "__main__":
    folder, found, calls, seen = Path(sys.argv[1]), {}, [], []
    found["curve"] = of_run(*trained(curve=Curve(7, folder / "two.ckpt"), **DDP))
    noisy = folder / "noisy.ckpt"
    found["noisy"] = of_run(*trained(small_flow(log_det=RouletteLogDet()), curve=Curve(7, noisy), **DDP))
    found["resumed"] = of_run(*trained(small_flow(log_det=RouletteLogDet(), seed=3), checkpoint=noisy, **DDP))
    found["of one"] = of_run(*trained(checkpoint=folder / "one.ckpt", validation=VALIDATION[:10], **DDP))
    try:
        trained(data=nan_in_the_second_process, validation=None, **DDP)
    except FitDiverged as error:
        found["diverged"] = str(error)
    try:
        trained(data=DataLoader(TRAIN, batch_size=20, shuffle=True), validation=None, **DDP)
    except ValueError as error:
        found["same rows"] = str(error)
    settings = FitSettings(steps=3, batch_size=9)
    found["energy"] = of_run(*trained(Energy(small_flow(), log_density, settings=settings), data=None, **DDP))
    found["draws"] = seen
    flow, curve = small_flow(), Curve()
    options = {**QUIET, "enable_checkpointing": False, "max_steps": 3, "callbacks": [curve], **DDP}
    loader = DataLoader(TensorDataset(TRAIN[:120]), batch_size=20)  # to which Lightning gives a sampler of its own
    lightning.Trainer(**options).fit(FlowModule(flow, settings=settings), loader)
    found["loader"] = of_run(curve, flow)
    torch.save(found, folder / f"rank{torch.distributed.get_rank()}.pt")
