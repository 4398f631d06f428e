"""A loop of the user's own with DistributedDataParallel: gradients agree across ranks, and are the whole batch's.

A call that goes past the forward of the wrapped module is not synchronized, which is what these gradients can show. One
start of a second process serves all of these checks, so they are one test (contract 53).
"""

import subprocess
import sys
from pathlib import Path

import pyro
import pytest
import torch

from pyro_gflows.training import ELBO, Energy, FitSettings, Likelihood
from tests.training.own_loop import DATA, gradient, gradients, ready_flow, square
from tests.training.test_elbo import ModuleGuide, X, guide, model

pytestmark = [pytest.mark.long, pytest.mark.all_cases]

SCRIPT = Path(__file__).with_name("own_loop.py")


def alike(ranks, name, expected):
    """Both ranks have the expected gradient, and exactly the same one."""
    assert torch.equal(ranks[0][name], ranks[1][name])
    torch.testing.assert_close(ranks[0][name], expected, rtol=1e-10, atol=1e-10)


def differ(ranks, name, mean):
    """The ranks have gradients of their own, of which the mean would be right."""
    assert not torch.allclose(ranks[0][name], ranks[1][name], rtol=1e-2)
    torch.testing.assert_close((ranks[0][name] + ranks[1][name]) / 2, mean, rtol=1e-10, atol=1e-10)


def test_gradients_agree_and_calls_past_forward_do_not(tmp_path):
    other = subprocess.Popen([sys.executable, str(SCRIPT), str(tmp_path)], stderr=subprocess.PIPE, text=True)
    first = gradients(tmp_path, 0)
    _, errors = other.communicate(timeout=180)
    assert other.returncode == 0, errors[-3000:]
    ranks = [first, torch.load(tmp_path / "rank1.pt")]

    likelihood = Likelihood(ready_flow())
    whole = gradient(likelihood, likelihood(DATA))
    alike(ranks, "likelihood", whole)
    differ(ranks, "past the module", whole)
    differ(ranks, "past forward", whole)
    alike(ranks, "likelihood again", whole)

    for name, own in (("functions", guide), ("module", ModuleGuide())):
        elbo = ELBO(model, own, args=(X,))
        pyro.set_rng_seed(0)
        whole = gradient(elbo, elbo((X,)))
        alike(ranks, f"elbo of {name}", whole)
        differ(ranks, f"past the elbo of {name}", whole)

    parts = []
    for rank in range(2):
        energy = Energy(ready_flow(), square, settings=FitSettings(batch_size=8))
        torch.manual_seed(rank)
        parts.append(gradient(energy, energy(None, 0)))
    alike(ranks, "energy", (parts[0] + parts[1]) / 2)
