"""Translations of a periodic grid with a point group: the action, its fields, and every layer of images on it."""

import copy

import pytest
import torch

from pyro_gflows import EquivariantFlow, InvariantNormal
from pyro_gflows.actions import ImageAction, IrrepSplit, checkerboard_split
from pyro_gflows.groups import DefiningRepresentation, TranslationGroup, TrivialRepresentation
from pyro_gflows.nn import EquivariantCNN, lipschitz_branch
from pyro_gflows.nn.lipschitz_conv import LipschitzConv
from pyro_gflows.numerics import ExactLogDet
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.testing import assert_equivariant, assert_invariant, randomize_
from pyro_gflows.transforms import Compose, GActNorm, GLinear, GOrbitNorm, GSqueeze, g_coupling, g_residual
from tests.largest import LargestTensor

SIGNED = [DefiningRepresentation("D4"), TrivialRepresentation("D4")]


def translations(*args, **keywords):
    return ImageAction.translations(*args, **keywords)


ACTIONS = {
    "p4m, 4 x 4": translations(2, size=4, point_group="D4"),
    "p4m, 4 x 4, regular": translations(1, size=4, point_group="D4", fields="regular"),
    "p4m, 6 x 6, signs": translations(2, size=6, step=2, point_group="D4", fields=SIGNED),
    "p4, 6 x 6": translations(2, size=6, step=3, point_group="C4"),
    "pmm, 4 x 6": translations(2, size=(4, 6), point_group="D2"),
    "pm, 6 x 4": translations(1, size=(6, 4), step=2, point_group="D1", fields="regular"),
    "p2, 3 x 5": translations(2, size=(3, 5), point_group="C2"),
    "p1, 4 x 6": translations(2, size=(4, 6), step=2),
}


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]


def images(action, *batch):
    return torch.randn(*batch, *action.event_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def elements_of(action, *batch, seed=1):
    return action.sample(batch, torch.Generator().manual_seed(seed))


def by_hand(action, g, x):
    """The point group rotates or reflects the picture in place, channels with it; then rows and columns are rolled."""
    group = action.group
    plain = ImageAction(group.point_group, size=(action.height, action.width), fields=list(action.fields))
    point, shift = g % group.point_group.order, g // group.point_group.order
    rows, columns = shift // group.shifts[1], shift % group.shifts[1]
    transformed = plain.act(point, x)
    return transformed.roll((group.step * int(rows), group.step * int(columns)), (-2, -1))


def test_an_element_rotates_the_picture_and_then_rolls_it(action):
    x = images(action, 2)
    for g in elements_of(action, 25):
        assert torch.equal(action.act(g, x), by_hand(action, g, x))


def test_it_is_a_homomorphism_and_its_matrices(action):
    x = images(action)
    g, h = elements_of(action, 20, seed=2), elements_of(action, 20, seed=3)
    twice = action.act_each(g, action.act_each(h, x))
    torch.testing.assert_close(action.act_each(action.group.compose(g, h), x), twice, rtol=0, atol=1e-13)
    by_matrix = (action.matrix(g) @ x.flatten()).unflatten(-1, action.event_shape)
    torch.testing.assert_close(action.act_each(g, x), by_matrix, rtol=0, atol=1e-13)
    torch.testing.assert_close(action.act_each(action.group.inverse(h), action.act_each(h, x)), x.expand_as(twice))


@pytest.mark.parametrize("name", ["p4m, 6 x 6, signs", "p4m, 4 x 4", "pmm, 4 x 6", "p2, 3 x 5"])
def test_the_decomposition_of_a_small_grid_block_diagonalizes(name):
    action = ACTIONS[name]
    isotypes = action.decomposition
    basis = torch.cat([isotype.basis.flatten(0, 1) for isotype in isotypes])
    torch.testing.assert_close(basis @ basis.T, torch.eye(action.numel, dtype=torch.float64), rtol=0, atol=1e-12)
    g = elements_of(action, 6)
    for isotype in isotypes:
        blocks = torch.einsum("mid,gde,nje->gmnij", isotype.basis, action.matrix(g), isotype.basis)
        same = torch.eye(isotype.multiplicity, dtype=torch.float64)[:, :, None, None]
        torch.testing.assert_close(blocks, same * isotype.irrep(g)[:, None, None], rtol=0, atol=1e-11)


LAYERS = {
    "residual": lambda action: g_residual(action, bound=0.6, log_det=ExactLogDet()),
    "activation normalization": GActNorm,
    "channels mixed": GLinear,
    "coupling": lambda action: g_coupling(action, width=2, depth=1),
    "squeeze and coupling of irreps": lambda action: Compose(
        [squeeze := GSqueeze(action), g_coupling(squeeze.action_out, split=IrrepSplit(squeeze.action_out), width=1)]
    ),
}
CANNOT = {  # a grid or shifts that squeezing does not allow
    **{
        ("squeeze and coupling of irreps", name): "factor that divides|translations by multiples of 2"
        for name in ACTIONS
        if ACTIONS[name].group.step != 2
    },
}


@pytest.mark.parametrize(("layer", "name"), [(layer, name) for layer in LAYERS for name in ACTIONS])
def test_layers_are_exactly_equivariant(layer, name):
    action = ACTIONS[name]
    if (layer, name) in CANNOT:
        with pytest.raises(ValueError, match=CANNOT[layer, name]):
            LAYERS[layer](action)
        return
    transform = LAYERS[layer](action).double()
    # small weights: on 36 pixels the inverses of couplings are ill-conditioned soon
    randomize_(transform, scale=0.1, generator=torch.Generator().manual_seed(1))
    elements = torch.cat([elements_of(action, 4), action.generators()])
    assert_equivariant(transform.eval(), action, transform.action_out, images(action, 2), elements=elements)


def test_a_mask_of_shifts_by_four_pixels_splits_one_channel():
    action = translations(size=8, step=4, point_group="D4")
    split = checkerboard_split(action)
    assert int(split.mask.sum()) == 32
    for g in action.elements():
        assert torch.equal(action.act(g, split.mask[None].double()), split.mask[None].double())
    layer = g_coupling(action, width=1, depth=1).double()
    randomize_(layer, generator=torch.Generator().manual_seed(1))
    assert_equivariant(layer.eval(), action, action, images(action, 2), elements=elements_of(action, 6))
    with pytest.raises(ValueError, match="one part of the split is empty"):
        checkerboard_split(translations(size=8, step=2, point_group="D4"))


@pytest.mark.parametrize("name", ["p4m, 4 x 4, regular", "pmm, 4 x 6", "p4m, 6 x 6, signs"])
def test_a_convolution_commutes_with_the_matrices(name):
    action = ACTIONS[name]
    layer = LipschitzConv(action, action.regular_fields(1), bias=False).double()
    units = torch.eye(action.numel, dtype=torch.float64).unflatten(-1, action.event_shape)
    matrix = layer(units).detach().flatten(1).T
    assert torch.linalg.matrix_norm(matrix, 2) <= layer.lipschitz_bound() * (1 + 1e-9)
    torch.testing.assert_close(layer.lipschitz_bound(), torch.linalg.matrix_norm(matrix, 2), rtol=1e-9, atol=0)
    for g in elements_of(action, 8):
        transformed = layer.action_out.matrix(g) @ matrix
        torch.testing.assert_close(matrix @ action.matrix(g), transformed, rtol=0, atol=1e-12)


@pytest.mark.long
def test_nothing_is_built_for_each_element_of_a_large_group(monkeypatch):
    """Neither by layers, nor by a base, nor where events are acted on."""
    group = ImageAction.translations(size=32, point_group="D4").group
    monkeypatch.setattr(type(group), "elements", lambda self: pytest.fail("all elements are listed"))
    for fields in ("trivial", "regular"):
        action = translations(2, size=32, point_group="D4", fields=fields)
        x, elements = images(action, 2).float(), elements_of(action, 2)
        transformed = action.act_each(elements, x)
        flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action), GOrbitNorm(action), GLinear(action)])
        torch.testing.assert_close(flow(transformed), flow(x), rtol=1e-5, atol=0)
        coupling = g_coupling(action, width=1, depth=1)
        assert coupling(x).shape == x.shape
        for network in (lipschitz_branch(action, bound=0.9), EquivariantCNN(action, action, width=1)):
            assert network(x).shape == x.shape
        assert action.canonical(x).shape == (2,)
        assert g_residual(action).branch(x).shape == x.shape


def test_the_components_of_a_large_grid_are_waves():
    action = translations(1, size=32, point_group="D4")
    base = InvariantNormal(action, covariance="isotypic", mean=True)
    randomize_(base.module.double(), generator=torch.Generator().manual_seed(1))
    x = images(action, 3)
    transformed = action.act_each(elements_of(action, 3), x)
    torch.testing.assert_close(base.log_prob(transformed), base.log_prob(x), rtol=1e-12, atol=0)
    # an orbit of frequencies k under rotations, reflections and k -> -k: pairs 0 <= a <= b <= 16, each symmetric
    assert len(action.decomposition) == 17 * 18 // 2


def test_flows_are_invariant():
    action = translations(2, size=4, point_group="D4")
    flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action), g_coupling(action, width=1, depth=1)]).double()
    randomize_(flow, generator=torch.Generator().manual_seed(1))
    assert_invariant(flow.eval(), action, images(action, 2), elements=action.elements()[::9])


def test_descriptions_of_translations_with_fields_of_the_translations_load():
    """As they were written when these fields were representations of the translations."""
    action = translations(2, size=(4, 6), step=2)
    group = {"class": "TranslationGroup", "arguments": {"height": 4, "width": 6, "step": 2}}
    field = {"class": "TrivialRepresentation", "arguments": {"group": group}}
    arguments = {"group": group, "size": [4, 6], "fields": [field, field]}
    loaded = build({"class": "ImageAction", "arguments": arguments})
    assert loaded == action and hash(loaded) == hash(action) and loaded.fields == action.fields
    assert loaded == ImageAction(TranslationGroup(4, 6, 2), size=(4, 6), fields=[TrivialRepresentation("C1")] * 2)
    for other in ACTIONS.values():
        assert build(describe(other)) == other == copy.deepcopy(other)
        assert (other == action) == (other is ACTIONS["p1, 4 x 6"])


def test_other_fields_and_grids_are_refused():
    with pytest.raises(ValueError, match="expected trivial fields for the translations"):
        ImageAction(TranslationGroup(4, 4), size=4, fields="regular")
    with pytest.raises(ValueError, match="expected fields of C4, got regular of D4"):
        translations(size=4, point_group="C4", fields=ACTIONS["p4m, 4 x 4, regular"].fields)
    with pytest.raises(ValueError, match="expected the 4 x 4 grid of Z4xZ4, got 8 x 8"):
        ImageAction(TranslationGroup(4, 4), size=8)
    with pytest.raises(ValueError, match=r"infinitely many|SO\(2\) does not map a pixel grid"):
        translations(size=4, point_group="SO(2)")
    with pytest.raises(ValueError, match="a matrix for each of its 2048 elements; use layers on fields"):
        _ = translations(size=16, point_group="D4", fields="regular").decomposition
    with pytest.raises(ValueError, match="a matrix for each of its 512 elements; use layers on fields"):
        _ = translations(size=16, step=2, point_group="D4").decomposition


def test_translations_of_a_large_grid_are_set_up_at_once():
    """There is neither a table of the group, nor one of pixels for each element."""
    x = torch.zeros(4, 1, 64, 64)
    with LargestTensor() as largest:
        action = translations(size=64)
        assert len(action.generators()) == 2 and action.group.order == 4096
        assert action.act(torch.tensor(65), x).shape == x.shape
        assert action.act_each(elements_of(action, 4), x).shape == x.shape
    assert 0 < largest.numel <= 2 * x.numel()
