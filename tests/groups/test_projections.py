"""Projections on isotypic components, and the change of basis to coordinates in them, without dense bases."""

import itertools
import math

import pytest
import torch

from pyro_gflows.actions import ImageAction, VectorAction
from pyro_gflows.actions.fourier import FourierDecomposition
from pyro_gflows.groups import parse_group
from pyro_gflows.groups.escnn_representation import EscnnRepresentation
from pyro_gflows.groups.representations import DefiningRepresentation
from tests.groups.test_decomposition import QUATERNIONS
from tests.largest import LargestTensor

SIGNS = [torch.diag(torch.tensor([-1.0, 1.0, 1.0])), torch.diag(torch.tensor([1.0, -1.0, -1.0]))]


def _rows_and_signs():
    group = parse_group("S3 x C2")
    return VectorAction.rows("S3", features=2).lift(group, 0).direct_sum(VectorAction.signs(1).lift(group, 1))


VECTORS = {
    "no symmetry": lambda: VectorAction.trivial("C1", copies=3),
    "plane D5": lambda: VectorAction.plane("D5", copies=2),
    "regular C8": lambda: VectorAction.regular("C8", copies=2),
    "regular D4, number, plane": lambda: VectorAction.regular("D4").direct_sum(
        VectorAction.trivial("D4"), VectorAction.plane("D4"), VectorAction.regular("D4")
    ),
    "quotient D4": lambda: VectorAction.quotient("D4", [0, 4], copies=2),
    "quaternions": lambda: VectorAction.from_generators(QUATERNIONS).copies(2),
    "sign flips": lambda: VectorAction.from_generators(SIGNS),
    "signs": lambda: VectorAction.signs(3, copies=2),
    "rows of S4": lambda: VectorAction.rows("S4", features=2),
    "rows and signs": _rows_and_signs,
    "O(3), vectors and a number": lambda: VectorAction.space("O(3)", copies=2).direct_sum(VectorAction.trivial("O(3)")),
    "SO(2), as escnn writes it": lambda: VectorAction(
        [EscnnRepresentation("SO(2)", [(1,), (0,), (2,), (1,)], torch.eye(7, dtype=torch.float64))]
    ),
}
IMAGES = {
    **{
        f"image {group}, {fields}": lambda group=group, fields=fields: ImageAction(group, 2, size=3, fields=fields)
        for group in ("C1", "C2", "C4", "D1", "D2", "D4")
        for fields in ("trivial", "regular")
    },
    "image D2, 3 x 4": lambda: ImageAction("D2", 2, size=(3, 4)),
    "image C4, two kinds of fields": lambda: ImageAction("C4", 1, size=2, fields="regular").direct_sum(
        ImageAction("C4", 2, size=2)
    ),
    "shifts": lambda: ImageAction.translations(2, size=(3, 4)),
    "shifts by 2": lambda: ImageAction.translations(1, size=(4, 8), step=2),
    "shifts and D4": lambda: ImageAction.translations(2, size=5, point_group="D4"),
    "shifts and D1": lambda: ImageAction.translations(1, size=(4, 3), point_group="D1"),
    "shifts and C4, regular": lambda: ImageAction.translations(1, size=4, point_group="C4", fields="regular"),
    "shifts by 2 and C2": lambda: ImageAction.translations(1, size=4, step=2, point_group="C2"),
}
LARGE = {
    "large image D4": lambda: ImageAction("D4", 2, size=17),
    "large image C2, regular": lambda: ImageAction("C2", 1, size=(16, 18), fields="regular"),
    "large shifts": lambda: ImageAction.translations(1, size=(24, 23)),
    "large shifts and C4": lambda: ImageAction.translations(2, size=18, point_group="C4"),
    "large shifts and D1": lambda: ImageAction.translations(1, size=(24, 23), point_group="D1"),
    "large shifts by 2": lambda: ImageAction.translations(2, size=(16, 18), step=2),
}
ACTIONS = {**VECTORS, **IMAGES, **LARGE}


@pytest.fixture(params=ACTIONS, scope="module")
def action(request):
    return ACTIONS[request.param]()


def few(action):
    """The components, of many some: the first, those of the smallest irreps, and a few others."""
    found = list(action.decomposition)
    return found if len(found) < 12 else [*found[:5], *found[5 :: len(found) // 5]]


def events_of(action, *batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*batch, *action.event_shape, generator=generator, dtype=torch.float64)


def inner(x, y):
    return float((x * y).sum())


def test_projections_are_orthogonal_and_add_up_to_the_identity(action):
    """Idempotent, symmetric and mutually orthogonal; events of several batch shapes."""
    x, y = events_of(action, 2, 3), events_of(action, seed=1)
    parts = [isotype.project(x) for isotype in action.decomposition]
    torch.testing.assert_close(torch.stack(parts).sum(0), x, rtol=0, atol=1e-12)
    for isotype in few(action):
        once = isotype.project(x)
        torch.testing.assert_close(isotype.project(once), once, rtol=0, atol=1e-12)
        assert inner(isotype.project(y), x[1, 2]) == pytest.approx(inner(y, once[1, 2]), abs=1e-11)
        for other in few(action):
            if other is not isotype:
                assert other.project(once).abs().max() < 1e-12


def test_projections_commute_with_the_group(action):
    x = events_of(action, 2)
    elements = [*action.generators(), *action.sample((2,), torch.Generator().manual_seed(0))]
    for isotype in few(action):
        for g in elements:
            torch.testing.assert_close(
                isotype.project(action.act(g, x)), action.act(g, isotype.project(x)), rtol=0, atol=1e-12
            )
            if isotype.is_trivial:
                torch.testing.assert_close(action.act(g, isotype.project(x)), isotype.project(x), rtol=0, atol=1e-12)


def test_projections_are_those_of_the_dense_basis(action):
    x = events_of(action, 3)
    for isotype in few(action):
        basis = isotype.dense_basis()
        assert basis.shape == (isotype.multiplicity, isotype.dim, action.numel)
        assert len(isotype.labels) == isotype.multiplicity
        rows = basis.flatten(0, 1)
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)).double(), rtol=0, atol=1e-12)
        torch.testing.assert_close(isotype.project(x).flatten(1), x.flatten(1) @ rows.T @ rows, rtol=0, atol=1e-12)


def test_every_copy_carries_the_irrep(action):
    elements = action.sample((2,), torch.Generator().manual_seed(1))
    for isotype in few(action):
        rows = isotype.dense_basis()
        transformed = action.act_each(elements[:, None, None], rows.unflatten(-1, action.event_shape)).flatten(3)
        # g e_j = sum_i V(g)_ij e_i
        expected = torch.einsum("gij,mid->gmjd", isotype.irrep(elements), rows)
        torch.testing.assert_close(transformed, expected, rtol=0, atol=1e-11)
        maps, irrep = isotype.commutant, isotype.irrep(elements)
        torch.testing.assert_close(irrep[:, None] @ maps, maps @ irrep[:, None], rtol=0, atol=1e-11)
        assert {"real": 1, "complex": 2, "quaternionic": 4}[isotype.type] == len(maps)


def test_a_finite_group_gives_the_same_projections_by_characters(action):
    r""":math:`P = \frac{d}{\langle\chi, \chi\rangle}\,\frac1{|G|} \sum_g \chi(g)\, g`."""
    if not action.is_finite:
        pytest.skip("a sum over all elements")
    x, elements = events_of(action), action.elements()
    images = action.act_all(x)
    for isotype in few(action):
        character = isotype.irrep(elements).diagonal(dim1=-2, dim2=-1).sum(-1)
        weights = isotype.dim * character / character.square().sum()
        expected = torch.einsum("g,g...->...", weights, images)
        torch.testing.assert_close(isotype.project(x), expected, rtol=0, atol=1e-12)


def test_coordinates_are_an_orthogonal_change_of_basis(action):
    components = action.decomposition
    x = events_of(action, 2, 3).flatten(2)
    coordinates = components.coordinates(x)
    rows = torch.cat([isotype.dense_basis().flatten(0, 1) for isotype in components])
    torch.testing.assert_close(coordinates, x @ rows.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(components.event(coordinates), x, rtol=0, atol=1e-12)
    assert sum(components.sizes) == action.numel
    other = events_of(action, seed=2).flatten()
    torch.testing.assert_close(components.event(other), other @ rows, rtol=0, atol=1e-12)


def test_single_precision_gradients_and_other_modes(action):
    isotype = action.decomposition[-1]
    x = events_of(action, 2)
    assert isotype.project(x.float()).dtype == torch.float32
    torch.testing.assert_close(isotype.project(x.float()).double(), isotype.project(x), rtol=0, atol=1e-5)
    assert torch.autograd.gradcheck(isotype.project, events_of(action, 1).requires_grad_(), fast_mode=True)
    torch.testing.assert_close(torch.func.vmap(isotype.project)(x), isotype.project(x))
    assert isotype.project(x.to("meta")).device.type == "meta"
    assert action.decomposition.coordinates(x.flatten(1).to("meta")).shape == (2, action.numel)


def test_refuses_events_of_another_shape():
    with pytest.raises(ValueError, match=r"expected x of shape \(\.\.\., 1, 32, 32\), got \(2, 31, 32\)"):
        ImageAction("D4", size=32).decomposition[0].project(torch.zeros(2, 31, 32))


@pytest.mark.parametrize("name", LARGE)
def test_large_images_give_their_basis_on_request_only(name):
    isotype = LARGE[name]().decomposition[0]
    with pytest.raises(ValueError, match=r"at most 512 coordinates.*isotype\.dense_basis\(\)"):
        _ = isotype.basis
    assert isotype.dense_basis().abs().max() > 0


@pytest.mark.parametrize("name", ["shifts", "shifts by 2"])
def test_waves_span_the_components_that_averages_over_the_group_find(name):
    action = IMAGES[name]()
    waves = FourierDecomposition(action, action.group.shifts, step=action.group.step)
    found = [isotype.basis.flatten(0, 1) for isotype in action.decomposition]
    left = [rows.T @ rows for rows in found]
    for isotype in waves:
        rows = isotype.basis.flatten(0, 1)
        matches = [projector for projector in left if torch.allclose(projector, rows.T @ rows, atol=1e-12)]
        assert len(matches) == 1
    assert len(waves) == len(left)
    assert sorted(isotype.type for isotype in waves) == sorted(isotype.type for isotype in action.decomposition)


@pytest.mark.parametrize(
    ("group", "size"),
    [*itertools.product(["C2", "D1", "D2", "C4", "D4"], [(4, 4), (5, 5)]), *itertools.product(["D1", "D2"], [(4, 6)])],
)
def test_waves_under_a_point_group_too_are_irreducible_and_different(group, size):
    """Shifts and rotations commute with the projections; each component is irreducible by its character."""
    shifted, rotated = ImageAction.translations(2, size=size), ImageAction(group, 2, size=size)
    plane = DefiningRepresentation(group).matrices(rotated.elements())
    to_rows = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)  # (right, up) to (down, right)
    components = FourierDecomposition(shifted, size, point_group=(to_rows @ plane @ to_rows.T).round().long())
    x = events_of(shifted, 2)
    torch.testing.assert_close(sum(part.project(x) for part in components), x, rtol=0, atol=1e-12)
    rows = torch.cat([part.basis.flatten(0, 1) for part in components])
    torch.testing.assert_close(components.coordinates(x.flatten(1)), x.flatten(1) @ rows.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(components.event(components.coordinates(x.flatten(1))), x.flatten(1), rtol=0, atol=1e-12)
    both = shifted.matrix(shifted.elements())[:, None] @ rotated.matrix(rotated.elements())
    characters = []
    for part in components:
        basis, maps = part.basis[0], part.commutant
        for action in (shifted, rotated):
            for g in action.generators():
                torch.testing.assert_close(part.project(action.act(g, x)), action.act(g, part.project(x)))
        blocks = basis @ both @ basis.T
        torch.testing.assert_close(blocks[:, :, None] @ maps, maps @ blocks[:, :, None], rtol=0, atol=1e-12)
        characters.append(blocks.diagonal(dim1=-2, dim2=-1).sum(-1).flatten())
    gram = torch.stack(characters) @ torch.stack(characters).T / len(characters[0])
    types = torch.tensor([float(len(part.commutant)) for part in components]).double()
    torch.testing.assert_close(gram, torch.diag(types), rtol=0, atol=1e-11)


def test_the_first_component_under_shifts_is_the_mean_of_each_channel():
    action = ImageAction.translations(3, size=32)
    x = events_of(action, 2)
    trivial = action.decomposition[0]
    assert trivial.is_trivial and trivial.multiplicity == 3
    torch.testing.assert_close(trivial.project(x), x.mean((-2, -1), keepdim=True).expand_as(x), rtol=0, atol=1e-12)
    phase = (3 * torch.arange(32)[:, None] + 5 * torch.arange(32)).double() / 32
    wave = torch.cos(2 * math.pi * phase + 0.4).expand(3, 32, 32)
    (holds,) = [part for part in action.decomposition if part.project(wave).abs().max() > 1e-9]
    torch.testing.assert_close(holds.project(wave), wave, rtol=0, atol=1e-11)
    assert (holds.dim, holds.multiplicity, holds.type) == (2, 3, "complex")


@pytest.mark.parametrize(
    "make", [lambda: ImageAction("D4", 3, size=32), lambda: ImageAction.translations(3, size=64)], ids=["D4", "shifts"]
)
@pytest.mark.long
def test_large_events_need_no_dense_basis(make):
    """One of 3072 numbers has 9.4 million entries, and takes 75 MB."""
    action = make()
    x = events_of(action, 8)
    with LargestTensor() as largest:
        components = action.decomposition
        components[0].project(x), components.event(components.coordinates(x.flatten(1)))
    assert 0 < largest.numel <= 4 * x.numel()
