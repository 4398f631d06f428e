"""Permutations, signs and signed permutations of any number of things: both formats of elements, and brute force."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_gflows.groups import (
    EnumerableGroup,
    MonomialGroup,
    SignedPermutationGroup,
    SignGroup,
    SymmetricGroup,
    parse_group,
)

LARGEST_LISTED = {SymmetricGroup: 6, SignGroup: 10, SignedPermutationGroup: 4}
SMALL = [(kind, n) for kind, largest in LARGEST_LISTED.items() for n in range(1, min(largest, 5) + 1)]


def unlisted(kind, n):
    """A small group whose elements are written as those of a large one."""
    group = object.__new__(kind)
    group.__init__(n)
    assert not isinstance(group, EnumerableGroup)
    return group


def brute_force(kind, n):
    """All pairs of a permutation and signs, by itertools, in the order in which elements are numbered."""
    permutations = itertools.permutations(range(n)) if kind is not SignGroup else [tuple(range(n))]
    signs = list(itertools.product([1, -1], repeat=n)) if kind is not SymmetricGroup else [(1,) * n]
    return [(p, s) for p in permutations for s in signs]


def acted_on(group, element, things):
    """The list in which thing j stands at place p[j], with its sign, written as a loop."""
    images = [None] * len(things)
    places, signs = group.permutations_of(element).tolist(), group.signs_of(element).tolist()
    for thing, place, sign in zip(things, places, signs, strict=True):
        images[place] = sign * thing
    return images


@pytest.mark.parametrize(("kind", "n"), SMALL)
def test_elements_are_numbered_as_brute_force_lists_them(kind, n):
    group, expected = kind(n), brute_force(kind, n)
    elements = group.elements()
    assert isinstance(group, EnumerableGroup) and group.order == len(expected)
    assert [tuple(p) for p in group.permutations_of(elements).tolist()] == [p for p, _ in expected]
    assert [tuple(s) for s in group.signs_of(elements).tolist()] == [s for _, s in expected]


@pytest.mark.parametrize(("kind", "n"), SMALL)
def test_both_formats_of_elements_make_one_group(kind, n):
    listed, group = kind(n), unlisted(kind, n)

    def written_out(elements):
        return group.elements_of(permutations=listed.permutations_of(elements), signs=listed.signs_of(elements))

    assert listed.order == group.order and str(listed) == str(group)
    elements = listed.elements()
    assert torch.equal(group.identity(), written_out(listed.identity()))
    assert torch.equal(group.inverse(written_out(elements)), written_out(listed.inverse(elements)))
    products = group.compose(written_out(elements)[:, None], written_out(elements))
    assert torch.equal(products, written_out(listed.compose(elements[:, None], elements)))
    assert torch.equal(group.generators(), written_out(listed.generators()))


@pytest.mark.parametrize(("kind", "n"), SMALL)
def test_the_generators_of_the_large_format_generate(kind, n):
    group = unlisted(kind, n)
    found = group.identity()[None]
    while True:
        more = torch.cat([found, group.compose(group.generators()[:, None], found).flatten(0, 1)]).unique(dim=0)
        if len(more) == len(found):
            break
        found = more
    assert len(found) == group.order


@pytest.mark.parametrize("name", ["S4", "S7", "S40", "C2^4", "C2^12", "signed S3", "signed S5", "signed S40"])
def test_products_act_one_after_the_other(name):
    group = parse_group(name)
    things = list(range(1, group.n + 1))
    for seed in range(10):
        g, h = group.sample((2,), torch.Generator().manual_seed(seed))
        assert acted_on(group, group.compose(g, h), things) == acted_on(group, g, acted_on(group, h, things))
        assert acted_on(group, group.inverse(g), acted_on(group, g, things)) == things
        again = group.elements_of(permutations=group.permutations_of(g), signs=group.signs_of(g))
        assert torch.equal(again, g) and again.dtype == group.element_dtype == torch.int64


@st.composite
def signed_permutations(draw):
    n = draw(st.integers(5, 12))
    pick = st.tuples(st.permutations(range(n)), st.lists(st.sampled_from([1, -1]), min_size=n, max_size=n))
    return n, draw(pick), draw(pick)


@given(signed_permutations())
def test_elements_are_what_they_are_made_of(case):
    n, (p, s), (q, t) = case
    group = SignedPermutationGroup(n)
    g = group.elements_of(permutations=torch.tensor(p), signs=torch.tensor(s))
    h = group.elements_of(permutations=torch.tensor(q), signs=torch.tensor(t))
    assert g.tolist() == [sign * (place + 1) for place, sign in zip(p, s, strict=True)]
    product = group.compose(g, h)
    assert group.permutations_of(product).tolist() == [p[q[thing]] for thing in range(n)]
    assert group.signs_of(product).tolist() == [s[q[thing]] * t[thing] for thing in range(n)]


@pytest.mark.parametrize(
    ("kind", "n"), [(SymmetricGroup, 3), (SymmetricGroup, 4), (SignGroup, 4), (SignedPermutationGroup, 3)]
)
def test_draws_of_the_large_format_are_uniform_over_all_elements(kind, n):
    group, listed = unlisted(kind, n), kind(n)
    drawn = group.sample((200 * group.order,), torch.Generator().manual_seed(3))
    indices = listed.elements_of(permutations=group.permutations_of(drawn), signs=group.signs_of(drawn))
    counts, freedom = torch.bincount(indices, minlength=group.order).double(), group.order - 1
    # the statistic has order - 1 degrees of freedom: five standard deviations about its mean
    assert abs(float(((counts - 200) ** 2).sum() / 200) - freedom) <= 5 * math.sqrt(2 * freedom)


def test_draws_of_a_large_group_have_uniform_places_and_signs():
    group = SignedPermutationGroup(20)
    drawn = group.sample((4000,), torch.Generator().manual_seed(0))
    places, signs = group.permutations_of(drawn), group.signs_of(drawn)
    assert torch.equal(places.sort(-1).values, torch.arange(20).expand_as(places))
    for thing in (0, 7, 19):
        counts = torch.bincount(places[:, thing], minlength=20).double()
        assert abs(float(((counts - 200) ** 2).sum() / 200) - 19) <= 5 * math.sqrt(2 * 19)
    assert (signs.double().mean(0).abs() < 5 / math.sqrt(4000)).all()
    correlations = signs.double().T @ signs.double() / 4000 - torch.eye(20)
    assert (correlations.abs() < 5 / math.sqrt(4000)).all()  # the signs are independent of each other
    assert torch.equal(drawn, group.sample((4000,), torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("group", "order", "words"),
    [
        (SymmetricGroup(8), 40320, "40320"),
        (SymmetricGroup(20), 2432902008176640000, "20! = 2.4e18"),
        (SignGroup(12), 4096, "4096"),
        (SignGroup(200), 2**200, "2^200 = 1.6e60"),
        (SignedPermutationGroup(20), math.factorial(20) * 2**20, "20! 2^20 = 2.6e24"),
        (SignedPermutationGroup(50), math.factorial(50) * 2**50, "50! 2^50 = 3.4e79"),
        (SymmetricGroup(3000), math.factorial(3000), "3000! = 4.1e9130"),
    ],
    ids=lambda value: "order" if isinstance(value, int) else str(value),  # Python prints no int of 9,131 digits
)
def test_orders_are_exact_and_said_in_words(group, order, words):
    assert group.order == order and group.order_in_words == words and group.is_finite
    assert isinstance(group, MonomialGroup) and not isinstance(group, EnumerableGroup)


@pytest.mark.parametrize("name", ["S4", "S9", "C2^3", "C2^11", "signed S3", "signed S9"])
def test_elements_are_read_and_multiplied_under_vmap_and_on_any_device(name):
    group = parse_group(name)
    g, h = group.sample((2, 6), torch.Generator().manual_seed(1))
    assert torch.equal(torch.func.vmap(group.compose)(g, h), group.compose(g, h))
    assert torch.equal(torch.func.vmap(group.inverse)(g), group.inverse(g))
    far = g.to("meta")  # as on a GPU: nothing stays on the CPU
    for result in (group.compose(far, far), group.inverse(far), group.permutations_of(far), group.signs_of(far)):
        assert result.device.type == "meta" and result.dtype == torch.int64
    assert group.elements_of(signs=group.signs_of(far)).device.type == "meta"


def test_numbered_signs_are_a_product_of_groups_of_two():
    """Saved flows describe sign flips as such a product."""
    product = parse_group("C2 x C2 x C2")
    assert SignGroup(3) == product and hash(SignGroup(3)) == hash(product)
    elements = product.elements()
    bits = torch.stack([product.project(elements, index) for index in range(3)], -1)
    assert torch.equal(SignGroup(3).signs_of(elements), 1 - 2 * bits)


def test_a_large_group_is_not_another_one_of_its_order():
    assert SymmetricGroup(8) == SymmetricGroup(8) != SymmetricGroup(9)
    assert len({SymmetricGroup(8), SymmetricGroup(8), SignGroup(11), parse_group("signed S8"), parse_group("S8")}) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SymmetricGroup(0), "positive number n of things .*, got 0"),
        (lambda: SignGroup(-1), "positive number n of things .*, got -1"),
        (lambda: SignedPermutationGroup(0), "positive number n of things .*, got 0"),
        (
            lambda: SymmetricGroup(8).elements(),
            r"elements can be listed, got S8, which has 40320 elements; .* Canonicalized in place of Symmetrized, "
            r"OrbitMixture and OrbitFlow, sample\(\) .* generators\(\)",
        ),
        (lambda: SymmetricGroup(20).quadrature(2), "exact average .* got S20, which has 20! = 2.4e18 elements"),
        (lambda: SymmetricGroup(7).permutations(), "list of all permutations .* got S7, which has 5040 elements"),
        (
            lambda: SymmetricGroup(8).elements_of(permutations=torch.arange(7)),
            r"expected permutations of shape \(..., 8\) for S8, got \(7,\)",
        ),
        (lambda: SignGroup(3).elements_of(signs=torch.tensor(1)), r"expected signs of shape \(..., 3\) .*, got \(\)"),
    ],
)
def test_bad_input_says_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", [SymmetricGroup, SignGroup, SignedPermutationGroup])
@pytest.mark.parametrize("n", [2.5, "3", True, None])
def test_a_number_of_things_is_an_int(kind, n):
    with pytest.raises(TypeError, match="number of things as an int"):
        kind(n)
