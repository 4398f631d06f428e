"""Gradients of objectives in DistributedDataParallel, on two processes; python own_loop.py FOLDER is the second."""

import sys
import warnings
from datetime import timedelta
from pathlib import Path

import pyro
import torch
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[2]))

from pyro_gflows.training import ELBO, Energy, FitSettings, Likelihood
from tests.small_flows import points, small_flow
from tests.training.test_elbo import ModuleGuide, X, guide, model

DATA = points(64)


def ready_flow(seed=0):
    """A flow whose layers were set from data, as a user's own loop has to do first."""
    flow = small_flow(seed=seed)
    flow.initialize(DATA)
    return flow.train()


def gradient(module, loss):
    module.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def square(x):
    return -x.square().sum(-1)


def gradients(folder, rank):
    """What this rank finds, and the other one at the same time."""
    where, limit = f"file://{folder / 'meet'}", timedelta(seconds=90)
    torch.distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=2, timeout=limit)
    try:
        return _gradients(rank)
    finally:
        torch.distributed.destroy_process_group()


def _gradients(rank):
    part, rows, found = DATA[rank::2], X[rank::2], {}

    # the weights of the second process are others until DistributedDataParallel gives it those of the first
    likelihood = DistributedDataParallel(Likelihood(ready_flow(seed=rank)))
    found["likelihood"] = gradient(likelihood, likelihood(part))
    found["past the module"] = gradient(likelihood, -likelihood.module.flow(part).mean())
    found["past forward"] = gradient(likelihood, likelihood.module(part))
    found["likelihood again"] = gradient(likelihood, likelihood(part))

    for name, own in (("functions", guide), ("module", ModuleGuide())):
        elbo = DistributedDataParallel(ELBO(model, own, args=(rows,)))
        pyro.set_rng_seed(0)  # the same draw of the guide, so that the mean of the halves is the loss of the whole
        found[f"elbo of {name}"] = gradient(elbo, elbo((rows,)))
        pyro.set_rng_seed(0)
        found[f"past the elbo of {name}"] = gradient(elbo, elbo.module((rows,)))

    energy = DistributedDataParallel(Energy(ready_flow(), square, settings=FitSettings(batch_size=8)))
    torch.manual_seed(rank)
    found["energy"] = gradient(energy, energy(None, 0))
    return found


if __name__ == "__main__":
    warnings.simplefilter("error")
    torch.save(gradients(Path(sys.argv[1]), 1), Path(sys.argv[1]) / "rank1.pt")
