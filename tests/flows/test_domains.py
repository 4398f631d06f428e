"""Fundamental domains: exactly one image of every event lies in each, and gaps and keys are one vector in two forms."""

import math

import pytest
import torch

from pyro_gflows import RowsAction, VectorAction
from pyro_gflows.flows.canonical_key import best_key
from pyro_gflows.flows.domains.choice import domain_for

ENUMERABLE = {
    "S4": (lambda: VectorAction.rows("S4", features=2), 24),
    "S4, mean-free": (lambda: RowsAction(4, mean_free=True), 24),
    "C2^3": (lambda: VectorAction.signs(3), 8),
    "signed S3": (lambda: RowsAction(3, 2, signed=True), 48),
    "signed S3, all even": (lambda: RowsAction(3, 2, signed=[]), 6),
    "two blocks": (lambda: RowsAction((3, 2), 2), 12),
    "C2": (lambda: VectorAction.plane("C2"), 2),
    "C5": (lambda: VectorAction.plane("C5", copies=2), 5),
    "D1": (lambda: VectorAction.plane("D1"), 2),
    "D2": (lambda: VectorAction.plane("D2"), 4),
    "D3": (lambda: VectorAction.plane("D3"), 6),
    "D4": (lambda: VectorAction.plane("D4", copies=2), 8),
    "D4, regular": (lambda: VectorAction.regular("D4"), 8),
    "S3 x D4 with an invariant feature": (lambda: s3_and_d4(), 48),
}
LARGE = {
    "S50": (lambda: RowsAction(50, 2), math.factorial(50)),
    "signed S20": (lambda: RowsAction(20, 3, signed=[0]), math.factorial(20) * 2**20),
    "C2^12": (lambda: VectorAction.signs(12), 2**12),
    "two blocks": (lambda: RowsAction((9, 8), 2), math.factorial(9) * math.factorial(8)),
}


def s3_and_d4():
    """Rows of an invariant feature and a vector of the plane."""
    return RowsAction(3, VectorAction.trivial("D4").direct_sum(VectorAction.plane("D4")))


def random_keys(canonical):
    generator = torch.Generator().manual_seed(0)
    return canonical.keys_of([torch.randn(len(space), generator=generator).double() for space in canonical.spaces])


@pytest.mark.parametrize("name", ENUMERABLE)
def test_exactly_one_image_lies_in_the_domain(name):
    make, order = ENUMERABLE[name]
    action = make()
    canonical = domain_for(action)
    domain, keys_of = canonical.domain, random_keys(canonical)
    assert domain.order == order and len(canonical.averaged) == 1
    x = torch.randn(20, action.numel, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    images = action.act_all(x)
    inside = (domain.gaps(images @ keys_of.T) > 0).all(-1)
    assert bool((inside.sum(0) == action.group.order // order).all())
    form = action.act_each(domain.element(x @ keys_of.T), x)
    torch.testing.assert_close(form, images[inside.long().argmax(0), torch.arange(20)])


@pytest.mark.parametrize("name", [*ENUMERABLE, *LARGE])
def test_keys_commute_with_the_group_and_gaps_are_their_coordinates(name):
    make, order = {**ENUMERABLE, **LARGE}[name]
    action = make()
    canonical = domain_for(action)
    domain, keys_of = canonical.domain, random_keys(canonical)
    assert domain.order == order
    projection = keys_of.T @ keys_of  # orthonormal rows, or a projection of orthonormal rows
    torch.testing.assert_close(projection @ projection, projection)
    x = torch.randn(50, action.numel, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(
        action.act(action.generators()[0], x) @ projection, action.act(action.generators()[0], x @ projection)
    )
    form = action.act_each(domain.element(x @ keys_of.T), x)
    image = action.act_each(action.sample(50), x)
    torch.testing.assert_close(action.act_each(domain.element(image @ keys_of.T), image), form)
    gaps = domain.gaps(form @ keys_of.T)
    assert bool((gaps > -1e-12).all()) and gaps.shape[-1] == domain.dimension
    torch.testing.assert_close(domain.keys(gaps), form @ keys_of.T)
    assert sum(domain.part_dimensions) == domain.dimension and len(domain.part_dimensions) == len(canonical.spaces)


@pytest.mark.parametrize("name", ENUMERABLE)
def test_the_log_det_is_that_of_the_matrix(name):
    domain = domain_for(ENUMERABLE[name][0]()).domain
    matrix = domain.keys(torch.eye(domain.dimension, dtype=torch.float64))
    assert domain.log_det == pytest.approx(0.5 * float(torch.logdet(matrix @ matrix.T)), abs=1e-12)


def test_factors_without_a_key_beside_the_others_are_averaged_over():
    canonical = domain_for(RowsAction(8, VectorAction.signs(1)))
    assert canonical.domain.order == math.factorial(8) and len(canonical.averaged) == 2


# -- the choice of the key ----------
def test_the_chosen_key_is_the_feature_that_tells_the_rows_apart():
    action = RowsAction(5, 3)
    mode = torch.zeros(5, 3, dtype=torch.float64)
    mode[:, 1] = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0])
    mode[:, 0] = torch.tensor([0.0, 9.0, 9.0, 9.0, 9.0])  # a large spread, but four rows tie
    keys_of, gap = best_key(action, mode.flatten(), 0.1 * torch.eye(15, dtype=torch.float64))
    feature = keys_of[0].unflatten(-1, (5, 3))[0]
    assert float(feature[1].abs() / feature.norm()) > 0.95
    assert gap > 0.95 * 1.0 / (0.1 * 2**0.5)


def test_the_chosen_key_counts_in_standard_deviations_of_the_difference():
    """The second feature differs less, but is known much better."""
    action = RowsAction(4, 2)
    mode = torch.tensor([[0.0, 0.0], [4.0, 1.0], [8.0, 2.0], [12.0, 3.0]], dtype=torch.float64).flatten()
    factor = torch.diag(torch.tensor([4.0, 0.05] * 4, dtype=torch.float64))
    keys_of, gap = best_key(action, mode, factor)
    feature = keys_of[0].unflatten(-1, (4, 2))[0]
    assert float(feature[1].abs() / feature.norm()) > 0.99 and gap >= 1.0 / (0.05 * 2**0.5)


def test_a_direction_is_found_where_no_axis_tells_the_rows_apart():
    """On each axis two rows tie, but no two rows are equal."""
    action = RowsAction(4, 2)
    mode = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64).flatten()
    _, gap = best_key(action, mode, 0.1 * torch.eye(8, dtype=torch.float64))
    # the best direction has slopes 1 : 2, and gaps 1 / sqrt 5
    assert gap == pytest.approx(5**-0.5 / (0.1 * 2**0.5), rel=0.05)


def test_the_edges_of_a_sector_are_far_from_the_mode():
    action = VectorAction.plane("C5")
    mode = torch.tensor([2.0, 0.3], dtype=torch.float64)
    keys_of, gap = best_key(action, mode, 0.1 * torch.eye(2, dtype=torch.float64))
    domain = domain_for(action).domain
    gaps = domain.gaps(keys_of @ action.act(domain.element(keys_of @ mode), mode))
    assert float(gaps[0]) == pytest.approx(float(gaps[1]))
    assert gap == pytest.approx(float(mode.norm()) * math.sin(math.pi / 5) / 0.1)
