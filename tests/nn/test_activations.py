"""Activations: equivariance, and the Lipschitz constants that they promise."""

import math

import pytest
import torch

from pyro_gflows.actions import ImageAction, VectorAction
from pyro_gflows.nn import GatedNorm, LipSwish, SoftThresholdNorm, SortedPairs, Splines, Swish
from pyro_gflows.testing import randomize_

REGULAR = VectorAction.regular("D3", copies=2)
IMAGE = ImageAction("D4", 2, size=2, fields="regular")
MIXED = VectorAction.regular("C4").direct_sum(VectorAction.plane("C4", copies=2))
SPACE = VectorAction.space("O(3)", copies=2).direct_sum(VectorAction.trivial("O(3)", copies=2))

CASES = {
    f"{kind.__name__}, {name}": (kind, action)
    for kinds, actions in [
        ((LipSwish, SortedPairs, Splines, Swish), {"regular": REGULAR, "image": IMAGE}),
        (
            (SoftThresholdNorm, GatedNorm),
            {"regular": REGULAR, "mixed": MIXED, "space": SPACE, "no invariant": VectorAction.plane("C3")},
        ),
    ]
    for kind in kinds
    for name, action in actions.items()
}


@pytest.fixture(params=CASES)
def case(request):
    kind, action = CASES[request.param]
    return randomize_(kind(action).double(), scale=1.0), action


def test_is_equivariant(case):
    activation, action = case
    elements = action.sample((20,))
    x = 3 * torch.randn(20, *action.event_shape, dtype=torch.float64)
    image = action.act_each(elements, activation(x))
    torch.testing.assert_close(activation(action.act_each(elements, x)), image, rtol=0, atol=1e-12)


def points(action):
    """Random and adversarial events: many scales, ties, the origin, and where a swish is steepest."""
    x = torch.randn(20, *action.event_shape, dtype=torch.float64)
    scales = torch.logspace(-3, 1.5, 20, dtype=torch.float64).reshape(-1, *[1] * len(action.event_shape))
    ties = torch.full_like(x[:1], 0.5)
    return torch.cat([x * scales, ties, torch.zeros_like(ties), torch.full_like(ties, 2.4)])


@pytest.mark.parametrize("scale", [0.3, 20.0])
def test_no_jacobian_is_larger_than_promised(case, scale):
    activation, action = case
    randomize_(activation, scale=scale)
    if math.isinf(activation.lipschitz):
        assert isinstance(activation, GatedNorm)
        return
    for x in points(action):
        jacobian = torch.autograd.functional.jacobian(activation, x).reshape(action.numel, action.numel)
        assert torch.linalg.matrix_norm(jacobian, 2) <= activation.lipschitz + 1e-9


def test_no_two_points_move_apart(case):
    activation, action = case
    if math.isinf(activation.lipschitz):
        return
    first, second = points(action), points(action).flip(0)
    apart = (activation(first) - activation(second)).flatten(1).norm(dim=1)
    assert (apart <= activation.lipschitz * (first - second).flatten(1).norm(dim=1) + 1e-12).all()


def test_lipswish_is_all_but_1_lipschitz():
    activation = LipSwish(REGULAR).double()
    _, slope = activation.value_and_slope(torch.linspace(-10, 10, 20001, dtype=torch.float64))
    assert 0.999 < slope.max() < 1


@pytest.mark.parametrize("kind", [LipSwish, Splines, Swish])
@pytest.mark.parametrize("action", [REGULAR, IMAGE], ids=["vectors", "images"])
def test_slopes_are_those_of_autograd(kind, action):
    activation = randomize_(kind(action).double())
    x = torch.randn(5, *action.event_shape, dtype=torch.float64, requires_grad=True)
    value, slope = activation.value_and_slope(x)
    assert torch.equal(value, activation(x))
    (expected,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(slope, expected, rtol=0, atol=1e-12)


def test_swish_is_all_but_1_1_lipschitz():
    _, slope = Swish(REGULAR).value_and_slope(torch.linspace(-10, 10, 20001, dtype=torch.float64))
    assert 1.0998 < slope.max() < 1.1


def test_sorted_pairs_keep_every_component():
    x = torch.randn(7, *IMAGE.event_shape)
    y = SortedPairs(IMAGE)(x)
    assert torch.equal(y.flatten(1).sort(dim=1).values, x.flatten(1).sort(dim=1).values)
    first, second = y.chunk(2, -3)
    assert (first <= second).all()


def test_splines_have_one_function_for_each_field():
    activation = randomize_(Splines(REGULAR).double())
    x = torch.full((12,), 1.3, dtype=torch.float64)
    y = activation(x)
    assert len(set(y[:6].tolist())) == len(set(y[6:].tolist())) == 1
    assert y[0] != y[6]


def test_soft_threshold_is_the_formula_in_its_docstring():
    action = VectorAction.space("SO(3)")
    activation = SoftThresholdNorm(action).double()
    x = torch.randn(9, 3, dtype=torch.float64)
    radius, threshold = x.norm(dim=-1, keepdim=True), torch.nn.functional.softplus(activation.raw_threshold)
    expected = x / radius * ((radius.square() + threshold.square()).sqrt() - threshold)
    torch.testing.assert_close(activation(x), expected, rtol=0, atol=1e-13)


def test_norm_activations_have_finite_gradients_at_the_origin():
    for kind in (SoftThresholdNorm, GatedNorm):
        activation = kind(SPACE).double()
        x = torch.zeros(2, 8, dtype=torch.float64, requires_grad=True)
        activation(x).square().sum().add(activation(x).sum()).backward()
        assert x.grad.isfinite().all()
        assert all(p.grad.isfinite().all() for p in activation.parameters() if p.grad is not None)


def test_gates_make_invariants_from_vectors():
    activation = GatedNorm(SPACE).double()
    x = torch.randn(8, dtype=torch.float64)
    changed = x.clone()
    changed[:3] *= 2
    assert (activation(changed)[6:] - activation(x)[6:]).abs().min() > 1e-6


def test_labeled_gates_read_earlier_labels_only():
    activation = randomize_(GatedNorm(SPACE, labels=[0, 1, 0, 1]).double())
    x = torch.randn(8, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(activation, x)
    early, late = [0, 1, 2, 6], [3, 4, 5, 7]
    assert jacobian[early][:, late].abs().max() == 0
    assert jacobian[late][:, early].abs().min() > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LipSwish(VectorAction.plane("C4")), "LipSwish acts pointwise.*got VectorAction.*SoftThresholdNorm"),
        (lambda: SortedPairs(VectorAction.regular("C4")), "even number of equal fields, got"),
        (
            lambda: SortedPairs(VectorAction.regular("C2").direct_sum(VectorAction.trivial("C2"))),
            "even number of equal fields, got",
        ),
        (lambda: GatedNorm(IMAGE), "needs vectors, got ImageAction.* pointwise activations"),
    ],
)
def test_fields_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
