"""Steerable convolutions and soft networks: exact under what the grid carries, measured under the rest."""

import copy
import importlib
import io
import pickle

import pytest
import torch

from pyro_gflows import ImageAction, OffGridAction, VectorAction
from pyro_gflows.groups import RegularRepresentation
from pyro_gflows.groups.escnn_adapter import escnn_group
from pyro_gflows.groups.restriction import restricted_to_subgroup
from pyro_gflows.nn import EquivariantConv, SoftNetwork, SteerableConv
from pyro_gflows.nn.filters import steerable_filters
from pyro_gflows.nn.steerable import sampled_group
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.testing import assert_equivariant, randomize_

GROUPS = ["C4", "D2", "C3", "D3", "D8", "C12", "SO(2)", "O(2)"]


def needs_escnn():
    try:
        return escnn_group()
    except ImportError as error:
        pytest.skip(str(error))


def smooth(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("group", GROUPS)
def test_layers_are_exact_under_what_the_grid_carries(group):
    needs_escnn()
    torch.manual_seed(0)
    sampled, _ = sampled_group(group)
    scalars = OffGridAction(group, 2, size=6).exact_subgroup
    fields = scalars.with_fields([restricted_to_subgroup(RegularRepresentation(sampled), scalars.group)] * 2)
    lift = SteerableConv(group, 2, 2, fields_in="trivial").double()
    inner = SteerableConv(group, 2, 2).double()
    back = SteerableConv(group, 2, 2, fields_out="trivial").double()
    x = smooth(2, *scalars.event_shape)
    assert_equivariant(lift, scalars, fields, x, tol=1e-12)
    assert_equivariant(inner, fields, fields, lift(x), tol=1e-12)
    assert_equivariant(back, fields, scalars, lift(x), tol=1e-12)


def test_on_a_grid_that_carries_the_group_they_are_all_the_convolutions_there_are():
    action = ImageAction("D4", size=4)
    conv = SteerableConv("D4", 1, 1, kernel_size=3, bias=False)
    regular = action.regular_fields(1)
    free = conv.coefficients.numel()
    assert free == EquivariantConv(regular, regular, bias=False).orbit_weights.numel() == 8 * 9
    assert torch.linalg.matrix_rank(kernels_of(conv.double())) == free


def kernels_of(conv):
    """The kernel of each coefficient, one a row."""
    channels, size = conv.kernel().shape[1], conv.kernel_size
    delta = torch.zeros(channels, channels, size, size).double()
    delta[:, :, size // 2, size // 2] = torch.eye(channels)

    def kernel(coefficients):
        return torch.func.functional_call(conv, {"coefficients": coefficients}, (delta,)).transpose(0, 1).flip(-1, -2)

    jacobian = torch.autograd.functional.jacobian(kernel, conv.coefficients)
    return jacobian.flatten(4).flatten(0, 3).T


@pytest.mark.long
def test_the_kernels_are_those_of_escnn():
    groups = needs_escnn()
    gspaces = importlib.import_module("escnn.gspaces")
    space = gspaces.rot2dOnR2(8)
    regular = groups.cyclic_group(8).regular_representation
    steps = torch.arange(5.0, dtype=torch.float64) - 2
    offsets = torch.stack([steps.repeat(5), -steps.repeat_interleave(5)], -1)
    theirs = []
    for ring, width in enumerate([0.6, 0.6, 0.4]):  # harmonics up to the ring's radius
        basis = space.build_kernel_basis(regular, regular, [width], [float(ring)], maximum_frequency=ring).double()
        theirs.append(basis.sample(offsets).permute(1, 2, 3, 0).flatten(1))
    ours, theirs = kernels_of(SteerableConv("C8", 1, 1, bias=False).double()), torch.cat(theirs)
    ranks = [int(torch.linalg.matrix_rank(rows, rtol=1e-5)) for rows in (ours, theirs, torch.cat([ours, theirs]))]
    assert ranks == [8 * 9] * 3


def test_outputs_start_at_the_size_of_white_inputs():
    needs_escnn()
    torch.manual_seed(0)
    for group in ("C8", "D8", "SO(2)"):
        y = SteerableConv(group, 4, 8, fields_in="trivial").double()(smooth(4, 4, 12, 12))[..., 2:-2, 2:-2]
        assert 0.5 < y.std() < 2.0


def test_so2_fields_are_band_limited():
    needs_escnn()
    lift = SteerableConv("SO(2)", 1, 1, fields_in="trivial").double()
    spectrum = torch.fft.rfft(lift(smooth(1, 5, 5)), dim=0).abs().amax((-2, -1))
    assert spectrum[3:].max() < 1e-12 < 1e-3 < spectrum[:3].min()


def test_filters_survive_dtypes_copies_and_files():
    needs_escnn()
    conv = SteerableConv("C8", 1, 2, fields_in="trivial").float().double()
    exact = steerable_filters(sampled_group("C8")[0], 5)
    assert torch.equal(conv.filters.value, exact)
    assert torch.equal(conv.state_dict()["filters.value"], exact)
    file, x = io.BytesIO(), smooth(1, 6, 6)
    torch.save(conv.state_dict(), file)
    file.seek(0)
    other = build(describe(conv)).double()
    other.load_state_dict(torch.load(file, weights_only=True))
    for twin in (other, copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert torch.equal(twin(x), conv(x))
    halved = {name: 0.5 * parameter for name, parameter in conv.named_parameters()}
    torch.testing.assert_close(torch.func.functional_call(conv, halved, (x,)), 0.5 * conv(x))


def mixed(group):
    """Scalars, and fields that the exact part permutes and mirrors, in no order."""
    scalars = OffGridAction(group, 1, size=6).exact_subgroup
    signs = VectorAction.plane(scalars.group).fields
    regular = scalars.regular_fields(1).fields
    return scalars.with_fields([*scalars.fields, *regular, *scalars.fields, *signs])


@pytest.mark.parametrize("group", ["C8", "D8", "SO(2)"])
def test_soft_networks_are_exact_under_what_the_grid_carries(group):
    needs_escnn()
    torch.manual_seed(0)
    action = mixed(group)
    network = SoftNetwork(action, action.direct_sum(action), group=group, width=2).double()
    randomize_(network, scale=0.01, generator=torch.Generator().manual_seed(0))
    x = smooth(2, *action.event_shape)
    assert network(x).abs().min() > 0
    assert_equivariant(network, action, network.action_out, x, tol=1e-12)
    again = build(describe(network)).double()
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(x), network(x))


@pytest.mark.long
def test_the_error_between_the_pixels_is_measured():
    needs_escnn()
    torch.manual_seed(0)
    errors = {}
    for group in ("C4", "C8", "D8", "SO(2)"):
        action = OffGridAction(group, size=6).exact_subgroup
        network = SoftNetwork(action, action, group=group, width=2, kernel_size=5).double()
        errors[group] = network.equivariance_error()
        assert ("never exact" in repr(network)) == (group != "C4") and "equivariance_error() measures" in repr(network)
        assert errors[group] < network.equivariance_error(blur=0.0) or group == "C4"
    assert errors.pop("C4") < 1e-14
    assert all(1e-4 < error < 0.08 for error in errors.values()), errors


def test_without_scalar_inputs_nothing_is_measured():
    action = ImageAction("C4", 1, size=4, fields="regular")
    network = SoftNetwork(action, action, group="C4", width=1)
    assert network.kernel_size == 3
    assert "no scalar input" in repr(network)


def test_soft_networks_of_a_group_that_the_pixels_need_not_carry():
    action = ImageAction("C1", 2, size=6)
    network = SoftNetwork(action, action, group="C4", width=2).double()
    action, x = ImageAction("C4", 2, size=6), smooth(3, 2, 6, 6)
    assert_equivariant(network, action, action, x, tol=1e-12)  # scalars in, scalars out


def test_they_start_at_zero_where_asked():
    action = ImageAction("D4", 2, size=4)
    assert SoftNetwork(action, action, group="D4", start=0.0)(torch.randn(2, 4, 4)).abs().max() == 0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SteerableConv("S3", 1, 1), ValueError, "a group of the plane"),
        (lambda: SteerableConv("C4", 0, 1), ValueError, "at least one field"),
        (lambda: SteerableConv("C4", 1, 1, fields_in="sign"), ValueError, "fields among.*'sign'"),
        (lambda: SteerableConv("C4", 1, 1, kernel_size=4), ValueError, "odd kernel_size"),
        (lambda: SteerableConv("C4", 1, 1)(torch.zeros(3, 5, 5)), ValueError, r"shape \(\.\.\., 4, H, W\)"),
        (lambda: soft(ImageAction("D4", size=4), "C8"), ValueError, "expected a subgroup of C8 in the plane, got D4"),
        (lambda: soft(ImageAction.translations(size=4), "C8"), ValueError, "subgroup of C8"),
        (lambda: soft(VectorAction.plane("C4"), "C8"), TypeError, "expected an ImageAction"),
        (lambda: soft(ImageAction("C4", size=4), "C8", depth=0), ValueError, "depth >= 1"),
    ],
)
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def soft(action, group, **kwargs):
    return SoftNetwork(action, action, group=group, **kwargs)
