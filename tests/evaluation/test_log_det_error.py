"""The error that estimated log-dets leave in a figure, against exact ones of the same weights."""

import json
import math

import pytest
import torch

from pyro_gflows import EquivariantFlow, GMonotone, GResidual, ImageAction, InvariantNormal, VectorAction, g_residual
from pyro_gflows.datasets import GrayLevels
from pyro_gflows.evaluation import LogDetError, energy_report, image_report, log_det_error, nll
from pyro_gflows.flows import DequantizedFlow, g_dequantizer, g_residual_image_flow
from pyro_gflows.nn import LipschitzNetwork
from pyro_gflows.numerics import ConstantMemory, ExactLogDet, KrylovLogDet, RouletteLogDet, SeriesLogDet
from pyro_gflows.testing import randomize_
from pyro_gflows.training import FitSettings, fit
from pyro_gflows.transforms import Compose, Recompute, residual

PAIRS = VectorAction.regular("C2", copies=3)


def layers(log_det):
    """Estimates that enter with either sign, inside other layers, and two in one layer."""

    def network():
        return LipschitzNetwork(PAIRS, width=2, depth=1, bound=0.3)

    return [
        GResidual(PAIRS, network(), log_det=log_det),
        Recompute(Compose([GResidual(PAIRS, network(), log_det=ConstantMemory(log_det))])),
        GMonotone(PAIRS, network(), log_det=log_det),
        GResidual(PAIRS, network(), log_det=log_det).inv,
    ]


def flow_of(log_det):
    torch.manual_seed(0)
    flow = EquivariantFlow(InvariantNormal(PAIRS), layers(log_det)).double()
    return randomize_(flow, scale=1.0, generator=torch.Generator().manual_seed(1)).eval()


def events(n=10):
    return torch.randn(n, *PAIRS.event_shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["series", "krylov"])
@pytest.mark.parametrize("probes", [1, 3])
def test_the_standard_error_is_that_of_the_error(probes, kind):
    x = events()
    exact = nll(flow_of(ExactLogDet()), x)
    ratios = []
    for seed in range(6):
        # far seeds, since further sets of probes come from the next ones
        estimate = SeriesLogDet(8, probes=probes, seed=1000 * seed)
        estimate = (
            RouletteLogDet(evaluation=estimate) if kind == "series" else KrylovLogDet(probes=probes, seed=1000 * seed)
        )
        flow = flow_of(estimate)
        error = log_det_error(flow, x)
        assert error.estimated == 4 and error.truncation < (1e-3 if kind == "series" else 2e-3)
        ratios.append((nll(flow, x) - exact) / error.standard_error)
    assert max(abs(ratio) for ratio in ratios) < 6
    assert 0.15 < sum(ratio**2 for ratio in ratios) / len(ratios) < 5  # Student's t of 7 degrees has 1.4


@pytest.mark.parametrize("probes", [9, 4, 1])
def test_the_spread_between_probes_worked_out_by_hand(probes):
    x, estimate = events(), SeriesLogDet(8, probes=probes)
    layer = flow_of(estimate).transforms[0]
    flow = EquivariantFlow(InvariantNormal(PAIRS), [layer]).double().eval()
    known = {"lipschitz": 0.3, "training": False, "orbit": PAIRS.act_all}
    singles = estimate.parts(probes) + [estimate.reseeded(shift).parts(probes)[0] for shift in range(1, 8)]
    means = [float(single(layer.branch, x, 1, **known)[1].detach().mean()) for single in singles[: max(probes, 8)]]
    expected = float(torch.tensor(means, dtype=torch.float64).std()) / math.sqrt(probes)
    assert log_det_error(flow, x).standard_error == pytest.approx(expected, rel=1e-6)


@pytest.mark.long
def test_probes_of_unlike_number_go_together():
    x, flow = events(), flow_of(ExactLogDet())
    estimators = [SeriesLogDet(8, probes=2), SeriesLogDet(8, probes=7), SeriesLogDet(8, probes=None), ExactLogDet()]
    inside = [layer for layer in flow.modules() if isinstance(layer, GResidual | GMonotone)]
    for layer, estimator in zip(inside, estimators, strict=True):
        layer.log_det = estimator
    error = log_det_error(flow, x)
    assert error.estimated == 3
    assert [layer.log_det for layer in inside] == estimators  # put back
    assert abs(nll(flow, x) - nll(flow_of(ExactLogDet()), x)) < 6 * error.standard_error


def test_parts_of_an_estimator_average_to_it():
    f, x = flow_of(ExactLogDet()).transforms[0].branch, events()
    whole = SeriesLogDet(8, probes=6)
    known = {"lipschitz": 0.3, "training": False, "orbit": PAIRS.act_all}
    parts = torch.stack([part(f, x, 1, **known)[1] for part in whole.parts(3)])
    torch.testing.assert_close(parts.mean(0), whole(f, x, 1, **known)[1], rtol=0, atol=1e-12)
    assert (parts[0] - parts[1]).abs().max() > 1e-6
    with pytest.raises(ValueError, match="one part for each probe, got 7 parts of 6 fixed probes"):
        whole.parts(7)
    with pytest.raises(ValueError, match="exact traces"):
        SeriesLogDet(3, probes=None).parts(1)


def test_taking_the_probes_in_turn_changes_nothing(monkeypatch):
    f, x = flow_of(ExactLogDet()).transforms[0].branch, events()
    known = {"lipschitz": 0.3, "training": False, "orbit": PAIRS.act_all}
    together = SeriesLogDet(8, probes=5)(f, x, 1, **known)
    for most in (1, 2 * 2 * x.numel()):  # one probe at a time, and two
        monkeypatch.setattr("pyro_gflows.numerics.series._MOST_AT_ONCE", most)
        for mine, theirs in zip(SeriesLogDet(8, probes=5)(f, x, 1, **known), together, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("probes", [3, 9])
def test_krylov_spaces_say_what_they_certify_for_the_events(probes):
    """The mean over events and probes; twice for a monotone layer; far above the error, which the probes make."""
    x, estimate = events(), KrylovLogDet(tolerance=1e-4, probes=probes)
    layers = flow_of(estimate).transforms
    for layer, log_dets in ((layers[0], 1), (layers[2], 2)):
        flow = EquivariantFlow(InvariantNormal(PAIRS), [layer]).double().eval()
        error = log_det_error(flow, x)
        assert layer.log_det is estimate
        assert 0 < error.observed < 1e-4 * 6 * log_dets and error.truncation > 0
        assert "(observed) and at most" in str(error) and error.standard_error > 0
        if log_dets == 1 and probes == 9:  # the sets are the probes themselves
            report = estimate.report(layer.branch, x, 1, lipschitz=0.3, orbit=PAIRS.act_all)
            assert error.truncation == pytest.approx(float(report.certified.mean()), rel=1e-9)
            assert error.observed == pytest.approx(float(report.observed.mean()), rel=1e-9)


@pytest.mark.long
def test_the_series_alone_has_a_bound_and_no_spread():
    x = events()
    flow = flow_of(SeriesLogDet(2, probes=None))
    error = log_det_error(flow, x)
    assert error.standard_error == 0.0 and not error.is_exact
    # a monotone layer has two log-dets
    bounds = [float(layer.lipschitz_bound()) for layer in flow.modules() if isinstance(layer, GResidual | GMonotone)]
    each = [6 * (-math.log1p(-bound) - bound - bound**2 / 2) for bound in bounds]
    two = float(flow.transforms[2].lipschitz_bound())
    again = 6 * (-math.log1p(-two) - two - two**2 / 2)
    assert error.truncation == pytest.approx(sum(each) + again, rel=1e-9)
    assert 1e-6 < abs(nll(flow, x) - nll(flow_of(ExactLogDet()), x)) < error.truncation


def test_a_flow_with_exact_log_dets_has_none():
    for flow in (flow_of(ExactLogDet()), flow_of(RouletteLogDet())):
        assert log_det_error(flow, events()) == LogDetError()
    assert str(LogDetError()) == "log-det exact" and LogDetError().is_exact


@pytest.fixture
def large(monkeypatch):
    """Two flows of the same weights: that which a large event gets by default, and an exact one."""
    monkeypatch.setattr(residual, "_DENSE_UP_TO", 70)
    action = ImageAction("C2", 2, size=6)
    torch.manual_seed(0)
    flow = g_residual_image_flow(action, blocks=2, width=2, bound=0.8)
    randomize_(flow, scale=0.5, generator=torch.Generator().manual_seed(1))
    exact = g_residual_image_flow(action, blocks=2, width=2, bound=0.8, log_det=ExactLogDet())
    exact.load_state_dict(flow.state_dict())
    return flow, exact


def gray_images(n=30):
    scaling, generator = GrayLevels(17, center=0.4, gain=3.0), torch.Generator().manual_seed(0)
    return scaling.dequantize(torch.randint(17, (n, 2, 6, 6), generator=generator), generator), scaling


def test_the_default_of_large_events_takes_several_probes(large):
    flow, _ = large
    estimators = [layer.log_det.evaluator() for layer in flow.transforms if isinstance(layer, GResidual)]
    assert estimators and all(estimator.probes == 4 for estimator in estimators)
    assert "+ error of the mean of 4 fixed probes" in repr(flow)
    assert "+ error of the mean of 4 fixed probes" in g_residual(ImageAction("C1", 1, size=40)).extra_repr()


@pytest.mark.long
def test_an_image_report_states_it(large):
    flow, exact = large
    x, scaling = gray_images()
    report, truth = image_report(flow, x, scaling), image_report(exact, x, scaling)
    assert report.log_det_standard_error == pytest.approx(log_det_error(flow, x).standard_error)
    assert report.log_det_bits_standard_error == pytest.approx(report.log_det_standard_error / 72 / math.log(2))
    assert report.log_det_truncation == pytest.approx(log_det_error(flow, x).truncation) and report.log_det_truncation
    for figure in ("bits_per_dim", "group_bits_per_dim", "symmetrized_bits_per_dim"):
        off = abs(getattr(report, figure) - getattr(truth, figure))
        assert 1e-5 < off < 5 * report.log_det_bits_standard_error
    assert truth.log_det_standard_error == truth.log_det_bits_standard_error == truth.log_det_truncation == 0.0
    assert json.loads(json.dumps(report.known()))["log_det_standard_error"] > 0


@pytest.mark.long
def test_with_a_dequantizer_the_noise_is_the_same_for_all_probes(large):
    flow, _ = large
    x, scaling = gray_images(8)
    dequantizer = randomize_(g_dequantizer(flow.action, scaling, width=1), scale=0.5)
    state = torch.get_rng_state()
    error = log_det_error(DequantizedFlow(flow, dequantizer), x)
    assert torch.equal(torch.get_rng_state(), state)
    plain = log_det_error(flow, x)
    assert error.standard_error == pytest.approx(plain.standard_error, rel=0.5)
    assert image_report(flow, x, scaling, dequantizer=dequantizer, draws=2).log_det_standard_error > 0


@pytest.mark.long
def test_a_fit_states_it_with_its_validation_loss():
    x = events(60)
    settings = FitSettings(steps=2, batch_size=20)
    estimate = RouletteLogDet(evaluation=SeriesLogDet(8, probes=2))
    flow = EquivariantFlow(InvariantNormal(PAIRS), [g_residual(PAIRS, log_det=estimate, bound=0.7)])
    result = fit(flow, x, settings=settings, validation=x[:20], progress=False)
    assert result.log_det_error == log_det_error(flow, x[:20].float()) and result.log_det_error.standard_error > 0
    exact = EquivariantFlow(InvariantNormal(PAIRS), [g_residual(PAIRS, bound=0.7)])
    assert fit(exact, x, settings=settings, validation=x[:20], progress=False).log_det_error == LogDetError()
    assert fit(exact, x, settings=settings, progress=False).log_det_error is None


@pytest.mark.long
def test_an_energy_report_states_it():
    flow = flow_of(SeriesLogDet(8, probes=4))
    report = energy_report(flow, lambda x: -0.5 * x.square().sum(-1), draws=60)
    truth = energy_report(flow_of(ExactLogDet()), lambda x: -0.5 * x.square().sum(-1), draws=60)
    assert 0 < abs(report.reverse_loss - truth.reverse_loss) < 6 * report.log_det_error.standard_error
    assert "log-det of 4 layers estimated: standard error" in str(report)
    assert truth.log_det_error == LogDetError() and "log-det" not in str(truth)
