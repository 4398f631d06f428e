"""Runs that are taken up again: the state of what feeds them, and how another run is told apart."""

import copy
import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
from pyro_gflows.training import AlphaMixing, FitSettings, ForwardKL, OwnDraws, fit, fit_energy, random_elements
from pyro_gflows.training.checkpoint import CHECKPOINT
from tests.small_flows import points, small_flow

pytestmark = pytest.mark.usefixtures("on_both_engines")

ACTION = VectorAction.plane("D4")
SETTINGS = FitSettings(steps=12, batch_size=32, seed=4, checkpoint_every=5)


def ring(x):
    return -(x.norm(dim=-1) - 1).square() / 0.02


def wider_ring(x):
    return -(x.norm(dim=-1) - 2).square() / 0.02


def start(kind="small"):
    if kind == "small":
        return small_flow()
    return EquivariantFlow(InvariantNormal(ACTION), [GActNorm(ACTION)]).double()


class Noisy(Dataset):
    """Items with noise of their own, from torch's generator."""

    def __len__(self):
        return 100

    def __getitem__(self, row):
        return points(100)[row] + 0.1 * torch.randn(2).double(), row


class Chain:
    """A random walk: the next events depend on those before."""

    def __init__(self):
        self.x = torch.zeros(2, dtype=torch.float64)

    def __call__(self, n, generator):
        steps = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        walk = self.x + steps.cumsum(0)
        self.x = 0.5 * walk[-1]
        return walk


class ChainWithState(Chain):
    def state(self):
        return {"x": self.x}

    def restore(self, state):
        self.x = state["x"]


def weighted():
    return WeightedRandomSampler(torch.linspace(0.1, 1, 600).tolist(), 100)


SOURCES = {
    "own draws": lambda flow: OwnDraws(flow, ring, pool=300, batches=4),
    "own draws, every batch a pool": lambda flow: OwnDraws(flow, ring, pool=300, batches=1),
    "own draws, one pool": lambda flow: OwnDraws(flow, ring, pool=300, batches=100),
    "a sampler with state": lambda flow: ChainWithState(),
    "a sampler of torch's generator": lambda flow: lambda n, generator: torch.randn(n, 2).double(),
    "a sampler of the flow": lambda flow: lambda n, generator: 2 * flow.dist.sample((n,)),
    "a data set": lambda flow: TensorDataset(points()),
    "a data set with noise": lambda flow: Noisy(),
    "a loader": lambda flow: DataLoader(TensorDataset(points()), batch_size=50, shuffle=True),
    "a loader with a generator": lambda flow: DataLoader(
        TensorDataset(points()), batch_size=64, shuffle=True, generator=torch.Generator().manual_seed(9)
    ),
    "a loader with weights and noise": lambda flow: DataLoader(Noisy(), batch_size=16, shuffle=True),
    "a loader with a sampler": lambda flow: DataLoader(TensorDataset(points()), batch_size=30, sampler=weighted()),
    "an array": lambda flow: points().numpy(),
}


class Stop(Exception):
    pass


def run(make, *, folder=None, resume=False, stop_at=None, settings=SETTINGS, augment=None, kind="plain"):
    flow = start(kind)

    def stop(step, losses, flow):
        if step == stop_at:
            raise Stop

    fit(
        flow,
        make(flow),
        settings=settings,
        folder=folder,
        resume=resume,
        augment=augment,
        callbacks=stop,
        progress=False,
    )
    return torch.cat([p.detach().flatten() for p in flow.parameters()])


@pytest.mark.parametrize("stop_at", [1, 7])
@pytest.mark.parametrize("name", SOURCES)
def test_a_broken_run_ends_as_an_unbroken_one(name, stop_at, tmp_path):
    whole = run(SOURCES[name])
    with pytest.raises(Stop):
        run(SOURCES[name], folder=tmp_path, stop_at=stop_at)
    assert torch.equal(run(SOURCES[name], folder=tmp_path, resume=True), whole)


def test_a_sampler_with_a_hidden_state_is_named_and_not_resumed(tmp_path):
    with pytest.warns(UserWarning, match="cannot be resumed: the sampler .*Chain.* gave different events"):
        run(lambda flow: Chain(), folder=tmp_path)
    with pytest.raises(ValueError, match=r"cannot resume: the sampler .* state\(\)"):
        run(lambda flow: Chain(), folder=tmp_path, resume=True)
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="cannot resume: the sampler"):
        run(lambda flow: lambda n, g: torch.from_numpy(generator.normal(size=(n, 2))), folder=tmp_path, resume=True)
    run(lambda flow: Chain())  # without a folder there is nothing to resume


def shift(size):
    return lambda x, generator: x + size


def scaled(size):
    return lambda n, generator: size * torch.randn(n, 2, generator=generator, dtype=torch.float64)


def stored(flow):
    return points()


@pytest.mark.parametrize(
    ("first", "second", "augment", "other"),
    [
        (stored, stored, shift(0.1), shift(0.2)),
        (stored, stored, None, shift(0.2)),
        (stored, stored, shift(0.2), None),
        (stored, stored, random_elements(ACTION), random_elements(VectorAction.plane("C4"))),
        (lambda flow: scaled(1.0), lambda flow: scaled(1.1), None, None),
        (
            lambda flow: OwnDraws(flow, lambda x: ring(x)),
            lambda flow: OwnDraws(flow, lambda x: wider_ring(x)),
            None,
            None,
        ),
        (
            lambda flow: DataLoader(TensorDataset(points()), batch_size=50),
            lambda flow: DataLoader(TensorDataset(points(seed=1)), batch_size=50),
            None,
            None,
        ),
        (lambda flow: points().numpy(), lambda flow: points().numpy() + 1e-3, None, None),
    ],
)
def test_another_augmentation_or_sampler_of_the_same_name_is_refused(first, second, augment, other, tmp_path):
    run(first, folder=tmp_path, augment=augment)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(ValueError, match=r"cannot resume"):
        run(second, folder=tmp_path, augment=other, resume=True)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    run(first, folder=tmp_path, augment=augment, resume=True)


def test_the_same_values_in_another_form_are_the_same_data(tmp_path):
    first = run(lambda flow: points(), folder=tmp_path)
    for form in (lambda flow: points().numpy(), lambda flow: TensorDataset(points())):
        assert torch.equal(run(form, folder=tmp_path, resume=True), first)


def test_an_augmentation_that_no_generator_decides_is_left_out_with_a_note(tmp_path):
    generator = np.random.default_rng(0)

    def augment(x, _):
        return x + torch.from_numpy(generator.normal(size=tuple(x.shape)))

    run(stored, folder=tmp_path, augment=augment)
    with pytest.warns(UserWarning, match="first batch is left out"):
        run(stored, folder=tmp_path, augment=augment, resume=True)


# -- to an energy ------------------------------------------------------------------------------------------------------
def energy_run(log_density, folder, *, resume=False, mixing=None, annealing=None):
    settings = FitSettings(steps=4, batch_size=16)
    torch.manual_seed(0)
    options = {"mixing": mixing, "annealing": annealing, "settings": settings}
    return fit_energy(start("plain"), log_density, folder=folder, resume=resume, progress=False, **options)


def proposal(scale):
    return AlphaMixing(dist.Normal(torch.zeros(2).double(), scale).to_event(1))


CORNER = torch.tensor([2.0, 2.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"log_density": lambda x: ring(x)}, {"log_density": lambda x: wider_ring(x)}),
        ({"mixing": proposal(2.0)}, {"mixing": proposal(3.0)}),
        ({"mixing": ForwardKL(CORNER[None])}, {"mixing": ForwardKL(2 * CORNER[None])}),
        ({"mixing": ForwardKL(CORNER[None], lambda done: 0.5)}, {"mixing": ForwardKL(CORNER[None], lambda done: 0.4)}),
        ({"annealing": lambda done: 0.5 + done / 2}, {"annealing": lambda done: 0.4 + done / 2}),
    ],
)
def test_another_energy_mixing_or_annealing_of_the_same_name_is_refused(first, second, tmp_path):
    energy_run(**{"log_density": ring, **first}, folder=tmp_path)
    with pytest.raises(ValueError, match="cannot resume from .* other"):
        energy_run(**{"log_density": ring, **second}, folder=tmp_path, resume=True)
    energy_run(**{"log_density": ring, **copy.copy(first)}, folder=tmp_path, resume=True)


def test_a_log_density_that_is_noisy_or_undefined_somewhere_is_left_out_with_a_note(tmp_path):
    calls = 0

    def noisy(x):
        nonlocal calls
        calls += 1
        return ring(x) + calls

    for resume in (False, True):
        with (
            pytest.warns(UserWarning, match="no report: log_density changes by"),
            pytest.warns(UserWarning, match="log-density is left out .* different values"),
        ):
            energy_run(noisy, tmp_path, resume=resume)

    def picky(x):
        if len(x) == 8:
            raise RuntimeError("no such points")
        return ring(x)

    with pytest.warns(UserWarning, match="log-density is left out .*RuntimeError: no such points"):
        energy_run(picky, tmp_path)


def test_infinite_log_densities_are_compared_too(tmp_path):
    def half(sign):
        return lambda x: torch.where(sign * x[..., 0] > 0, ring(x), ring(x) - math.inf)

    def go(sign, *, resume=False):
        flow = start("plain")
        draws = OwnDraws(flow, half(sign), pool=300)
        fit(flow, draws, settings=SETTINGS, folder=tmp_path, resume=resume, progress=False)

    go(1)
    go(1, resume=True)
    with pytest.raises(ValueError, match="other sampler"):
        go(-1, resume=True)
