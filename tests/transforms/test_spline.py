"""Element-wise splines: monotone, inverted in closed form, mirrored by sign flips, the identity at zero parameters."""

import functools

import pytest
import torch

from pyro_gflows import CoordinateSplit, ElementwiseSpline, ImageAction, VectorAction, checkerboard_split
from pyro_gflows.testing import assert_layer, dense_log_det, randomize_
from pyro_gflows.transforms import GCoupling

CASES = {
    "regular": VectorAction.regular("C4"),
    "signed": VectorAction.plane("D4", copies=2),
    "no symmetry": VectorAction.trivial("C1", copies=3),
    "image": ImageAction("D4", 1, size=2, fields="regular"),
}


@pytest.fixture(params=CASES)
def spline(request):
    return ElementwiseSpline(CASES[request.param], bins=4, limit=2.0).double()


def events(action, count=9, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *action.event_shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("size", [1.0, 4.0])
def test_is_a_bijection_with_its_log_det(spline, size):
    x, params = 2 * events(spline.action), size * events(spline.params_action, seed=1)
    y, ladj = spline(x, params)
    back, inverse_ladj = spline.inverse(y, params)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-8)
    torch.testing.assert_close(inverse_ladj, -ladj, rtol=0, atol=1e-6)
    expected = dense_log_det(lambda e: spline(e, params[:1])[0], x[:1], event_dim=x.ndim - 1)
    torch.testing.assert_close(ladj[:1], expected, rtol=0, atol=1e-8)


def test_commutes_when_the_parameters_move_along(spline):
    action, params_action = spline.action, spline.params_action
    x, params = 2 * events(action), events(params_action, seed=1)
    elements = action.sample((9,), torch.Generator().manual_seed(2))
    y, ladj = spline(x, params)
    moved, moved_ladj = spline(action.act_each(elements, x), params_action.act_each(elements, params))
    torch.testing.assert_close(moved, action.act_each(elements, y), rtol=0, atol=1e-11)
    torch.testing.assert_close(moved_ladj, ladj, rtol=0, atol=1e-11)


def test_zero_parameters_are_the_identity(spline):
    x = 4 * events(spline.action)
    y, ladj = spline(x, torch.zeros(9, *spline.params_action.event_shape).double())
    torch.testing.assert_close(y, x)
    assert ladj.abs().max() < 1e-12


def test_rises_smoothly_over_all_knots_and_tails():
    spline = ElementwiseSpline(VectorAction.trivial("C1"), bins=6, limit=2.0).double()
    params = 0.5 * events(spline.params_action, 1)
    y, ladj = spline(torch.linspace(-6, 6, 30_001, dtype=torch.float64)[:, None], params)
    assert (y.diff(dim=0) > 0).all()
    assert ladj.diff().abs().max() < 0.05
    assert ladj[:50].diff().abs().max() < 1e-12


@pytest.mark.parametrize(
    "split",
    [
        CoordinateSplit(VectorAction.signs(2)),
        checkerboard_split(ImageAction("D4", size=4)),
    ],
    ids=["signs", "masked image"],
)
def test_couplings_of_splines_are_equivariant_bijections(split):
    torch.manual_seed(0)
    layer = GCoupling(
        split.action, split=split, transformer=functools.partial(ElementwiseSpline, bins=4), width=2, depth=1
    ).double()
    randomize_(layer, scale=0.3, generator=torch.Generator().manual_seed(1))
    assert_layer(layer, events(split.action, 4), tol=1e-8)


def test_the_number_of_bins_has_a_largest_value():
    assert ElementwiseSpline(VectorAction.signs(1), bins=998).bins == 998
    with pytest.raises(ValueError, match="even number of bins from 2 to 998 .* got 1000 and"):
        ElementwiseSpline(VectorAction.signs(1), bins=1000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ElementwiseSpline(VectorAction.plane("C3")), "permutations only, got"),
        (lambda: ElementwiseSpline(VectorAction.signs(1), bins=3), "even number of bins from 2 to 998 .* got 3 and"),
        (lambda: ElementwiseSpline(VectorAction.signs(1), limit=0.0), "a positive limit, got 8 and 0"),
    ],
)
def test_bad_splines_say_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
