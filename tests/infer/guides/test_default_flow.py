"""The flow that a guide takes by default can do what its posterior needs."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

from pyro_gflows.actions import SitesAction, VectorAction
from pyro_gflows.infer.guides import AutoGFlow, guide_transforms
from pyro_gflows.transforms import GResidual
from tests.infer.guides.models import FACTORS, LABELS


@pytest.mark.parametrize(
    ("action", "residual"),
    [
        (VectorAction.rows("S3"), True),
        (VectorAction.rows("S3").direct_sum(VectorAction.trivial("S3", copies=2)), True),
        (LABELS.vector_action, False),
        (FACTORS.vector_action, False),
        (VectorAction.signs(2), True),
        (VectorAction.plane("O(2)"), True),
        (VectorAction.plane("O(2)", copies=3), False),
        (VectorAction.trivial("C1", copies=2), False),
        (VectorAction.trivial("C1"), True),
    ],
    ids=str,
)
def test_residual_layers_join_where_an_irrep_is_alone(action, residual):
    layers = guide_transforms(action, steps=2, width=2)
    assert any(isinstance(layer, GResidual) for layer in layers) == residual
    assert all(layer.action_in == layer.action_out == action for layer in layers)
    assert all(layer.fast == "sample" for layer in layers if isinstance(layer, GResidual))


def test_one_permuted_pair_is_torn_into_both_its_orders():
    def model():
        pair = pyro.sample("pair", dist.Normal(torch.zeros(2), 2.0).to_event(1))
        pyro.sample("gap", dist.Normal(pair.diff(dim=-1).abs().squeeze(-1), 0.7), obs=torch.tensor(4.0))

    guide = AutoGFlow(model, SitesAction("S2", {"pair": VectorAction.rows("S2")}), check="raise")
    elbo = Trace_ELBO(num_particles=64, vectorize_particles=True, max_plate_nesting=0)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 2e-2}), elbo)
    for _ in range(100):
        svi.step()
    gaps = guide.flow.dist.sample((1000,)).diff(dim=-1).squeeze(-1)
    assert (gaps.abs() > 2.0).double().mean() > 0.9
    assert (gaps > 0).double().mean() == pytest.approx(0.5, abs=0.07)
