"""Element maps: A x + t with parameters that carry an action."""

import pytest
import torch

from pyro_gflows import ImageAction, VectorAction
from pyro_gflows.testing import dense_log_det
from pyro_gflows.transforms import ElementwiseAffine, GCoupling, IrrepScale, MatrixScale
from pyro_gflows.transforms.default_transformer import default_transformer

SIGNED = VectorAction.plane("D4", copies=2)
CASES = {
    "affine, regular": lambda: ElementwiseAffine(VectorAction.regular("C4")),
    "affine, signed": lambda: ElementwiseAffine(SIGNED),
    "affine, image": lambda: ElementwiseAffine(ImageAction("D4", 1, size=2, fields="regular")),
    "scale, regular": lambda: IrrepScale(VectorAction.regular("D3")),
    "scale, SO(3)": lambda: IrrepScale(VectorAction.space("SO(3)", copies=2)),
    "scale, image": lambda: IrrepScale(ImageAction("C4", 1, size=2, fields="regular")),
    "exponential, plane": lambda: MatrixScale(VectorAction.plane("C3", copies=2)),
    "exponential, SO(3)": lambda: MatrixScale(VectorAction.space("SO(3)", copies=2), rank=3, max_log_scale=1.0),
}


@pytest.fixture(params=CASES)
def transformer(request):
    return CASES[request.param]().double()


def events(action, count=5):
    return torch.randn(count, *action.event_shape, dtype=torch.float64)


@pytest.mark.parametrize("size", [1.0, 100.0])
def test_is_a_bijection_with_its_log_det(transformer, size):
    x, params = events(transformer.action), size * events(transformer.params_action)
    y, ladj = transformer(x, params)
    back, inverse_ladj = transformer.inverse(y, params)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-8)
    torch.testing.assert_close(inverse_ladj, -ladj)
    for row in range(5):
        expected = dense_log_det(
            lambda e, row=row: transformer(e, params[row : row + 1])[0], x[row : row + 1], event_dim=x.ndim - 1
        )
        torch.testing.assert_close(ladj[row : row + 1], expected, rtol=0, atol=1e-9)


def test_commutes_when_the_parameters_move_along(transformer):
    action, params_action = transformer.action, transformer.params_action
    x, params, elements = events(action), events(params_action), action.sample((5,))
    y, ladj = transformer(x, params)
    moved, moved_ladj = transformer(action.act_each(elements, x), params_action.act_each(elements, params))
    torch.testing.assert_close(moved, action.act_each(elements, y), rtol=0, atol=1e-11)
    torch.testing.assert_close(moved_ladj, ladj, rtol=0, atol=1e-12)


def test_scales_stay_within_the_cap(transformer):
    x = events(transformer.action)
    shift = transformer(torch.zeros_like(x), 1e6 * torch.ones(5, *transformer.params_action.event_shape).double())[0]
    y, _ = transformer(x, 1e6 * torch.ones(5, *transformer.params_action.event_shape).double())
    stretch = (y - shift).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    assert stretch.max() <= torch.tensor(transformer.max_log_scale).exp() * (1 + 1e-6)


def test_the_default_is_element_wise_where_it_can_be():
    assert isinstance(default_transformer(SIGNED), ElementwiseAffine)
    assert isinstance(default_transformer(VectorAction.plane("C3")), IrrepScale)


@pytest.mark.long
def test_a_matrix_exponential_trains_away_from_its_start():
    layer = GCoupling(VectorAction.space("SO(3)", copies=2), transformer=MatrixScale)
    x = torch.randn(64, 6)
    target = torch.cat([x[:, :3], x[:, 3:] + 0.5 * torch.linalg.cross(x[:, :3], x[:, 3:]) + x[:, :3]], -1)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (layer.call_and_ladj(x)[0] - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    gradients = {name: p.grad.abs().max().item() for name, p in layer.network.layers[-1].named_parameters()}
    assert all(value > 0 for value in gradients.values()), gradients
    assert losses[-1] < 0.7 * losses[0]
    assert layer.call_and_ladj(x)[1].abs().max() > 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ElementwiseAffine(VectorAction.plane("C3")), "permutations only, got .*; use IrrepScale or"),
        (lambda: MatrixScale(ImageAction("C4", size=2)), "works on vectors, got ImageAction"),
        (
            lambda: IrrepScale(SIGNED, max_log_scale=0.0),
            "max_log_scale.* to be positive and finite, got 0.0",
        ),
        (lambda: IrrepScale(SIGNED).require(VectorAction.plane("C4")), "expected a transformer of .*C4.*D4"),
    ],
)
def test_bad_transformers_say_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
