"""Jacobians by row against autograd's own, in one piece and in many."""

import pytest
import torch

from pyro_gflows.numerics import dense_jacobian, event_numel, jacobian
from pyro_gflows.numerics.branch import as_branch, constant_jacobian
from pyro_gflows.numerics.jacobian import pullback, pushforward


def points(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def branch(event):
    numel = int(torch.tensor(event).prod())
    weight = points(numel, numel).requires_grad_()
    return lambda x: (x.reshape(-1, numel).sin() @ weight.T).reshape(x.shape), weight


def by_row(f, x, event):
    """From the Jacobian of the whole batch, whose blocks between different rows are 0."""
    rows, numel = x.numel() // int(torch.tensor(event).prod()), int(torch.tensor(event).prod())
    whole = torch.autograd.functional.jacobian(f, x, create_graph=True).reshape(rows, numel, rows, numel)
    return torch.stack([whole[i, :, i] for i in range(rows)]).reshape(*x.shape[: x.dim() - len(event)], numel, numel)


@pytest.mark.parametrize("at_once", [1, 30, 2**22], ids=["one vector", "some", "all"])
@pytest.mark.parametrize(("batch", "event"), [((), (3,)), ((4,), (5,)), ((2, 3), (2, 1, 2)), ((3,), (1,))])
def test_the_jacobian_of_each_row_and_its_gradient(monkeypatch, batch, event, at_once):
    monkeypatch.setattr(jacobian, "_CHUNK_ELEMENTS", at_once)
    f, weight = branch(event)
    x = points(*batch, *event)
    value, found = dense_jacobian(f, x, len(event), create_graph=True)
    expected = by_row(f, x, event)
    torch.testing.assert_close(value, f(x))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found.sin().sum(), weight)[0], torch.autograd.grad(expected.sin().sum(), weight)[0]
    )
    constant = constant_jacobian(as_branch(f, len(event)), x)
    torch.testing.assert_close(constant, expected.detach())
    assert not constant.requires_grad


def test_products_from_both_sides():
    f, _ = branch((3,))
    x, vector = points(4, 3), points(3, 4).T
    expected = by_row(f, x, (3,)).detach()
    value, product = pullback(f, x)
    torch.testing.assert_close(value, f(x))
    torch.testing.assert_close(product(vector, create_graph=False), (expected.mT @ vector[..., None])[..., 0])
    forward = torch.func.vmap(lambda x, vector: pushforward(f, x, vector))(x, vector)
    torch.testing.assert_close(forward, (expected @ vector[..., None])[..., 0])


def test_the_jacobian_is_that_in_x_and_not_in_what_the_branch_holds():
    """The branch reads a context that was computed from x itself."""
    x = points(4, 2).requires_grad_()
    context = 3 * x
    _, found = dense_jacobian(lambda z: z * context, x, 1, create_graph=True)
    torch.testing.assert_close(found, torch.diag_embed(context))
    torch.testing.assert_close(torch.autograd.grad(found.sum(), x)[0], torch.full_like(x, 3.0))


def test_bad_input_says_what_was_expected():
    with pytest.raises(ValueError, match=r"keep the shape \(3, 4, 3\), got \(3, 4, 2\)"):
        dense_jacobian(lambda x: x[..., :2], points(4, 3), 1, create_graph=False)
    for event_dim in (-1, 3):
        with pytest.raises(ValueError, match=f"event_dim={event_dim} dimensions, got .4, 3."):
            event_numel(points(4, 3), event_dim)
    assert [event_numel(points(4, 3), k) for k in (0, 1, 2)] == [1, 3, 12]
