"""What the energies benchmark measures, on a density whose figures are known."""

import math

import pytest
import torch

from benchmarks.energies import TARGETS, measure, nearest
from pyro_gflows import Symmetrized, VectorAction
from pyro_gflows.distributions import InvariantNormal


@pytest.mark.parametrize("ratio", TARGETS)
def test_every_center_is_nearest_to_itself(ratio):
    target = TARGETS[ratio]
    assert target.radius / target.sd == pytest.approx(ratio, rel=1e-6)
    angles = torch.arange(8) * math.pi / 4 + 0.3
    assert nearest(torch.stack([angles.cos(), angles.sin()], -1)).tolist() == list(range(8))


@pytest.mark.parametrize("ratio", TARGETS)
def test_the_target_itself_has_perfect_figures(ratio):
    target = TARGETS[ratio]
    one = InvariantNormal(VectorAction.trivial("C1", copies=2), covariance="full", mean=True)
    with torch.no_grad():
        one.module.mean.coordinates.copy_(torch.tensor([target.radius, 0.0]))
        one.module.factor.log_diagonal.fill_(math.log(target.sd))
    figures = measure(Symmetrized(one, VectorAction.plane("C8")), target, seed=0, shrink=100)
    assert figures["ess"] == pytest.approx(1) and figures["kl"] == pytest.approx(0, abs=1e-5)
    assert figures["forward_kl"] == pytest.approx(0, abs=1e-5)
    assert figures["entropy"] == pytest.approx(target.floor, abs=0.3) and figures["worst_mode_weight"] < 0.15
