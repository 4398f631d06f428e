"""What switches a flow to evaluation leaves every one of its layers in the mode in which it was."""

import pytest
import torch

from pyro_gflows.actions import ImageAction
from pyro_gflows.datasets import GrayLevels
from pyro_gflows.evaluation import (
    energy_report,
    gap,
    group_log_probs,
    image_report,
    invariance_error,
    invariance_report,
    log_probs,
    nll,
    symmetrized_nll,
)
from pyro_gflows.flows import g_coupling_image_flow, g_dequantizer
from pyro_gflows.nn.modes import evaluating
from pyro_gflows.targets import EightGaussians
from pyro_gflows.training import FitSettings, OwnDraws, Validation, fit, fit_energy
from tests.small_flows import points, small_flow


def modes(module):
    return [part.training for part in module.modules()]


def image_flow():
    return g_coupling_image_flow(ImageAction("C4", size=4), scales=1, blocks=1, width=2)


def seeded():
    return torch.Generator().manual_seed(0)


X = points(40)
LEVELS = GrayLevels(17)

SCORES = {
    "log_probs": lambda flow: log_probs(flow, X),
    "nll": lambda flow: nll(flow, X),
    "gap": lambda flow: gap(flow, EightGaussians(), n=50, generator=seeded()),
    "group_log_probs": lambda flow: group_log_probs(flow, X, flow.action),
    "symmetrized_nll": lambda flow: symmetrized_nll(flow, X, flow.action),
    "invariance_error": lambda flow: invariance_error(flow, X, flow.action),
    "invariance_report": lambda flow: invariance_report(flow, X, flow.action),
    "energy_report": lambda flow: energy_report(flow, lambda x: -x.square().sum(-1), draws=20, samples=X),
    "own draws": lambda flow: OwnDraws(flow, lambda x: -x.square().sum(-1), pool=50)(5, seeded()),
}


def mixed(flow, whole):
    """A flow in the one mode, and some of its parts, large and small, in the other."""
    flow.train(whole)
    flow.transforms[0].train(not whole)
    list(flow.modules())[-1].train(not whole)
    return flow


@pytest.mark.parametrize("whole", [True, False], ids=["in training", "in evaluation"])
@pytest.mark.parametrize("name", SCORES)
def test_scores_leave_every_layer_in_its_own_mode(name, whole):
    flow = mixed(small_flow(), whole)
    before = modes(flow)
    assert len(set(before)) == 2
    SCORES[name](flow)
    assert modes(flow) == before


@pytest.mark.parametrize("dequantized", [False, True])
@pytest.mark.parametrize("whole", [True, False], ids=["in training", "in evaluation"])
def test_the_report_on_images_leaves_every_layer_in_its_own_mode(whole, dequantized):
    flow = mixed(image_flow(), whole)
    noise = g_dequantizer(ImageAction("C4", size=4), LEVELS, width=2).train(not whole) if dequantized else None
    before = modes(flow), None if noise is None else modes(noise)
    images = LEVELS.dequantize(torch.randint(17, (3, 1, 4, 4)))
    image_report(flow, images, LEVELS, dequantizer=noise, draws=2)
    assert (modes(flow), None if noise is None else modes(noise)) == before


def test_a_score_that_fails_leaves_every_layer_in_its_own_mode():
    flow = mixed(small_flow(), True)
    before = modes(flow)
    with pytest.raises(ValueError, match="expected x of shape"):
        nll(flow, X[:, :1])
    assert modes(flow) == before


def test_all_layers_are_in_evaluation_inside():
    flow = mixed(small_flow(), False)
    with evaluating(flow):
        assert not any(modes(flow)) and not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_validation_leaves_a_layer_in_its_own_mode():
    flow, seen = small_flow(), []
    layer = flow.transforms[1]

    def sampler(n, generator):
        if len(seen) == 2:  # in the middle of training
            layer.eval()
        seen.append(layer.training)
        return points(n)

    fit(
        flow,
        sampler,
        validation=X,
        settings=FitSettings(steps=5, batch_size=16, validation=Validation(1)),
        progress=False,
    )
    assert all(seen[:2]) and len(seen) > 4 and not any(seen[2:])
    assert not any(modes(flow))  # a fitted flow is in evaluation


@pytest.mark.long
def test_a_fit_trains_all_of_a_flow_that_was_in_evaluation():
    flow, seen = small_flow().eval(), []

    def sampler(n, generator):
        seen.append(all(modes(flow)))
        return points(n)

    fit(flow, sampler, settings=FitSettings(steps=3, batch_size=16), progress=False)
    assert all(seen[1:]) and len(seen) > 2
    fit_energy(flow, lambda x: -x.square().sum(-1), settings=FitSettings(steps=1, batch_size=8), progress=False)
    assert not any(modes(flow))
