"""Sets of different sizes in one batch: a mask gives the density of the rows that are there, whatever the padding.

Means, log-dets, the base and the scales that are set from data count no missing row (contract 52).
"""

import functools
import math

import pytest
import torch

from pyro_gflows import (
    Compose,
    ElementwiseSpline,
    EquivariantFlow,
    GActNorm,
    GAffine,
    GCoupling,
    GLinear,
    GRadial,
    GResidual,
    InvariantNormal,
    IrrepSplit,
    RowsAction,
    VectorAction,
    fit,
    fit_energy,
    g_autoregressive,
    g_coupling,
)
from pyro_gflows.nn import EquivariantMLP, PooledBranch, RowsAttention
from pyro_gflows.testing import randomize_
from pyro_gflows.training import Adam, FitSettings
from pyro_gflows.transforms.masked import Masked

MOST = 4  # rows of an event, some of which are missing


def attention(over):
    return functools.partial(RowsAttention, width=6, depth=1, keys=3, over=over)


def residual(action, fast, context_action=None):
    return GResidual(action, PooledBranch(action, width=5, pooled=3, context_action=context_action), fast=fast)


def of_points(rows):
    return RowsAction(rows, 2)


def with_rest(rows):
    return RowsAction(rows).direct_sum(RowsAction(rows, 2), RowsAction(rows).trivial_fields(2))


def signed(rows):
    return RowsAction(rows, 3, signed=[1, 2])


def rotated(rows):
    plane = VectorAction.plane("O(2)")
    return RowsAction(rows, plane).copies(2)


# name: the action for a number of rows, the layer for an action, and the action on the context
LAYERS = {
    "actnorm": (of_points, GActNorm, None),
    "coupling": (of_points, functools.partial(g_coupling, width=5), None),
    "coupling-rest": (with_rest, functools.partial(g_coupling, width=5), None),
    "coupling-signed": (signed, functools.partial(g_coupling, width=5), None),
    "coupling-rotations": (rotated, functools.partial(g_coupling, width=5), None),
    "coupling-splines": (of_points, functools.partial(g_coupling, transformer=ElementwiseSpline, width=5), None),
    "coupling-means": (of_points, functools.partial(g_coupling, network=attention("means")), None),
    "coupling-pairs": (signed, functools.partial(g_coupling, network=attention("pairs")), None),
    "coupling-context": (of_points, functools.partial(g_coupling, width=5), 2),
    "autoregressive-score": (of_points, functools.partial(g_autoregressive, width=5), None),
    "autoregressive-sample": (with_rest, functools.partial(g_autoregressive, width=5, fast="sample"), None),
    "affine": (of_points, functools.partial(GAffine, width=5), 2),
    "residual-score": (of_points, functools.partial(residual, fast="score"), None),
    "residual-sample": (with_rest, functools.partial(residual, fast="sample"), None),
    "residual-signed": (signed, functools.partial(residual, fast="score"), None),
    "residual-rotations": (rotated, functools.partial(residual, fast="score"), None),
    "residual-context": (of_points, functools.partial(residual, fast="score"), 2),
}


def random_(module):
    return randomize_(module.double(), scale=0.2, generator=torch.Generator().manual_seed(1)).eval()


def made(name, rows):
    """The flow with this layer for a number of rows, with the same random weights for every number."""
    kind, layer, context = LAYERS[name]

    def build(count):
        action = kind(count)
        keywords = {} if context is None else {"context_action": action.trivial_fields(context)}
        return EquivariantFlow(InvariantNormal(action), [layer(action, **keywords)])

    torch.manual_seed(0)
    most = random_(build(MOST))
    if rows == MOST:
        return most
    fewer = build(rows).double()
    fewer.load_state_dict(most.state_dict())
    if name == "actnorm":  # the weight is a coordinate along a unit vector of all rows
        fewer.transforms[0].shift.data *= math.sqrt(rows / MOST)
    return fewer.eval()


def draws(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def padded(small, large, x, *, filling=0.0, count=6):
    """Events of fewer rows among missing ones at random places, and their masks."""
    places = torch.rand(count, MOST, generator=torch.Generator().manual_seed(2)).argsort(-1) < small.layout.sizes[0]
    rows = small.unpack(x)

    def spread(tables):
        found = []
        for table in tables:
            wide = table.new_full((count, MOST, table.shape[-1]), filling)
            wide[places] = table.flatten(0, 1)
            found.append(wide)
        return tuple(found)

    return large.pack(type(rows)(spread(rows.even), spread(rows.odd), rows.rest)), places


def contexts(flow, count=6):
    action = flow.context_action
    return None if action is None else draws(count, action.numel, seed=5)


@pytest.mark.parametrize("rows", [2, 3, 4])
@pytest.mark.parametrize("name", LAYERS)
def test_any_padding_gives_the_density_without_padding(name, rows):
    small, large = made(name, rows), made(name, MOST)
    x, context = draws(6, small.action.numel), contexts(small)
    events, mask = padded(small.action, large.action, x, filling=7.0)
    with torch.no_grad():
        expected, found = small(x, context), large(events, context, mask=mask)
    assert ((found - expected) / (1 + expected.abs())).abs().max() < 1e-10


@pytest.mark.parametrize("name", LAYERS)
def test_the_log_det_is_that_of_the_rows_that_are_there(name):
    flow = made(name, MOST)
    mask = torch.tensor([True, False, True, False])
    context = contexts(flow, 1)
    view = Masked(flow.transform, mask, None if context is None else context[0])
    x = torch.where(view.there_in, draws(flow.action.numel), 0.0)
    y, ladj = view.call_and_ladj(x)
    back, inverse_ladj = view.inv_call_and_ladj(y)
    assert not y[~view.there_in].any()
    jacobian = torch.autograd.functional.jacobian(lambda x: view.call_and_ladj(x)[0], x)
    assert (jacobian[view.there_in][:, view.there_in].slogdet().logabsdet - ladj).abs() < 1e-9
    assert not jacobian[view.there_in][:, ~view.there_in].any()
    assert (back - x).abs().max() < 1e-9 and (inverse_ladj + ladj).abs() < 1e-9


def one_feature():
    """A flow of at most 3 rows with a single feature."""
    action = RowsAction(3)
    torch.manual_seed(0)
    layers = [residual(action, "score"), GActNorm(action), residual(action, "score")]
    return random_(EquivariantFlow(InvariantNormal(action), layers))


@pytest.mark.parametrize(("rows", "count", "error"), [(1, 4001, 1e-6), (2, 161, 1e-3)])
def test_the_density_integrates_to_one_for_each_number_of_rows(rows, count, error):
    flow, line = one_feature(), torch.linspace(-10, 10, count, dtype=torch.float64)
    x = torch.cartesian_prod(*[line] * rows).reshape(-1, rows)
    mask = torch.arange(3) % 2 == 0 if rows == 2 else torch.arange(3) == 1
    events = x.new_zeros(len(x), 3)
    events[:, mask] = x
    with torch.no_grad():
        total = flow(events, mask=mask).logsumexp(0) + rows * math.log(20 / (count - 1))
    assert abs(float(total)) < error


def test_no_row_at_all_has_density_one():
    flow = one_feature()
    assert flow(draws(5, 3), mask=torch.zeros(3, dtype=torch.bool)).tolist() == [0.0] * 5


@pytest.mark.parametrize("name", ["coupling-means", "coupling-signed", "residual-rotations"])
def test_events_and_masks_are_permuted_together(name):
    flow = made(name, MOST)
    action, x = flow.action, draws(6, flow.action.numel)
    mask = torch.rand(6, MOST, generator=torch.Generator().manual_seed(3)) < 0.6
    elements = action.group.sample((6,), generator=torch.Generator().manual_seed(4))
    rows = RowsAction([type(action.fields[0])(action.structure, action.layout.even[0].trivial_fields(1).fields)])
    image = rows.act(elements, mask.double()) > 0.5
    with torch.no_grad():
        expected = flow(x, mask=mask)
        difference = flow(action.act(elements, x), mask=image) - expected
    assert (difference / (1 + expected.abs())).abs().max() < 1e-10


def test_draws_have_no_other_rows_and_are_scored_as_they_were_drawn():
    flow = made("coupling-context", MOST)
    mask = torch.rand(5, MOST, generator=torch.Generator().manual_seed(3)) < 0.6
    density = flow.condition(contexts(flow, 5), mask=mask)
    assert density.batch_shape == (5,) and density.event_shape == (2 * MOST,)
    x = density.rsample((3,))
    assert not x.unflatten(-1, (MOST, 2))[:, ~mask].any() and (x != 0).any()
    remembered = density.log_prob(x)
    assert (remembered - flow(x, contexts(flow, 5).expand(3, 5, -1), mask=mask.expand(3, 5, -1))).abs().max() < 1e-10


def test_draws_of_fewer_rows_have_the_law_of_fewer_rows():
    small, large = made("autoregressive-score", 2), made("autoregressive-score", MOST)
    torch.manual_seed(0)
    mask = torch.tensor([False, True, True, False])
    x = large.condition(mask=mask).sample((4000,))[:, 2:6]
    torch.manual_seed(0)
    ratio = (small(x) - large(torch.nn.functional.pad(x, (2, 2)), mask=mask)).abs().max()
    assert ratio < 1e-10
    other = small.dist.sample((4000,))
    for function in (torch.square, torch.sin, lambda x: x[:, [0]] * x[:, 2:]):
        a, b = function(x), function(other)
        assert ((a.mean(0) - b.mean(0)) / ((a.var(0) + b.var(0)) / 4000).sqrt()).abs().max() < 4


def test_each_event_of_a_vmap_has_its_own_mask():
    flow = made("residual-score", MOST)
    x, mask = draws(5, 2 * MOST), torch.rand(5, MOST, generator=torch.Generator().manual_seed(3)) < 0.6
    expected = flow(x, mask=mask)
    found = torch.func.vmap(lambda x, mask: flow(x, mask=mask))(x, mask)
    assert (found - expected).abs().max() < 1e-12


def test_missing_rows_have_no_gradient():
    flow = made("coupling-pairs", MOST)
    x = draws(5, flow.action.numel).requires_grad_()
    mask = torch.arange(MOST) != 2
    (gradient,) = torch.autograd.grad(flow(x, mask=mask).sum(), x)
    table = gradient.unflatten(-1, (MOST, 3))
    assert not table[:, 2].any() and table[:, [0, 1, 3]].all()


def test_scales_are_set_from_the_rows_that_are_there():
    action = RowsAction(MOST, 2)
    flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)]).double()
    mask = torch.rand(500, MOST, generator=torch.Generator().manual_seed(3)) < 0.6
    x = draws(500, MOST, 2) * torch.tensor([2.0, 5.0]) + torch.tensor([3.0, -1.0])
    x = torch.where(mask[..., None], x, 1e6)
    flow.initialize(x.flatten(1), mask=mask)
    source = flow.transform.inv_call_and_ladj(x.flatten(1))[0].unflatten(-1, (MOST, 2))[mask]
    assert source.mean(0).abs().max() < 0.05 and (source.std(0) - 1).abs().max() < 0.05


def sets(count):
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, MOST + 1, (count,), generator=generator).tolist()
    return [2.0 + 3.0 * torch.randn(size, 2, generator=generator) for size in sizes]


SETTINGS = FitSettings(30, batch_size=64, optimizer=Adam(lr=2e-2))


def test_a_flow_is_fitted_to_a_list_of_sets():
    action = RowsAction(MOST, 2)

    def fitted(*data, **keywords):
        torch.manual_seed(0)
        flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action), g_coupling(action, width=4)])
        return flow, fit(flow, *data, settings=SETTINGS, progress=False, **keywords)

    data, unseen = sets(600), sets(100)
    flow, result = fitted(data, validation=unseen)
    entropy = 2 * math.log(3 * math.sqrt(2 * math.pi * math.e)) * sum(len(one) for one in unseen) / len(unseen)
    assert abs(result.validation_nll - entropy) < 0.1 * entropy
    x, mask = torch.zeros(600, MOST, 2), torch.zeros(600, MOST, dtype=torch.bool)
    for index, one in enumerate(data):
        x[index, : len(one)], mask[index, : len(one)] = one, True
    same, _ = fitted(x.flatten(1), mask=mask)
    for first, second in zip(flow.parameters(), same.parameters(), strict=True):
        assert torch.equal(first, second)


def test_a_flow_is_fitted_to_an_energy_of_fewer_rows():
    action = RowsAction(MOST, 2)
    torch.manual_seed(0)
    flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
    mask = torch.tensor([True, True, False, True])
    log_density = lambda x: -0.5 * (x.unflatten(-1, (MOST, 2))[:, mask] - 1.0).square().sum((-1, -2)) / 0.49  # noqa: E731
    settings = FitSettings(80, batch_size=64, optimizer=Adam(lr=0.1))
    report = fit_energy(flow, log_density, mask=mask, settings=settings, progress=False)
    assert report.ess > 0.9 and abs(report.log_normalizer - 3 * math.log(2 * math.pi * 0.49)) < 0.05


ACTION = RowsAction(MOST, 2)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (GLinear(ACTION), "GLinear"),
        (Compose([GActNorm(ACTION), GRadial(ACTION)]), "GRadial"),
        (GCoupling(ACTION, split=IrrepSplit(ACTION)), "IrrepSplit"),
        (
            GAffine(
                RowsAction(3, 2),
                context_action=RowsAction(3),
                network=lambda a, b: EquivariantMLP(a, b),
            ),
            "EquivariantMLP",
        ),
    ],
)
def test_layers_that_take_no_mask_refuse_one(layer, message):
    flow = EquivariantFlow(InvariantNormal(layer.action_in), [layer])
    rows = layer.action_in.layout.sizes[0]
    with pytest.raises(ValueError, match=message):
        flow.condition(contexts(flow, 1), mask=torch.ones(rows, dtype=torch.bool))


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.ones(3, dtype=torch.bool), ValueError, r"shape \(\.\.\., 4\)"),
        (torch.ones(4), TypeError, "boolean"),
        ([True] * 4, TypeError, "boolean"),
    ],
)
def test_bad_masks_are_refused(mask, error, message):
    with pytest.raises(error, match=message):
        made("coupling", MOST).condition(mask=mask)


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (RowsAction((2, 3), 2), ValueError, "one block"),
        (RowsAction(4, mean_free=True), ValueError, "sum to 0"),
        (VectorAction.plane("D4"), TypeError, "RowsAction"),
    ],
)
def test_only_free_rows_of_one_block_can_be_missing(action, error, message):
    flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
    with pytest.raises(error, match=message):
        flow.condition(mask=torch.ones(4, dtype=torch.bool))


def test_bad_calls_say_what_is_missing():
    mask = torch.ones(MOST, dtype=torch.bool)
    with pytest.raises(ValueError, match="a context, an event of"):
        made("coupling-context", MOST).condition(mask=mask)
    with pytest.raises(ValueError, match="expected no context"):
        made("coupling", MOST).condition(draws(3), mask=mask)
    with pytest.raises(ValueError, match="a mask or both"):
        made("coupling", MOST).condition()
    scaled = EquivariantFlow(InvariantNormal(ACTION, covariance="isotypic"), [GActNorm(ACTION)])
    with pytest.raises(ValueError, match="base that takes a mask"):
        scaled.condition(mask=mask)
    flow = EquivariantFlow(InvariantNormal(ACTION), [GActNorm(ACTION)])
    for data, message in (
        ([], "at least one set"),
        ([torch.zeros(5, 2)], "at most 4 rows"),
        ([torch.zeros(2, 3)], "2 features"),
        ([torch.zeros(2, 2), torch.zeros(2)], "index 1"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(flow, data, settings=SETTINGS, progress=False)
    with pytest.raises(ValueError, match=r"one mask for each event, of shape \(6, 4\), got \(5, 4\)"):
        fit(flow, torch.zeros(6, 2 * MOST), mask=mask.expand(5, -1), settings=SETTINGS, progress=False)
    with pytest.raises(ValueError, match="one mask"):
        fit_energy(flow, lambda x: -x.square().sum(-1), mask=mask[None], settings=SETTINGS, progress=False)
