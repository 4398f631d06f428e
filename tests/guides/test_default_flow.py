"""The flow that a guide takes by default can do what its posterior needs."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

from pyro_gflows.actions import RowsAction, SitesAction, VectorAction
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.groups.escnn_representation import EscnnRepresentation
from pyro_gflows.guides import AutoGFlow, guide_transforms
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import GActNorm, GResidual
from tests.guides.models import FACTORS, LABELS


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


@pytest.mark.long
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


def size(action):
    """Parameters of the default guide's layers."""
    return sum(parameter.numel() for layer in guide_transforms(action) for parameter in layer.parameters())


def of_frequencies(*frequencies, copies=1):
    """Planes that SO(2) turns at several speeds, some as fast as others."""
    irreps = [(frequency,) for frequency in frequencies] * copies
    return VectorAction([EscnnRepresentation("SO(2)", irreps, torch.eye(2 * len(irreps), dtype=torch.float64))])


LARGE = {
    "positions, O(2)": VectorAction.plane("O(2)", copies=60),
    "few positions, O(2)": VectorAction.plane("O(2)", copies=2),
    "positions, SO(2)": VectorAction.plane("SO(2)", copies=20),
    "positions, SO(3)": VectorAction.space("SO(3)", copies=20),
    "few positions, O(3)": VectorAction.space("O(3)", copies=2),
    "positions and scalars, O(2)": VectorAction.plane("O(2)", copies=30).direct_sum(
        VectorAction.trivial("O(2)", copies=9)
    ),
    "one position and scalars, SO(3)": VectorAction.space("SO(3)").direct_sum(VectorAction.trivial("SO(3)", copies=60)),
    "rows with many features, S5": VectorAction.rows("S5", features=10),
    "rows with few features, S4": VectorAction.rows("S4", features=2),
    "one permuted vector, S4": VectorAction.rows("S4"),
    "rows and scalars, S5": VectorAction.rows("S5").direct_sum(VectorAction.trivial("S5", copies=30)),
    "many signs": VectorAction.signs(6, copies=3),
    "one of each sign": VectorAction.signs(6),
    "several frequencies": of_frequencies(1, 1, 2, 2, 3, copies=2),
    "turns of 360/64 degrees": VectorAction.plane("C64", copies=10),
    "turns and mirrors, D12": VectorAction.plane("D12", copies=2),
    "regular, C12": VectorAction.regular("C12", copies=2),
}


@pytest.mark.long
@pytest.mark.parametrize("name", LARGE)
def test_the_size_follows_that_of_the_event_not_that_of_the_group(name):
    """At most ten times what a plain vector of the same size takes."""
    action = LARGE[name]
    assert size(action) <= 10 * size(VectorAction.trivial("C1", copies=action.numel))


@pytest.mark.long
@pytest.mark.parametrize("name", ["positions, O(2)", "few positions, O(3)", "rows with few features, S4", "many signs"])
def test_narrower_layers_are_as_equivariant_and_start_as_the_identity_does(name):
    action = LARGE[name]
    torch.manual_seed(0)
    layers = [layer for layer in guide_transforms(action, steps=2) if not isinstance(layer, GActNorm)]
    flow = EquivariantFlow(InvariantNormal(action), layers).double().eval()
    x = torch.randn(6, action.numel, dtype=torch.float64)
    torch.testing.assert_close(flow.transform(x), x)
    randomize_(flow, scale=0.1, generator=torch.Generator().manual_seed(1))
    assert (flow.transform(x) - x).abs().max() > 1e-3
    for element in action.sample((3,), torch.Generator().manual_seed(0)):
        torch.testing.assert_close(flow(action.act(element, x)), flow(x), atol=1e-9, rtol=1e-9)
    again = EquivariantFlow.from_config(flow.config()).double().eval()
    again.load_state_dict(flow.state_dict())
    torch.testing.assert_close(again(x), flow(x), atol=1e-12, rtol=1e-12)


def test_the_width_that_is_asked_for_is_kept_where_it_is_small_enough():
    rows = VectorAction.rows("S3", features=2)
    widths = [part.network.layers[0].action_out.numel for part in guide_transforms(rows, steps=1)[0].parts]
    assert widths == [16 * 6, 16 * 6]
    narrow = [part.network.layers[0].action_out.numel for part in guide_transforms(rows, steps=1, width=3)[0].parts]
    assert narrow == [3 * 6, 3 * 6]


def test_a_guide_says_how_many_parameters_it_has():
    def model():
        pyro.sample("positions", dist.Normal(torch.zeros(4, 2), 1.0).to_event(2))

    guide = AutoGFlow(model, SitesAction("O(2)", {"positions": VectorAction.plane("O(2)", copies=4)}), check="raise")
    assert f"{sum(parameter.numel() for parameter in guide.parameters()):,} parameters" in repr(guide)


@pytest.mark.parametrize(
    ("action", "kinds"),
    [
        (RowsAction(12, mean_free=True).direct_sum(RowsAction(12, 2)), ["Compose", "GResidual", "GActNorm"]),
        (RowsAction(20), ["GResidual", "GActNorm"]),
        (RowsAction(9, 4, signed=[0, 1]), ["Compose", "GResidual", "GActNorm"]),
        (RowsAction(9, VectorAction.plane("O(2)")), ["GResidual", "GActNorm"]),
        (RowsAction(5, 2).direct_sum(RowsAction.of_matrix(5)), ["GActNorm"]),
        (VectorAction.signs(12), ["GResidual", "GActNorm"]),
    ],
    ids=str,
)
def test_groups_whose_elements_cannot_be_listed(action, kinds):
    layers = guide_transforms(action, steps=1)
    assert [type(layer).__name__ for layer in layers] == kinds
    flow = EquivariantFlow(InvariantNormal(action), layers).double()
    torch.manual_seed(0)
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(5, action.numel, dtype=torch.float64)
    torch.testing.assert_close(flow(action.act_each(action.sample((5,)), x)), flow(x), rtol=0.0, atol=1e-10)
    assert flow.dist.rsample((5,)).isfinite().all()
