"""Block-diagonal matrices plus a product of low rank, against dense ones."""

import pytest
import torch

from pyro_gflows.numerics import ExactLogDet, PooledBlock, PooledJacobian, PooledLogDet, PooledNewtonSolver

SHAPES = {
    "one block": [(5, 2)],
    "one row": [(1, 3)],
    "three blocks": [(4, 2), (1, 3), (6, 4)],
}


def random(*shape):
    return 0.3 * torch.randn(*shape, dtype=torch.float64)


@pytest.fixture(params=SHAPES)
def jacobian(request):
    torch.manual_seed(0)
    return PooledJacobian(
        [PooledBlock(random(2, n, d, d), random(2, n, d, 3), random(2, n, 3, d)) for n, d in SHAPES[request.param]]
    )


def dense(jacobian):
    """The matrix, row by row from its definition."""
    rows = [
        (block.own[:, i], block.reads[:, i], block.feeds[:, i])
        for block in jacobian.blocks
        for i in range(block.own.shape[1])
    ]
    parts = [
        [reads @ feeds + (own if i == j else 0) for j, (_, _, feeds) in enumerate(rows)]
        for i, (own, reads, _) in enumerate(rows)
    ]
    return torch.cat([torch.cat(row, -1) for row in parts], -2)


def eye(matrix):
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype)


def flat(vectors):
    return torch.cat([vector.flatten(1) for vector in vectors], 1)


def test_the_dense_matrix_is_that_of_the_definition(jacobian):
    torch.testing.assert_close(jacobian.dense(), dense(jacobian), rtol=0, atol=1e-14)


def test_the_determinant_is_that_of_the_dense_matrix(jacobian):
    matrix = dense(jacobian)
    expected = torch.linalg.slogdet(eye(matrix) + matrix).logabsdet
    torch.testing.assert_close(jacobian.log_abs_det(), expected, rtol=0, atol=1e-12)


def test_the_solution_solves_the_dense_equation(jacobian):
    vectors = [torch.randn(block.own.shape[:-1], dtype=torch.float64) for block in jacobian.blocks]
    matrix = dense(jacobian)
    found = flat(jacobian.solve(vectors)).unsqueeze(-1)
    torch.testing.assert_close((eye(matrix) + matrix) @ found, flat(vectors).unsqueeze(-1), rtol=0, atol=1e-10)


def test_means_are_taken_off(jacobian):
    masks = [torch.arange(block.own.shape[-1]) % 2 == 0 for block in jacobian.blocks]
    parts = []
    for block, mask in zip(jacobian.blocks, masks, strict=True):
        n = block.own.shape[1]
        means = torch.kron(torch.ones(n, n, dtype=torch.float64) / n, torch.diag(mask.double()))
        parts.append(torch.eye(len(means), dtype=torch.float64) - means)
    projection, matrix = torch.block_diag(*parts), dense(jacobian)
    found = jacobian.without_means([mask.nonzero().flatten() for mask in masks])
    torch.testing.assert_close(dense(found), matrix @ projection, rtol=0, atol=1e-14)
    projected = eye(matrix) + projection @ matrix @ projection
    torch.testing.assert_close(found.log_abs_det(), torch.linalg.slogdet(projected).logabsdet, rtol=0, atol=1e-12)
    vectors = [torch.randn(block.own.shape[:-1], dtype=torch.float64) for block in jacobian.blocks]
    event = projection @ flat(vectors).unsqueeze(-1)
    rows = [
        part.unflatten(1, block.own.shape[1:-1])
        for part, block in zip(
            event.squeeze(-1).split([v[0].numel() for v in vectors], 1), jacobian.blocks, strict=True
        )
    ]
    solution = projection @ flat(found.solve(rows)).unsqueeze(-1)
    torch.testing.assert_close(projected @ solution, event, rtol=0, atol=1e-10)


def test_gradients_are_those_of_the_dense_determinant(jacobian):
    leaves = [part.requires_grad_() for block in jacobian.blocks for part in (block.own, block.reads, block.feeds)]
    found = torch.autograd.grad(jacobian.log_abs_det().sum(), leaves)
    matrix = dense(jacobian)
    expected = torch.autograd.grad(torch.linalg.slogdet(eye(matrix) + matrix).logabsdet.sum(), leaves)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("call", "instead"), [(PooledLogDet(), type(ExactLogDet()).__name__), (PooledNewtonSolver(), "AndersonSolver")]
)
def test_other_branches_are_refused(call, instead):
    arguments = {"training": False} if isinstance(call, PooledLogDet) else {}
    with pytest.raises(TypeError, match=f"a branch with a pooled Jacobian, .* take {instead}"):
        call(lambda x: 0.5 * x.sin(), torch.ones(3, 2), 1, lipschitz=0.5, **arguments)


def test_second_derivatives_in_forward_mode_are_those_of_the_dense_determinant(jacobian):
    parts = [part for block in jacobian.blocks for part in (block.own, block.reads, block.feeds)]
    along = [torch.randn_like(part) for part in parts]

    def pooled(t):
        moved = [part + t * step for part, step in zip(parts, along, strict=True)]
        return PooledJacobian([PooledBlock(*moved[i : i + 3]) for i in range(0, len(moved), 3)])

    def by_rows(t):
        matrix = dense(pooled(t))
        return torch.linalg.slogdet(eye(matrix) + matrix).logabsdet.sum()

    zero = torch.zeros((), dtype=torch.float64)
    expected = torch.autograd.functional.hessian(by_rows, zero)
    total = lambda t: pooled(t).log_abs_det().sum()  # noqa: E731
    for first in (torch.func.jacfwd, torch.func.jacrev):
        for second in (torch.func.jacfwd, torch.func.jacrev):
            torch.testing.assert_close(first(second(total))(zero), expected, rtol=1e-10, atol=1e-10)
