"""Flows on every kind of base (contracts 4, 9, 14, 23, 30)."""

import copy
import pickle

import pyro.distributions as dist
import pytest
import torch

from pyro_gflows.actions import ParticleAction, TorusAction, VectorAction
from pyro_gflows.distributions import (
    InvariantNormal,
    InvariantStudentT,
    InvariantUniform,
    InvariantVonMises,
    OrbitMixture,
    SequentialPlacement,
    Symmetrized,
)
from pyro_gflows.flows import Canonicalized, InternalCoordinates, symmetrized_internal_coordinates
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.testing import assert_invariant, randomize_
from pyro_gflows.transforms import g_coupling
from tests.constructors import events, training_steps

ACTION = VectorAction.regular("C4", copies=2)
PLAIN = VectorAction.trivial("C1", copies=8)
KEYS_AND_SCALARS = VectorAction.rows("S3").direct_sum(VectorAction.trivial("S3", copies=2))  # a density without jumps
ANGLES = TorusAction.point_group("D2").with_translations([[torch.pi, torch.pi]])
BASES = {
    "isotropic": lambda: InvariantNormal(ACTION),
    "isotypic": lambda: InvariantNormal(ACTION, covariance="isotypic", mean=True),
    "full": lambda: InvariantNormal(ACTION, covariance="full", mean=True),
    "student t": lambda: InvariantStudentT(ACTION, df=3.0, covariance="full", mean=True),
    "uniform on angles": lambda: InvariantUniform(ANGLES),
    "von Mises": lambda: InvariantVonMises(ANGLES, components=2),
    "von Mises, infinitely many translations": lambda: InvariantVonMises(TorusAction.fixing([[1, -1]]), components=2),
    "orbit mixture": lambda: OrbitMixture(ACTION),
    "canonicalized": lambda: Canonicalized(KEYS_AND_SCALARS, steps=2, width=2),
    "symmetrized": lambda: Symmetrized(InvariantNormal(PLAIN, covariance="full", mean=True), ACTION),
}
#: Densities with all that is trained inside, which have no layers after them.
ALONE = {
    "placement in the plane": lambda: SequentialPlacement(ParticleAction(3, 2), shortest=0.5, longest=4.0, width=2),
    "placement in space": lambda: SequentialPlacement(ParticleAction(3, 3), shortest=0.5, longest=4.0, width=2),
    "internal coordinates in the plane": lambda: InternalCoordinates(3, 2, layers=1, width=4),
    "internal coordinates in space": lambda: InternalCoordinates(3, 3, layers=1, width=4),
    "internal coordinates, symmetrized": lambda: symmetrized_internal_coordinates(3, 2, layers=1, width=4),
}


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,), (2, 0)], ids=str)
@pytest.mark.parametrize("name", [*BASES, *ALONE])
def test_draws_and_scores_of_any_batch_shape(name, batch):
    density = (BASES | ALONE)[name]()
    with torch.no_grad():
        x = density.sample(batch)
        assert x.shape == batch + density.event_shape and density.log_prob(x).shape == batch
        wide = density.expand(torch.Size(batch))
        assert wide.sample().shape == x.shape and wide.log_prob(x).shape == batch


@pytest.fixture(params=BASES)
def flow(request):
    torch.manual_seed(0)
    base = BASES[request.param]()
    flow = EquivariantFlow(base, [g_coupling(base.action, width=2, depth=1)]).double()
    return randomize_(flow, generator=torch.Generator().manual_seed(0)).eval()


@pytest.mark.long
def test_log_prob_is_invariant_before_and_after_training(flow):
    x = events(flow, 3)
    assert_invariant(flow, flow.action, x, tol=1e-10)
    before = {key: value.clone() for key, value in flow.named_parameters()}
    training_steps(flow, 20)
    assert_invariant(flow, flow.action, x, tol=1e-10)
    assert not [key for key, value in flow.named_parameters() if torch.equal(value, before[key])]


def test_the_base_is_part_of_the_flow(flow):
    """The parameters of the base belong to the flow, and checkpoints, copies and descriptions include the base."""
    base_parameters = {id(parameter) for parameter in flow.base.module.parameters()}
    assert base_parameters <= {id(parameter) for parameter in flow.parameters()}
    x = events(flow, 3)
    rebuilt = EquivariantFlow.from_config(flow.config()).double().eval()
    rebuilt.load_state_dict(flow.state_dict(), strict=True)
    for twin in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow)), rebuilt):
        assert torch.equal(twin(x), flow(x))
        assert {id(p) for p in twin.base.module.parameters()} <= {id(p) for p in twin.parameters()}
        randomize_(twin)
        assert base_parameters == {id(parameter) for parameter in flow.base.module.parameters()}


def test_draws_follow_the_dtype_and_the_scores_agree(flow):
    for dtype in (torch.float32, torch.float64):
        x = flow.to(dtype).dist.sample((2, 3))
        assert x.dtype == dtype and flow(x).shape == (2, 3)


def test_a_flow_symmetrized_at_test_time():
    """The average over the group of a flow without symmetry is invariant, and a density."""
    plain = EquivariantFlow(InvariantNormal(PLAIN), [g_coupling(PLAIN, width=2, depth=1)]).double().eval()
    randomize_(plain, generator=torch.Generator().manual_seed(0))
    symmetric = Symmetrized(plain.dist, ACTION)
    x = events(plain, 3)
    assert_invariant(symmetric, ACTION, x, tol=1e-10)
    orbit = ACTION.act_all(x)
    expected = plain(orbit).exp().mean(0).log()
    torch.testing.assert_close(symmetric.log_prob(x), expected)
    assert symmetric.sample((4,)).shape == (4, 8)
    assert list(symmetric.module.parameters()) == list(plain.transform.parameters())


def test_a_base_of_another_action_is_refused():
    with pytest.raises(ValueError, match=r"do not fit.*C4 on R\^8.*C1 on R\^8"):
        EquivariantFlow(InvariantNormal(ACTION), [g_coupling(PLAIN, width=2, depth=1)])
    with pytest.raises(TypeError, match="Symmetrized"):
        EquivariantFlow(dist.Normal(torch.zeros(8), 1.0).to_event(1), [g_coupling(ACTION, width=2, depth=1)])
