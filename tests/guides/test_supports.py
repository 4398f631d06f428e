"""How a group acts on the free coordinates of constrained sites: whole rows, categories, and what is refused."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch.distributions import biject_to, constraints

from pyro_gflows.actions import RowsAction, SitesAction, VectorAction
from pyro_gflows.groups import parse_group
from pyro_gflows.guides import AutoGFlow, LogRatioReparam
from pyro_gflows.guides.log_ratio import log_ratio_simplex
from pyro_gflows.guides.supports import unconstrained_action

ROWS = VectorAction.rows


def by_generators(row):
    """The same permutations of three rows as matrices of the user's own."""
    orders = ([1, 0, 2], [1, 2, 0])
    blocks = [torch.kron(torch.eye(3, dtype=torch.float64)[order], torch.eye(row).double()) for order in orders]
    return VectorAction.from_generators(blocks)


def permuted_and_signed(row):
    """Three rows that are permuted by one factor of a product, whose other factor does nothing to them."""
    return ROWS("S3", features=row).lift(parse_group("S3 x C2"), 0)


MAKERS = {"rows": lambda row: ROWS("S3", features=row), "matrices": by_generators, "a product": permuted_and_signed}

# name: the support of one row, the shape of a row, how many of its coordinates are free
SUPPORTS = {
    "simplex": (constraints.simplex, (4,), 3),
    "log-ratios": (log_ratio_simplex, (4,), 3),
    "Cholesky factor": (constraints.corr_cholesky, (3, 3), 3),
    "Cholesky factor of two": (constraints.corr_cholesky, (2, 2), 1),
    "correlation matrix": (dist.constraints.corr_matrix, (3, 3), 3),
    "two simplexes": (constraints.independent(constraints.simplex, 1), (2, 4), 6),
    "ordered vector": (dist.constraints.ordered_vector, (3,), 3),
}


def free_shape(support, values):
    return tuple(biject_to(support).inverse_shape(values))


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("name", SUPPORTS)
def test_a_permutation_of_whole_rows_permutes_the_rows_of_free_coordinates(name, maker):
    support, shape, free = SUPPORTS[name]
    own = MAKERS[maker](torch.Size(shape).numel())
    action = SitesAction(own.group, {"site": own})
    found = unconstrained_action(action, "site", support, free_shape(support, (3, *shape)))
    assert found.numel == 3 * free
    u = torch.randn(5, 3, free, dtype=torch.float64)
    transform = biject_to(support)
    for element in own.elements():
        # the independent computation: which row goes where, from the action on numbered rows
        numbered = torch.arange(3.0).repeat_interleave(own.numel // 3)
        order = own.act(element, numbered).reshape(3, -1)[:, 0].long()
        if name != "log-ratios":  # whose free coordinates are in a basis of their own
            torch.testing.assert_close(found.act(element, u.flatten(1)).reshape(u.shape), u[:, order])
        image = transform(found.act(element, u.flatten(1)).reshape(5, *free_shape(support, (3, *shape))))
        values = transform(u.reshape(5, *free_shape(support, (3, *shape))))
        torch.testing.assert_close(image, values[:, order], atol=1e-9, rtol=1e-9)


def test_the_outer_and_the_inner_of_two_plates():
    shape = (3, 2, 3)  # of the free coordinates of 3 x 2 simplexes of 4 categories
    outer = SitesAction("S3", {"site": ROWS("S3", features=8)})
    assert unconstrained_action(outer, "site", constraints.simplex, shape) == ROWS("S3", features=6)
    inner = SitesAction("S2", {"site": ROWS("S2", features=4).copies(3)})
    assert unconstrained_action(inner, "site", constraints.simplex, shape) == ROWS("S2", features=3).copies(3)


@pytest.mark.parametrize("group", ["C1", "S3", "SO(2)"])
@pytest.mark.parametrize("support", [constraints.simplex, log_ratio_simplex], ids=["simplex", "log-ratios"])
def test_a_group_that_leaves_a_site_unchanged_leaves_its_free_coordinates_unchanged(group, support):
    action = SitesAction(group, {"site": VectorAction.trivial(group, copies=8)})
    found = unconstrained_action(action, "site", support, (2, 3))
    u = torch.randn(6, dtype=torch.float64)
    torch.testing.assert_close(found.act(action.sample(), u), u)


def test_one_fixed_row_and_two_that_change_places():
    own = VectorAction.trivial("S2", copies=4).direct_sum(ROWS("S2", features=4))
    found = unconstrained_action(SitesAction("S2", {"site": own}), "site", constraints.simplex, (3, 3))
    u = torch.arange(9.0)
    assert found.act(torch.tensor(1), u).tolist() == [0, 1, 2, 6, 7, 8, 3, 4, 5]


@pytest.mark.parametrize(
    ("support", "shape", "own", "message"),
    [
        (constraints.simplex, (3, 3), ROWS("S4").copies(3), "only 9 of them are free .* LogRatioReparam"),
        (constraints.simplex, (3, 3), ROWS("S6", features=2), "only 9 of them are free"),
        (constraints.simplex, (3, 3), VectorAction.signs(1, copies=12), "only 9 of them are free"),
        (log_ratio_simplex, (3, 3), VectorAction.signs(1, copies=12), "an action that permutes its categories, or"),
        (constraints.corr_cholesky, (3, 1), ROWS("S2", features=2).copies(3), "whole rows of them"),
        (dist.constraints.ordered_vector, (3, 2), ROWS("S2").copies(3), "does not commute .*whole rows of them"),
        (constraints.simplex, (3, 0), ROWS("S3"), "no free coordinate .* leave it out"),
        (constraints.simplex, (3, 3), ROWS("S3", features=5), "expected 15 components, .* has 12"),
        (log_ratio_simplex, (7,), RowsAction(8, mean_free=True), "has 8; give the action on the values on the simplex"),
    ],
)
def test_an_action_that_does_not_restrict_to_the_free_coordinates_is_refused(support, shape, own, message):
    with pytest.raises(ValueError, match=message):
        unconstrained_action(SitesAction(own.group, {"site": own}), "site", support, shape)


def components():
    """Three components, each with a correlation matrix, weights of its own and a location."""
    with pyro.plate("components", 3):
        factor = pyro.sample("factor", dist.LKJCholesky(2, torch.tensor(2.0)))
        shares = pyro.sample("shares", dist.Dirichlet(torch.ones(4)))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
    total = (factor[..., 1, 0] * scale + shares[..., 0]).sum(-1)
    pyro.sample("x", dist.Normal(total, 0.5), obs=torch.tensor(1.0))


@pytest.mark.parametrize("reparam", [{}, {"shares": LogRatioReparam()}], ids=["stick breaking", "log-ratios"])
@pytest.mark.long
def test_a_guide_over_components_with_factors_and_simplexes(reparam):
    model = poutine.reparam(components, config=reparam)
    action = SitesAction(
        "S3", {"factor": ROWS("S3", features=4), "shares": ROWS("S3", features=4), "scale": ROWS("S3")}
    )
    guide = AutoGFlow(model, action, check="raise")
    assert guide.flow.action.numel == 3 * (1 + 3 + 1)
    with torch.no_grad(), pyro.plate("draws", 6, dim=-2):
        drawn = guide()
    relabeled = guide.orbit_representative(drawn)
    assert {name: value.shape for name, value in relabeled.items()} == {
        name: value.shape for name, value in drawn.items()
    }
    assert relabeled["factor"].shape == (6, 3, 2, 2)


def test_rows_of_any_number_have_rows_of_free_coordinates():
    def action(own):
        return SitesAction(own.group, {"site": own})

    simplex = constraints.independent(log_ratio_simplex, 1)
    cases = [
        (RowsAction(20), log_ratio_simplex, (19,), "mean-free rows"),
        (RowsAction(20, 3), simplex, (20, 2), "rows of 2"),
        (RowsAction.of_matrix(7), simplex, (7, 6), "mean-free 7 x 7 matrix in blocks 0 and 0"),
        (RowsAction(9, 9), constraints.independent(constraints.corr_cholesky, 1), (9, 3), "rows of 3"),
        (RowsAction(9), constraints.positive, (9,), "rows"),
        (RowsAction(9, 2, signed=[1]), constraints.real, (9, 2), "signed rows of 2"),
    ]
    for own, support, shape, words in cases:
        assert repr(unconstrained_action(action(own), "site", support, shape)).endswith(f": {words})")
    with pytest.raises(ValueError, match="does not commute with the map"):
        unconstrained_action(action(RowsAction(9, signed=True)), "site", constraints.positive, (9,))
    with pytest.raises(ValueError, match="only 19 of them are free"):
        unconstrained_action(action(RowsAction(10, 2)), "site", log_ratio_simplex, (19,))
