"""Exact and series log-dets against dense Jacobians by torch.func, in value, gradient, mode and shape."""

from __future__ import annotations

import math
import pickle

import pytest
import torch

from pyro_gflows.numerics import ExactLogDet, KrylovLogDet, LogDet, RouletteLogDet, SeriesLogDet, log_abs_det
from pyro_gflows.serialization.registry import build, describe
from tests.numerics.branches import AnalyticBranch, Branch, EquivariantBranch, exact_log_det

EVENTS = [(1,), (2,), (3,), (5,), (2, 2, 2)]
BATCHES = [(), (1,), (4,), (3, 2), (0,)]
DETERMINISTIC = {
    "exact": ExactLogDet(),
    "series-exact-traces": SeriesLogDet(400, probes=None),
    "series-probes": SeriesLogDet(8, probes=2),
    "roulette-eval": RouletteLogDet(),
    "krylov-probes": KrylovLogDet(probes=2),
    "krylov-exact-eval": KrylovLogDet(evaluation=ExactLogDet()),
}
ESTIMATORS = {**DETERMINISTIC, "roulette-train": RouletteLogDet(), "krylov-unbiased": KrylovLogDet(unbiased=True)}


def run(estimator: LogDet, f, x, event_dim, **kwargs):
    return estimator(f, x, event_dim, **{"lipschitz": 0.8, "training": False, **kwargs})


def points(batch, event, seed=0):
    return torch.randn(*batch, *event, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["exact", "series-exact-traces", "roulette-eval"])
@pytest.mark.parametrize("event", EVENTS)
def test_value_is_the_dense_log_det(name, event):
    f, x = Branch(event), points((4,), event)
    value, log_det = run(DETERMINISTIC[name], f, x, len(event))
    torch.testing.assert_close(value, f(x), rtol=0, atol=1e-14)
    torch.testing.assert_close(log_det, exact_log_det(f, x, len(event)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["exact", "series-exact-traces"])
@pytest.mark.parametrize("event", EVENTS)
def test_gradient_is_that_of_the_dense_log_det(name, event):
    f, x = Branch(event), points((4,), event).requires_grad_()
    inputs = [x, *f.parameters()]
    value, log_det = run(DETERMINISTIC[name], f, x, len(event))
    ours = torch.autograd.grad(log_det.sum() + value.square().sum(), inputs)
    theirs = torch.autograd.grad(exact_log_det(f, x, len(event)).sum() + f(x).square().sum(), inputs)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("batch", BATCHES)
def test_log_det_has_the_batch_shape(name, batch):
    for event in EVENTS:
        value, log_det = run(ESTIMATORS[name], Branch(event), points(batch, event), len(event), training=True)
        assert value.shape == batch + event
        assert log_det.shape == batch


@pytest.mark.parametrize("name", ESTIMATORS)
def test_works_without_gradients(name):
    f, x = Branch((2,)), points((4,), (2,))
    torch.manual_seed(0)
    _, expected = run(ESTIMATORS[name], f, x, 1, training=True)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.manual_seed(0)
            value, log_det = run(ESTIMATORS[name], f, x.clone(), 1, training=True)
        assert not value.requires_grad
        assert not log_det.requires_grad
        torch.testing.assert_close(log_det, expected.detach(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_evaluation_is_deterministic_and_row_by_row(name):
    f, x = Branch((5,)), points((6,), (5,))
    _, together = run(DETERMINISTIC[name], f, x, 1)
    _, again = run(DETERMINISTIC[name], f, x, 1)
    assert torch.equal(together, again)
    alone = torch.stack([run(DETERMINISTIC[name], f, row, 1)[1] for row in x])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-14)


def test_exact_uses_the_branch_jacobian():
    f, x = AnalyticBranch((2, 2, 2)), points((3, 2), (2, 2, 2))
    _, log_det = run(ExactLogDet(), f, x, 3)
    assert f.calls == 1
    torch.testing.assert_close(log_det, exact_log_det(f, x, 3), rtol=0, atol=1e-12)
    with torch.no_grad():
        assert not run(ExactLogDet(), f, x, 3)[1].requires_grad


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_captured_context_of_the_batch_is_not_differentiated(name):
    x = points((4, 3), (2,)).requires_grad_()
    context = x.square()
    _, log_det = run(DETERMINISTIC[name], lambda z: 0.3 * z + context, x, 1)
    torch.testing.assert_close(log_det, torch.full_like(log_det, 2 * math.log(1.3)), rtol=0, atol=1e-5)


@pytest.mark.long
def test_log_dets_follow_the_device(device):
    f, x = Branch((5,)), points((6,), (5,))
    for name, estimator in DETERMINISTIC.items():
        _, expected = run(estimator, f.cpu(), x, 1)
        _, log_det = run(estimator, f.to(device), x.to(device), 1)
        assert log_det.device.type == device.type
        torch.testing.assert_close(log_det.cpu(), expected, rtol=0, atol=1e-12, msg=name)
    value, log_det = run(RouletteLogDet(), f, x.to(device), 1, training=True)
    assert log_det.device.type == value.device.type == device.type


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimate_and_its_gradient_are_not_rounded_by_autocast(name):
    f, x = Branch((6,), lipschitz=0.8).float(), points((5,), (6,)).float().requires_grad_()

    def estimate(enabled):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value, log_det = run(ESTIMATORS[name], f, x, 1, training=True)
        return value, log_det, *torch.autograd.grad(log_det.sum(), [x, *f.parameters()])

    for found, expected in zip(estimate(True), estimate(False), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("probes", [1, 2, 5])
def test_the_value_is_that_of_the_branch_for_any_number_of_probes(probes):
    f, x = Branch((4,), lipschitz=0.8), points((3,), (4,))
    value, log_det = run(SeriesLogDet(6, probes=probes), f, x, 1)
    torch.testing.assert_close(value, f(x).detach())
    single = [run(part, f, x, 1)[1] for part in SeriesLogDet(6, probes=probes).parts(probes)]
    torch.testing.assert_close(log_det, torch.stack(single).mean(0))


def test_a_branch_that_ignores_x_has_log_det_zero():
    constant = torch.ones(4, 2, dtype=torch.float64)
    for name, estimator in ESTIMATORS.items():
        if name != "series-probes":
            _, log_det = run(estimator, lambda z: constant[:1].expand_as(z), constant, 1, training=True)
            assert torch.equal(log_det, torch.zeros(4, dtype=torch.float64)), name


@pytest.mark.parametrize("size", range(1, 6))
def test_log_abs_det_is_slogdet(size):
    matrix = points((7, 2), (size, size))
    torch.testing.assert_close(log_abs_det(matrix), torch.linalg.slogdet(matrix).logabsdet, rtol=0, atol=1e-13)


@pytest.mark.parametrize("lipschitz", [0.3, 0.8, 0.95])
def test_truncation_error_is_a_bound_and_attained(lipschitz):
    x = points((1,), (3,))
    estimator = SeriesLogDet(6, probes=None)
    bound = estimator.truncation_error(lipschitz=lipschitz, dim=3)
    for sign in (1, -1):
        _, cut = run(estimator, lambda z, s=sign: s * lipschitz * z, x, 1, lipschitz=lipschitz)
        error = abs(float(cut) - 3 * float(torch.log(torch.tensor(1 + sign * lipschitz, dtype=torch.float64))))
        assert error <= bound * (1 + 1e-9)
    assert error == pytest.approx(bound, rel=1e-9)  # x -> -L x is the worst branch


@pytest.mark.long
def test_orbit_average_is_exactly_invariant():
    f = EquivariantBranch(copies=3)
    x = points((10,), (6,))
    estimator = SeriesLogDet(8, probes=2)
    _, plain = run(estimator, f, x, 1)
    _, averaged = run(estimator, f, x, 1, orbit=f.orbit)
    frozen = []
    for g in f.matrices:
        _, image = run(estimator, f, x @ g.mT, 1, orbit=f.orbit)
        torch.testing.assert_close(image, averaged, rtol=0, atol=1e-12)
        frozen.append((run(estimator, f, x @ g.mT, 1)[1] - plain).abs().max())
    assert max(frozen) > 1e-3  # the probes alone break the invariance, so the test sees what it should


def test_orbit_average_on_an_irreducible_action_is_the_exact_trace():
    f = EquivariantBranch()
    x = points((10,), (2,))
    _, averaged = run(SeriesLogDet(8, probes=1), f, x, 1, orbit=f.orbit)
    _, exact = run(SeriesLogDet(8, probes=None), f, x, 1)
    torch.testing.assert_close(averaged, exact, rtol=0, atol=1e-13)


def test_float32_agrees():
    f, x = Branch((3,)), points((50,), (3,))
    _, expected = run(ExactLogDet(), f, x, 1)
    _, log_det = run(ExactLogDet(), f.float(), x.float(), 1)
    assert log_det.dtype == torch.float32
    torch.testing.assert_close(log_det.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_can_be_described_and_pickled(name):
    estimator = ESTIMATORS[name]
    for copy in (build(describe(estimator)), pickle.loads(pickle.dumps(estimator))):
        assert repr(copy) == repr(estimator)


def test_descriptions_say_what_is_certified():
    assert ExactLogDet().describe(lipschitz=0.9, dim=2) == "exact"
    assert SeriesLogDet(8, probes=None).describe(lipschitz=0.9, dim=2) == "series, 8 terms, error <= 0.52"
    text = RouletteLogDet().describe(lipschitz=torch.tensor(0.9), dim=2)
    assert text == "roulette, unbiased, 13.0 terms on average; in evaluation: exact"


@pytest.mark.parametrize(
    "call",
    [
        lambda: SeriesLogDet(0),
        lambda: SeriesLogDet(3, probes=0),
        lambda: RouletteLogDet(exact_terms=0),
        lambda: RouletteLogDet(continuation=1.0),
        lambda: run(RouletteLogDet(continuation=0.6), Branch((2,)), torch.ones(3, 2), 1, training=True),
        lambda: run(RouletteLogDet(), Branch((2,)), torch.ones(3, 2), 1, training=True, lipschitz=1.0),
        lambda: run(SeriesLogDet(3), Branch((2,)), torch.ones(3, 2), 1, lipschitz=float("inf")),
        lambda: run(ExactLogDet(), lambda z: z[..., :1], torch.ones(3, 2), 1),
        lambda: run(ExactLogDet(), Branch((2,)), torch.ones(2), 2),
        lambda: log_abs_det(torch.ones(2, 3)),
    ],
)
def test_bad_arguments_raise(call):
    with pytest.raises(ValueError, match=r"expected .* got"):
        call()


def test_integer_input_raises():
    with pytest.raises(TypeError, match="floating point"):
        run(ExactLogDet(), Branch((2,)), torch.ones(3, 2, dtype=torch.int64), 1)
