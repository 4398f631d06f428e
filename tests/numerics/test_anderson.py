"""Anderson acceleration: right on hard branches, and quick where the Banach iteration is slow."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from pyro_gflows import GResidual, ImageAction, VectorAction
from pyro_gflows.nn import LipschitzNetwork, lipschitz_branch
from pyro_gflows.numerics import AndersonSolver, BanachSolver, InverseDidNotConverge
from pyro_gflows.numerics.solvers import row_norm
from tests.numerics.branches import Branch


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def orthogonal(size, seed=1):
    return torch.linalg.qr(random(size, size, seed=seed))[0]


def zigzag(x: Tensor) -> Tensor:
    """Slopes of +-0.95 that alternate, along directions that are not the axes."""
    q = orthogonal(x.shape[-1])
    return 0.95 * (1 - ((3 * x @ q).remainder(2) - 1).abs()) / 3 @ q.mT


def bent(x: Tensor) -> Tensor:
    near = x.clamp(-1, 1)
    return 0.95 * near - 0.95 * (x - near)


GENERATOR = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
LINEAR = {
    "a rotation": lambda size: orthogonal(size),
    "a cycle": lambda size: torch.eye(size, dtype=torch.float64).roll(1, 0),
    "planes of many angles": lambda size: torch.block_diag(
        *[
            torch.linalg.matrix_exp(angle * torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double())
            for angle in range(size // 2)
        ]
    ),
    "nearly -1": lambda size: -torch.eye(size, dtype=torch.float64),
    "not normal": lambda size: (m := torch.triu(random(size, size, seed=2))) / torch.linalg.matrix_norm(m, 2),
}


@pytest.mark.parametrize("size", [4, 16])
@pytest.mark.parametrize("name", LINEAR)
def test_the_root_of_a_linear_branch_is_that_of_a_dense_solve(name, size):
    matrix, shift, y = 0.99 * LINEAR[name](size), random(size, seed=3), 3 * random(20, size)
    root, report = AndersonSolver()(lambda x: x @ matrix.mT + shift, y, 1, lipschitz=0.99)
    expected = torch.linalg.solve(torch.eye(size, dtype=y.dtype) + matrix, (y - shift).mT).mT
    torch.testing.assert_close(root, expected, rtol=0, atol=1e-9)
    assert report.evaluations <= 21
    assert report.converged and report.error_bound >= float((root - expected).norm(dim=-1).max())


def stiff():
    branch = lipschitz_branch(VectorAction.regular("C4", copies=2), bound=0.97).double()
    with torch.no_grad():
        for index, part in enumerate(branch.parts):
            part.splines.theta.copy_(20 * random(*part.splines.theta.shape, seed=index).sign())
    return branch


HARD = {
    "zigzag": (zigzag, 0.95),
    "bent": (bent, 0.95),
    "steps of splines": (stiff(), 0.97),
    "reflection": (lambda x: -0.9 * x.abs(), 0.9),
    "waves": (lambda x: 0.1 * (9.9 * x.roll(1, -1)).sin(), 0.99),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", HARD)
def test_hard_branches_take_at_most_twice_the_evaluations_of_the_banach_iteration(name, dtype):
    f, lipschitz = HARD[name]
    if isinstance(f, torch.nn.Module):
        f = f.to(dtype)
    elif dtype == torch.float32:
        f = (lambda g: lambda x: g(x.double()).float())(f)
    y = 3 * random(12, 8, dtype=dtype)
    root, report = AndersonSolver()(f, y, 1, lipschitz=lipschitz)
    _, plain = BanachSolver()(f, y, 1, lipschitz=lipschitz)
    scale = y.abs().amax(-1).clamp(min=1)
    assert report.converged
    assert ((y - root - f(root)).abs().amax(-1) <= 1.01 * torch.finfo(dtype).eps ** 0.8 * scale).all()
    assert report.evaluations <= 2 * plain.evaluations


def test_two_steps_shrink_the_residual_as_much_as_the_bound_promises_for_one():
    y = 3 * random(60, 8)
    norms = [
        row_norm(y - root - zigzag(root), 1)
        for count in range(1, 25)
        for root, _ in [AndersonSolver(max_iterations=count, strict=False)(zigzag, y, 1, lipschitz=0.95)]
    ]
    refused = [((after == before) & (before > 1e-10)).any() for before, after in pairwise(norms)]
    assert any(refused)  # otherwise this would test nothing
    for before, after in zip(norms[:-2], norms[2:], strict=True):
        assert (after <= 0.95 * before * (1 + 1e-9) + 1e-12).all()


STEEP = {
    "vectors": (VectorAction.regular("C4", copies=4), 256, lipschitz_branch),
    "images": (
        ImageAction("D4", 1, size=16),
        8,
        lambda a, bound: LipschitzNetwork(a, width=4, bound=bound, mirrored=True),
    ),
}


def steep(name, bound):
    action, batch, make = STEEP[name]
    torch.manual_seed(1)
    branch = make(action, bound=bound)
    with torch.no_grad():
        for parameter in (p for key, p in branch.named_parameters() if key.endswith("theta")):
            parameter.copy_(2.0 + 0.3 * torch.randn_like(parameter))
    return branch.double(), random(batch, *action.event_shape), action.event_dim


@pytest.mark.parametrize("bound", [0.9, 0.97, 0.99])
@pytest.mark.parametrize("name", STEEP)
def test_steep_layers_take_at_most_12_evaluations(name, bound):
    f, y, event_dim = steep(name, bound)
    root, report = AndersonSolver(tolerance=1e-6)(f, y, event_dim, lipschitz=bound)
    assert float((y - root - f(root)).detach().abs().max()) <= 1e-6
    assert report.evaluations <= 12 < BanachSolver(tolerance=1e-6)(f, y, event_dim, lipschitz=bound)[1].evaluations / 2


def test_a_branch_with_a_root_at_the_start_and_a_constant_branch_are_no_special_case():
    y = random(5, 6)
    for f, root in ((torch.zeros_like, y), (torch.ones_like, y - 1)):
        found, report = AndersonSolver()(f, y, 1, lipschitz=0.5)
        torch.testing.assert_close(found, root, rtol=0, atol=1e-12)
        assert report.evaluations <= 2


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_that_is_not_finite_changes_no_other_row(bad):
    f, y = Branch((6,), lipschitz=0.98), random(30, 6)
    good, _ = AndersonSolver()(f, y, 1, lipschitz=0.98)
    y[7, 2] = bad
    found, report = AndersonSolver(strict=False)(f, y, 1, lipschitz=0.98)
    others = torch.arange(30) != 7
    torch.testing.assert_close(found[others], good[others], rtol=0, atol=1e-13)
    assert not report.converged


def test_steps_to_where_the_branch_is_not_finite_are_refused():
    y = 3 * random(50, 6)

    def f(x: Tensor) -> Tensor:
        # Banach steps stay near y, where all values of the branch are
        return torch.where((x - y).norm(dim=-1, keepdim=True) < 0.8, zigzag(x), math.nan)

    root, report = AndersonSolver()(f, y, 1, lipschitz=0.95)
    assert report.converged and (root + zigzag(root) - y).abs().max() < 1e-11
    with pytest.raises(InverseDidNotConverge, match="not finite"):
        AndersonSolver()(lambda x: math.nan * x, y, 1, lipschitz=0.95)


@pytest.mark.parametrize("lipschitz", [0.9, math.inf])
def test_an_expanding_branch_ends_with_an_error(lipschitz):
    solver = AndersonSolver(max_iterations=200)
    with pytest.raises(InverseDidNotConverge, match="AndersonSolver stopped after"):
        solver(lambda x: 3 * (7 * x).sin() + 2 * x.square(), random(5, 6), 1, lipschitz=lipschitz)


def test_a_layer_takes_it_in_both_directions():
    f, y, _ = steep("vectors", 0.97)
    layer = GResidual(f.action, f, solver=AndersonSolver())
    x, ladj = layer.call_and_ladj(y)
    again, back = layer.inv_call_and_ladj(x)
    torch.testing.assert_close(again, y, rtol=0, atol=1e-11)
    torch.testing.assert_close(ladj, -back, rtol=0, atol=1e-11)


def test_works_under_vmap():
    f, y = Branch((6,), lipschitz=0.9), random(3, 5, 6)
    expected, _ = AndersonSolver()(f, y, 1, lipschitz=0.9)
    found = torch.func.vmap(lambda rows: AndersonSolver()(f, rows, 1, lipschitz=0.9)[0])(y)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
