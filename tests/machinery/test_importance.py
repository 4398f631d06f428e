"""Importance sampling from the guide: weights, effective sample size, Pareto-k, evidence."""

import pyro
import pytest
import torch
from pyro.infer import SVI, Importance, Trace_ELBO
from pyro.infer.importance import vectorized_importance_weights

from pyro_gflows.evaluation import importance_report
from tests.machinery.conjugate import log_evidence, make_guide, model


def log_weights(guide, draws):
    with torch.no_grad():
        return vectorized_importance_weights(model, guide, num_samples=draws, max_plate_nesting=0)[0]


def test_exact_posterior_by_pyros_importance(capsys):
    """Every weight is the evidence."""
    sampler = Importance(model, guide=make_guide(exact=True), num_samples=20)
    with torch.no_grad():
        sampler.run()
    weights = torch.stack(list(sampler.log_weights))
    torch.testing.assert_close(weights, log_evidence().expand(20), rtol=0, atol=1e-9)
    assert float(sampler.get_ESS()) == pytest.approx(20)
    report = importance_report(weights)
    assert report.ess == pytest.approx(1.0) and report.log_mean_weight == pytest.approx(float(log_evidence()))
    print(report)
    assert "ESS 1.0000 (trimmed 1.0000) of 20 draws" in capsys.readouterr().out


@pytest.mark.long
def test_vectorized_weights_are_those_of_single_draws():
    """In law: of the mean of the log-weights, which is the ELBO."""
    guide = make_guide(exact=False)
    together = log_weights(guide, 400)
    with torch.no_grad():
        sampler = Importance(model, guide=guide, num_samples=100)
        sampler.run()
    alone = torch.stack(list(sampler.log_weights))
    error = (together.var() / len(together) + alone.var() / len(alone)).sqrt()
    assert together.shape == (400,) and abs(together.mean() - alone.mean()) < 4 * error


@pytest.mark.long
def test_training_raises_the_effective_sample_size(capsys):
    guide = make_guide(exact=False)
    before = importance_report(log_weights(guide, 2000))
    elbo = Trace_ELBO(num_particles=32, vectorize_particles=True, max_plate_nesting=0)
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 0.985}), elbo)
    for _ in range(200):
        svi.step()
    after = importance_report(log_weights(guide, 2000))
    assert before.ess < 0.2
    assert after.ess > 0.95 and after.is_reliable
    assert after.log_mean_weight == pytest.approx(float(log_evidence()), abs=4 * after.standard_error)
    print(before, after, sep="\n")
    assert capsys.readouterr().out.count("Pareto k") == 2
