"""The roulette log-det: value and gradient unbiased together, right under weights, seeded by torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_gflows.numerics import ConstantMemory, ExactLogDet, RouletteLogDet
from tests.numerics.branches import Branch

LIPSCHITZ = [0.5, 0.9, 0.98]


class SineRows:
    """f(x) = L A sin(B x) with parameters A and B for each row, so that one backward pass gives gradients by row.

    A and B are orthogonal up to a diagonal that puts eigenvalues of the Jacobian next to L and to -L: the hardest case.
    """

    def __init__(self, lipschitz: float, rows: int) -> None:
        generator = torch.Generator().manual_seed(1)
        q = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
        r = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
        middle = torch.diag(torch.tensor([1.0, -1.0, 0.6], dtype=torch.float64))
        mixed = torch.linalg.matrix_exp(0.2 * (r - r.mT))
        self.a = (lipschitz * q @ middle @ mixed).expand(rows, 3, 3).clone().requires_grad_()
        self.b = q.mT.expand(rows, 3, 3).clone().requires_grad_()

    def __call__(self, x: Tensor) -> Tensor:
        return (self.a @ (self.b @ x.unsqueeze(-1)).sin()).squeeze(-1)

    def captured(self) -> list[Tensor]:
        return [self.a, self.b]

    def gradients(self, total: Tensor) -> Tensor:
        return torch.cat([g.flatten(1) for g in torch.autograd.grad(total, [self.a, self.b])], -1)


def projections() -> Tensor:
    return torch.randn(18, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def assert_within_standard_errors(samples: Tensor, exact: Tensor, count: float = 4.0) -> None:
    error = samples.std(0) / len(samples) ** 0.5
    deviation = ((samples.mean(0) - exact).abs() / error).max()
    assert deviation <= count, f"{float(deviation):.2f} standard errors"


POINT = torch.tensor([0.2, -0.1, 0.15], dtype=torch.float64)


@pytest.mark.long
@pytest.mark.parametrize("memory", [lambda estimator: estimator, ConstantMemory], ids=["plain", "constant"])
@pytest.mark.parametrize("lipschitz", LIPSCHITZ)
def test_value_and_gradient_are_unbiased(lipschitz, memory):
    rows = 20_000
    torch.manual_seed(0)
    f = SineRows(lipschitz, rows)
    estimator = memory(RouletteLogDet(exact_terms=2, shared_length=False))
    _, log_det = estimator(f, POINT.expand(rows, 3), 1, lipschitz=lipschitz, training=True)
    gradients = f.gradients(log_det.sum()) @ projections()

    g = SineRows(lipschitz, 1)
    _, exact = ExactLogDet()(g, POINT.expand(1, 3), 1, lipschitz=lipschitz, training=True)
    assert_within_standard_errors(log_det.detach(), exact.detach())
    assert_within_standard_errors(gradients, g.gradients(exact.sum()) @ projections())


@pytest.mark.long
def test_a_shared_length_is_unbiased_over_calls():
    torch.manual_seed(0)
    values, gradients = [], []
    for _ in range(400):
        f = SineRows(0.9, 8)
        _, log_det = RouletteLogDet()(f, POINT.expand(8, 3), 1, lipschitz=0.9, training=True)
        gradients.append((f.gradients(log_det.mean()) @ projections()).sum(0))
        values.append(log_det.mean().detach())
    g = SineRows(0.9, 1)
    _, exact = ExactLogDet()(g, POINT.expand(1, 3), 1, lipschitz=0.9, training=True)
    assert_within_standard_errors(torch.stack(values), exact.detach())
    assert_within_standard_errors(torch.stack(gradients), (g.gradients(exact.sum()) @ projections())[0])


@pytest.mark.long
def test_gradient_with_respect_to_the_input_is_unbiased():
    rows = 20_000
    torch.manual_seed(0)
    x = POINT.expand(rows, 3).clone().requires_grad_()
    f = SineRows(0.9, rows)
    _, log_det = RouletteLogDet(shared_length=False)(f, x, 1, lipschitz=0.9, training=True)
    (samples,) = torch.autograd.grad(log_det.sum(), x)
    _, exact = ExactLogDet()(f, x, 1, lipschitz=0.9, training=True)
    (expected,) = torch.autograd.grad(exact.sum(), x)
    assert_within_standard_errors(samples, expected[0])


@pytest.mark.parametrize("shared", [True, False])
def test_weighted_gradient_is_the_weighted_sum_of_gradients(shared):
    f = Branch((4,))
    parameters = list(f.parameters())
    x = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    torch.manual_seed(0)
    value, log_det = RouletteLogDet(shared_length=shared)(f, x, 1, lipschitz=0.8, training=True)
    terms = log_det + value.square().sum(-1)
    together = torch.autograd.grad((weights * terms).sum(), parameters, retain_graph=True)
    rows = [torch.autograd.grad(term, parameters, retain_graph=True) for term in terms]
    for index, gradient in enumerate(together):
        expected = sum(float(w) * row[index] for w, row in zip(weights, rows, strict=True))
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-13)
        assert gradient.abs().max() > 0.01


def test_randomness_is_torchs():
    f, x = Branch((4,)), torch.ones(3, 4, dtype=torch.float64)
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(RouletteLogDet()(f, x, 1, lipschitz=0.8, training=True)[1])
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_zero_lipschitz_bound_is_allowed():
    x = torch.ones(3, 4, dtype=torch.float64)
    _, log_det = RouletteLogDet()(lambda z: 0 * z, x, 1, lipschitz=0.0, training=True)
    assert torch.equal(log_det, torch.zeros(3, dtype=torch.float64))


def test_a_second_derivative_raises():
    f, x = Branch((4,)), torch.ones(3, 4, dtype=torch.float64)
    _, log_det = RouletteLogDet()(f, x, 1, lipschitz=0.8, training=True)
    with pytest.raises(RuntimeError, match="first derivative"):
        torch.autograd.grad(log_det.sum(), list(f.parameters()), create_graph=True)


@pytest.mark.long
@pytest.mark.parametrize("memory", [lambda estimator: estimator, ConstantMemory], ids=["plain", "constant"])
@pytest.mark.parametrize(("rows", "calls", "shared"), [(4000, 1, False), (1, 300, False), (2, 300, True)])
def test_every_term_is_summed_as_often_as_it_should_be(rows, calls, shared, memory):
    """Of x -> a x on the line every term is known, so that a value shows how many were summed, and a gradient too."""
    exact_terms, a, q = 3, 0.7, 0.8
    slope = torch.full((rows,), a, dtype=torch.float64, requires_grad=True)

    class Slopes:
        def __call__(self, x: Tensor) -> Tensor:
            return slope.unsqueeze(-1) * x

        def captured(self) -> list[Tensor]:
            return [slope]

    torch.manual_seed(0)
    estimator = memory(RouletteLogDet(exact_terms=exact_terms, continuation=q, shared_length=shared))
    x = torch.ones(rows, 1, dtype=torch.float64)
    values, gradients = [], []
    for _ in range(calls):
        _, log_det = estimator(Slopes(), x, 1, lipschitz=a, training=True)
        gradients.append(torch.autograd.grad(log_det.sum(), slope)[0])
        values.append(log_det.detach())
    log_det, gradient = torch.cat(values), torch.cat(gradients)

    k = torch.arange(1, 200, dtype=torch.float64)
    weights = q ** -(k - exact_terms).clamp(min=0)
    sums = (weights * (-1) ** (k + 1) * a**k / k).cumsum(0)[exact_terms - 1 :]
    slopes = (weights * (-1) ** (k + 1) * a ** (k - 1)).cumsum(0)[exact_terms - 1 :]
    more = (log_det.unsqueeze(-1) - sums).abs().argmin(-1)
    torch.testing.assert_close(log_det, sums[more], rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient, slopes[more], rtol=0, atol=1e-12)
    lengths = more[::rows] if shared else more
    for m in range(1, 12):
        share = float((lengths >= m).double().mean())
        assert abs(share - q**m) < 4.5 * (q**m * (1 - q**m) / len(lengths)) ** 0.5, m


@pytest.mark.parametrize("memory", [lambda estimator: estimator, ConstantMemory], ids=["plain", "constant"])
def test_a_jacobian_of_zero_has_a_finite_gradient_in_every_mode(memory):
    """As of a branch whose last weights start at zero: d/da log|1 + a| = 1 at a = 0, for each of two components."""
    estimator = memory(RouletteLogDet(exact_terms=3))
    x = torch.ones(4, 2, dtype=torch.float64)

    def total(a: Tensor) -> Tensor:
        return estimator(lambda x: a * x, x, 1, lipschitz=0.5, training=True)[1].sum()

    zero = torch.zeros((), dtype=torch.float64)
    expected = torch.tensor(8.0, dtype=torch.float64)
    torch.testing.assert_close(torch.func.grad_and_value(total)(zero), (expected, zero))
    torch.testing.assert_close(torch.func.jvp(total, (zero,), (zero + 1,)), (zero, expected))
    if memory is not ConstantMemory:  # which takes no tensors that a plain function holds
        leaf = zero.clone().requires_grad_()
        torch.testing.assert_close(torch.autograd.grad(total(leaf), leaf)[0], expected)


@pytest.mark.parametrize(("continuation", "refused"), [(0.2, True), (0.25, True), (0.26, False)])
def test_a_continuation_is_above_the_squared_bound(continuation, refused):
    estimator = RouletteLogDet(continuation=continuation)
    x = torch.ones(2, 2, dtype=torch.float64)
    if refused:
        with pytest.raises(ValueError, match="above the squared Lipschitz bound 0.25, got"):
            estimator(lambda x: 0.5 * x, x, 1, lipschitz=0.5, training=True)
    else:
        estimator(lambda x: 0.5 * x, x, 1, lipschitz=0.5, training=True)
