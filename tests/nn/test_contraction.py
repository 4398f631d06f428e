"""The type of residual branches: a class of one's own, a module of one's own, and what layers make of them."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

import pyro_gflows
from pyro_gflows import EquivariantFlow, GMonotone, GResidual, ImageAction, InvariantNormal, VectorAction
from pyro_gflows.nn import (
    ConditionalBranch,
    Contraction,
    CustomContraction,
    LipschitzDenseNetwork,
    LipschitzNetwork,
    LipschitzSum,
    Ridges,
    Term,
    lipschitz_branch,
)
from pyro_gflows.nn.contraction import Negative
from pyro_gflows.numerics import (
    BanachSolver,
    DifferentiableBranch,
    ExactLogDet,
    NewtonSolver,
    RouletteLogDet,
    dense_jacobian,
    pullback,
    pullbacks,
)
from pyro_gflows.serialization import load, save
from pyro_gflows.serialization.registry import registered
from pyro_gflows.testing import assert_bijective, assert_equivariant, assert_log_det, randomize_
from tests.constructors import CONSTRUCTORS, make, names

ACTION = VectorAction.plane("D4")
WITH_BRANCH = [*names(CONSTRUCTORS, family="residual"), *names(CONSTRUCTORS, family="monotone")]


class Squeezing(Contraction):
    """A new branch: x -> c tanh(w |x|) x / (1 + |x|), in one class, without a closed form of its Jacobian."""

    bound = 0.5

    def __init__(self, action):
        super().__init__()
        self.action = action
        self.weight = nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        return 0.5 * self.weight.tanh() * x / (1 + x.square().sum(-1, keepdim=True)).sqrt()

    def lipschitz_bound(self):
        return 0.5 * self.weight.tanh().abs()


class WithJacobian(Squeezing):
    """The same with its Jacobian written out."""

    calls = 0

    def call_and_jacobian(self, x):
        self.calls += 1
        root = (1 + x.square().sum(-1)).sqrt()[..., None, None]
        identity = torch.eye(x.shape[-1], dtype=x.dtype)
        slope = identity / root - x[..., :, None] * x[..., None, :] / root**3
        return self(x), 0.5 * self.weight.tanh() * slope


class Factor(nn.Module):
    """A module of a user's own, which knows nothing of this package but that it needs a bound."""

    def __init__(self, start=0.25):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(start))
        self.asked = 0

    def forward(self, x):
        return self.factor * x

    def lipschitz_bound(self):
        self.asked += 1
        return self.factor.abs()


class Shifted(Factor):
    """One that takes a context."""

    context_action = ACTION

    def condition(self, context):
        return lambda x: self.factor * (x + context)


def assert_layer(layer, x):
    assert_bijective(layer, x)
    assert_log_det(layer, x)
    assert_equivariant(layer, layer.action_in, layer.action_out, x)


def points(count=5, size=2):
    return torch.randn(count, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", [Squeezing, WithJacobian])
@pytest.mark.parametrize("layer", [GResidual, GMonotone, lambda a, f: GResidual(a, f, fast="sample")])
@pytest.mark.parametrize("solver", [NewtonSolver(), BanachSolver()], ids=["Newton", "Banach"])
def test_a_new_branch_is_one_class(kind, layer, solver):
    built = layer(ACTION, kind(ACTION)).double()
    built.solver = solver
    assert_layer(built, points())


def test_its_jacobian_is_that_of_autograd_and_a_closed_form_is_used():
    x = points().requires_grad_()
    found = []
    for kind in (Squeezing, WithJacobian):
        branch = kind(ACTION).double()
        value, ladj = GResidual(ACTION, branch).double().inv_call_and_ladj(x)
        found.append([value, ladj, *torch.autograd.grad(ladj.sum(), [x, branch.weight])])
        _, expected = dense_jacobian(branch, x, 1, create_graph=False)
        with torch.no_grad():
            value, jacobian = branch.call_and_jacobian(x)
        torch.testing.assert_close(jacobian.detach(), expected, rtol=0, atol=1e-14)
        torch.testing.assert_close(value.detach(), branch(x).detach(), rtol=0, atol=1e-15)
    assert branch.calls == 2
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-14)


def test_the_bound_is_promised_or_that_of_the_weights_now():
    branch = Squeezing(ACTION)
    assert branch.known_bound() == 0.5
    assert branch.lipschitz_bound().item() == pytest.approx(0.5 * torch.tensor(0.7).tanh().item())
    branch.bound = None
    assert branch.known_bound() == pytest.approx(branch.lipschitz_bound().item())
    with torch.no_grad():
        branch.weight.fill_(0.1)
    assert branch.known_bound() == pytest.approx(0.5 * torch.tensor(0.1).tanh().item())


def test_a_bound_is_computed_in_full_precision():
    class Norm(Squeezing):
        def lipschitz_bound(self):
            return (torch.ones(1, 3) @ torch.full((3, 1), 0.1 + 1e-4)).squeeze()

    with torch.autocast("cpu", torch.bfloat16):
        found = Norm(ACTION).lipschitz_bound()
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(0.3003, abs=1e-6)


def test_the_branches_of_this_package_are_contractions():
    made = [CONSTRUCTORS[name].build().branch for name in WITH_BRANCH]
    branches = [branch for branch in made if type(branch).__module__.startswith("pyro_gflows.")]
    assert {type(branch) for branch in branches} >= {LipschitzSum, LipschitzNetwork, LipschitzDenseNetwork}
    for branch in [*branches, lipschitz_branch(ACTION), ConditionalBranch(ACTION, ACTION)]:
        assert isinstance(branch, Contraction)
        assert isinstance(branch, DifferentiableBranch)
        assert branch.known_bound() == branch.bound < 1


def test_the_negative_has_the_negative_derivatives():
    branch, x, vector = WithJacobian(ACTION).double(), points(), points().sin()
    for part, expected in zip(Negative(branch).call_and_jacobian(x), branch.call_and_jacobian(x), strict=True):
        assert torch.equal(part, -expected)
    assert torch.equal(Negative(branch)(x), -branch(x))
    (value, product), (plain, plain_product) = Negative(branch).call_and_pullback(x), branch.call_and_pullback(x)
    assert torch.equal(value, -plain)
    assert torch.equal(product(vector, create_graph=False), -plain_product(vector, create_graph=False))


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("action", [ACTION, ImageAction("D4", 2, size=4), ImageAction.translations(1, size=4)], ids=str)
def test_products_with_many_vectors_are_those_with_each(action, depth):
    f = randomize_(LipschitzNetwork(action, width=2, depth=depth, bound=0.8).double(), scale=0.5)
    x, vectors = torch.randn(3, *action.event_shape).double(), torch.randn(5, 3, *action.event_shape).double()
    assert (f.call_and_pullbacks(x) is None) == (depth == 2)
    (value, many), (same, one) = pullbacks(f, x, 5), f.call_and_pullback(x)
    torch.testing.assert_close(value, same)
    expected = torch.stack([one(vector, create_graph=False) for vector in vectors])
    torch.testing.assert_close(many(vectors, create_graph=False), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", [*WITH_BRANCH, "given a context, vectors", "given a context, images"])
def test_products_with_the_jacobian_are_those_of_autograd(name):
    """In value, in the gradient of a product, without a gradient, and inside torch.func."""
    if name in CONSTRUCTORS:
        layer = make(name, scale=0.5)
        modules, action = layer.branch, layer.action_in
        f = modules if isinstance(modules, Contraction) else CustomContraction(modules, action)
    else:
        action = ImageAction("D4", 1, size=4) if "images" in name else VectorAction.regular("C4")
        modules = randomize_(ConditionalBranch(action, action, bound=0.8).double(), scale=0.5)
        f = modules.condition(torch.randn(3, *action.event_shape, dtype=torch.float64))
    x, vector, other = torch.randn(3, 3, *action.event_shape, dtype=torch.float64).unbind()
    parameters = [p for p in modules.parameters() if p.numel()]
    found = []
    for value, product in (f.call_and_pullback(x.requires_grad_()), pullback(f, x)):
        weighted = (product(vector, create_graph=True) * other).sum()
        gradients = torch.autograd.grad(weighted, [x, *parameters], allow_unused=True, retain_graph=True)
        constant = product(vector, create_graph=False)
        assert not constant.requires_grad
        zeros = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, [x, *parameters], strict=True)]
        found.append([value, constant, *zeros])
    for own, expected in zip(*found, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-11, atol=1e-12)

    x = x.detach()

    def inside(x):
        return f.call_and_pullback(x)[1](vector, create_graph=False)

    _, tangent = torch.func.jvp(inside, (x,), (other,))
    _, expected = torch.func.jvp(lambda x: pullback(f, x)[1](vector, create_graph=False), (x,), (other,))
    torch.testing.assert_close(tangent, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "path",
    [
        *(f"transforms/{name}.py" for name in ("residual", "monotone", "by_contraction", "probe_images")),
        *(f"numerics/{name}.py" for name in ("branch", "residual_map", "log_det", "exact", "series", "roulette")),
        *(f"numerics/{name}.py" for name in ("newton", "solvers", "implicit", "constant_memory", "jacobian")),
    ],
)
def test_layers_estimators_and_solvers_ask_for_the_type_alone(path):
    text = (Path(pyro_gflows.__file__).parent / path).read_text(encoding="utf-8")
    assert "hasattr(" not in text
    assert "getattr(" not in text


# -- a module of the user's own ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("layer", [GResidual, GMonotone])
def test_a_module_of_ones_own_keeps_its_place_and_the_names_of_its_weights(layer):
    module = Factor()
    built = layer(ACTION, module)
    assert built.branch is module
    assert list(built.state_dict()) == [name for name, _ in built.named_parameters()] == ["branch.factor"]
    with torch.no_grad():
        module.factor.fill_(0.75)
    assert built.lipschitz_bound() == 0.75
    assert_layer(built.double(), points())


def test_a_flow_with_it_is_saved_and_loaded(tmp_path):
    registered(Factor)
    flow = EquivariantFlow(InvariantNormal(ACTION), [GResidual(ACTION, Factor())]).double()
    with torch.no_grad():
        flow.transforms[0].branch.factor.fill_(0.6)
    save(flow, tmp_path / "flow")
    loaded = load(tmp_path / "flow")
    torch.testing.assert_close(loaded.dist.log_prob(points()), flow.dist.log_prob(points()), rtol=0, atol=0)
    assert type(loaded.transforms[0].branch) is Factor


@pytest.mark.parametrize(
    "way", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["copy", "pickle"]
)
def test_a_copy_has_a_branch_of_its_own(way):
    layer = GResidual(ACTION, Factor()).double()
    other = way(layer)
    with torch.no_grad():
        other.branch.factor.fill_(-0.5)
    assert layer.lipschitz_bound() == 0.25
    assert other.lipschitz_bound() == 0.5
    torch.testing.assert_close(other.inv_call_and_ladj(points())[0], 0.5 * points())
    torch.testing.assert_close(layer.inv_call_and_ladj(points())[0], 1.25 * points())


def test_other_weights_for_one_call():
    layer = GResidual(ACTION, Factor()).double()
    value = torch.func.functional_call(layer.inv, {"transform.branch.factor": torch.tensor(0.5).double()}, (points(),))
    torch.testing.assert_close(value, 1.5 * points())


def test_another_branch_in_its_place_is_checked_and_used():
    layer = GResidual(ACTION, Factor()).double()
    layer.branch = Factor(0.5).double()
    torch.testing.assert_close(layer.inv_call_and_ladj(points())[0], 1.5 * points())
    assert "Lipschitz bound 0.5 as built" in repr(layer)
    with pytest.raises(ValueError, match="below 1, got 2"):
        layer.branch = Factor(2.0)
    with pytest.raises(TypeError, match="lipschitz_bound"):
        layer.branch = nn.Linear(2, 2)
    assert layer.branch.factor == 0.5


def test_the_adapter_promises_a_bound():
    module = Factor()
    layer = GResidual(ACTION, CustomContraction(module, ACTION, bound=0.5)).double()
    before = module.asked
    layer(layer.inv(points()))
    assert module.asked == before
    assert "Lipschitz bound 0.5, log-det exact" in repr(layer)
    assert list(layer.state_dict()) == ["branch.module.factor"]
    unpromised = GResidual(ACTION, CustomContraction(Factor(), ACTION)).double()
    unpromised.inv(points())
    assert unpromised.branch.module.asked == 2


def test_a_jacobian_and_a_context_of_a_module_are_used():
    class Known(Factor):
        calls = 0

        def call_and_jacobian(self, x):
            self.calls += 1
            return self(x), self.factor * torch.eye(2, dtype=x.dtype).expand(*x.shape, 2)

    module = Known()
    _, ladj = GResidual(ACTION, module).double().inv_call_and_ladj(points())
    torch.testing.assert_close(ladj, torch.full_like(ladj, 2 * torch.tensor(1.25).double().log().item()))
    assert module.calls == 1

    layer = GResidual(ACTION, Shifted(), log_det=ExactLogDet()).double()
    assert layer.context_action == ACTION
    context = torch.ones(5, 2, dtype=torch.float64)
    value, ladj = layer.inv_call_and_ladj(points(), context)
    torch.testing.assert_close(value, points() + 0.25 * (points() + context))
    torch.testing.assert_close(layer.call_and_ladj(value, context)[0], points())
    assert ladj.shape == (5,)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: CustomContraction(nn.Linear(2, 2), ACTION), TypeError, r"lipschitz_bound\(\) method, got Linear"),
        (lambda: CustomContraction(Factor(), ACTION, bound=1.0), ValueError, r"bound in \(0, 1\)"),
        (
            lambda: CustomContraction(LipschitzNetwork(VectorAction.plane("C3")), ACTION),
            ValueError,
            "branch for .*D4.* got one for .*C3",
        ),
        (lambda: GMonotone(ACTION, Shifted()), ValueError, "without a context, got one that reads"),
        (lambda: LipschitzSum([Factor()]), TypeError, "expected terms such as .* got Factor"),
        (lambda: LipschitzSum([]), ValueError, "parts of one action"),
    ],
)
def test_what_is_no_branch_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_term_of_ones_own_joins_a_sum():
    class Identity(Term):
        terms = 1

        def __init__(self, action):
            super().__init__()
            self.action = action

        def call_and_jacobian(self, x, weights):
            return weights[0] * x, (weights[0] * torch.eye(x.shape[-1]).to(x)).expand(*x.shape, -1)

    branch = LipschitzSum([Ridges(ACTION, 2), Identity(ACTION)], bound=0.9).double()
    layer = GResidual(ACTION, branch, log_det=RouletteLogDet()).double().eval()
    assert_layer(layer, points())
