import numpy as np
import pytest
import torch

from pyro_gflows.datasets import load_data
from pyro_gflows.targets import DENSITIES, ParticleTarget, Pool, SequentialMonteCarlo

OF_PARTICLES = sorted(name for name, target in DENSITIES.items() if isinstance(target, ParticleTarget))


@pytest.mark.parametrize("name", sorted(set(DENSITIES) - set(OF_PARTICLES)))
def test_a_density_trains_on_fresh_points_and_reports_on_others(name):
    data = load_data(name, seed=3)
    assert data.train is data.target is DENSITIES[name]
    assert data.test.shape == (200_000, 2) and data.event_shape == (2,)
    fresh = DENSITIES[name].sample(200_000, torch.Generator().manual_seed(3))
    assert not torch.equal(fresh, data.test)
    assert data.validation is None and data.symmetry == DENSITIES[name].symmetry


@pytest.fixture(params=OF_PARTICLES)
def particles(request, monkeypatch):
    """The name and the target of particles, with a quick sampler."""
    target = DENSITIES[request.param]
    monkeypatch.delenv("PYRO_GFLOWS_DATA", raising=False)
    monkeypatch.setattr(target, "sampler", SequentialMonteCarlo(steps=2, final_sweeps=1))
    monkeypatch.setattr(target, "pool", Pool(2000, progress=False))
    monkeypatch.setattr(target, "test_points", 1000)
    monkeypatch.setattr(target, "_drawn", None)
    return request.param, target


def test_particles_train_on_a_part_of_a_pool_and_report_on_other_draws(particles):
    name, target = particles
    data = load_data(name, seed=3, progress=False)
    assert data.target is target and data.symmetry == str(target.action.group)
    assert data.space == target.space == target.action.space and "events of shape" in repr(data)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [1800, 200, 1000]
    assert not (data.test[:, None] == target.pooled().x[None]).flatten(2).all(-1).any()
    assert torch.equal(torch.cat([data.validation, data.train]), target.pooled().x)
    other = load_data(name, seed=4, progress=False)
    assert torch.equal(other.train, data.train) and not torch.equal(other.test, data.test)


def test_draws_of_particles_are_kept_in_a_folder_that_is_named(particles, tmp_path, monkeypatch):
    name, target = particles
    first = load_data(name, folder=tmp_path, progress=False)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    monkeypatch.setattr(SequentialMonteCarlo, "_run", None)  # nothing can be drawn any more
    monkeypatch.setenv("PYRO_GFLOWS_DATA", str(tmp_path))
    again = load_data(name, progress=False)
    assert torch.equal(again.train, first.train) and torch.equal(again.test, first.test)
    monkeypatch.setattr(target, "sampler", SequentialMonteCarlo(steps=3, final_sweeps=1))
    with pytest.raises(ValueError, match="holds draws of another run"):
        load_data(name, progress=False)


def test_the_digits_know_their_scaling_and_symmetry():
    pytest.importorskip("sklearn")
    data = load_data("digits")
    assert isinstance(data.train, torch.Tensor) and data.validation is not None
    assert len(data.train) + len(data.validation) + len(data.test) == 1797
    assert data.symmetry == "C4" and data.scaling is not None and data.augment is not None
    fresh = data.augment(data.test, torch.Generator().manual_seed(0))
    assert torch.equal(data.scaling.quantize(fresh), data.scaling.quantize(data.test))


def test_a_file_is_split_into_disjoint_parts(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(200, dtype=np.float64).reshape(100, 2))
    data = load_data(str(tmp_path / "x.npy"))
    assert isinstance(data.train, torch.Tensor) and data.validation is not None
    rows = torch.cat([data.train, data.validation, data.test])
    assert (len(data.train), len(data.validation), len(data.test)) == (80, 10, 10)
    assert torch.equal(rows[:, 0].sort().values, torch.arange(0.0, 200.0, 2.0))


def test_unknown_data_are_refused():
    with pytest.raises(ValueError, match=r"unknown data 'ring'.*digits.*\.csv"):
        load_data("ring")
