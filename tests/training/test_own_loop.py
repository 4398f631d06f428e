"""A loop of the user's own with DistributedDataParallel: gradients agree across ranks, and are the whole batch's.

A call that goes past the forward of the wrapped module is not synchronized, which is what these gradients can show.
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


@pytest.fixture(name="ranks", scope="module")
def _ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, str(Path(__file__).with_name("own_loop.py")), str(folder)]
    other = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    first = gradients(folder, 0)
    _, errors = other.communicate(timeout=60)
    assert other.returncode == 0, errors[-3000:]
    return [first, torch.load(folder / "rank1.pt")]


def whole(objective, *batch):
    return gradient(objective, objective(*batch))


def test_the_likelihood(ranks):
    expected = whole(Likelihood(ready_flow()), DATA)
    for name in ("likelihood", "likelihood again"):
        assert torch.equal(ranks[0][name], ranks[1][name])
        torch.testing.assert_close(ranks[0][name], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["past the module", "past forward"])
def test_a_call_past_forward_is_not_synchronized(ranks, name):
    assert not torch.allclose(ranks[0][name], ranks[1][name], rtol=1e-2)
    mean = (ranks[0][name] + ranks[1][name]) / 2
    torch.testing.assert_close(mean, ranks[0]["likelihood"], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "own"), [("functions", guide), ("module", ModuleGuide())])
def test_the_elbo(ranks, name, own):
    objective = ELBO(model, own, args=(X,))
    pyro.set_rng_seed(0)
    expected = whole(objective, (X,))
    assert torch.equal(ranks[0][f"elbo of {name}"], ranks[1][f"elbo of {name}"])
    torch.testing.assert_close(ranks[0][f"elbo of {name}"], expected, rtol=1e-10, atol=1e-10)
    past = [rank[f"past the elbo of {name}"] for rank in ranks]
    assert not torch.allclose(*past, rtol=1e-2)


def test_an_energy_averages_the_draws_of_all_ranks(ranks):
    assert torch.equal(ranks[0]["energy"], ranks[1]["energy"])
    parts = []
    for rank in range(2):
        objective = Energy(ready_flow(), square, settings=FitSettings(batch_size=8))
        torch.manual_seed(rank)
        parts.append(whole(objective, None, 0))
    torch.testing.assert_close(ranks[0]["energy"], (parts[0] + parts[1]) / 2, rtol=1e-10, atol=1e-10)
