"""Compose and Invert: order, sums of log-dets, and chains that do not fit."""

import pytest
import torch

from pyro_gflows import Compose, GActNorm, GRadial, GSigmoid, GSqueeze, ImageAction, Invert, VectorAction, g_residual
from pyro_gflows.testing import assert_layer, randomize_

ACTION = VectorAction.plane("D4")


def chain():
    torch.manual_seed(1)
    parts = [GActNorm(ACTION), g_residual(ACTION), GRadial(ACTION, bins=4).inv, g_residual(ACTION, fast="sample")]
    return randomize_(Compose(parts).double())


def test_is_an_equivariant_bijection_with_its_log_det():
    assert_layer(chain(), torch.randn(4, 2, dtype=torch.float64), tol=1e-9)


def test_applies_the_first_first_and_adds_up():
    composed = chain()
    x = torch.randn(5, 2, dtype=torch.float64)
    y, total = x, torch.zeros(5, dtype=torch.float64)
    for part in composed.transforms:
        y, ladj = part.call_and_ladj(y)
        total = total + ladj
    torch.testing.assert_close(composed.call_and_ladj(x), (y, total))
    assert composed.transforms == list(composed.parts)


def test_actions_change_along_the_chain():
    squeeze = GSqueeze(ImageAction("C4", 1, size=4))
    composed = Compose([squeeze, GActNorm(squeeze.action_out), squeeze.inv])
    assert composed.action_in == composed.action_out == ImageAction("C4", 1, size=4)
    assert Compose([squeeze]).forward_shape((7, 1, 4, 4)) == (7, 4, 2, 2)
    with pytest.raises(ValueError, match=r"expected a shape \(\.\.\., 1, 4, 4\) for ImageAction.* got \(2, 4, 4\)"):
        squeeze.forward_shape((2, 4, 4))


def test_the_domain_is_that_of_the_first_and_the_codomain_that_of_the_last():
    action = VectorAction.rows("S3")
    outside = torch.full((1, 3), 5.0)
    into = Compose([GActNorm(action), GSigmoid(action, (0.0, 1.0))])
    assert into.domain.check(outside).all() and not into.codomain.check(outside).any()
    back = Compose([GSigmoid(action, (0.0, 1.0)).inv, GActNorm(action)])
    for each in (into.inv, back):
        assert not each.domain.check(outside).any() and each.codomain.check(outside).all()


def test_initializes_every_part_from_either_side():
    norms = [GActNorm(ACTION).double() for _ in range(2)]
    composed = Compose([norms[0], randomize_(GRadial(ACTION, bins=4).double(), scale=1.0), norms[1]])
    y = 10 * torch.randn(200, 2, dtype=torch.float64)
    x = composed.initialize_inverse(y)
    assert x.square().mean() == pytest.approx(1.0)
    assert norms[1].inv_call_and_ladj(y)[0].detach().square().mean() == pytest.approx(1.0)
    out = composed.initialize(y)
    assert out.square().mean() == pytest.approx(1.0)


def test_inverting_twice_is_the_transform_itself():
    layer = GActNorm(ACTION)
    assert layer.inv is layer.inv
    assert layer.inv.inv is layer
    assert isinstance(layer.inv, Invert)
    inverse = Invert(randomize_(layer.double()))
    assert_layer(inverse, torch.randn(3, 2, dtype=torch.float64), tol=1e-10)
    layer.initialize(x := 7 * torch.randn(50, 2, dtype=torch.float64))
    assert inverse.initialize_inverse(x).square().mean() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ([], ValueError, "at least one transform, got an empty list"),
        ([GActNorm(ACTION), torch.nn.ReLU()], TypeError, "transform 1: expected an EquivariantTransform .* got ReLU"),
        (
            [GActNorm(ACTION), GActNorm(VectorAction.plane("D5"))],
            ValueError,
            r"transforms 0 and 1 do not fit: .* VectorAction\(D4 .* VectorAction\(D5",
        ),
        (
            [GActNorm(VectorAction.plane("C2")), GActNorm(VectorAction.plane("D1"))],
            ValueError,
            r"do not fit: .* VectorAction\(C2 .* VectorAction\(D1",
        ),
    ],
)
def test_chains_that_do_not_fit_say_why(parts, error, message):
    with pytest.raises(error, match=message):
        Compose(parts)


def test_layers_need_actions():
    with pytest.raises(TypeError, match=r"expected an Action such as VectorAction.plane\('D4'\), got str"):
        GActNorm("D4")
