"""Coupling, autoregressive and conditional layers on rows: by features, with scales that suit each field."""

import functools

import pytest
import torch

from pyro_gflows import (
    EquivariantFlow,
    GAffine,
    InvariantNormal,
    RowsAction,
    VectorAction,
    g_autoregressive,
    g_coupling,
)
from pyro_gflows.actions.splits.by_feature import feature_sets
from pyro_gflows.nn import RowsAutoregressiveNetwork
from pyro_gflows.testing import assert_layer, randomize_
from pyro_gflows.transforms import (
    ElementwiseAffine,
    ElementwiseSpline,
    FieldwiseTransformer,
    GCoupling,
    IrrepScale,
    MatrixScale,
    RowScale,
    by_field,
)
from pyro_gflows.transforms.default_transformer import default_transformer
from tests.constructors.row_actions import LARGE, SMALL, mixture

EVERY = {name: action for name, action in (SMALL | LARGE).items() if len(feature_sets(action)) > 1}
SMALL_NETWORK = {"width": 2, "depth": 1}
SPLINE = functools.partial(ElementwiseSpline, bins=4)


def events(action, *batch, seed=0):
    return torch.randn(*batch, action.numel, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_weights(layer):
    return randomize_(layer.double(), generator=torch.Generator().manual_seed(1)).eval()


@pytest.mark.parametrize("name", EVERY)
def test_coupling(name):
    assert_layer(random_weights(g_coupling(EVERY[name], **SMALL_NETWORK)), events(EVERY[name], 2))


@pytest.mark.parametrize("name", ["S8", "mixture of 3", "2 hidden units", "two blocks", "S7 x SO(2)"])
@pytest.mark.parametrize("transformer", [IrrepScale, MatrixScale, SPLINE], ids=["irreps", "matrix", "splines"])
def test_other_transformers(transformer, name):
    action = EVERY[name]
    if transformer is SPLINE and not action.is_signed_permutation:
        with pytest.raises(ValueError, match="commutes with"):
            g_coupling(action, transformer=transformer)
        return
    layer = g_coupling(action, transformer=transformer, **SMALL_NETWORK)
    assert all(isinstance(part.network.action_out, RowsAction) for part in layer.parts)
    assert_layer(random_weights(layer), events(action, 2))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("fast", ["score", "sample"])
def test_autoregressive(fast, name):
    action = EVERY[name]
    layer = g_autoregressive(action, fast=fast, **SMALL_NETWORK)
    assert len(layer.transformers) == len(feature_sets(action))
    assert_layer(random_weights(layer), events(action, 2))


@pytest.mark.parametrize("name", ["S5", "mixture of 3", "S5 x O(2)"])
@pytest.mark.parametrize("of", ["rows", "the set"])
def test_a_context_of_rows_or_of_the_whole_set(of, name):
    action = (SMALL | LARGE)[name]
    context_action = action if of == "rows" else action.trivial_fields(2)
    context, x = events(context_action, 2, seed=3), events(action, 2)
    for layer in (
        GAffine(action, context_action=context_action, width=2),
        g_coupling(action, context_action=context_action, **SMALL_NETWORK),
        g_autoregressive(action, context_action=context_action, **SMALL_NETWORK),
    ):
        assert_layer(random_weights(layer), x, context=context)


def test_a_plain_vector_is_the_context_of_the_whole_set():
    action = RowsAction(8, 2)
    context_action = VectorAction.trivial(action.group, copies=3)
    layers = [
        GAffine(action, context_action=context_action, width=2),
        g_coupling(action, context_action=context_action, **SMALL_NETWORK),
        g_autoregressive(action, context_action=context_action, **SMALL_NETWORK),
    ]
    flow = EquivariantFlow(InvariantNormal(action), layers).double()
    assert random_weights(flow).condition(torch.randn(5, 3, dtype=torch.float64)).sample().shape == (5, 16)


def test_the_default_transformer_suits_each_kind_of_features():
    plane = VectorAction.plane("O(2)")
    kinds = {
        RowsAction(5, 2): ElementwiseAffine,
        RowsAction(5, 2, signed=[0]): ElementwiseAffine,
        RowsAction(5, VectorAction.plane("D4")): ElementwiseAffine,
        RowsAction(5, plane): RowScale,
        RowsAction(5, mean_free=True): RowScale,
        RowsAction(2, mean_free=True): RowScale,
        mixture(5): RowScale,
        VectorAction.plane("O(2)"): IrrepScale,
    }
    for action, kind in kinds.items():
        assert type(default_transformer(action)) is kind


def test_every_row_and_irrep_has_a_scale():
    action = RowsAction(4, VectorAction.space("O(3)").direct_sum(VectorAction.trivial("O(3)")))
    scale = RowScale(action, max_log_scale=1e6)
    x = events(action, 2)
    raw, shift = torch.randn(2, 4, 2, dtype=torch.float64), events(action, 2, seed=1)
    y, ladj = scale(x, torch.cat([raw.flatten(1), shift], -1))
    rows = x.unflatten(-1, (4, 4))
    scaled = torch.cat([rows[..., :3] * raw[..., 1:].exp(), rows[..., 3:] * raw[..., :1].exp()], -1)  # the scalar first
    torch.testing.assert_close(y, scaled.flatten(1) + shift, rtol=0.0, atol=1e-9)
    torch.testing.assert_close(ladj, (3 * raw[..., 1] + raw[..., 0]).sum(-1), rtol=0.0, atol=1e-9)


def test_features_of_sum_zero_have_one_scale_and_keep_their_sum():
    action = mixture(6)
    scale = RowScale(action, max_log_scale=1e6)
    assert scale.params_action.field_sizes == [1, 12, 6, 1, 5, 12, 6, 1]
    raw, shift, x = torch.randn(20, dtype=torch.float64), events(action, seed=1), events(action)
    y, ladj = scale(x, torch.cat([raw, shift]))
    torch.testing.assert_close(y[:5], raw[0].exp() * x[:5] + shift[:5], rtol=0.0, atol=1e-9)
    torch.testing.assert_close(y[5:], raw[1:].exp() * x[5:] + shift[5:], rtol=0.0, atol=1e-9)
    torch.testing.assert_close(ladj, 5 * raw[0] + raw[1:].sum(), rtol=0.0, atol=1e-9)


def test_fields_of_several_kinds_are_mapped_side_by_side():
    action = mixture(5)  # means, scales and the scalar are permuted or left alone; log-ratios are neither
    transformer = by_field(action, transformer=SPLINE)
    assert [type(part) for part in transformer.transformers] == [RowScale, ElementwiseSpline]
    x, params = events(action, 2), torch.randn(2, transformer.params_action.numel, dtype=torch.float64)
    y, ladj = transformer(x, params)
    first, second = transformer.transformers
    sizes = [first.params_action.numel, second.params_action.numel]
    images = [
        part(piece, own)
        for part, piece, own in zip((first, second), x.split([4, 16], -1), params.split(sizes, -1), strict=True)
    ]
    assert torch.equal(y, torch.cat([image for image, _ in images], -1))
    torch.testing.assert_close(ladj, images[0][1] + images[1][1], rtol=0.0, atol=1e-12)
    torch.testing.assert_close(transformer.inverse(y, params)[0], x, rtol=0.0, atol=1e-8)
    assert isinstance(by_field(RowsAction(5, 2), transformer=SPLINE), ElementwiseSpline)
    with pytest.raises(ValueError, match="at least one transformer"):
        FieldwiseTransformer([])


def test_a_sign_of_a_row_changes_no_scale():
    action = RowsAction(4, 2, signed=[0])
    scales, shifts = ElementwiseAffine(action).params_action.fields
    assert scales.odd == (False, False) and shifts.odd == (True, False)


def test_a_block_depends_on_the_blocks_before_it():
    action = RowsAction(4, 3)
    layer = random_weights(g_autoregressive(action, **SMALL_NETWORK))
    assert isinstance(layer.network, RowsAutoregressiveNetwork)
    x = events(action)
    jacobian = torch.autograd.functional.jacobian(lambda x: layer.inv_call_and_ladj(x)[0], x)
    by_feature = jacobian.reshape(4, 3, 4, 3)
    for row, column in [(0, 1), (0, 2), (1, 2)]:
        assert not by_feature[:, row, :, column].any()
    assert by_feature[:, 2, :, 0].count_nonzero() == 16  # every row reads all rows


@pytest.mark.parametrize(
    "make", [g_coupling, g_autoregressive, functools.partial(g_coupling, transformer=MatrixScale)], ids=["c", "a", "m"]
)
def test_the_weights_do_not_grow_with_the_rows(make):
    counts = []
    for n in (10, 10_000):
        layer = random_weights(make(RowsAction(n, 3), **SMALL_NETWORK))
        counts.append(sum(parameter.numel() for parameter in layer.parameters()))
        x = events(layer.action_in, 2)
        y = layer.call_and_ladj(x)[0]
        torch.testing.assert_close(layer.inv_call_and_ladj(y)[0], x, rtol=0.0, atol=1e-9)
    assert counts[0] == counts[1]


def test_bad_input():
    with pytest.raises(ValueError, match="use GResidual or GRadial"):
        g_coupling(RowsAction(20))
    with pytest.raises(TypeError, match="expected a RowsAction, whose rows are permuted"):
        RowScale(VectorAction.plane("D4"))
    with pytest.raises(ValueError, match="matrix"):
        RowScale(RowsAction(4, 1).direct_sum(RowsAction.of_matrix(4)))
    with pytest.raises(TypeError, match="without matrix fields"):
        GCoupling(RowsAction(4, 2).direct_sum(RowsAction.of_matrix(4)))
