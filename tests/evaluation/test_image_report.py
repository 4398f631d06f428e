import math

import pytest
import torch

from pyro_gflows import ImageAction, OffGridAction, g_coupling_image_flow
from pyro_gflows.datasets import GrayLevels
from pyro_gflows.evaluation import group_bits_per_dim, image_report, invariance_errors, nll, symmetrized_nll
from pyro_gflows.flows import DequantizedFlow, g_dequantizer
from pyro_gflows.groups import parse_group
from pyro_gflows.testing import randomize_
from pyro_gflows.training import FitSettings, fit

SCALING = GrayLevels(17, center=0.4, gain=3.0)


def flow_of(group="C4"):
    torch.manual_seed(0)
    flow = g_coupling_image_flow(ImageAction(group, size=4), scales=1, blocks=1, width=2, depth=1)
    return randomize_(flow, scale=0.05, generator=torch.Generator().manual_seed(1))


def images(n=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(17, (n, 1, 4, 4), generator=generator)
    levels[:, :, 0] = 0  # not symmetric
    return SCALING.dequantize(levels, generator)


def test_the_figures_are_those_of_their_definitions():
    flow, x, turns = flow_of("C1"), images(), ImageAction("C4", size=4)
    report = image_report(flow, x, SCALING, action=turns)
    assert report.bits_per_dim == pytest.approx(SCALING.bits_per_dim(nll(flow, x), pixels=16))
    assert report.group_bits_per_dim == pytest.approx(group_bits_per_dim(flow, x, turns, scaling=SCALING))
    symmetrized = SCALING.bits_per_dim(symmetrized_nll(flow, x, turns), pixels=16)
    assert report.symmetrized_bits_per_dim == pytest.approx(symmetrized)
    errors = invariance_errors(flow.double(), x.double(), turns)
    assert errors.shape == (4, 20)
    assert report.invariance_error == pytest.approx(float(errors.max()))
    assert report.mean_invariance_error == pytest.approx(float(errors.mean()))
    assert 0 < report.mean_invariance_error < report.invariance_error
    assert report.invariance_group == "C4"
    assert not {"importance_bits_per_dim", "seconds_per_step"} & report.known().keys()


def test_a_flow_with_the_symmetry_has_it_to_rounding_and_every_pose_costs_the_same():
    report = image_report(flow_of(), images(), SCALING)
    assert report.mean_invariance_error <= report.invariance_error < 1e-12
    assert report.group_bits_per_dim == pytest.approx(report.bits_per_dim, rel=1e-5)
    assert report.symmetrized_bits_per_dim == pytest.approx(report.bits_per_dim, rel=1e-5)


@pytest.mark.long
def test_with_a_dequantizer_bounds_of_the_levels():
    flow, x = flow_of(), images(60)
    dequantizer = randomize_(g_dequantizer(flow.action, SCALING, width=2), scale=0.05)
    result = fit(flow, x, settings=FitSettings(steps=2, check_symmetry=False), dequantize=dequantizer, progress=False)
    state = torch.get_rng_state()
    report = image_report(flow, x, SCALING, dequantizer=dequantizer, draws=50, result=result)
    assert torch.equal(torch.get_rng_state(), state)
    assert report == image_report(flow, x, SCALING, dequantizer=dequantizer, draws=50, result=result)
    assert report.importance_bits_per_dim < report.bits_per_dim - 0.01 and report.importance_draws == 50
    torch.manual_seed(0)
    assert report.bits_per_dim == pytest.approx(nll(DequantizedFlow(flow, dequantizer), x) / 16 / math.log(2))
    assert report.seconds_per_step == pytest.approx(result.seconds / 2)


def test_averages_are_over_the_exact_elements_alone():
    flow, x = flow_of("C4"), images()
    for group in ("C8", "SO(2)"):
        report = image_report(flow, x, SCALING, action=OffGridAction(group, 1, size=4))
        assert report.group_bits_per_dim == pytest.approx(
            report.bits_per_dim, rel=1e-5
        )  # every exact turn costs as much
        assert report.invariance_group == str(parse_group(group))
        assert 1e-3 < report.mean_invariance_error < report.invariance_error  # the others do not
