"""Equivariant linear maps: all of them, nothing else, and the exact norm."""

import pytest
import torch

from pyro_gflows.actions import ImageAction, VectorAction
from pyro_gflows.nn import EquivariantLinear, LipschitzLinear
from pyro_gflows.testing import randomize_

QUATERNIONS = [
    [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]],
    [[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]],
]

PAIRS = {
    "regular C5": (VectorAction.regular("C5", copies=2), VectorAction.regular("C5")),
    "plane to regular D4": (VectorAction.plane("D4"), VectorAction.regular("D4", copies=2)),
    "quotient to plane D3": (VectorAction.quotient("D3", [0, 3]), VectorAction.plane("D3", copies=2)),
    "plane C4": (VectorAction.plane("C4", copies=2), VectorAction.plane("C4")),
    "quaternions": (VectorAction.from_generators(QUATERNIONS).copies(2), VectorAction.from_generators(QUATERNIONS)),
    "SO(2)": (VectorAction.plane("SO(2)", copies=2), VectorAction.plane("SO(2)", copies=3)),
    "O(2)": (VectorAction.plane("O(2)", copies=2), VectorAction.plane("O(2)")),
    "SO(3), a number too": (
        VectorAction.space("SO(3)", copies=2).direct_sum(VectorAction.trivial("SO(3)", copies=2)),
        VectorAction.space("SO(3)").direct_sum(VectorAction.trivial("SO(3)")),
    ),
    "nothing in common": (VectorAction.space("O(3)"), VectorAction.trivial("O(3)", copies=2)),
}


@pytest.fixture(params=PAIRS)
def pair(request):
    return PAIRS[request.param]


def commutant_dimension(action_in, action_out):
    """Of the space of all W with W rho_in(g) = rho_out(g) W: the trace of the average over the group."""
    elements, weights = action_in.group.quadrature(2)
    characters = [action.matrix(elements).diagonal(dim1=-2, dim2=-1).sum(-1) for action in (action_in, action_out)]
    return round(float(weights @ (characters[0] * characters[1])))


def test_every_intertwiner_is_there_once(pair):
    layer = EquivariantLinear(*pair, bias=False).double()
    count = sum(weight.numel() for weight in layer.weights)
    assert count == commutant_dimension(*pair)
    if count == 0:
        assert layer.matrix().abs().max() == 0
        return
    gradients = torch.autograd.functional.jacobian(
        lambda *weights: torch.func.functional_call(_Matrix(layer), dict(zip(_names(layer), weights, strict=True)), ()),
        tuple(layer.weights),
    )
    spanned = torch.cat([gradient.flatten(2).flatten(0, 1) for gradient in gradients], -1)
    assert torch.linalg.matrix_rank(spanned) == count


class _Matrix(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self):
        return self.layer.matrix()


def _names(layer):
    return [f"layer.weights.{index}" for index in range(len(layer.weights))]


@pytest.mark.parametrize("kind", [EquivariantLinear, LipschitzLinear])
def test_is_equivariant(pair, kind):
    action_in, action_out = pair
    layer = randomize_(kind(action_in, action_out).double(), scale=2.0)
    elements = action_in.sample((6,))
    x = torch.randn(6, action_in.numel, dtype=torch.float64)
    image = action_out.act_each(elements, layer(x))
    torch.testing.assert_close(layer(action_in.act_each(elements, x)), image, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_the_bound_is_the_norm_of_the_dense_matrix(pair, scale):
    layer = LipschitzLinear(*pair, bound=0.7).double()
    with torch.no_grad():
        for weight in layer.weights:
            weight.mul_(scale)
    norm = torch.linalg.matrix_norm(layer.matrix(), 2)
    torch.testing.assert_close(layer.lipschitz_bound().to(norm), norm, rtol=1e-12, atol=0)
    assert norm <= 0.7 * (1 + 1e-14)
    if scale > 1 and len(layer.weights):
        assert norm > 0.699


def test_the_bound_survives_an_optimizer_that_wants_it_larger():
    layer = LipschitzLinear(*PAIRS["plane to regular D4"], bound=0.9).double()
    optimizer = torch.optim.Adam(layer.parameters(), lr=1.0)
    x = torch.randn(16, 2, dtype=torch.float64)
    for _ in range(30):
        optimizer.zero_grad()
        (-layer(x).square().sum()).backward()
        optimizer.step()
    assert torch.linalg.matrix_norm(layer.matrix(), 2) <= 0.9 * (1 + 1e-14)


def test_masked_maps_read_backwards_only():
    block = VectorAction.regular("D3")
    layer = EquivariantLinear(block.copies(3), block.copies(2), autoregressive=([0, 1, 2], [0, 2])).double()
    blocks = layer.matrix().unflatten(0, (2, 6)).unflatten(-1, (3, 6)).abs().amax((1, 3))
    assert (blocks[0, 1:] == 0).all()
    assert (blocks[0, 0] > 0).all()
    assert (blocks[1] > 0).all()


def test_loses_nothing_on_the_way_through_float32(pair):
    layer = EquivariantLinear(*pair)
    exact = layer.basis_in.value.clone()
    assert exact.dtype == torch.float64
    assert torch.equal(layer.float().double().basis_in.value, exact)
    assert layer.float()(torch.zeros(pair[0].numel)).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EquivariantLinear(VectorAction.plane("C4"), VectorAction.plane("C3")), r"VectorAction\(C4.*C3"),
        (lambda: EquivariantLinear(ImageAction("C4", size=2), ImageAction("C4", size=2)), "vectors, got ImageAction"),
        (lambda: LipschitzLinear(*PAIRS["plane C4"], bound=0.0), "positive finite bound, got 0.0"),
        (lambda: LipschitzLinear(*PAIRS["plane C4"], bound=float("inf")), "positive finite bound, got inf"),
    ],
)
def test_bad_layers_say_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
