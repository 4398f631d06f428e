"""Fits to configurations of particles: what the checks of the data say about the space of mean-free configurations."""

import warnings

import pytest
import torch

from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, ParticleAction
from pyro_gflows.datasets.support import off_support
from pyro_gflows.training import FitSettings, fit
from pyro_gflows.transforms import InCoordinates

ACTION = ParticleAction(4, 2)


def flow():
    return EquivariantFlow(InvariantNormal(ACTION), [InCoordinates(GActNorm(ACTION.coordinates), ACTION)])


def configurations(n=400):
    return 3 * torch.randn(n, 4, 2, generator=torch.Generator().manual_seed(0))


def test_mean_free_data_fill_their_space():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = fit(flow(), ACTION.space.project(configurations()), settings=FitSettings(steps=5), progress=False)
    assert result.steps == 5


def test_a_relation_within_the_space_is_found():
    x = ACTION.space.project(configurations())
    assert off_support(x, ACTION) == []
    on_a_line = x[..., :1].expand(-1, -1, 2)  # all particles on the diagonal of the plane
    assert "events of 6 coordinates lie in a flat subspace of dimension 3" in off_support(on_a_line, ACTION)[0]


@pytest.mark.parametrize("source", ["rows", "sampler"])
def test_data_outside_of_the_space_are_refused(source):
    data = configurations() if source == "rows" else (lambda n, generator=None: torch.randn(n, 4, 2) + 1)
    with pytest.raises(ValueError, match=r"expected events in MeanFree\(4 x 2\).*space.project"):
        fit(flow(), data, settings=FitSettings(steps=5), progress=False)


def test_a_few_rows_outside_of_the_space_are_found_before_the_first_step():
    """The first batch may miss them; all rows of a small set are looked at."""
    data = ACTION.space.project(configurations())
    data[390:394] += 1.0
    with pytest.raises(ValueError, match="got 4 of 400 events outside"):
        fit(flow(), data, settings=FitSettings(steps=5, batch_size=2), progress=False)
