import re

import pytest
import torch

from pyro_gflows.actions import OffGridAction, ParticleAction, TorusAction
from pyro_gflows.datasets import EventFormat, load_data
from pyro_gflows.experiments.presets import DEMO, PRESETS, own_preset, preset_for
from pyro_gflows.flows.families import FAMILIES, build_action, build_flow
from pyro_gflows.spaces import Euclidean, MeanFree, Torus
from pyro_gflows.targets import DENSITIES

CLUSTERS = {"dw4": MeanFree(4, 2), "lj13": MeanFree(13, 3)}


@pytest.mark.parametrize(
    ("group", "shape"),
    [
        ("D8", (2,)),
        ("C3", (2,)),
        ("D13", (4,)),
        ("o(3)", (3,)),
        ("C4", (6,)),
        ("SO(2)", (2,)),
        ("O(3)", (3,)),
        ("C1", (5,)),
        ("D4", (1, 8, 8)),
        ("C1", (3, 4, 4)),
        ("S3", (3,)),
        ("S3", (6,)),
        ("c1", (5,)),
        ("d4", (1, 8, 8)),
    ],
)
def test_actions_fit_the_events(group, shape):
    assert build_action(group, shape).event_shape == shape


@pytest.mark.parametrize(
    ("group", "shape", "message"),
    [
        ("D8", (3,), "vectors of 2 components, got events of 3"),
        ("SO(3)", (4,), "vectors of 3 components, got events of 4"),
        ("C4", (8, 8), "expected events of shape"),
        ("S5", (6,), "no multiple of 5"),
        ("S3 x C2", (6,), "got S3 x C2"),
        ("translations", (6,), "shift the pixels of images"),
        ("S3", (1, 8, 8), "for images, got S3"),
    ],
)
def test_a_group_that_the_events_cannot_carry_is_refused(group, shape, message):
    with pytest.raises(ValueError, match=message):
        build_action(group, shape)


@pytest.mark.parametrize(("group", "angles"), [("C1", 3), ("D4", 2), ("C2", 2), ("S3", 3)])
def test_actions_on_angles(group, angles):
    action = build_action(group, Torus((angles,)))
    assert isinstance(action, TorusAction) and str(action.group) == group and action.numel == angles


@pytest.mark.parametrize(("group", "angles"), [("D4", 3), ("S3", 2), ("SO(2)", 2), ("D8", 2), ("translations", 2)])
def test_a_group_that_angles_cannot_carry_is_refused(group, angles):
    with pytest.raises(ValueError, match="D1, D2"):
        build_action(group, Torus((angles,)))


@pytest.mark.parametrize(("group", "shape"), [("D8", (1, 8, 8)), ("C4", (1, 8, 6)), ("SO(2)", (1, 8, 8))])
def test_a_group_that_a_grid_carries_only_partly_needs_a_soft_flow(group, shape):
    action = build_action(group, shape)
    assert isinstance(action, OffGridAction)
    with pytest.raises(ValueError, match="g_soft_coupling_image_flow"):
        build_flow("image-coupling", action, size={"blocks": 1, "width": 1})


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_scores_and_samples(name):
    preset = PRESETS[name]
    shape = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "rotated-mnist": (1, 28, 28)}.get(preset.data, (2,))
    shape = (3, 32, 32) if preset.data.startswith("cifar") else shape
    space = CLUSTERS.get(preset.data, Euclidean(shape))
    flow = build_flow(preset.flow, build_action(preset.group, space), size=preset.size)
    x = torch.randn(3, *space.event_shape, generator=torch.Generator().manual_seed(0))
    assert flow(space.project(x)).shape == (3,)


@pytest.mark.parametrize("name", ["dw4", "lj13"])
def test_clusters_have_a_preset_by_draws_and_one_by_energy(name):
    target = DENSITIES[name]
    by_draws, by_energy = PRESETS[name], PRESETS[f"{name}-energy"]
    assert preset_for(name) == by_draws and by_draws.by_energy is None and by_energy.by_energy is not None
    assert {preset.group for preset in (by_draws, by_energy)} == {str(target.action.group)}
    assert by_energy.settings.validation.patience is None and by_energy.by_energy.annealing(1.0) == 1.0
    assert build_action(by_draws.group, CLUSTERS[name]) == target.action


@pytest.mark.parametrize(
    ("group", "n", "d", "species", "position"),
    [
        ("S4 x O(2)", 4, 2, (4,), "O(2)"),
        ("s1 x S3 x so(3)", 4, 3, (1, 3), "SO(3)"),
        ("S2 x S2 x C6", 4, 2, (2, 2), "C6"),
        ("O(3)", 3, 3, (1, 1, 1), "O(3)"),
        ("S3", 3, 5, (3,), "C1"),
        ("C1", 3, 2, (1, 1, 1), "C1"),
    ],
)
@pytest.mark.parametrize("center", ["mean-free", "free"])
def test_actions_on_particles(group, n, d, species, position, center):
    space = MeanFree(n, d) if center == "mean-free" else Euclidean((n, d))
    expected = ParticleAction(species, d, group=position, center=center)
    assert build_action(group, space) == expected and expected.space == space


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("S3 x O(2)", "S4 x O(2) or S1 x S3 x O(2), got S3 x O(2)"),
        ("S4 x O(3)", "does not act on particles of 2 coordinates"),
        ("S4 x C2 x C3", "got S4 x C2 x C3"),
        ("translations", "got particles"),
    ],
)
def test_a_group_that_particles_cannot_carry_is_refused(group, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build_action(group, MeanFree(4, 2))


@pytest.mark.parametrize(
    ("group", "n", "flow"),
    [("S5 x O(3)", 5, "placement"), ("S2 x S3 x O(3)", 5, "pair-potential"), ("S5 x SO(3)", 5, "pair-potential"),
     ("S2 x O(3)", 2, "pair-potential"), ("S25 x O(3)", 25, "pair-potential")],
)  # fmt: skip
def test_own_particles_get_layers_for_particles(group, n, flow):
    form = EventFormat("particles", (n, 3))
    events = form.space.project(torch.randn(50, n, 3, generator=torch.Generator().manual_seed(0)))
    preset = own_preset(form, group=group, events=events)
    assert preset.flow == flow and own_preset(form, group=group).flow == "pair-potential"
    if flow == "placement":
        distances = torch.stack([torch.pdist(x) for x in events])
        assert preset.size["shortest"] < distances.min() and preset.size["longest"] > distances.max()
    made = build_flow(preset.flow, build_action(preset.group, form.space), size=preset.size)
    assert made.dist.sample((2,)).shape == (2, n, 3)


def test_own_particles_may_touch():
    form = EventFormat("particles", (4, 2))
    events = form.space.project(torch.randn(50, 4, 2, generator=torch.Generator().manual_seed(0)))
    events[0, 1] = events[0, 0]
    events = form.space.project(events)
    preset = own_preset(form, group="S4 x O(2)", events=events)
    assert 0 < preset.size["shortest"] < preset.size["longest"]
    assert build_flow(preset.flow, build_action(preset.group, form.space), size=preset.size)(events).isfinite().all()


def test_the_densities_presets_stay_within_their_budget():
    for name in ("8gaussians", "rings", "rings-radial"):
        preset = PRESETS[name]
        flow = build_flow(preset.flow, build_action(preset.group, (2,)), size=preset.size)
        assert sum(p.numel() for p in flow.parameters()) <= 2000


@pytest.mark.parametrize("name", ["torus-unimodal", "torus-multimodal", "torus-correlated", "torus-square"])
def test_the_presets_of_angles_are_flows_on_the_torus_within_their_budget(name):
    preset = PRESETS[name]
    flow = build_flow(preset.flow, build_action(preset.group, Torus((2,))), size=preset.size)
    assert isinstance(flow.action, TorusAction) and sum(p.numel() for p in flow.parameters()) <= 5000


@pytest.mark.parametrize("data", ["8gaussians", "rings", "checkerboard", "digits", "torus-square", "torus-unimodal"])
def test_known_data_have_a_preset_of_their_own_symmetry(data):
    preset = preset_for(data)
    assert preset.data == data and not preset.shortened
    assert preset.group == load_data(data).symmetry


def test_another_family_and_own_files_get_defaults():
    assert preset_for("8gaussians", flow="radial").flow == "radial"
    assert preset_for("mine.npy").name == "own"
    with pytest.raises(ValueError, match="unknown flow 'spline'"):
        build_flow("spline", build_action("C4", (2,)))
    assert set(FAMILIES) >= {"residual", "coupling", "radial"}
    assert preset_for("digits").logit is not None
    assert preset_for("digits", flow="radial").logit is None  # one scale takes the images as they are


@pytest.mark.parametrize(
    ("shape", "group", "scales"),
    [((8, 8), "C4", 2), ((28, 28), "D4", 3), ((3, 32, 32), "C1", 3), ((7, 7), "C4", 1), ((12, 8), "D2", 2)],
)
def test_own_images_get_a_recipe_that_their_grid_carries(shape, group, scales):
    form = EventFormat("images", shape)
    preset = own_preset(form, group=group)
    assert preset.flow == "image-coupling" and preset.size["scales"] == scales and preset.group == group
    assert preset.settings.optimizer.lr == 3e-4 if shape[-1] >= 28 else 3e-4 < preset.settings.optimizer.lr <= 3e-3
    flow = build_flow(preset.flow, build_action(group, form.event_shape), size={**preset.size, "width": 1, "blocks": 1})
    assert flow(torch.randn(2, *form.event_shape)).shape == (2,)
    assert own_preset(form, group=group, flow="image-residual").size["scales"] == scales


def test_own_sets_and_vectors_get_theirs():
    assert own_preset(EventFormat("sets", (5, 3)), group="S5").flow == "coupling"
    assert own_preset(EventFormat("sets", (5, 1)), group="S5").flow == "residual"
    assert own_preset(EventFormat("vectors", (2,)), group="C4").flow == "residual"


@pytest.mark.parametrize(
    ("angles", "group", "flow"),
    [(2, "D2", "coupling"), (2, "D4", "residual"), (3, "S3", "residual"), (1, "C1", "residual")],
)
def test_own_angles_get_a_flow_on_the_torus(angles, group, flow):
    form = EventFormat("angles", (angles,))
    preset = own_preset(form, group=group)
    assert preset.flow == flow
    made = build_flow(preset.flow, build_action(group, form.space), size=preset.size)
    x = torch.rand(3, angles)
    assert torch.allclose(made(x), made(x + 2 * torch.pi), atol=1e-4)


def test_a_recipe_for_other_data_keeps_to_the_symmetry_of_the_data():
    from argparse import Namespace

    from pyro_gflows.cli.recipes import recipe

    options = dict.fromkeys(["group", "flow", "augment", "steps", "batch_size", "lr", "more_steps"])
    arguments = Namespace(preset="rings", variational=False, seed=0, **options)
    chosen = recipe(arguments, load_data("checkerboard"))
    assert (chosen.name, chosen.group, chosen.data) == ("rings", "C2", "checkerboard")
    arguments.preset, arguments.lr = "digits-image-coupling", 0.5
    chosen = recipe(arguments, load_data("checkerboard"))
    assert chosen.logit is None  # there are no gray levels
    assert chosen.settings.optimizer.lr == 0.5 and chosen.settings.optimizer.clip_norm == 50.0


def test_the_demo_is_labeled_as_shortened_and_pairs_every_flow_with_its_plain_twin():
    assert all(preset.shortened and preset.name.endswith("-short") for preset in DEMO)
    for preset in DEMO:
        assert preset.settings.steps < PRESETS[preset_for(preset.data, flow=preset.flow).name].settings.steps
        twins = {other.group for other in DEMO if (other.data, other.flow) == (preset.data, preset.flow)}
        assert "C1" in twins and len(twins) > 1
