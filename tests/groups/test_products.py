"""Direct products of any factors: numbered elements, elements side by side, continuous factors."""

import math

import pytest
import torch

from pyro_gflows.groups import (
    O2,
    SO2,
    SO3,
    CyclicGroup,
    DihedralGroup,
    EnumerableGroup,
    ProductGroup,
    SignedPermutationGroup,
    SignGroup,
    SymmetricGroup,
    TorusTranslations,
    parse_group,
)

PRODUCTS = {
    "numbered": [SymmetricGroup(3), CyclicGroup(4)],
    "too many to number": [DihedralGroup(30), SymmetricGroup(5)],
    "large": [SymmetricGroup(8), SignGroup(12), SignedPermutationGroup(6)],
    "with rotations": [SymmetricGroup(13), SO3(), CyclicGroup(2)],
    "with angles": [TorusTranslations([[1, 1, 0]]), SymmetricGroup(3)],
    "nested": [ProductGroup([SymmetricGroup(3), O2()]), SymmetricGroup(9)],
}


@pytest.fixture(params=PRODUCTS)
def group(request):
    return ProductGroup(PRODUCTS[request.param])


def drawn(group, *shape, seed=0):
    return group.sample(shape, torch.Generator().manual_seed(seed))


def test_elements_are_joined_from_their_components(group):
    components = [drawn(factor, 2, 5, seed=seed) for seed, factor in enumerate(group.factors)]
    elements = group.join(components)
    assert elements.shape == (2, 5, *group.element_shape) and elements.dtype == group.element_dtype
    for index, (factor, component) in enumerate(zip(group.factors, components, strict=True)):
        read = group.project(elements, index)
        assert torch.equal(read, component) and read.dtype == factor.element_dtype
        assert torch.equal(group.project(group.identity(), index), factor.identity())


def test_components_of_different_batch_shapes_broadcast(group):
    first, *others = (drawn(factor, 3) for factor in group.factors)
    elements = group.join([first[:, None], *others])
    assert group.batch_shape(elements) == (3, 3)
    assert torch.equal(group.project(elements, 0)[2, 1], first[2])


def test_the_factors_multiply_on_their_own(group):
    g, h = drawn(group, 2, 20)
    products, inverses = group.compose(g, h), group.inverse(g)
    for index, factor in enumerate(group.factors):
        left, right = group.project(g, index), group.project(h, index)
        assert torch.equal(group.project(products, index), factor.compose(left, right))
        assert torch.equal(group.project(inverses, index), factor.inverse(left))


def test_the_generators_are_those_of_the_factors(group):
    generators = group.generators()
    assert len(generators) == sum(len(factor.generators()) for factor in group.factors)
    start = 0
    for index, factor in enumerate(group.factors):
        own = factor.generators()
        rows = group.project(generators, index)
        assert torch.equal(rows[start : start + len(own)], own)
        others = torch.cat([rows[:start], rows[start + len(own) :]])
        assert torch.equal(others, factor.identity().expand_as(others))
        start += len(own)


def test_the_components_of_a_draw_are_uniform_and_independent():
    group = ProductGroup([SymmetricGroup(7), SO2(), CyclicGroup(3)])
    draws = drawn(group, 6300)
    places, rotations, index = (group.project(draws, index) for index in range(3))
    sectors = ((torch.atan2(rotations[:, 1, 0], rotations[:, 0, 0]) + math.pi) / (2 * math.pi) * 3).long()
    cells = torch.bincount((places[:, 2] * 3 + sectors) * 3 + index, minlength=63).double()
    assert abs(float(((cells - 100) ** 2).sum() / 100) - 62) <= 5 * math.sqrt(2 * 62)


def test_averages_over_a_product_with_rotations_are_exact():
    group = ProductGroup([CyclicGroup(3), SignGroup(2), SO2()])
    elements, weights = group.quadrature(2)
    assert float(weights.sum()) == pytest.approx(1.0)
    signs, rotation = group.project(elements, 1), group.project(elements, 2)
    flips = SignGroup(2).signs_of(signs).double()
    assert float((weights * rotation[:, 0, 0] ** 2).sum()) == pytest.approx(0.5)
    assert float((weights * flips[:, 0] * rotation[:, 0, 0]).sum()) == pytest.approx(0.0, abs=1e-14)
    assert float((weights * (group.project(elements, 0) == 2)).sum()) == pytest.approx(1 / 3)


def test_a_product_is_numbered_up_to_1024_elements():
    assert isinstance(parse_group("S5 x C2^3"), EnumerableGroup)  # 960 elements
    assert not isinstance(parse_group("S5 x C2^4"), EnumerableGroup)
    assert not isinstance(parse_group("C2 x O(2)"), EnumerableGroup)


@pytest.mark.parametrize(
    ("name", "order", "words"),
    [
        ("S8 x C2", 80640, "80640"),
        ("S20 x C2^20 x C3", math.factorial(20) * 2**20 * 3, "20! * 2^20 * 3 = 7.7e24"),
        ("S20 x SO(2)", math.inf, "infinite"),
        ("S200 x O(3)", math.inf, "infinite"),  # 200! is no float
    ],
)
def test_orders_are_exact_or_infinite(name, order, words):
    group = parse_group(name)
    assert group.order == order and group.order_in_words == words and group.is_finite == (order < math.inf)


def test_numbered_products_keep_their_numbers():
    """The last factor counts fastest, on which saved flows depend."""
    group = parse_group("S3 x C2 x C4")
    elements = group.elements()
    components = [group.project(elements, index) for index in range(3)]
    assert torch.equal(components[0] * 8 + components[1] * 4 + components[2], elements)
    assert torch.equal(group.join(components), elements)
    assert group.generators().tolist() == [16, 24, 4, 1]


def test_nested_products_are_told_apart_where_their_elements_differ():
    nested = ProductGroup([parse_group("S3 x SO(2)"), SymmetricGroup(8)])
    flat = parse_group("S3 x SO(2) x S8")
    assert nested != flat and str(nested) == "(S3 x SO(2)) x S8"
    numbered = ProductGroup([parse_group("S3 x C2"), CyclicGroup(2)])
    assert numbered == parse_group("S3 x C2 x C2") and str(numbered) == "S3 x C2 x C2"


@pytest.mark.parametrize("name", ["S3 x C4", "S8 x SO(2)"])
def test_a_product_computes_under_vmap_and_where_its_elements_are(name):
    group = parse_group(name)
    g, h = drawn(group, 2, 4)
    torch.testing.assert_close(torch.func.vmap(group.compose)(g, h), group.compose(g, h))
    torch.testing.assert_close(torch.func.vmap(group.inverse)(g), group.inverse(g))
    far = g.to("meta")
    for result in (group.compose(far, far), group.inverse(far), group.project(far, 1)):
        assert result.device.type == "meta"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ProductGroup(["S3"]), TypeError, "expected groups, got 'S3'; by name, use parse_group"),
        (lambda: ProductGroup([]), ValueError, "at least one factor, got none"),
        (lambda: parse_group("S20 x C2").elements(), ValueError, r"got S20 x C2, which has 20! \* 2 = 4.9e18 elements"),
        (lambda: parse_group("C2 x O(2)").elements(), ValueError, r"finite group, got C2 x O\(2\).* infinitely many"),
        (lambda: parse_group("S8 x O(2)").quadrature(1), ValueError, "exact average .* got S8, which has 40320"),
    ],
)
def test_bad_input_says_what_was_expected(make, error, message):
    with pytest.raises(error, match=message):
        make()
