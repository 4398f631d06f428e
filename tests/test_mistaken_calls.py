"""Calls with a wrong kind of argument: the error says what was expected and what to write."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_gflows import GActNorm, GSigmoid, ImageAction, SitesAction, VectorAction, g_coupling_image_flow
from pyro_gflows.datasets import load_data
from pyro_gflows.evaluation import image_report
from pyro_gflows.guides import AutoGFlow, log_joint_invariance, orbit_representative
from pyro_gflows.plots import draw_images, plot_samples
from pyro_gflows.serialization import save
from pyro_gflows.spaces import Euclidean
from pyro_gflows.testing import assert_conditionally_invariant, assert_invariant, assert_layer
from pyro_gflows.testing.report import compare
from pyro_gflows.training import FitResult, fit, fit_energy
from tests.small_flows import small_flow

PLANE = VectorAction.plane("D4")


def mixture():
    scales = pyro.sample("scales", dist.HalfNormal(torch.ones(3)).to_event(1))
    pyro.sample("means", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(scales * torch.arange(3.0), 1.0).to_event(1), obs=torch.ones(3))


def test_the_report_on_a_model_names_the_sites_that_the_action_leaves_out():
    action = SitesAction("S3", {"scales": VectorAction.rows("S3")})
    report = log_joint_invariance(mixture, action, [{"scales": torch.rand(3), "means": torch.randn(3)}])
    assert "sites that are permuted together with these; not in the action: means" in str(report)
    both = SitesAction("S3", {"scales": VectorAction.rows("S3"), "means": VectorAction.rows("S3")})
    report = log_joint_invariance(mixture, both, [{"scales": torch.rand(3), "means": torch.randn(3)}])
    assert "not invariant" in str(report) and "not in the action" not in str(report)


def test_fit_energy_takes_the_flow_of_a_guide_and_the_log_density_of_its_arguments():
    guide = AutoGFlow(
        lambda: pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1)), SitesAction("D4", {"z": PLANE})
    )
    with pytest.raises(TypeError, match=r"write guide.log_density\(\*args\)"):
        fit_energy(guide.flow, guide.log_density, progress=False)
    with pytest.raises(TypeError, match=r"got AutoGFlow; pass guide.flow"):
        fit_energy(guide, guide.log_density(), progress=False)


def test_a_report_without_a_group_names_no_element():
    assert "at sample [1]" in str(compare(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]), None, Euclidean(())))


@pytest.mark.parametrize(
    ("x", "ending"),
    [(np.zeros((3, 2)), r"ndarray; convert it with torch.as_tensor\(x\)$"), ("a", "got str$"),
     (torch.zeros(3, 2, dtype=torch.int64), r"int64; convert it with .float\(\)$")],
)  # fmt: skip
def test_events_of_another_type_are_refused_with_the_conversion_that_they_have(x, ending):
    with pytest.raises(TypeError, match=ending):
        PLANE.check_event(x)


@pytest.mark.parametrize(("layer", "got"), [(GActNorm, "the class GActNorm"), ("GActNorm", "str")])
def test_assert_layer_asks_for_a_layer(layer, got):
    with pytest.raises(TypeError, match=f"expected a layer, .* got {got}"):
        assert_layer(layer, torch.randn(4, 2))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: save("folder", small_flow()), r"save\(flow, folder\) with an EquivariantFlow first, got str"),
        (lambda: save(small_flow().dist, "folder"), r"got FlowDistribution; .*not flow.dist"),
        (lambda: save(small_flow(), 3), "path of a folder, got int"),
        (lambda: assert_invariant(small_flow(), torch.randn(3, 2), PLANE), r"got Tensor; the order .*action, x\)"),
        (
            lambda: assert_conditionally_invariant(len, PLANE, "D4", torch.randn(3, 2), torch.randn(3, 2)),
            "expected context_action to be an Action .* got str",
        ),
        (lambda: orbit_representative(torch.randn(5, 3), PLANE), "mapping from site names to tensors, .* got Tensor"),
        (lambda: SitesAction("S3", ["means"]), "mapping from site names to actions, .* got list"),
    ],
)
def test_arguments_of_another_kind_are_refused_in_words(call, words):
    with pytest.raises(TypeError, match=words):
        call()


def test_a_group_of_another_space_is_refused_with_the_action_that_it_has():
    with pytest.raises(ValueError, match=r"; use VectorAction.plane\('SO\(2\)'\)$"):
        VectorAction.space("SO(2)")
    with pytest.raises(ValueError, match=r"; use VectorAction.space\('SO\(3\)'\)$"):
        VectorAction.plane("SO(3)")


def test_pictures_of_whole_levels_are_refused(tmp_path):
    levels = torch.randint(17, (4, 1, 4, 4))
    for call in (lambda: draw_images(None, levels), lambda: plot_samples(levels, levels, tmp_path / "a.png")):
        with pytest.raises(ValueError, match="pass the scaled images"):
            call()


def test_an_element_may_be_given_by_its_index_and_a_draw_by_its_count():
    x = torch.randn(5, 2)
    assert torch.equal(PLANE.act(1, x), PLANE.act(torch.tensor(1), x))
    sites = SitesAction("D4", {"x": PLANE})
    assert torch.equal(sites.act(3, {"x": x})["x"], PLANE.act(3, x))
    assert PLANE.sample(3).shape == (3,)
    with pytest.raises(ValueError, match="between 0 and 7, got 8"):
        PLANE.act(8, x)
    with pytest.raises(TypeError, match="as a tensor, got the index 1"):
        VectorAction.plane("SO(2)").act(1, x)


@pytest.mark.parametrize("name", ["sample", "log_prob"])
def test_a_flow_points_to_its_density(name):
    with pytest.raises(AttributeError, match=rf"use flow.dist.{name}\(...\)"):
        getattr(small_flow(), name)
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        _ = small_flow().other


def test_data_and_results_are_printed_by_their_sizes():
    assert repr(load_data("rings")).startswith("DataSet('rings', events of shape (2,), train: ")
    assert len(repr(load_data("rings"))) < 300
    result = FitResult(3, 1.0, None, True, [(1, 2.0)], [])
    assert repr(result) == "FitResult(3 steps in 1.0 s, validation NLL: none, stopped early)"


@pytest.mark.parametrize("preprocess", [GSigmoid(ImageAction("C4", size=8), (0.0, 1.0)), "logit"])
def test_preprocess_is_a_function_of_the_action(preprocess):
    with pytest.raises(TypeError, match="expected preprocess to be a function from the action"):
        g_coupling_image_flow(ImageAction("C4", size=8), preprocess=preprocess)


def test_more_scales_than_the_grid_has_are_refused_with_their_number():
    with pytest.raises(ValueError, match="8 x 8 allows at most 4 scales, got 5"):
        g_coupling_image_flow(ImageAction("C4", size=8), scales=5)


def test_an_augmentation_is_a_function():
    with pytest.raises(TypeError, match="expected augment to be a function .* got str"):
        fit(small_flow(), torch.randn(10, 2), augment="noise", progress=False)


def test_an_image_report_takes_the_scaling():
    flow = g_coupling_image_flow(ImageAction("C4", size=4), scales=1, blocks=1, width=2)
    with pytest.raises(TypeError, match=r"such as GrayLevels\(17\), got 17"):
        image_report(flow, torch.randn(6, 1, 4, 4), 17)
