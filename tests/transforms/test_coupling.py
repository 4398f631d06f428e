"""Coupling layers: which part is transformed, which is not, and the log-det."""

import functools

import pytest
import torch

from pyro_gflows import CoordinateSplit, GCoupling, ImageAction, IrrepSplit, VectorAction, g_coupling
from pyro_gflows.actions import checkerboard_split
from pyro_gflows.nn import EquivariantMLP, conditioner
from pyro_gflows.testing import assert_layer, randomize_
from pyro_gflows.transforms import IrrepScale, MatrixScale

IMAGE = ImageAction("D4", 2, size=4)
CASES = {
    "coordinates": lambda: GCoupling(VectorAction.regular("C4", copies=2)),
    "first part": lambda: GCoupling(VectorAction.regular("C4", copies=2), transformed=0),
    "irreps": lambda: GCoupling(VectorAction.regular("D3"), split=IrrepSplit(VectorAction.regular("D3"))),
    "SO(3)": lambda: GCoupling(VectorAction.space("SO(3)", copies=2)),
    "SO(3), matrix": lambda: GCoupling(
        VectorAction.space("SO(3)", copies=2),
        transformer=MatrixScale,
    ),
    "mask": lambda: GCoupling(IMAGE, split=checkerboard_split(IMAGE), width=2),
    "mask, irrep scales": lambda: GCoupling(
        ImageAction("C4", 1, size=4, fields="regular"),
        split=checkerboard_split(ImageAction("C4", 1, size=4, fields="regular")),
        transformer=IrrepScale,
        width=2,
    ),
    "both parts in turn": lambda: g_coupling(VectorAction.regular("C4", copies=2)),
}


@pytest.mark.parametrize("name", CASES)
def test_is_an_equivariant_bijection_with_its_log_det(name):
    torch.manual_seed(1)
    layer = randomize_(CASES[name]().double())
    x = torch.randn(4, *layer.action_in.event_shape, dtype=torch.float64)
    assert_layer(layer, x, tol=1e-10)
    assert layer.call_and_ladj(x)[1].abs().min() > 1e-6


@pytest.mark.parametrize("part", [0, 1])
def test_a_mask_leaves_the_other_color_untouched(part):
    split = checkerboard_split(IMAGE)
    layer = randomize_(GCoupling(IMAGE, split=split, transformed=part, width=2).double())
    x = torch.randn(3, *IMAGE.event_shape, dtype=torch.float64)
    y, _ = layer.call_and_ladj(x)
    mask = split.restrict(part, torch.ones(IMAGE.event_shape)).bool()
    assert torch.equal(y[:, ~mask], x[:, ~mask])
    assert (y[:, mask] != x[:, mask]).all()


def test_the_log_det_counts_transformed_entries_only():
    split = checkerboard_split(IMAGE)
    layer = GCoupling(IMAGE, split=split, width=2).double()
    last = layer.network.layers[-1]
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.zero_()
        last.orbit_biases.fill_(0.5)
    x = torch.zeros(1, *IMAGE.event_shape, dtype=torch.float64)
    log_scale = 3 * torch.tanh(torch.tensor(0.5, dtype=torch.float64) / 3)
    count = int(layer.mask.sum())
    assert 0 < count < IMAGE.numel
    torch.testing.assert_close(layer.call_and_ladj(x)[1], (count * log_scale)[None])


def test_the_conditioner_reads_the_other_parts_only():
    layer = randomize_(CASES["coordinates"]().double())
    x = torch.randn(8, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: layer.call_and_ladj(x)[0], x)
    assert torch.equal(jacobian[:4], torch.eye(8, dtype=torch.float64)[:4])
    own = jacobian[4:, 4:]
    assert (own - torch.diag(own.diagonal())).abs().max() == 0
    assert jacobian[4:, :4].abs().max() > 0


def test_starts_as_the_identity():
    x = torch.randn(3, 8)
    y, ladj = g_coupling(VectorAction.regular("C4", copies=2)).call_and_ladj(x)
    assert torch.equal(y, x)
    assert ladj.abs().max() == 0


@pytest.mark.parametrize("context", [None, VectorAction.plane("C4")])
def test_conditioners_are_made_by_a_factory(context):
    """From the other parts, and the context where there is one, to the parameters of the part that is transformed."""
    action = VectorAction.regular("C4", copies=2)
    made = []

    def make(inputs, outputs):
        made.append((inputs, outputs))
        return EquivariantMLP(inputs, outputs, width=1, depth=0)

    layers = g_coupling(action, network=make, context_action=context).parts
    for layer, (inputs, outputs) in zip(layers, made, strict=True):
        assert inputs.numel == 4 + (0 if context is None else 2)
        assert outputs == layer.transformer.params_action and layer.network.action_out == outputs
    for how, depth in ((None, 2), (functools.partial(conditioner, depth=3), 3)):
        for layer in g_coupling(action, network=how, depth=2, context_action=context).parts:
            assert len(layer.network.layers) == depth + 1


@pytest.mark.parametrize("part", [-1, 2])
def test_the_part_that_is_transformed_is_one_of_the_split(part):
    split = CoordinateSplit(VectorAction.regular("C4", copies=2))
    assert len(split.parts) == 2
    with pytest.raises(ValueError, match=f"got {part}"):
        GCoupling(split.action, split=split, transformed=part)


def test_every_part_is_transformed_once_in_a_step():
    layer = randomize_(g_coupling(VectorAction.plane("C3", copies=3), transformer=MatrixScale).double())
    x = torch.randn(6, dtype=torch.float64)
    assert ((layer(x) - x).abs() > 1e-6).all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: g_coupling(VectorAction.plane("D8")),
            ValueError,
            "(?s)(GResidual|g_residual).*(GRadial|g_radial)",
        ),
        (
            lambda: g_coupling(
                VectorAction.plane("C4", copies=2), split=CoordinateSplit(VectorAction.regular("C4").copies(2))
            ),
            ValueError,
            "expected a split of .*defining.* got one of .*regular",
        ),
        (
            lambda: GCoupling(VectorAction.regular("C4", copies=2), transformed=2),
            ValueError,
            r"transformed in 0..1 for CoordinateSplit.* got 2",
        ),
        (
            lambda: GCoupling(
                VectorAction.regular("C4", copies=2), transformer=lambda part: IrrepScale(VectorAction.plane("C4"))
            ),
            ValueError,
            "expected a transformer of .*regular.* got one of .*defining",
        ),
        (lambda: GCoupling("D4"), TypeError, r"expected a LinearAction such as .* got str"),
        (
            lambda: GCoupling(IMAGE, transformer=lambda action: EquivariantMLP),
            TypeError,
            "expected transformer= to make a Transformer such as IrrepScale, got type",
        ),
        (
            lambda: GCoupling(IMAGE, network=3),
            TypeError,
            r"expected GCoupling\(network=...\) to be a factory, a function or class .* got int",
        ),
        (lambda: g_coupling(VectorAction.regular("C4"), split=[[0], [1]]), TypeError, "expected a split .* got list"),
    ],
)
def test_what_cannot_be_coupled_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
