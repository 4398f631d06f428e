"""Bounded knots: single precision inverts the splines both ways for any parameters; stored flows keep their knots."""

import copy
import json

import pytest
import torch

from pyro_gflows import ElementwiseSpline, EquivariantFlow, GRadial, InvariantNormal, VectorAction, g_coupling
from pyro_gflows.nn import BoundedKnots, FreeKnots
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.testing import randomize_

SPREADS = [0.3, 3.0, 10.0, 30.0]
SPACE = VectorAction.space("SO(3)").direct_sum(VectorAction.trivial("SO(3)"))


def spline_case(spread, bins, *, count=20_000):
    """Both directions of random element-wise splines in float32, and points: anywhere, at knots, beside them."""
    spline = ElementwiseSpline(VectorAction.trivial("C1"), bins=bins)
    generator = torch.Generator().manual_seed(0)
    params = spread * torch.randn(count, spline.params_action.numel, generator=generator)
    points = 3 * torch.randn(count, 1, generator=generator)
    return (lambda x: spline(x, params)), (lambda y: spline.inverse(y, params)), points


def radial_case(spread, bins):
    layer = GRadial(SPACE, bins=bins)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
        positions, values, _ = layer._knots(None)
    direction = torch.tensor([0.6, 0.0, -0.8, 1.0])
    ends = torch.cat([positions[0], values[0], positions[1], values[1]])
    near = (ends[:, None] * torch.tensor([1 - 1e-6, 1.0, 1 + 1e-6])).flatten()
    points = 4 * torch.randn(2000, 4, generator=generator) * torch.rand(2000, 1, generator=generator)
    return layer.call_and_ladj, layer.inv_call_and_ladj, torch.cat([near[:, None] * direction, points])


@pytest.mark.parametrize("bins", [2, 8, 32])
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("case", [spline_case, radial_case], ids=["element-wise", "radial"])
@torch.no_grad()
def test_round_trips_in_single_precision(case, spread, bins):
    there, back, x = case(spread, bins)
    for first, second in [(there, back), (back, there)]:
        image, ladj = first(x)
        again, inverse_ladj = second(image)
        assert (again - x).abs().max() < 1e-3
        assert (ladj + inverse_ladj).abs().max() < 0.1


@pytest.mark.parametrize("spread", SPREADS)
@torch.no_grad()
def test_knots_of_an_elementwise_spline_invert_too(spread):
    """Where a value is a knot's value exactly, and beside it."""
    spline = ElementwiseSpline(VectorAction.trivial("C1"), bins=8)
    params = spread * torch.randn(500, spline.params_action.numel, generator=torch.Generator().manual_seed(0))
    params[:, [0, 14]] = 0.0  # neither scale nor shift: the limits are knots on both sides
    for limit in (-4.0, 4.0):
        for nudge in (1 - 1e-6, 1.0, 1 + 1e-6):
            x = torch.full((500, 1), limit * nudge)
            for first, second in [(spline, spline.inverse), (spline.inverse, spline)]:
                image, ladj = first(x, params)
                assert ladj.isfinite().all()
                assert (second(image, params)[0] - x).abs().max() < 1e-3


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("knots", [BoundedKnots(), BoundedKnots(smallest=0.5, secant=4.0, slope=1.5)])
@torch.no_grad()
def test_slopes_keep_the_stated_bounds(knots, spread):
    spline = ElementwiseSpline(VectorAction.trivial("C1"), bins=8, knots=knots).double()
    params = spread * torch.randn(100, spline.params_action.numel, generator=torch.Generator().manual_seed(0)).double()
    params[:, 0] = 0.0
    x = torch.linspace(-5, 5, 1001, dtype=torch.float64)[:, None, None].expand(-1, 100, 1)
    y, ladj = spline(x, params.expand(1001, -1, -1))
    assert ladj.min() > -torch.tensor((knots.slope + 0.5) * knots.secant).log()
    assert ladj.max() < torch.tensor(2 * knots.slope * knots.secant).log()
    assert (y.diff(dim=0) > 0).all()


def test_gradients_stay_finite_at_any_spread():
    for spread in [*SPREADS, 1000.0]:
        spline = ElementwiseSpline(VectorAction.signs(1), bins=8)
        params = spread * torch.randn(5000, spline.params_action.numel, generator=torch.Generator().manual_seed(0))
        x = 5 * torch.randn(5000, 1, generator=torch.Generator().manual_seed(1))
        for direction in (spline, spline.inverse):
            leaves = [x.clone().requires_grad_(), params.clone().requires_grad_()]
            y, ladj = direction(leaves[0], leaves[1])
            for gradient in torch.autograd.grad((y.sum() + ladj.sum()), leaves):
                assert gradient.isfinite().all()


def plain(config, name="knots"):
    """A description as it was before there were bounds."""
    if isinstance(config, dict):
        return {key: plain(value) for key, value in config.items() if key != name}
    return [plain(part) for part in config] if isinstance(config, list) else config


def old_spline():
    return build(plain(describe(ElementwiseSpline(VectorAction.signs(1), bins=4, limit=2.0)))).double()


def test_a_description_without_bounds_means_the_splines_of_before():
    spline = old_spline()
    params = torch.linspace(-1.5, 1.5, 15, dtype=torch.float64).sin() * 2
    y, ladj = spline(torch.tensor([[-3.0], [-0.7], [0.1], [1.9], [5.0]]).double(), params.expand(5, -1))
    # written down from the version without bounds
    expected = [0.03922084612632687, 0.2179825754980176, 0.43609295701241174, 0.7342032334289446, 2.143058651276709]
    expected_ladj = [
        -3.302224073225703,
        -1.606091256155018,
        -1.6204060018928814,
        -1.0277401832465412,
        -0.78490976085790,
    ]
    torch.testing.assert_close(y.flatten(), torch.tensor(expected).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(ladj, torch.tensor(expected_ladj).double(), rtol=0, atol=1e-6)


def trained_radial(layer):
    layer = layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            values = torch.linspace(-1.5, 1.2, parameter.numel(), dtype=torch.float64)
            parameter.copy_(values.view_as(parameter))
    return layer


def assert_radial_of_before(layer):
    y, ladj = layer.call_and_ladj(torch.tensor([[0.0, 0.3], [0.6, -0.8], [1.8, 0.1], [0.0, 7.0]], dtype=torch.float64))
    expected = [1.7817407421271627, 2.2910602412, 2.7130202873, 5.444818837899232]
    expected_ladj = [3.208408313222259, 0.18585017231769552, -0.23442949121645973, -0.8944101785714738]
    torch.testing.assert_close(y.norm(dim=-1), torch.tensor(expected).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(ladj, torch.tensor(expected_ladj).double(), rtol=0, atol=1e-6)


def test_a_radial_layer_without_bounds_is_that_of_before():
    layer = build(plain(describe(GRadial(VectorAction.plane("O(2)"), bins=3, limit=2.0))))
    assert_radial_of_before(trained_radial(layer))


def test_weights_that_were_stored_without_bounds_keep_their_density():
    """Also where the layer that loads them was made anew, in code."""
    old = trained_radial(GRadial(VectorAction.plane("O(2)"), bins=3, limit=2.0, knots=FreeKnots()))
    new = GRadial(VectorAction.plane("O(2)"), bins=3, limit=2.0).double()
    new.load_state_dict(old.state_dict())
    assert_radial_of_before(new)


def test_weights_carry_the_bounds_that_they_were_trained_with():
    knots = BoundedKnots(smallest=0.5, secant=5.0, slope=1.2)
    old = trained_radial(GRadial(VectorAction.plane("O(2)"), bins=3, knots=knots))
    new = GRadial(VectorAction.plane("O(2)"), bins=3).double()
    new.load_state_dict(old.half().double().state_dict())
    x = torch.randn(9, 2, dtype=torch.float64)
    torch.testing.assert_close(new(x), old(x), rtol=0, atol=1e-12)
    assert new.knots.secant == 5.0


def spline_flow(**options):
    action = VectorAction.signs(2)
    layer = g_coupling(action, transformer=lambda part: ElementwiseSpline(part, bins=4, **options), width=2)
    return EquivariantFlow(InvariantNormal(action), [layer, GRadial(action, bins=4)])


@pytest.mark.long
def test_bounds_are_described_whether_given_or_not():
    for flow in (spline_flow(), spline_flow(knots=BoundedKnots(secant=7.0)), spline_flow(knots=FreeKnots())):
        built = EquivariantFlow.from_config(json.loads(json.dumps(flow.config())))
        built.load_state_dict(flow.state_dict())
        theirs_by_name = dict(built.named_modules())
        for name, ours in flow.named_modules():
            theirs = theirs_by_name[name]
            assert type(ours) is type(theirs)
            if isinstance(ours, BoundedKnots):
                assert (ours.smallest, ours.secant, ours.slope) == (theirs.smallest, theirs.secant, theirs.slope)
    assert '"secant": 64.0' in json.dumps(spline_flow().config())


def test_knots_of_before_are_described_as_before():
    """So that a run that began without bounds is recognized when it is taken up again."""
    config = spline_flow(knots=FreeKnots()).transforms[0].transforms
    assert [describe(layer) for layer in config] == [plain(describe(layer)) for layer in config]


def test_a_flow_without_bounds_in_its_description_loads_as_before():
    config = plain(spline_flow().config())
    kinds = {type(module.knots) for module in EquivariantFlow.from_config(config).modules() if hasattr(module, "knots")}
    assert kinds == {FreeKnots}


def test_loading_something_else_leaves_the_knots_alone():
    flow = spline_flow()
    flow.load_state_dict({}, strict=False)
    assert isinstance(flow.transforms[1].knots, BoundedKnots)


def test_couplings_of_old_weights_load_into_new_layers():
    """The element-wise spline has no weights of its own: the missing bounds alone say that the weights are old."""
    old, new = spline_flow(knots=FreeKnots()).double(), spline_flow().double()
    state = {name: tensor for name, tensor in old.state_dict().items() if "knots" not in name}
    new.load_state_dict(state)
    x = torch.randn(5, 2, dtype=torch.float64)
    expected = EquivariantFlow.from_config(plain(old.config())).double()
    expected.load_state_dict(state)
    torch.testing.assert_close(new.dist.log_prob(x), expected.dist.log_prob(x))


@pytest.mark.parametrize("stored", [FreeKnots(), BoundedKnots(smallest=0.5, secant=5.0, slope=1.2)])
def test_a_description_is_of_the_knots_that_were_loaded(stored):
    old, new = spline_flow(knots=stored).double(), spline_flow().double()
    old.transforms[1].knots = copy.deepcopy(stored)
    randomize_(old)
    new.load_state_dict(old.state_dict())
    built = EquivariantFlow.from_config(json.loads(json.dumps(new.config()))).double()
    for layer in built.modules():
        if hasattr(layer, "knots"):
            assert json.dumps(describe(layer.knots)) == json.dumps(describe(stored))


class SquaredKnots(FreeKnots):
    """Knots of a user's own, which are registered nowhere."""


def test_knots_of_ones_own_need_a_description_only_to_be_described():
    layer = GRadial(VectorAction.plane("O(2)"), bins=4, knots=SquaredKnots())
    with pytest.raises(TypeError, match="SquaredKnots is not registered"):
        describe(layer)


@pytest.mark.parametrize("options", [{"smallest": 0.0}, {"smallest": 1.0}, {"secant": 1.0}, {"slope": float("inf")}])
def test_bad_bounds_say_what_was_expected(options):
    with pytest.raises(ValueError, match="smallest width in \\(0, 1\\), and secant and slope above 1 and finite, got"):
        BoundedKnots(**options)
