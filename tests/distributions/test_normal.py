"""InvariantNormal against closed forms."""

import copy
import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import multivariate_normal

from pyro_gflows.actions import VectorAction
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.testing import assert_invariant, randomize_

QUATERNIONS = [  # left multiplication by i and by j on R^4
    [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]],
    [[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]],
]
ACTIONS = {
    "regular C4": lambda: VectorAction.regular("C4", copies=2),
    "regular D4": lambda: VectorAction.regular("D4", copies=2),
    "C5 x 2 (complex type)": lambda: VectorAction.plane("C5", copies=2),
    "quaternions x 2": lambda: VectorAction.from_generators(QUATERNIONS).copies(2),
    "O(2) x 2": lambda: VectorAction.plane("O(2)", copies=2),
    "SO(3) x 2": lambda: VectorAction.space("SO(3)", copies=2),
    "trivial x 3 + D3": lambda: VectorAction.trivial("D3", copies=3).direct_sum(VectorAction.plane("D3")),
}
# the dimension of the space of invariant covariances, from the multiplicities and types by hand
FULL_PARAMETERS = {
    "regular C4": 3 + 3 + 4,  # m = 2, 2 over R; m = 2 over C
    "regular D4": 4 * 3 + 10,  # four signs with m = 2, one plane with m = 4, all over R
    "C5 x 2 (complex type)": 4,
    "quaternions x 2": 6,
    "O(2) x 2": 3,
    "SO(3) x 2": 3,
    "trivial x 3 + D3": 6 + 1,
}


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]()


def random_normal(action, covariance, *, mean=False):
    base = InvariantNormal(action, covariance=covariance, mean=mean)
    base.module.double()
    randomize_(base.module, scale=0.5, generator=torch.Generator().manual_seed(0))
    return base


def elements_of(action):
    return action.elements() if action.is_finite else action.sample((16,), torch.Generator().manual_seed(3))


@pytest.mark.parametrize("covariance", ["isotropic", "isotypic", "full"])
def test_log_prob_is_scipys(action, covariance):
    base = random_normal(action, covariance)
    x = torch.randn(5, 2, action.numel, dtype=torch.float64)
    expected = multivariate_normal(base.mean.detach(), base.covariance_matrix.detach()).logpdf(x)
    torch.testing.assert_close(base.log_prob(x), torch.as_tensor(expected), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        base.entropy(), torch.as_tensor(multivariate_normal(cov=base.covariance_matrix.detach()).entropy())
    )
    torch.testing.assert_close(base.variance, base.covariance_matrix.diagonal())


@pytest.mark.parametrize("covariance", ["isotypic", "full"])
def test_covariance_commutes_with_the_action(action, covariance):
    sigma = random_normal(action, covariance).covariance_matrix
    rho = action.matrix(elements_of(action))
    assert (rho @ sigma - sigma @ rho).abs().max() < 1e-12
    assert sigma.std() > 0.1


@pytest.mark.parametrize("name", ACTIONS)
def test_full_reaches_every_invariant_covariance(name):
    """As many free directions in the covariance as parameters, and as many as the theory counts."""
    action = ACTIONS[name]()
    base = random_normal(action, "full")
    parameters = dict(base.module.named_parameters())
    assert sum(parameter.numel() for parameter in parameters.values()) == FULL_PARAMETERS[name]

    def covariance(values):
        eye = torch.eye(action.numel, dtype=torch.float64)
        factor = torch.func.functional_call(base.module.factor, values, (eye,))
        return factor.T @ factor

    values = {key.removeprefix("factor."): value.detach() for key, value in parameters.items()}
    jacobian = torch.func.jacrev(covariance)(values)
    columns = torch.cat([part.reshape(action.numel**2, -1) for part in jacobian.values()], 1)
    assert torch.linalg.matrix_rank(columns, rtol=1e-8) == FULL_PARAMETERS[name]


def test_a_factor_takes_the_covariance_that_commutes_with_the_action(action):
    """Of a full normal it is found again where it is real on each irrep, and of scales of the components always."""
    for covariance in ("isotypic", "full"):
        wanted = random_normal(action, covariance)
        for name, below in wanted.module.factor.named_parameters():
            if "below" in name:
                below.data[1:] = 0  # what is not real
        found = InvariantNormal(action, covariance=covariance)
        found.module.double().factor.match_(wanted.covariance_matrix)
        torch.testing.assert_close(found.covariance_matrix, wanted.covariance_matrix, rtol=1e-8, atol=1e-8)


def test_scales_of_components_are_the_mean_variances_of_a_covariance():
    """On two kinds of components of unlike size; what does not commute with the group is averaged away."""
    action = VectorAction.trivial("D3", copies=3).direct_sum(VectorAction.plane("D3"))
    base = InvariantNormal(action, covariance="isotypic")
    base.module.double()
    root = torch.randn(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    variances = (root @ root.T).diagonal()
    base.module.factor.match_(root @ root.T)
    expected = torch.cat([variances[:3].mean().expand(3), variances[3:].mean().expand(2)])
    torch.testing.assert_close(base.covariance_matrix, torch.diag(expected), rtol=1e-10, atol=1e-10)


def test_log_prob_is_invariant(action):
    base = random_normal(action, "full")
    assert_invariant(base, action, torch.randn(6, action.numel, dtype=torch.float64))


def test_density_integrates_to_one():
    base = random_normal(VectorAction.quotient("C2", [0]), "full", mean=True)
    line = torch.linspace(-12, 12, 601, dtype=torch.float64)
    mass = base.log_prob(torch.cartesian_prod(line, line)).exp().sum() * (line[1] - line[0]) ** 2
    assert abs(mass.item() - 1) < 1e-9


def test_sample_moments(action):
    has_mean = action.decomposition[0].is_trivial
    base = random_normal(action, "full", mean=has_mean)
    torch.manual_seed(0)
    x = base.sample((40_000,))
    error = (x.T.cov() - base.covariance_matrix).abs() / base.variance.sqrt().outer(base.variance.sqrt())
    assert error.max() < 6 / math.sqrt(40_000) * math.sqrt(2)
    assert ((x.mean(0) - base.mean).abs() < 5 * (base.variance / 40_000).sqrt()).all()
    assert has_mean == bool(base.mean.abs().max() > 0)


def test_mean_is_invariant_and_needs_a_trivial_component():
    action = VectorAction.regular("C4", copies=2)
    base = random_normal(action, "isotropic", mean=True)
    assert (action.act_all(base.mean) - base.mean).abs().max() < 1e-14
    with pytest.raises(ValueError, match="no trivial component"):
        InvariantNormal(VectorAction.plane("C4"), mean=True)


def test_expand_shares_the_module_and_leaves_the_original_alone():
    base = random_normal(VectorAction.plane("C4", copies=2), "full")
    wide = base.expand((3,))
    wider = wide.expand((2, 3))
    assert (base.batch_shape, wide.batch_shape, wider.batch_shape) == ((), (3,), (2, 3))
    assert wide.module is base.module and wider.module is base.module
    x = torch.randn(4, dtype=torch.float64)
    assert wider.log_prob(x).shape == (2, 3)
    torch.testing.assert_close(wider.log_prob(x), base.log_prob(x).expand(2, 3))
    assert wider.sample((5,)).shape == (5, 2, 3, 4) == wider.shape((5,))
    assert wider.mean.shape == wider.variance.shape == (2, 3, 4) and wider.entropy().shape == (2, 3)
    with pytest.raises(ValueError, match="batch shape"):
        wide.expand((4,))


@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (2, 3, 4)])
def test_log_prob_has_the_batch_shape(shape):
    base = random_normal(VectorAction.plane("C4", copies=2), "full")
    assert base.log_prob(torch.randn(*shape, 4, dtype=torch.float64)).shape == shape


def test_rsample_is_reparametrized():
    base = random_normal(VectorAction.regular("C4", copies=2), "full", mean=True)
    base.rsample((8,)).square().sum().backward()
    assert all(parameter.grad is not None and (parameter.grad != 0).any() for parameter in base.module.parameters())


def test_bases_survive_a_visit_to_lower_precision():
    base = random_normal(VectorAction.plane("C5", copies=2), "full")
    base.module.half().float().double()
    assert base.module.factor.basis.value.dtype == torch.float64
    rho = base.action.matrix(base.action.elements())
    sigma = base.covariance_matrix
    assert (rho @ sigma - sigma @ rho).abs().max() < 1e-12
    base.module.float()
    assert base.sample().dtype == torch.float32
    assert base.log_prob(torch.randn(4, dtype=torch.float64)).dtype == torch.float64


def test_copies_pickles_and_descriptions_agree():
    base = random_normal(VectorAction.regular("C4"), "full", mean=True)
    x = torch.randn(3, 4, dtype=torch.float64)
    rebuilt = build(describe(base))
    rebuilt.module.double().load_state_dict(base.module.state_dict())
    for other in (copy.deepcopy(base), pickle.loads(pickle.dumps(base)), rebuilt):
        assert torch.equal(other.log_prob(x), base.log_prob(x))
        assert other.module is not base.module


def test_state_dict_carries_the_basis():
    """A checkpoint means the same on a machine where the eigenvectors come out with other signs (contract 30)."""
    base = random_normal(VectorAction.plane("C5", copies=2), "full")
    other = random_normal(VectorAction.plane("C5", copies=2), "full")
    other.module.factor.basis.value.copy_(other.module.factor.basis.value.flip(0))
    x = torch.randn(3, 4, dtype=torch.float64)
    other.module.load_state_dict(base.module.state_dict())
    assert torch.equal(other.log_prob(x), base.log_prob(x))


def test_large_isotropic_events_need_no_decomposition(monkeypatch):
    action = VectorAction.trivial("C4", copies=3072)
    monkeypatch.setattr(VectorAction, "decomposition", property(lambda self: pytest.fail("decomposed")))
    base = InvariantNormal(action)
    assert base.log_prob(base.sample((2,))).shape == (2,)
    assert base.variance.sum() == 3072


def test_bad_input():
    action = VectorAction.plane("D4")
    base = InvariantNormal(action)
    with pytest.raises(ValueError, match=r"expected value of shape \(\.\.\., 2\).*got \(3,\)"):
        base.log_prob(torch.zeros(3))
    with pytest.raises(TypeError, match="floating-point"):
        base.log_prob(torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="support"):
        base.log_prob(torch.tensor([0.0, math.nan]))
    with pytest.raises(ValueError, match="isotropic"):
        InvariantNormal(action, covariance="diagonal")
    with pytest.raises(TypeError, match="LinearAction"):
        InvariantNormal("D4")


@pytest.mark.long
def test_inside_a_pyro_model():
    pyro.clear_param_store()
    base = InvariantNormal(VectorAction.plane("O(2)", copies=2), covariance="isotypic")
    data = 3 * torch.randn(64, 4, generator=torch.Generator().manual_seed(0))

    def model(x):
        pyro.module("base", base.module)
        with pyro.plate("data", len(x)):
            pyro.sample("x", base, obs=x)

    svi = pyro.infer.SVI(model, lambda x: None, pyro.optim.Adam({"lr": 0.1}), pyro.infer.Trace_ELBO())
    for _ in range(150):
        svi.step(data)
    torch.testing.assert_close(base.variance.mean(), data.square().mean(), rtol=0.02, atol=0.0)
    assert isinstance(base, dist.TorchDistribution)
