"""The Krylov log-det against dense logarithms: value, certificate, gradients, bias, and one row among others."""

import math

import pytest
import torch

from pyro_gflows import ImageAction
from pyro_gflows.nn import LipschitzNetwork
from pyro_gflows.numerics import ConstantMemory, ExactLogDet, KrylovLogDet, krylov_average
from pyro_gflows.numerics.hessenberg_log import log_quadrature
from pyro_gflows.numerics.krylov_space import StoppingRule, krylov_space
from pyro_gflows.numerics.probes import fixed_probes
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import GResidual
from tests.numerics.branches import Branch, EquivariantBranch, exact_log_det
from tests.numerics.test_roulette import POINT, SineRows, assert_within_standard_errors, projections

BOUNDS = [0.5, 0.9, 0.98, 0.99]
SIZE, ROWS = 9, 6


def points(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def matrices(kind, lipschitz):
    """One matrix for each row, of norm exactly ``lipschitz``."""
    identity = torch.eye(SIZE, dtype=torch.float64)
    plain = points(ROWS, SIZE, SIZE, seed=1)
    chosen = {
        "of no symmetry": plain,
        "triangular": plain.triu(),
        "symmetric": plain + plain.mT,
        "negative": -identity + 0.05 * plain,
        "skew": plain - plain.mT,
        "a shift": identity.roll(1, 0).expand(ROWS, SIZE, SIZE),
        "of rank 2": plain[..., :2] @ plain[..., :2].mT,
        "a multiple of the identity": -identity.expand(ROWS, SIZE, SIZE),
        "zero": torch.zeros(ROWS, SIZE, SIZE, dtype=torch.float64),
    }[kind]
    return lipschitz * chosen / torch.linalg.matrix_norm(chosen, 2).clamp(min=1e-9)[:, None, None]


KINDS = ["of no symmetry", "triangular", "symmetric", "negative", "skew", "a shift", "of rank 2", "zero"]
KINDS.append("a multiple of the identity")


def linear(matrix):
    return lambda x: (matrix @ x.unsqueeze(-1)).squeeze(-1)


def dense_estimate(matrix, probes):
    """The mean of p^T log(I + A) p, with the logarithm of 2^k log of the 2^k-th root, by its power series."""
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype)
    root, scale = identity + matrix, 1.0
    for _ in range(10):
        y, z = root, identity.expand_as(root)  # the iteration of Denman and Beavers for the square root
        for _ in range(25):
            y, z = (y + torch.linalg.inv(z)) / 2, (z + torch.linalg.inv(y)) / 2
        root, scale = y, 2 * scale
    step = root - identity
    term, total = step, torch.zeros_like(step)
    for k in range(1, 8):
        total = total - (-1) ** k * term / k
        term = term @ step
    return scale * torch.einsum("pi,bij,pj->b", probes, total, probes) / len(probes)


def probes_of(estimator):
    return fixed_probes(estimator.probes, (SIZE,), seed=estimator.seed, like=torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize("lipschitz", BOUNDS)
def test_the_quadrature_is_the_logarithm(lipschitz):
    nodes, weights = log_quadrature(lipschitz, torch.zeros((), dtype=torch.float64))
    z = lipschitz * torch.exp(1j * torch.linspace(0, math.pi, 200, dtype=torch.float64))[:, None]
    assert ((weights * z / (1 + nodes * z)).sum(-1) - z.squeeze(-1).log1p()).abs().max() < 1e-13
    assert nodes.min() > 0 and nodes.max() < 1


@pytest.mark.parametrize("lipschitz", BOUNDS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_space_gives_the_exact_value(kind, lipschitz):
    matrix, estimator = matrices(kind, lipschitz), KrylovLogDet(tolerance=0, probes=3)
    report = estimator.report(linear(matrix), points(ROWS, SIZE), 1, lipschitz=lipschitz)
    expected = dense_estimate(matrix, probes_of(estimator))
    torch.testing.assert_close(report.log_det, expected, rtol=0, atol=1e-10)
    assert report.certified.max() < 1e-9
    if kind in ("zero", "a multiple of the identity"):
        assert torch.equal(report.products, torch.ones(ROWS, dtype=torch.float64))  # the space is invariant at once
    if kind == "of rank 2":
        assert report.products.max() <= 3


@pytest.mark.parametrize("lipschitz", BOUNDS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_certificate_is_a_bound_at_every_order(kind, lipschitz):
    matrix = matrices(kind, lipschitz)
    for order in range(1, SIZE):
        estimator = KrylovLogDet(tolerance=0, probes=1, max_terms=order)
        report = estimator.report(linear(matrix), points(ROWS, SIZE), 1, lipschitz=lipschitz)
        error = (report.log_det - dense_estimate(matrix, probes_of(estimator))).abs()
        assert (error <= report.certified + 1e-10).all()
        assert error.max() <= estimator.truncation_error(lipschitz=lipschitz, dim=SIZE) + 1e-10


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6])
def test_rows_stop_at_what_is_observed(tolerance):
    lipschitz, estimator = 0.9, KrylovLogDet(tolerance=tolerance, probes=2)
    matrix = matrices("of no symmetry", lipschitz)
    report = estimator.report(linear(matrix), points(ROWS, SIZE), 1, lipschitz=lipschitz)
    error = (report.log_det - dense_estimate(matrix, probes_of(estimator))).abs()
    assert report.observed.max() <= tolerance * SIZE
    assert error.max() <= 10 * tolerance * SIZE
    assert report.certified.max() <= estimator.truncation_error(lipschitz=lipschitz, dim=SIZE)
    assert report.products.min() > 1 and report.products.max() <= SIZE


def mixed_rows():
    """A branch with a scale for each row, so that the rows need different numbers of products."""
    scale = torch.tensor([0.0, 0.05, 0.3, 0.7, 0.9, 0.98], dtype=torch.float64)[:, None]
    matrix = matrices("of no symmetry", 1.0)
    return lambda x, rows=slice(None): scale[rows] * (matrix[rows] @ x.sin().unsqueeze(-1)).squeeze(-1)


def test_a_row_is_the_same_in_any_batch():
    f, x, estimator = mixed_rows(), points(ROWS, SIZE), KrylovLogDet(probes=1, tolerance=1e-6)
    together = estimator.report(f, x, 1, lipschitz=0.98)
    assert together.products.tolist() == sorted(together.products.tolist()) and len(together.products.unique()) >= 4
    for row in range(ROWS):
        alone = estimator.report(lambda x, row=row: f(x, [row]), x[row : row + 1], 1, lipschitz=0.98)
        assert alone.products[0] == together.products[row]
        torch.testing.assert_close(alone.log_det[0], together.log_det[row], rtol=0, atol=1e-13)
        torch.testing.assert_close(alone.certified[0], together.certified[row], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("tolerance", [0.0, 1e-4])
@pytest.mark.parametrize("stored", [2**20, 0], ids=["stored", "made again"])
def test_the_gradient_in_evaluation_is_that_of_the_value(tolerance, stored, monkeypatch):
    monkeypatch.setattr(krylov_average, "_MOST_STORED", stored)
    f, estimator = Branch((5,), lipschitz=0.9), KrylovLogDet(tolerance=tolerance, max_terms=4, probes=2)

    def total(x, *weights):
        names = [name for name, _ in f.named_parameters()]

        def at(z):
            return torch.func.functional_call(f, dict(zip(names, weights, strict=True)), z)

        return estimator(at, x, 1, lipschitz=0.9, training=False)[1].sum()

    inputs = [points(3, 5).requires_grad_(), *(p.detach().clone().requires_grad_() for p in f.parameters())]
    assert torch.autograd.gradcheck(total, inputs, atol=1e-7, fast_mode=True)
    assert torch.autograd.gradgradcheck(total, inputs, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_finite_where_the_space_is_invariant(kind):
    matrix = matrices(kind, 0.9).requires_grad_()
    for estimator in (KrylovLogDet(tolerance=0, probes=2), KrylovLogDet(tolerance=0), KrylovLogDet(unbiased=True)):
        training = estimator.probes == 4
        _, log_det = estimator(linear(matrix), points(ROWS, SIZE), 1, lipschitz=0.9, training=training)
        (found,) = torch.autograd.grad(log_det.sum(), matrix)
        assert torch.isfinite(found).all() and found.abs().max() > 0.1


@pytest.mark.parametrize("lipschitz", [0.5, 0.98])
def test_w_solves_the_transposed_equation(lipschitz):
    """So that the gradient of one probe is w^T dJ eps with the exact w, once the space is the whole one."""
    matrix = matrices("of no symmetry", lipschitz).requires_grad_()
    torch.manual_seed(0)
    _, log_det = KrylovLogDet(tolerance=0)(linear(matrix), points(ROWS, SIZE), 1, lipschitz=lipschitz, training=True)
    (found,) = torch.autograd.grad(log_det.sum(), matrix)
    torch.manual_seed(0)
    probe = torch.randint(0, 2, (ROWS, SIZE), dtype=torch.float64) * 2 - 1
    w = torch.linalg.solve(torch.eye(SIZE, dtype=torch.float64) + matrix.detach().mT, probe)
    torch.testing.assert_close(found, w.unsqueeze(-1) * probe.unsqueeze(-2), rtol=0, atol=1e-9)


@pytest.mark.parametrize("terms", [1, 2, 4])
def test_w_is_the_galerkin_solution_and_one_step_more(terms):
    """The solution whose residual is orthogonal to the Krylov space, plus that residual."""
    matrix = matrices("of no symmetry", 0.9).requires_grad_()
    torch.manual_seed(0)
    estimator = KrylovLogDet(tolerance=0, max_terms=terms)
    _, log_det = estimator(linear(matrix), points(ROWS, SIZE), 1, lipschitz=0.9, training=True)
    (gradient,) = torch.autograd.grad(log_det.sum(), matrix)
    torch.manual_seed(0)
    probe = torch.randint(0, 2, (ROWS, SIZE), dtype=torch.float64) * 2 - 1
    whole = torch.eye(SIZE, dtype=torch.float64) + matrix.detach().mT
    powers = [probe]
    for _ in range(terms - 1):
        powers.append((matrix.detach().mT @ powers[-1].unsqueeze(-1)).squeeze(-1))
    basis = torch.linalg.qr(torch.stack(powers, -1)).Q
    solution = basis @ torch.linalg.solve(basis.mT @ whole @ basis, basis.mT @ probe.unsqueeze(-1))
    expected = solution + probe.unsqueeze(-1) - whole @ solution
    torch.testing.assert_close(gradient, expected * probe.unsqueeze(-2), rtol=0, atol=1e-11)


def test_orders_that_are_known_are_kept():
    matrix, probe = matrices("of no symmetry", 0.9), torch.ones(ROWS, SIZE, dtype=torch.float64)
    rule, wanted = StoppingRule(difference=1.0, residual=1.0, most=SIZE), torch.tensor([1, 2, 3, 4, 5, 6])
    space = krylov_space(linear(matrix.mT), probe, rule, lipschitz=0.9, orders=(wanted, 6))
    assert torch.equal(space.orders, wanted)
    for row, order in enumerate(wanted.tolist()):
        exactly = StoppingRule(difference=0.0, residual=0.0, most=order)
        alone = krylov_space(linear(matrix[[row]].mT), probe[[row]], exactly, lipschitz=0.9)
        torch.testing.assert_close(space.log_det[row], alone.log_det[0], rtol=0, atol=1e-13)


@pytest.mark.long
@pytest.mark.parametrize(("lipschitz", "terms"), [(0.5, 1), (0.9, 1), (0.9, 2), (0.98, 64)])
def test_value_and_gradient_are_unbiased(lipschitz, terms):
    """With as few products as can be, so that the remainder is what makes the mean right."""
    draws = 40_000
    f, estimator = SineRows(lipschitz, 1), KrylovLogDet(max_terms=terms, tolerance=0, unbiased=True)

    def estimate(a, b):
        def branch(x):
            return (a @ (b @ x.unsqueeze(-1)).sin()).squeeze(-1)

        return estimator(branch, POINT, 1, lipschitz=lipschitz, training=True)[1]

    torch.manual_seed(0)
    a, b = f.a.detach().expand(draws, 3, 3), f.b.detach().expand(draws, 3, 3)
    each = torch.func.vmap(torch.func.grad_and_value(estimate, argnums=(0, 1)), randomness="different")
    gradients, values = each(a, b)
    _, exact = ExactLogDet()(f, POINT.expand(1, 3), 1, lipschitz=lipschitz, training=True)
    assert_within_standard_errors(values[:, None], exact.detach())
    found = torch.cat([gradient.flatten(1) for gradient in gradients], -1) @ projections()
    assert_within_standard_errors(found, f.gradients(exact.sum()) @ projections())


@pytest.mark.parametrize("unbiased", [False, True])
def test_in_constant_memory_the_gradient_is_the_same(unbiased):
    plain = KrylovLogDet(unbiased=unbiased, tolerance=1e-2)
    found = []
    for estimator in (plain, ConstantMemory(plain)):
        f, x = Branch((6,), lipschitz=0.95), points(5, 6).requires_grad_()
        torch.manual_seed(4)
        value, log_det = estimator(f, x, 1, lipschitz=0.95, training=True)
        weighted = (log_det * torch.arange(5)).sum() + value.square().sum()
        found.append([log_det, *torch.autograd.grad(weighted, [x, *f.parameters()])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_without_the_remainder_few_products_are_biased():
    """So the test above sees what it should."""
    rows = 4000
    torch.manual_seed(0)
    f = SineRows(0.9, rows)
    _, log_det = KrylovLogDet(max_terms=1)(f, POINT.expand(rows, 3), 1, lipschitz=0.9, training=True)
    _, exact = ExactLogDet()(SineRows(0.9, 1), POINT.expand(1, 3), 1, lipschitz=0.9, training=True)
    assert (log_det.mean() - exact).abs() > 8 * log_det.std() / rows**0.5


@pytest.mark.parametrize("unbiased", [False, True])
def test_weighted_gradient_is_the_weighted_sum_of_gradients(unbiased):
    f, x = Branch((4,)), points(5, 4)
    weights = torch.arange(5.0, dtype=torch.float64)
    torch.manual_seed(0)
    value, log_det = KrylovLogDet(unbiased=unbiased)(f, x, 1, lipschitz=0.8, training=True)
    terms = log_det + value.square().sum(-1)
    together = torch.autograd.grad((weights * terms).sum(), list(f.parameters()), retain_graph=True)
    rows = [torch.autograd.grad(term, list(f.parameters()), retain_graph=True) for term in terms]
    for index, gradient in enumerate(together):
        expected = sum(float(w) * row[index] for w, row in zip(weights, rows, strict=True))
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-13)
        assert gradient.abs().max() > 0.01


def test_a_second_derivative_in_training_raises():
    f, x = Branch((4,)), torch.ones(3, 4, dtype=torch.float64)
    _, log_det = KrylovLogDet()(f, x, 1, lipschitz=0.8, training=True)
    with pytest.raises(RuntimeError, match="first derivative"):
        torch.autograd.grad(log_det.sum(), list(f.parameters()), create_graph=True)


def test_the_orbit_average_is_invariant():
    f, x, estimator = EquivariantBranch(copies=3), points(10, 6), KrylovLogDet(probes=2, tolerance=1e-4)
    _, averaged = estimator(f, x, 1, lipschitz=0.8, training=False, orbit=f.orbit)
    _, plain = estimator(f, x, 1, lipschitz=0.8, training=False)
    changes = []
    for g in f.matrices:
        _, image = estimator(f, x @ g.mT, 1, lipschitz=0.8, training=False, orbit=f.orbit)
        torch.testing.assert_close(image, averaged, rtol=0, atol=1e-12)
        changes.append((estimator(f, x @ g.mT, 1, lipschitz=0.8, training=False)[1] - plain).abs().max())
    assert max(changes) > 1e-3  # the probes alone break the invariance, so the test sees what it should


def test_in_float32_it_is_that_of_float64_up_to_rounding():
    f, x = Branch((30,), lipschitz=0.99), points(8, 30)
    estimator = KrylovLogDet(tolerance=0, max_terms=12)
    _, expected = estimator(f, x, 1, lipschitz=0.99, training=False)
    _, found = estimator(f.float(), x.float(), 1, lipschitz=0.99, training=False)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=3e-4)


def test_images_through_a_layer():
    """The mean over many probes is the exact log-det, within its error; a layer in evaluation is invariant."""
    action = ImageAction("D4", 1, size=5)
    branch = randomize_(LipschitzNetwork(action, width=2, bound=0.9), scale=0.5)
    layer = GResidual(action, branch, log_det=KrylovLogDet(probes=40)).double().eval()
    x = points(3, 1, 5, 5)
    found, expected = layer.inv_call_and_ladj(x)[1], exact_log_det(layer.branch, x, 3)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05)
    torch.testing.assert_close(layer.inv_call_and_ladj(x.rot90(1, (-2, -1)))[1], found, rtol=0, atol=1e-11)
    assert "difference of two orders" in repr(layer) and "(certified)" in repr(layer)


@pytest.mark.parametrize("part", [1, 40, 2**20])
@pytest.mark.parametrize("depth", [1, 2], ids=["products of many vectors at once", "by copies"])
def test_taking_the_probes_in_parts_changes_nothing(part, depth, monkeypatch):
    action = ImageAction("C4", 1, size=3)
    branch = randomize_(LipschitzNetwork(action, width=2, depth=depth, bound=0.9), scale=0.5).double()
    x, estimator = points(2, 1, 3, 3), KrylovLogDet(probes=3)
    value, expected = estimator(branch, x, 3, lipschitz=0.9, training=False, orbit=action.act_all)
    torch.testing.assert_close(value, branch(x))
    singles = [one(branch, x, 3, lipschitz=0.9, training=False, orbit=action.act_all)[1] for one in estimator.parts(3)]
    torch.testing.assert_close(torch.stack(singles).mean(0), expected, rtol=0, atol=1e-12)
    monkeypatch.setattr(krylov_average, "_MOST_ON_CPU", part)
    with torch.no_grad():
        found = estimator(branch, x, 3, lipschitz=0.9, training=False, orbit=action.act_all)[1]
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-12)


def test_descriptions_tell_what_is_observed_from_what_is_certified():
    text = KrylovLogDet().describe(lipschitz=0.9, dim=100)
    assert text == (
        "Krylov, difference of two orders <= 0.001 (observed), error <= 0.49 (certified) + error of the mean of 4 "
        "fixed probes"
    )
    text = KrylovLogDet(unbiased=True, evaluation=ExactLogDet()).describe(lipschitz=0.9, dim=100)
    assert text.startswith("Krylov, unbiased, difference") and text.endswith("; in evaluation: exact")


@pytest.mark.parametrize(
    "call",
    [
        lambda: KrylovLogDet(tolerance=-1.0),
        lambda: KrylovLogDet(max_terms=0),
        lambda: KrylovLogDet(probes=0),
        lambda: KrylovLogDet()(Branch((2,)), torch.ones(3, 2), 1, lipschitz=1.0, training=True),
        lambda: KrylovLogDet()(Branch((2,)), torch.ones(3, 2), 1, lipschitz=1.0, training=False),
    ],
)
def test_bad_arguments_raise(call):
    with pytest.raises(ValueError, match=r"expected .* got"):
        call()
