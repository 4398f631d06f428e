"""Probes are signs: fixed ones are the same everywhere, inside torch.func too."""

import pytest
import torch

from pyro_gflows.numerics.probes import fixed_probes, random_probes


@pytest.mark.parametrize("like", [torch.float32, torch.float64])
def test_fixed_probes_depend_on_the_seed_alone(like):
    x = torch.zeros(5, dtype=like)
    probes = fixed_probes(64, (2, 3), seed=1, like=x)
    assert probes.shape == (64, 2, 3) and probes.dtype == like and torch.equal(probes.abs(), torch.ones_like(probes))
    assert abs(probes.mean()) < 5 / 384**0.5
    torch.manual_seed(7)
    assert torch.equal(fixed_probes(64, (2, 3), seed=1, like=x), probes)
    assert not torch.equal(fixed_probes(64, (2, 3), seed=2, like=x), probes)


def test_fixed_probes_are_the_same_inside_transforms():
    probes = fixed_probes(4, (3,), seed=0, like=torch.zeros(()))
    # vmap refuses random numbers by default
    mapped = torch.func.vmap(lambda x: x * fixed_probes(4, (3,), seed=0, like=x))(torch.ones(2))
    assert torch.equal(mapped, probes.expand(2, 4, 3))
    value, tangent = torch.func.jvp(
        lambda x: x * fixed_probes(4, (3,), seed=0, like=x), (torch.tensor(2.0),), (torch.tensor(1.0),)
    )
    assert torch.equal(value, 2 * probes) and torch.equal(tangent, probes)


def test_random_probes_are_signs_of_the_shape_and_dtype_of_x():
    x = torch.zeros(100, 4, dtype=torch.float64)
    probes = random_probes(x)
    assert probes.shape == x.shape and probes.dtype == x.dtype and torch.equal(probes.abs(), torch.ones_like(x))
    assert abs(probes.mean()) < 5 / 20 and not torch.equal(random_probes(x), probes)
