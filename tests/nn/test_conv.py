"""Convolutions against an average over the group, dense matrices, and their own bounds."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_gflows.actions import ImageAction, VectorAction
from pyro_gflows.groups import (
    DefiningRepresentation,
    MatrixRepresentation,
    QuotientRepresentation,
    RegularRepresentation,
    Representation,
    TrivialRepresentation,
)
from pyro_gflows.nn.conv import EquivariantConv
from pyro_gflows.nn.lipschitz_conv import LipschitzConv
from pyro_gflows.numerics import conv_norm_bound
from pyro_gflows.serialization.registry import build, describe


def image(group: str, size: Any, *fields: Representation) -> ImageAction:
    return ImageAction(group, size=size, fields=list(fields))


def regular(group: str, size: Any, copies: int = 2) -> ImageAction:
    return ImageAction(group, copies, size=size, fields="regular")


def wallpaper(point_group: str, size: Any, **keywords: Any) -> ImageAction:
    """Translations with a point group."""
    fields = keywords.get("fields", "trivial")
    return ImageAction.translations(
        len(fields) if isinstance(fields, list) else 2, size=size, point_group=point_group, **keywords
    )


D4 = [TrivialRepresentation("D4"), QuotientRepresentation("D4", [0, 4]), DefiningRepresentation("D4")]
PAIRS = {
    **{f"{group}-scalar-regular": (ImageAction(group, 2, size=4), regular(group, 4)) for group in ["C1", "C2", "C4"]},
    **{f"{group}-regular": (regular(group, 5), regular(group, 5, 1)) for group in ["C4", "D1", "D2", "D4"]},
    "D2-oblong": (regular("D2", (4, 5)), ImageAction("D2", 3, size=(4, 5))),
    "D4-mixed": (image("D4", 4, *D4), image("D4", 4, RegularRepresentation("D4"), *D4)),
    "D4-signed": (image("D4", 4, D4[2]), image("D4", 4, D4[2], D4[0])),
    "shifts": (ImageAction.translations(2, size=4), ImageAction.translations(3, size=4)),
    "even-shifts": (ImageAction.translations(2, size=(4, 6), step=2), ImageAction.translations(3, size=(4, 6), step=2)),
    "p4m-scalar-regular": (wallpaper("D4", 4), wallpaper("D4", 4, fields="regular")),
    "p4m-mixed": (wallpaper("D4", 6, step=2, fields=D4), wallpaper("D4", 6, step=2, fields=[D4[2], *D4])),
    "p4-regular": (wallpaper("C4", 6, step=3, fields="regular"), wallpaper("C4", 6, step=3, fields="regular")),
    "pmm-oblong": (wallpaper("D2", (4, 6), fields="regular"), wallpaper("D2", (4, 6))),
    "pm-oblong": (wallpaper("D1", (6, 4), step=2, fields="regular"), wallpaper("D1", (6, 4), step=2)),
}
every_pair = pytest.mark.parametrize(("action_in", "action_out"), PAIRS.values(), ids=PAIRS.keys())


def randomize(module: torch.nn.Module, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


def images(action: ImageAction, *batch: int) -> Tensor:
    return torch.randn(*batch, *action.event_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def kernel_average(conv: EquivariantConv, kernel: Tensor) -> Tensor:
    """The mean over the group of rho_out(g) kernel(g^-1 .) rho_in(g)^-1: the projection on equivariant kernels."""
    elements = conv.action_in.point_group.elements()  # shifts leave kernels and channels alone
    offsets = conv.action_in.kernel_permutations(conv.kernel_size)
    out, inn = conv.action_out.channel_matrices(elements), conv.action_in.channel_matrices(elements)
    mapped = torch.zeros(len(elements), *kernel.shape, dtype=torch.float64).flatten(-2)
    for g in elements:
        mapped[g][..., offsets[g]] = torch.einsum("oO,iI,OIu->oiu", out[g], inn[g], kernel.flatten(-2))
    return mapped.mean(0).view_as(kernel)


@every_pair
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_equivariant_and_any_batch(action_in: ImageAction, action_out: ImageAction, kernel_size: int) -> None:
    conv = EquivariantConv(action_in, action_out, kernel_size=kernel_size).double()
    randomize(conv)
    x = images(action_in, 2, 3)
    y = conv(x)
    assert y.shape == (2, 3, *action_out.event_shape)
    assert torch.allclose(conv(x[0, 0]), y[0, 0], atol=1e-12)
    error = (conv(action_in.act_all(x)) - action_out.act_all(y)).abs().max()
    assert error <= 1e-12


@every_pair
def test_every_equivariant_kernel_is_there(action_in: ImageAction, action_out: ImageAction) -> None:
    conv = EquivariantConv(action_in, action_out).double()
    randomize(conv)
    assert torch.allclose(kernel_average(conv, conv.weight().detach()), conv.weight(), atol=1e-14)
    # the space of equivariant kernels has as many dimensions as the trace of the average over the group
    elements = action_in.point_group.elements()
    offsets = (action_in.kernel_permutations(3) == torch.arange(9)).sum(-1)
    traces = action_out.channel_matrices(elements).diagonal(dim1=-2, dim2=-1).sum(-1)
    traces = traces * action_in.channel_matrices(elements).diagonal(dim1=-2, dim2=-1).sum(-1) * offsets
    assert conv.orbit_weights.numel() == round(float(traces.mean()))


@pytest.mark.long
@every_pair
def test_outputs_start_at_unit_scale(action_in: ImageAction, action_out: ImageAction) -> None:
    torch.manual_seed(0)
    variance = torch.stack(
        [EquivariantConv(action_in, action_out).weight().square().sum((1, 2, 3)).detach() for _ in range(400)]
    ).mean(0)
    alive = variance > 0
    assert torch.allclose(variance[alive], torch.ones(int(alive.sum())), atol=0.25)
    assert not EquivariantConv(action_in, action_out, zero_init=True)(images(action_in).float()).any()


def test_bias_is_an_invariant_image() -> None:
    action_out = PAIRS["D4-mixed"][1]
    conv = EquivariantConv(PAIRS["D4-mixed"][0], action_out).double()
    randomize(conv)
    bias = conv.bias()
    assert bias is not None
    assert torch.equal(action_out.channel_matrices(action_out.elements()) @ bias, bias.expand(8, -1))
    assert conv.orbit_biases is not None
    assert conv.orbit_biases.numel() == 3
    assert EquivariantConv(*PAIRS["D4-mixed"], bias=False).bias() is None


@every_pair
def test_a_bias_of_pixels_is_every_image_that_the_group_leaves_in_place(action_in, action_out) -> None:
    conv = EquivariantConv(action_in, action_out, bias="pixels").double()
    randomize(conv)
    bias = conv.bias()
    assert bias is not None and conv.orbit_biases is not None
    mapped = action_out.act_all(bias)
    assert torch.equal(mapped, bias.expand_as(mapped))
    # as many as the trace of the average over the group says
    units = torch.eye(action_out.numel, dtype=torch.float64).reshape(-1, *action_out.event_shape)
    average = action_out.act_all(units).mean(0).flatten(1)
    assert conv.orbit_biases.numel() == round(float(average.trace()))
    x = images(action_in, 2)
    plain = conv2d_of(conv, x)
    torch.testing.assert_close(conv(x), plain + bias, rtol=0, atol=1e-12)


def conv2d_of(conv: EquivariantConv, x: Tensor) -> Tensor:
    """The convolution without its bias."""
    return conv(x) - conv(torch.zeros_like(x))


def test_another_bias_is_refused() -> None:
    with pytest.raises(ValueError, match="expected bias True, False or 'pixels', got 'rows'"):
        EquivariantConv(*PAIRS["shifts"], bias="rows")  # type: ignore[arg-type]


def test_mask_hides_channels() -> None:
    action = regular("C4", 4)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[4:, :4] = True
    conv = EquivariantConv(action, action, mask=mask).double()
    randomize(conv)
    x = images(action).requires_grad_()
    jacobian = torch.autograd.functional.jacobian(conv, x).sum((1, 2, 4, 5))  # type: ignore[no-untyped-call]
    assert torch.equal(jacobian != 0, mask)
    assert conv.orbit_weights.numel() == EquivariantConv(regular("C4", 4, 1), regular("C4", 4, 1)).orbit_weights.numel()
    g = action.generators()[0]
    assert torch.allclose(conv(action.act(g, x)), action.act(g, conv(x)), atol=1e-12)
    with pytest.raises(ValueError, match="constant on the orbits"):
        EquivariantConv(action, action, mask=torch.eye(8, dtype=torch.bool).roll(1, 0).tril())
    with pytest.raises(ValueError, match="boolean mask of shape"):
        EquivariantConv(action, action, mask=torch.ones(8, 8))


def test_gradients_copies_and_configuration() -> None:
    conv = EquivariantConv(*PAIRS["D4-mixed"])
    conv(images(conv.action_in).float()).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().min() > 0 for parameter in conv.parameters())
    assert set(conv.state_dict()) == {"orbit_weights", "orbit_biases"}
    x = images(conv.action_in).float()
    twin = build(describe(conv))
    twin.load_state_dict(conv.state_dict())
    for other in [twin, copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))]:
        assert torch.equal(other(x), conv(x))


@every_pair
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_lipschitz_bound_holds_and_is_the_norm_or_the_symbols(
    action_in: ImageAction, action_out: ImageAction, kernel_size: int
) -> None:
    conv = LipschitzConv(action_in, action_out, kernel_size=kernel_size, bound=0.9).double()
    for scale in [1e-3, 1.0, 1e4]:
        randomize(conv, scale)
        x = images(action_in)
        jacobian = torch.autograd.functional.jacobian(conv, x)  # type: ignore[no-untyped-call]
        norm = torch.linalg.matrix_norm(jacobian.reshape(action_out.numel, action_in.numel), 2)
        bound = conv.lipschitz_bound()
        assert bound.shape == ()
        assert norm <= bound * (1 + 1e-12)
        assert bound <= 0.9
        padding: Any = action_in.padding
        symbols = conv_norm_bound(conv.weight(), action_in.event_shape[1:], padding=padding)
        assert torch.isclose(bound, norm) if conv.exact else torch.isclose(bound, symbols)
    assert bound >= 0.9 - 1e-9
    y = conv(x)
    error = (conv(action_in.act_all(x)) - action_out.act_all(y)).abs().max()
    assert error <= 1e-12 * y.abs().max()


def test_works_under_function_transforms() -> None:
    for action in [regular("D4", 4, 1), ImageAction.translations(2, size=4)]:
        conv = LipschitzConv(action, action).double()
        x = images(action, 3)
        jacobian = torch.func.vmap(torch.func.jacrev(conv))(x)
        linear = torch.einsum("bcijdkl,bdkl->bcij", jacobian, x)
        assert torch.allclose(linear, conv(x) - conv(torch.zeros_like(x)), atol=1e-12)
        changed = {name: value + 1.0 for name, value in conv.named_parameters()}
        assert not torch.equal(torch.func.functional_call(conv, changed, (x,)), conv(x))


def test_lipschitz_bound_survives_training() -> None:
    action = regular("D4", 5)
    conv = LipschitzConv(action, action)
    optimizer = torch.optim.Adam(conv.parameters(), lr=0.3)
    x = images(action, 4).float()
    for _ in range(20):
        optimizer.zero_grad()
        (-conv(x).square().sum()).backward()
        optimizer.step()
    assert conv.lipschitz_bound() <= 0.97
    for mode in (True, False):
        conv.train(mode)
        before = conv(x)
        conv.orbit_weights.data[0] += 1.0
        assert not torch.equal(conv(x), before)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((ImageAction("C4", size=4), ImageAction("C4", size=6)), ValueError, "one grid"),
        ((ImageAction("C2", size=4), ImageAction("D1", size=4)), ValueError, "one grid"),
        ((ImageAction("C4", size=4), VectorAction.regular("C4")), TypeError, "ImageAction"),
    ],
)
def test_bad_pairs(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        EquivariantConv(*arguments)


def test_bad_arguments() -> None:
    action = ImageAction("C4", size=4)
    with pytest.raises(ValueError, match="odd kernel_size"):
        EquivariantConv(action, action, kernel_size=2)
    with pytest.raises(ValueError, match="positive finite bound"):
        LipschitzConv(action, action, bound=float("inf"))
    with pytest.raises(ValueError, match="expected x of shape"):
        EquivariantConv(action, action)(torch.zeros(2, 4, 4))
    plane = DefiningRepresentation("D4")
    turn = torch.linalg.qr(torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64))[0]
    skew = MatrixRepresentation(plane.group, turn @ plane.matrices(torch.arange(8)) @ turn.T)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="permuted up to signs"):
        EquivariantConv(image("D4", 4, skew), image("D4", 4, skew))
