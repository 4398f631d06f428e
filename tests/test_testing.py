"""The public checks accept right transforms, and each check finds the errors that it is made for."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.distributions import constraints
from torch.distributions.transforms import ExpTransform, Transform

from pyro_gflows.actions import TorusAction, VectorAction
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.testing import (
    assert_bijective,
    assert_equivariant,
    assert_invariant,
    assert_layer,
    assert_log_det,
    dense_log_det,
    equivariance_error,
    randomize_,
)
from pyro_gflows.transforms import EquivariantTransform, g_residual

ACTION = VectorAction.plane("D4")


def points(*shape):
    return torch.randn(*shape, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Swirl(dist.torch_transform.TransformModule):
    """A user's own transform, which rotates x by an angle that depends on |x|. Each flag breaks one property."""

    bijective = True
    domain = codomain = constraints.real_vector

    def __init__(self, *, stretch=1.0, wrong_log_det=0.0, wrong_inverse=0.0, wrong_shape=False, cache_size=0):
        super().__init__(cache_size=cache_size)
        self.scale = torch.tensor([math.exp(0.3), stretch * math.exp(0.3)], dtype=torch.float64)
        self.wrong_log_det, self.wrong_inverse, self.wrong_shape = wrong_log_det, wrong_inverse, wrong_shape

    @staticmethod
    def rotate(x, sign):
        angle = sign * x.norm(dim=-1)
        c, s = angle.cos(), angle.sin()
        return torch.stack([c * x[..., 0] - s * x[..., 1], s * x[..., 0] + c * x[..., 1]], -1)

    def _call(self, x):
        return self.rotate(x, 1.0) * self.scale

    def _inverse(self, y):
        return self.rotate(y / self.scale, -1.0) + self.wrong_inverse

    def log_abs_det_jacobian(self, x, y):
        ladj = (self.scale.log().sum() + self.wrong_log_det).expand(x.shape[:-1])
        return ladj[..., None] if self.wrong_shape else ladj


ROTATIONS = VectorAction.plane("C4")


def test_a_right_transform_passes_every_check():
    transform = Swirl()
    x = points(3, 4)
    assert_equivariant(transform, ROTATIONS, ROTATIONS, x)
    assert_equivariant(transform.inv, ROTATIONS, ROTATIONS, x)
    assert_bijective(transform, x)
    assert_log_det(transform, x)
    assert_log_det(transform.inv, x)


def test_float32_has_its_own_tolerance():
    transform = Swirl()
    transform.scale = transform.scale.float()
    x = points(5).float()
    assert_equivariant(transform, ROTATIONS, ROTATIONS, x)
    assert_bijective(transform, x)
    assert_log_det(transform, x)


def test_elementwise_and_constrained_transforms_of_torch():
    x = points(4)
    assert_bijective(ExpTransform(), x)
    assert_log_det(ExpTransform(), x)
    assert_log_det(torch.distributions.transforms.IndependentTransform(ExpTransform(), 1), x)


def test_a_map_that_is_not_equivariant_is_caught_with_its_worst_element():
    with pytest.raises(
        AssertionError, match=r"not equivariant: error .* at group element [13], sample \[\d\].*float64"
    ):
        assert_equivariant(Swirl(stretch=1.01), ROTATIONS, ROTATIONS, points(5))
    # a swirl has an orientation: rotations keep it, and reflections do not
    report = equivariance_error(Swirl(), ACTION, ACTION, points(5))
    assert report.errors.shape == (8, 5) and report.error == report.errors.max()
    assert (report.errors[:4] < 1e-12).all() and (report.errors[4:] > 1e-3).all()
    assert report.element >= 4 and report.errors[int(report.element), report.index[0]] == report.error


def test_an_error_in_a_single_sample_is_caught():
    def function(x):
        return torch.where((x - x_bad).abs().amax(-1, keepdim=True) < 1e-9, x + 1e-6, x)

    x = points(100)
    x_bad = x[57].clone()
    with pytest.raises(AssertionError, match=r"sample \[57\]"):
        assert_equivariant(function, ACTION, ACTION, x)


def test_an_inverse_that_is_not_equivariant_is_caught():
    with pytest.raises(AssertionError, match="the inverse is not equivariant"):
        assert_equivariant(Swirl(wrong_inverse=0.1), ROTATIONS, ROTATIONS, points(5))


def test_a_log_det_that_is_not_invariant_is_caught():
    class Leaning(Swirl):
        def log_abs_det_jacobian(self, x, y):
            return super().log_abs_det_jacobian(x, y) + 1e-6 * x[..., 0]

    with pytest.raises(AssertionError, match="log-det is not invariant"):
        assert_equivariant(Leaning(), ROTATIONS, ROTATIONS, points(5))


def test_a_wrong_log_det_is_caught_in_both_directions():
    with pytest.raises(AssertionError, match="the log-det is not autograd's"):
        assert_log_det(Swirl(wrong_log_det=1e-6), points(3))

    class OneSided(Swirl):
        """The log-det of the forward map is right, and the log-det of the inverse is wrong."""

        def log_abs_det_jacobian(self, x, y):
            return super().log_abs_det_jacobian(x, y) + (1e-3 if self.inverted else 0.0)

        inverted = False

        @property
        def inv(self):
            inverse = super().inv
            self.inverted = True
            return inverse

    with pytest.raises(AssertionError, match="the log-det of the inverse is not autograd's"):
        assert_log_det(OneSided(), points(3))


def test_a_log_det_of_the_wrong_shape_is_caught_where_batch_equals_event():
    with pytest.raises(AssertionError, match=r"expected the batch shape \(2,\), got \(2, 1\)"):
        assert_log_det(Swirl(wrong_shape=True), points(2))
    with pytest.raises(AssertionError, match=r"expected the batch shape"):
        assert_invariant(lambda x: x.square(), ACTION, points(2))


def test_a_wrong_inverse_is_caught_behind_a_cache():
    """The cache of torch returns x itself for inverse(forward(x)), but not for a clone."""
    transform = Swirl(wrong_inverse=1e-4, cache_size=1)
    x = points(3)
    assert torch.equal(transform.inv(transform(x)), x)
    with pytest.raises(AssertionError, match=r"inverse\(forward\(x\)\) is not x"):
        assert_bijective(transform, x)


def test_a_map_that_is_onto_only_a_part_is_caught():
    class Squash(Transform):
        bijective = True
        domain = codomain = constraints.real_vector

        def _call(self, x):
            return x.tanh()

        def _inverse(self, y):
            return y.clamp(-0.99, 0.99).atanh()

    with pytest.raises(AssertionError, match=r"forward\(inverse\(y\)\) is not y"):
        assert_bijective(Squash(), 0.5 * points(20).tanh(), y=2 * points(20))


def test_nan_and_wrong_shapes_fail():
    with pytest.raises(AssertionError, match=r"not equivariant: error inf"):
        assert_equivariant(lambda x: x * float("nan"), ACTION, ACTION, points(3))
    with pytest.raises(ValueError, match=r"expected f\(x\) of shape"):
        assert_equivariant(lambda x: x[..., :1], ACTION, ACTION, points(3))
    with pytest.raises(ValueError, match="expected x of shape"):
        assert_equivariant(Swirl(), ACTION, ACTION, torch.zeros(3))


def test_invariance_is_tested_on_the_logarithm():
    """Both densities underflow to 0, and only their logarithms differ."""
    action = VectorAction.regular("C4", copies=250)
    x = 5 * torch.randn(3, 1000, dtype=torch.float64)
    scale = torch.linspace(1.0, 1.001, 1000, dtype=torch.float64)
    lopsided = dist.Normal(torch.zeros(1000, dtype=torch.float64), scale).to_event(1)
    assert (lopsided.log_prob(x).exp() == 0).all()
    with pytest.raises(AssertionError, match="log-prob is not invariant"):
        assert_invariant(lopsided, action, x)
    assert_invariant(InvariantNormal(action), action, x)


def test_continuous_groups_get_their_generators_and_random_elements():
    action = VectorAction.plane("O(2)")
    assert equivariance_error(lambda x: 2 * x, action, action, points(3)).errors.shape == (2 + 16, 3)
    assert_invariant(lambda x: x.norm(dim=-1), action, points(3))
    with pytest.raises(AssertionError, match="log-prob is not invariant"):  # invariant under D4, not under O(2)
        assert_invariant(lambda x: x.pow(4).sum(-1), action, points(3))
    only = VectorAction.plane("D4").matrix(ACTION.elements())
    assert_invariant(lambda x: x.pow(4).sum(-1), action, points(3), elements=only)


def test_randomize_changes_every_parameter_reproducibly():
    first, second = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(2))
    second.load_state_dict(first.state_dict())
    before = [parameter.clone() for parameter in first.parameters()]
    assert randomize_(first, generator=torch.Generator().manual_seed(0)) is first
    randomize_(second.double(), generator=torch.Generator().manual_seed(0))
    for old, new, twin in zip(before, first.parameters(), second.parameters(), strict=True):
        assert (old != new).all()
        torch.testing.assert_close(new.double(), twin, rtol=1e-6, atol=1e-6)


class Radial(EquivariantTransform):
    """A user's own layer x -> x e^{s |c|}, with c = 1 where there is no context; each argument breaks one property."""

    def __init__(self, *, context_action=None, twist=0.0, wrong_log_det=0.0, wrong_inverse=0.0, wrong_log_det_back=0.0):
        super().__init__(ACTION)
        self.own_context_action, self.twist = context_action, twist
        self.wrong_log_det, self.wrong_inverse, self.wrong_log_det_back = (
            wrong_log_det,
            wrong_inverse,
            wrong_log_det_back,
        )

    @property
    def context_action(self):
        return self.own_context_action

    def log_scale(self, x, context):
        size = torch.ones_like(x[..., 0]) if context is None else context.norm(dim=-1) + self.twist * context[..., 0]
        return 0.3 * size.expand(x.shape[:-1])

    def call_and_ladj(self, x, context=None):
        s = self.log_scale(x, context)
        return x * s.exp()[..., None], 2 * s + self.wrong_log_det

    def inv_call_and_ladj(self, y, context=None):
        s = self.log_scale(y, context)
        return y * (-s).exp()[..., None] + self.wrong_inverse, -2 * s - self.wrong_log_det + self.wrong_log_det_back


def test_a_right_layer_passes_with_a_context_and_without():
    assert_layer(Radial(), points(3, 4))
    assert_layer(Radial(), points(3).float())
    assert_layer(Radial(context_action=ACTION), points(3, 2), context=points(3, 2).flip(0))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"wrong_log_det": 1e-6}, "the log-det is not autograd's"),
        ({"wrong_inverse": 1e-6}, "the inverse is not equivariant|not x"),
        ({"wrong_log_det_back": 1e-6}, "log-det of the inverse is not autograd's|do not cancel"),
    ],
)
def test_what_is_wrong_with_a_layer_is_caught(wrong, message):
    with pytest.raises(AssertionError, match=message):
        assert_layer(Radial(**wrong), points(3))
    with pytest.raises(AssertionError, match=message):
        assert_layer(Radial(context_action=ACTION, **wrong), points(3), context=points(3))
    assert_layer(Radial(**wrong), points(3), tol=1e-5)


def test_a_context_that_breaks_the_symmetry_of_a_layer_is_caught():
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_layer(Radial(context_action=ACTION, twist=0.1), points(3), context=points(3))


def test_a_layer_is_given_a_context_where_it_takes_one():
    with pytest.raises(ValueError, match="expected a context of VectorAction"):
        assert_layer(Radial(context_action=ACTION), points(3))
    with pytest.raises(ValueError, match="expected no context"):
        assert_layer(Radial(), points(3), context=points(3))


def test_the_dense_log_det_is_that_of_the_matrix_for_every_batch_and_event_shape():
    matrix = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.linalg.slogdet(matrix).logabsdet
    x = torch.randn(2, 3, 2, 3, dtype=torch.float64)
    found = dense_log_det(lambda x: (x.flatten(-2) @ matrix.T).unflatten(-1, (2, 3)), x, event_dim=2)
    torch.testing.assert_close(found, expected.expand(2, 3))
    torch.testing.assert_close(dense_log_det(lambda x: x @ matrix.T, x[0, 0].flatten()), expected)


def test_a_layer_that_reads_angles_as_they_are_is_caught():
    """A map of a torus has to give the same for angles that differ by full circles."""

    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(0.5))

        def forward(self, x):
            return self.weight * x

        def lipschitz_bound(self):
            return self.weight

    action = TorusAction.trivial(2)
    x = 6 * torch.rand(3, 2, dtype=torch.float64)
    assert_layer(g_residual(action).double(), x)
    with pytest.raises(AssertionError, match="no period 2 pi"):
        assert_layer(g_residual(action, branch=lambda action: Line()).double(), x)
