import numpy as np
import pytest
import torch

from pyro_gflows.datasets import load_data
from pyro_gflows.targets import DENSITIES, ParticleTarget, SequentialMonteCarlo

OF_PARTICLES = sorted(name for name, target in DENSITIES.items() if isinstance(target, ParticleTarget))


@pytest.mark.parametrize("name", sorted(set(DENSITIES) - set(OF_PARTICLES)))
def test_a_density_trains_on_fresh_points_and_reports_on_others(name):
    data = load_data(name, seed=3)
    assert data.train is data.target is DENSITIES[name]
    assert data.test.shape == (200_000, 2) and data.event_shape == (2,)
    fresh = DENSITIES[name].sample(200_000, torch.Generator().manual_seed(3))
    assert not torch.equal(fresh, data.test)
    assert data.validation is None and data.symmetry == DENSITIES[name].symmetry


@pytest.mark.parametrize("name", OF_PARTICLES)
def test_particles_train_on_a_pool_and_report_on_other_draws(name, monkeypatch):
    target = DENSITIES[name]
    monkeypatch.setattr(target, "sampler", SequentialMonteCarlo(steps=2, final_sweeps=1))
    monkeypatch.setattr(target, "_drawn", None)
    data = load_data(name, seed=3)
    assert data.train is data.target is target and data.symmetry == str(target.action.group)
    assert data.test.shape == (20_000, target.n, target.d) and data.space == target.space == target.action.space
    assert not torch.equal(target(100, torch.Generator().manual_seed(0)), data.test[:100])
    assert data.validation is None and "events of shape" in repr(data)


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
