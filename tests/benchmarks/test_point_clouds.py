"""The models of the benchmark of point clouds: densities of the same thing, and exact ones."""

import pytest
import torch

from benchmarks.cloud_lists import list_flow
from benchmarks.cloud_sets import LIMIT, Histogram, RowTable, set_flow
from benchmarks.point_clouds import KINDS, columns_of, parameters, shuffled_list, sorted_list
from pyro_gflows import RowsAction
from pyro_gflows.testing import randomize_


def random_(model, scale=0.2):
    return randomize_(model.double(), scale=scale, generator=torch.Generator().manual_seed(1)).eval()


def points(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("is_sorted", [True, False])
def test_lists_are_mapped_one_coordinate_after_the_other(is_sorted):
    torch.manual_seed(0)
    transform = random_(list_flow(4, width=20, bins=4, is_sorted=is_sorted)).transform
    x = sorted_list(points(3, 4, 2))
    y, ladj = transform.inv_call_and_ladj(x)
    jacobian = torch.autograd.functional.jacobian(lambda x: transform.inv_call_and_ladj(x)[0], x[0])
    assert not jacobian.triu(1).any() and jacobian.tril(-1).count_nonzero() > 15
    assert (jacobian.slogdet().logabsdet - ladj[0]).abs() < 1e-10
    back, inverse_ladj = transform.call_and_ladj(y)
    assert (back - x).abs().max() < 1e-10 and (inverse_ladj + ladj).abs().max() < 1e-10


def test_the_map_of_sorted_lists_has_all_sorted_lists_as_values_and_no_others():
    torch.manual_seed(0)
    transform = random_(list_flow(5, width=20, bins=4, is_sorted=True)).transform
    y = transform(points(2000, 10))
    assert (y[:, ::2].diff() >= 0).all()  # equal by rounding only; so q / n! is a density of sets
    wide = sorted_list(4 * points(2000, 5, 2, seed=1))
    assert (transform(transform.inv_call_and_ladj(wide)[0]) - wide).abs().max() < 1e-8


def test_lists_hold_the_points_of_the_set():
    cloud = points(5, 6, 2)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sorted_list(cloud[:, order]), sorted_list(cloud))
    assert (sorted_list(cloud)[:, ::2].diff() > 0).all()
    shuffled = shuffled_list(cloud, torch.Generator().manual_seed(0))
    assert not torch.equal(shuffled, cloud.flip(-1).flatten(1))
    assert torch.equal(sorted_list(shuffled.unflatten(-1, (6, 2)).flip(-1)), sorted_list(cloud))
    assert torch.equal(columns_of(cloud), torch.cat([cloud[..., 0], cloud[..., 1]], -1))


def test_the_flow_of_sets_is_invariant_and_independent_given_the_latent_vector():
    torch.manual_seed(0)
    model = random_(set_flow(4, latent=4, width=6, bins=4, nodes=5))
    order, x = torch.tensor([2, 0, 3, 1]), points(3, 4, 2)
    with torch.no_grad():
        assert (model(columns_of(x[:, order])) - model(columns_of(x))).abs().max() < 1e-10
        a = points(3, 4, seed=1)
        score = model.flow(torch.cat([columns_of(x), a], -1))
        # log p(x, a) = log p(a) + sum_i log p(x_i | a): changing one point changes its own term alone
        other = x.clone()
        other[:, 0] += 0.3
        first = model.flow(torch.cat([columns_of(other), a], -1)) - score
        x[:, 1:] += 0.5
        other[:, 1:] += 0.5
        second = model.flow(torch.cat([columns_of(other), a], -1)) - model.flow(torch.cat([columns_of(x), a], -1))
    assert (first - second).abs().max() < 1e-10 and first.abs().min() > 1e-3


def test_tables_are_read_by_linear_interpolation():
    rows = RowsAction(3)
    table = RowTable(rows.direct_sum(rows.trivial_fields(2)), rows.copies(5), points=3, width=4, nodes=7).double()
    latent, nodes = points(1, 2), torch.linspace(-LIMIT, LIMIT, 7, dtype=torch.float64)
    with torch.no_grad():
        known = table.layers(latent).reshape(7, 5)
        found = table(torch.cat([torch.tensor([[nodes[2], 0.25 * nodes[2] + 0.75 * nodes[3], 99.0]]), latent], -1))
    expected = torch.stack([known[2], 0.25 * known[2] + 0.75 * known[3], known[6]])
    assert (found.reshape(5, 3).T - expected).abs().max() < 1e-3  # the last node is reached up to 1e-4 of a cell


def test_a_histogram_counts_points_near_nodes():
    rows = RowsAction(4)
    network = Histogram(rows.copies(2), rows.trivial_fields(1), width=3, cells=3, limit=1.0).double()
    network.layers = torch.nn.Identity()
    x = torch.tensor([[-1.0, 0.0, 0.0, 0.5], [-1.0, 0.0, 0.0, 0.5]], dtype=torch.float64).reshape(1, 8)
    expected = torch.tensor([1.0, 0.0, 0.0, 0.0, 2.25, 0.25, 0.0, 0.25, 0.25], dtype=torch.float64)
    assert (network(x)[0] - expected).abs().max() < 1e-3


def test_all_models_have_as_many_parameters():
    counts = {name: parameters(kind.make()) for name, kind in KINDS.items()}
    assert max(counts.values()) < 1.01 * min(counts.values())
