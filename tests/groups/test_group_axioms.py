"""Every kind of group: the axioms, its generators, its order, uniform draws, its table, and what its elements do."""

import copy
import math
import pickle

import pytest
import torch

from pyro_gflows.actions import ImageAction, VectorAction
from pyro_gflows.groups import (
    ContinuousGroup,
    CyclicGroup,
    DihedralGroup,
    FiniteGroup,
    MonomialGroup,
    ProductGroup,
    SignedPermutationGroup,
    SignGroup,
    SymmetricGroup,
    TranslationGroup,
    WallpaperGroup,
    parse_group,
)
from pyro_gflows.groups.base import require_enumerable
from pyro_gflows.serialization.registry import build, describe

QUATERNIONS = VectorAction.from_generators(
    [
        [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]],
        [[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]],
    ]
)


def planar(group):
    return group.plane().__getitem__


def permuting(group):
    """Thing j goes to place p[j] and is multiplied by s[j]."""

    def matrices(elements):
        places = torch.nn.functional.one_hot(group.permutations_of(elements), group.n).double().mT
        return places * group.signs_of(elements)[..., None, :]

    return matrices


def shifting(group):
    """A group of the pixels of a periodic grid, as permutations of them."""
    step = ImageAction(group, size=(group.height, group.width))
    return step.matrix


def side_by_side(group):
    """A product, as the matrices of its factors side by side."""
    matrices = [matrices_of(factor) for factor in group.factors]

    def blocks(elements):
        parts = [part(group.project(elements, index)) for index, part in enumerate(matrices)]
        flat = [torch.block_diag(*each) for each in zip(*[part.flatten(0, -3) for part in parts], strict=True)]
        return torch.stack(flat).unflatten(0, group.batch_shape(elements))

    return blocks


MATRICES = {
    CyclicGroup: planar,
    DihedralGroup: planar,
    MonomialGroup: permuting,
    ContinuousGroup: lambda group: lambda elements: elements,
    TranslationGroup: shifting,
    WallpaperGroup: shifting,
    ProductGroup: side_by_side,
    FiniteGroup: lambda group: QUATERNIONS.matrix,
}


def matrices_of(group):
    """The function that gives the matrices of elements."""
    return next(make for kind, make in MATRICES.items() if isinstance(group, kind))(group)


ENUMERABLE = {
    "C1": CyclicGroup(1),
    "C7": CyclicGroup(7),
    "D1": DihedralGroup(1),
    "D2": DihedralGroup(2),
    "D5": DihedralGroup(5),
    "S1": SymmetricGroup(1),
    "S2": SymmetricGroup(2),
    "S4": SymmetricGroup(4),
    "C2^1": SignGroup(1),
    "C2^4": SignGroup(4),
    "signed S1": SignedPermutationGroup(1),
    "signed S3": SignedPermutationGroup(3),
    "S3 x C2 x D2": parse_group("S3 x C2 x D2"),
    "C2^2 x S3": parse_group("C2^2 x S3"),
    "quaternions": QUATERNIONS.group,
    "shifts": TranslationGroup(4, 6, 2),
    "one row": TranslationGroup(1, 5),
    "p4m": WallpaperGroup(4, 4, 1, "D4"),
    "p4": WallpaperGroup(3, 3, 1, "C4"),
    "pmm": WallpaperGroup(4, 6, 2, "D2"),
    "pm": WallpaperGroup(4, 3, 1, "D1"),
    "p2": WallpaperGroup(4, 3, 1, "C2"),
}
LARGE = ["S8", "S50", "C2^20", "signed S5", "signed S50", "S8 x C2", "S13 x O(3)", "C2^3 x SO(2)", "C2 x (S3 x O(2))"]
GROUPS = {**ENUMERABLE, **{name: parse_group(name) for name in ("SO(2)", "O(2)", "SO(3)", "O(3)", *LARGE)}}


@pytest.fixture(params=GROUPS)
def group(request):
    return GROUPS[request.param]


@pytest.fixture(params=ENUMERABLE)
def enumerable(request):
    return ENUMERABLE[request.param]


def drawn(group, *shape, seed=0):
    return group.sample(shape, torch.Generator().manual_seed(seed))


def same(first, second):
    torch.testing.assert_close(first, second, rtol=0, atol=1e-13)


def test_the_axioms_hold_on_random_elements(group):
    g, h, k = drawn(group, 3, 30)
    unit = group.identity()
    assert unit.shape == group.element_shape
    same(group.compose(group.compose(g, h), k), group.compose(g, group.compose(h, k)))
    same(group.compose(unit, g), g)
    same(group.compose(g, unit), g)
    same(group.compose(g, group.inverse(g)), unit.expand_as(g))
    same(group.compose(group.inverse(g), g), unit.expand_as(g))


def test_batches_of_elements_broadcast(group):
    g, h = drawn(group, 3, 1, seed=1), drawn(group, 4, seed=2)
    products = group.compose(g, h)
    assert products.shape == (3, 4, *group.element_shape) and group.batch_shape(products) == (3, 4)
    same(products[2, 1], group.compose(g[2, 0], h[1]))
    same(group.inverse(g)[1, 0], group.inverse(g[1, 0]))
    assert group.batch_shape(drawn(group)) == ()


def test_elements_multiply_as_their_matrices_do(group):
    matrices = matrices_of(group)
    g, h = drawn(group, 2, 40, seed=3)
    same(matrices(group.compose(g, h)), matrices(g) @ matrices(h))
    same(matrices(group.inverse(g)), matrices(g).mT)


def test_an_enumerable_group_lists_its_elements_once(enumerable):
    elements = enumerable.elements()
    assert isinstance(enumerable.order, int) and enumerable.order == len(elements) == len(set(elements.tolist()))
    assert enumerable.is_finite and int(enumerable.identity()) == 0
    matrices = matrices_of(enumerable)(elements).round(decimals=9)
    assert len({tuple(matrix.flatten().tolist()) for matrix in matrices}) == len(elements)


def test_the_table_is_that_of_the_products(enumerable):
    elements = enumerable.elements()
    products = enumerable.compose(elements[:, None], elements)
    assert torch.equal(enumerable.table, products) and torch.equal(enumerable.regular(), products)
    by_table = FiniteGroup("by table", enumerable.table, enumerable.generators().tolist())
    assert torch.equal(by_table.inverse(elements), enumerable.inverse(elements))


def test_the_generators_generate(enumerable):
    found = {0}
    while True:
        known = torch.tensor(sorted(found))
        more = found | set(enumerable.compose(enumerable.generators()[:, None], known).flatten().tolist())
        if more == found:
            break
        found = more
    assert len(found) == enumerable.order


def test_draws_are_uniform(enumerable):
    counts = torch.bincount(drawn(enumerable, 200 * enumerable.order), minlength=enumerable.order).double()
    # the statistic has order - 1 degrees of freedom: five standard deviations above its mean, and the least below it
    statistic, freedom = float(((counts - 200) ** 2).sum() / 200), enumerable.order - 1
    assert abs(statistic - freedom) <= 5 * math.sqrt(2 * freedom)
    assert torch.equal(drawn(enumerable, 9, seed=5), drawn(enumerable, 9, seed=5))


def test_the_average_over_all_elements_is_the_quadrature(enumerable):
    elements, weights = enumerable.quadrature(3)
    assert torch.equal(elements, enumerable.elements()) and float(weights.sum()) == pytest.approx(1.0)


def test_a_group_is_a_value(group):
    group.compose(group.identity(), group.identity())
    for twin in (copy.deepcopy(group), pickle.loads(pickle.dumps(group)), build(describe(group))):
        assert twin == group and hash(twin) == hash(group) and str(twin) == str(group)
        same(twin.generators(), group.generators())
        g, h = drawn(group, 2, 5)
        same(twin.compose(g, h), group.compose(g, h))
        assert type(twin) is type(group) and twin.order == group.order
    equal = {name for name, other in GROUPS.items() if other == group}
    assert equal in ({"C1", "S1"}, {"D1", "S2", "C2^1", "signed S1"}) or len(equal) == 1


def test_groups_with_one_table_are_equal_and_translations_are_not_other_groups():
    assert CyclicGroup(2) == DihedralGroup(1) == SymmetricGroup(2) == FiniteGroup("Z2", [[0, 1], [1, 0]], [1])
    assert parse_group("S3 x C2") == parse_group("S3 x D1") != parse_group("C2 x S3")
    assert TranslationGroup(8, 8, 2) == TranslationGroup(4, 4) == WallpaperGroup(4, 4) != parse_group("C4 x C4")
    assert WallpaperGroup(4, 4, point_group="C2") != WallpaperGroup(4, 4, point_group="D1")
    assert CyclicGroup(5000) == CyclicGroup(5000) != DihedralGroup(2500)  # too large for a table


def test_what_needs_all_elements_says_what_to_do_for_a_large_group():
    with pytest.raises(ValueError, match=r"at most 4096 elements .* Z32xZ32:D4 of order 8192; use compose"):
        _ = WallpaperGroup(32, 32, 1, "D4").table
    with pytest.raises(ValueError, match=r"needs a finite group, got O\(2\), which has infinitely many.*sample\(\)"):
        require_enumerable(parse_group("O(2)"))
    with pytest.raises(ValueError, match="step that divides the grid, got step 3"):
        WallpaperGroup(4, 4, 3)
    with pytest.raises(ValueError, match="D4 does not map a 4 x 6 grid to itself"):
        WallpaperGroup(4, 6, 1, "D4")
    with pytest.raises(ValueError, match="C3 does not map a pixel grid to itself"):
        WallpaperGroup(4, 4, 1, "C3")
    assert parse_group("O(2)").order == math.inf and not parse_group("O(2)").is_finite


def test_a_group_computes_where_its_elements_are(enumerable):
    """As on a GPU: no constant of the group stays on the CPU."""
    elements = torch.zeros(3, dtype=torch.int64, device="meta")
    assert enumerable.compose(elements, elements).device.type == "meta"
    assert enumerable.inverse(elements).shape == (3,) and enumerable.inverse(elements).device.type == "meta"
