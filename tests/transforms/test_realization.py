"""Residual flows on a padded space realize maps that no residual flow without padding can."""

import math

import pytest
import torch
from torch import nn

from pyro_gflows import EquivariantFlow, GRadial, ImageAction, InvariantNormal, VectorAction, load, save
from pyro_gflows import residual_realization as realize
from pyro_gflows.nn import Contraction, CustomContraction, LipschitzSum, RadialTerm, Ridges, Shear
from pyro_gflows.numerics import ExactLogDet, ShearLogDet
from pyro_gflows.testing import assert_equivariant, assert_layer, equivariance_error, randomize_
from pyro_gflows.transforms import Compose, GActNorm, GResidual, ResidualRealization
from tests.constructors.own_branch import Minus

D4 = VectorAction.plane("D4")


def points(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rotated(x, angle):
    """The images of points of the plane under rotations by angles of their own."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * x[..., 0] - sin * x[..., 1], sin * x[..., 0] + cos * x[..., 1]], -1)


def twist(sign):
    """x -> R(theta(|x|)) x with theta(r) = pi / (1 + r^2), for which r |theta'(r)| is at most pi / 2."""
    return lambda x: rotated(x, sign * math.pi / (1 + x.square().sum(-1)))


CASES = {
    "-x, D4": lambda: realize(torch.neg, torch.neg, action=D4, lipschitz=(1.0, 1.0)),
    "-x, O(2)": lambda: realize(torch.neg, torch.neg, action=VectorAction.plane("O(2)"), lipschitz=(1.0, 1.0)),
    "twist, SO(2)": lambda: realize(
        twist(1), twist(-1), action=VectorAction.plane("SO(2)"), lipschitz=(1 + math.pi / 2, 1 + math.pi / 2)
    ),
    "halves, O(3)": lambda: realize(
        lambda x: -x / 2, lambda x: -2 * x, action=VectorAction.space("O(3)"), lipschitz=(0.5, 2.0), bound=0.6
    ),
    "-x, image": lambda: realize(torch.neg, torch.neg, action=ImageAction("D4", 2, size=2), lipschitz=(1.0, 1.0)),
}
FUNCTIONS = {"twist, SO(2)": twist(1), "halves, O(3)": lambda x: -x / 2}


@pytest.mark.parametrize("name", CASES)
def test_the_chain_maps_x_and_0_to_the_value_and_0(name):
    chain = CASES[name]().double()
    half = chain.action_in.event_shape[0] // 2
    x = 2 * points(50, half, *chain.action_in.event_shape[1:])
    value, log_det = chain.call_and_ladj(chain.pad(x))
    expected = FUNCTIONS.get(name, torch.neg)(x)
    assert (value[:, :half] - expected).abs().max() < 1e-12
    assert value[:, half:].abs().max() < 1e-12
    assert not log_det.any()
    back, back_log_det = chain.inv_call_and_ladj(chain.pad(expected))
    assert (back - chain.pad(x)).abs().max() < 1e-12
    assert not back_log_det.any()


@pytest.mark.parametrize("name", CASES)
def test_the_chain_is_an_equivariant_bijection_of_the_whole_padded_space(name):
    """Its log-dets, stated to be 0, are compared with dense Jacobians."""
    chain = CASES[name]().double()
    assert_layer(chain, points(2, *chain.action_in.event_shape), tol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_every_residual_part_is_a_contraction_with_the_stated_constant(name):
    chain = CASES[name]().double()
    assert len(chain.counts) == len(chain.constants) == 4
    assert len(chain.transforms) == sum(chain.counts)
    stated = [constant for count, constant in zip(chain.counts, chain.constants, strict=True) for _ in range(count)]
    x = points(40, *chain.action_in.event_shape)
    others = torch.cat([points(20, *x.shape[1:], seed=1), x[20:] + 1e-4 * points(20, *x.shape[1:], seed=2)])
    for layer, constant in zip(chain.transforms, stated, strict=True):
        branch = layer.branch
        assert isinstance(layer, GResidual)
        assert isinstance(branch, Contraction)
        assert layer.lipschitz_bound() == constant < 1
        stretched = (branch(x) - branch(others)).flatten(1).norm(dim=1) / (x - others).flatten(1).norm(dim=1)
        assert stretched.max() <= constant * (1 + 1e-9)


def test_constants_are_those_of_the_theorem():
    chain = ResidualRealization(torch.neg, torch.neg, action=D4, lipschitz=(3.0, 2.0), bound=0.5)
    assert chain.delta == pytest.approx(0.5 / 3) and chain.delta < 1 / 3
    (_, erasing, writing, _) = chain.counts
    assert erasing > 2 / chain.delta and writing > 1 / chain.delta
    assert (erasing, writing) == (24, 12)
    assert "24 + 12" in repr(chain) and "delta=0.167" in repr(chain) and "log-det 0" in repr(chain)


def test_with_a_trivial_padding_the_first_step_is_not_equivariant():
    """The group has to act on the padding as it acts on x."""
    x = points(20, 4)
    alike = D4.direct_sum(D4)
    trivial = D4.direct_sum(D4.trivial_fields(2))

    def error(action):
        first = GResidual(action, Shear(action, torch.neg, lipschitz=1.0, outer=0.9), log_det=ShearLogDet())
        return equivariance_error(first.inv, action, action, x).error

    assert error(alike) < 1e-12
    assert error(trivial) > 0.1


def test_without_reflections_four_rotations_by_45_degrees_do_it():
    """A rotation by 45 degrees is x + f(x) with a contraction f, but no reflection commutes with it."""
    eighth = torch.tensor(math.pi / 4, dtype=torch.float64)

    class Rotation(nn.Module):
        def forward(self, x):
            return rotated(x, eighth) - x

        def lipschitz_bound(self):
            return 2 * (eighth / 2).sin()

    for group in ("C4", "SO(2)"):
        action = VectorAction.plane(group)
        chain = Compose([GResidual(action, Rotation(), fast="sample") for _ in range(4)]).double()
        x = points(20, 2)
        assert (chain(x) + x).abs().max() < 1e-12
        assert_equivariant(chain, action, action, x)
    assert chain.transforms[0].lipschitz_bound() == pytest.approx(0.7654, abs=1e-4)
    for group in ("D4", "O(2)"):
        action = VectorAction.plane(group)
        layer = GResidual(action, CustomContraction(Rotation(), action))
        assert equivariance_error(layer.inv, action, action, x).error > 0.1


@pytest.mark.parametrize("group", ["D4", "O(2)"])
@pytest.mark.parametrize("seed", range(3))
def test_without_padding_a_residual_flow_is_increasing_on_every_mirror_line(group, seed):
    """A reflection leaves its line as it is, so an equivariant map maps the line to itself."""
    torch.manual_seed(seed)
    action = VectorAction.plane(group)

    def branch():
        terms = [RadialTerm(action), Ridges(action, 4)] if group == "D4" else [RadialTerm(action)]
        return LipschitzSum(terms, bound=0.99)

    flow = Compose([GResidual(action, branch(), fast="sample") for _ in range(4)]).double()
    randomize_(flow, scale=3.0)
    t = torch.linspace(-4, 4, 2001, dtype=torch.float64)
    with torch.no_grad():
        for line in range(4):
            angle = torch.tensor(line * math.pi / 4, dtype=torch.float64)
            direction = torch.stack([angle.cos(), angle.sin()])
            normal = torch.stack([-angle.sin(), angle.cos()])
            y = flow(t[:, None] * direction)
            assert (y @ normal).abs().max() < 1e-10
            assert (y @ direction).diff().min() > 0
            assert (y @ direction - t).abs().max() > 0.1  # the flow is not the identity


@pytest.mark.parametrize("name", ["function", "inverse"])
def test_a_violated_constant_is_named_with_a_pair(name):
    constants = (0.9, 2.0) if name == "function" else (2.0, 0.9)
    scale = 1.2 if name == "function" else 1 / 1.2
    with pytest.raises(ValueError, match=r"keep the Lipschitz constant 0.9, .* of \(.*\) and \(.*\) by 1.2; state"):
        realize(lambda x: -scale * x, lambda x: -x / scale, action=D4, lipschitz=constants)


def test_a_constant_that_is_violated_far_out_is_found_at_the_users_points():
    def steep(x):
        return x * (1 + x.norm(dim=-1, keepdim=True).div(50).tanh())

    inverse = _inverse_of(steep)
    assert realize(steep, inverse, action=D4, lipschitz=(1.6, 1.0)).counts[0] == 1
    with pytest.raises(ValueError, match="F to keep the Lipschitz constant 1.6"):
        realize(steep, inverse, action=D4, lipschitz=(1.6, 1.0), points=100 * points(50, 2))


def _inverse_of(function):
    """The inverse of a radial map, by bisection."""

    def inverse(y):
        low, high = torch.zeros_like(y[..., :1]), torch.full_like(y[..., :1], 1e4)
        direction = y / y.norm(dim=-1, keepdim=True)
        for _ in range(80):
            middle = (low + high) / 2
            above = function(middle * direction).norm(dim=-1, keepdim=True) > y.norm(dim=-1, keepdim=True)
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (low + high) / 2 * direction

    return inverse


BAD = {
    "no inverse": (
        lambda: realize(torch.neg, lambda x: 2 * x, action=D4, lipschitz=(1.0, 2.0)),
        r"inverse\(F\(x\)\) to be x, got an error of .* at x = \(",
    ),
    "not equivariant": (
        lambda: realize(lambda x: x + 1, lambda x: x - 1, action=D4, lipschitz=(1.0, 1.0)),
        r"F\(g x\) to be g F\(x\) .*, got an error of 2 at x",
    ),
    "NaN": (
        lambda: realize(lambda x: x / 0 * 0, torch.neg, action=D4, lipschitz=(1.0, 1.0)),
        r"inverse\(F\(x\)\) to be x, got an error of nan",
    ),
    "zero": (lambda: realize(torch.neg, torch.neg, action=D4, lipschitz=(0.0, 1.0)), "positive and finite"),
    "one constant": (lambda: realize(torch.neg, torch.neg, action=D4, lipschitz=2.0), r"\(L, L_inverse\).* got 2.0"),
    "product": (lambda: realize(torch.neg, torch.neg, action=D4, lipschitz=(0.5, 1.0)), "product is at least 1"),
    "bound": (lambda: realize(torch.neg, torch.neg, action=D4, lipschitz=(1.0, 1.0), bound=1.0), r"bound in \(0, 1\)"),
    "points": (
        lambda: realize(torch.neg, torch.neg, action=D4, lipschitz=(1.0, 1.0), points=points(5, 3)),
        r"points of shape \(\.\.\., 2\)",
    ),
    "odd size": (lambda: Shear(VectorAction.rows("S3"), torch.neg, lipschitz=0.5), "two halves of one size"),
    "no contraction": (lambda: Shear(D4, torch.neg, lipschitz=1.0), r"constant in \(0, 1\), got .* = 1; lower outer"),
    "which half": (lambda: Shear(D4, torch.neg, lipschitz=0.5, reads="third"), "reads='first' or reads='second'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="LinearAction such as"):
        realize(torch.neg, torch.neg, action="D4", lipschitz=(1.0, 1.0))
    with pytest.raises(TypeError, match="a function of one half of an event, got str"):
        Shear(D4, "neg", lipschitz=0.5)
    layer = GResidual(D4, LipschitzSum([RadialTerm(D4)]), log_det=ShearLogDet(), fast="sample")
    with pytest.raises(TypeError, match="a branch that is a shear, such as nn.Shear, got LipschitzSum"):
        layer(torch.zeros(2))


def test_the_stated_log_det_is_the_exact_one():
    shear = Shear(D4, torch.sin, lipschitz=1.0, reads="second", inner=0.5, outer=1.5)
    x = points(20, 2)
    stated = GResidual(D4, shear, log_det=ShearLogDet(), fast="sample").double().call_and_ladj(x)
    exact = GResidual(D4, shear, log_det=ExactLogDet(), fast="sample").double().call_and_ladj(x)
    assert torch.equal(stated[0], exact[0])
    assert exact[1].abs().max() < 1e-12
    assert not stated[1].any()


def test_a_layer_of_the_package_is_realized_saved_and_loaded(tmp_path):
    """F may be a layer with weights: here a radial layer, whose weights are saved with the chain."""
    torch.manual_seed(0)
    radial = randomize_(GRadial(VectorAction.plane("O(2)"), bins=6).double(), scale=0.3).eval()
    chain = realize(radial, radial.inv, action=radial.action_in, lipschitz=(8.0, 8.0))
    x = points(20, 2)
    assert (chain(chain.pad(x)) - chain.pad(radial(x))).abs().max() < 1e-10
    flow = EquivariantFlow(InvariantNormal(chain.action_in), [chain, GActNorm(chain.action_in)]).double().eval()
    save(flow, tmp_path)
    loaded = load(tmp_path)
    again = loaded.transforms[0]
    assert isinstance(again, ResidualRealization) and again.counts == chain.counts
    assert torch.equal(again(chain.pad(x)), chain(chain.pad(x)))
    assert torch.equal(loaded.dist.log_prob(chain.pad(x)), flow.dist.log_prob(chain.pad(x)))


def test_weights_decide_about_the_dtype_of_the_check():
    """A module in float32 is checked in float32, to its accuracy."""
    radial = randomize_(GRadial(VectorAction.plane("O(2)"), bins=6), scale=0.3).eval()
    assert realize(radial, radial.inv, action=radial.action_in, lipschitz=(8.0, 8.0)).counts[0] == 1
    assert realize(Minus(), Minus(), action=D4, lipschitz=(1.0, 1.0)).counts == (1, 2, 2, 1)
