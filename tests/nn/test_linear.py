"""Equivariant linear maps: all of them, nothing else, and the exact norm."""

import copy
import pickle
import time

import pytest
import torch

from pyro_gflows.actions import ImageAction, VectorAction
from pyro_gflows.nn import EquivariantLinear, LipschitzLinear
from pyro_gflows.serialization.registry import build, describe
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
    "no symmetry": (VectorAction.trivial("C1", copies=3), VectorAction.trivial("C1", copies=2)),
    "permutations and signs": (
        VectorAction.signs(2, copies=2).direct_sum(VectorAction.trivial("C2 x C2")),
        VectorAction.trivial("C2 x C2").direct_sum(VectorAction.signs(2)),
    ),
    "signed permutations": (
        VectorAction.plane("D4", copies=2),
        VectorAction.plane("D4").direct_sum(VectorAction.regular("D4"), VectorAction.trivial("D4")),
    ),
    "rows": (VectorAction.rows("S4", features=2), VectorAction.rows("S4").direct_sum(VectorAction.trivial("S4"))),
    "quotient to regular": (VectorAction.quotient("D3", [0, 3]), VectorAction.regular("D3", copies=2)),
    "signs without a common map": (VectorAction.signs(1), VectorAction.trivial("C2", copies=2)),
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
    count = sum(weight.numel() for weight in layer.parameters())
    assert count == commutant_dimension(*pair)
    if count == 0:
        assert layer.matrix().abs().max() == 0
        return
    gradients = torch.autograd.functional.jacobian(
        lambda *weights: torch.func.functional_call(_Matrix(layer), dict(zip(_names(layer), weights, strict=True)), ()),
        tuple(layer.parameters()),
    )
    spanned = torch.cat([gradient.flatten(2).flatten(0, 1) for gradient in gradients], -1)
    assert torch.linalg.matrix_rank(spanned) == count
    dense = null_space(*pair)
    assert dense.shape[1] == count
    torch.testing.assert_close(dense @ (dense.T @ spanned), spanned, rtol=0, atol=1e-10)


def null_space(action_in, action_out):
    """An orthonormal basis of all W with W rho_in(g) = rho_out(g) W for the generators g, as columns."""
    conditions = [
        torch.kron(torch.eye(action_out.numel), action_in.matrix(g).T.contiguous())
        - torch.kron(action_out.matrix(g).contiguous(), torch.eye(action_in.numel))
        for g in action_in.generators()
    ]
    size = action_in.numel * action_out.numel
    stacked = torch.cat(conditions) if conditions else torch.zeros(1, size, dtype=torch.float64)
    _, values, vectors = torch.linalg.svd(stacked.double())
    return vectors[int((values > 1e-9).sum()) :].T


class _Matrix(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self):
        return self.layer.matrix()


def _names(layer):
    return [f"layer.{name}" for name, _ in layer.named_parameters()]


def test_a_basis_that_is_the_identity_is_left_out_and_another_one_is_not():
    """Also where it is loaded into a layer that had the identity, as from a file of another machine."""
    actions = VectorAction.trivial("C1", copies=3), VectorAction.trivial("C1", copies=4)
    layer, former = LipschitzLinear(*actions).double(), LipschitzLinear(*actions).double()
    assert layer.basis_in.is_identity and layer.basis_out.is_identity
    former.basis_in.value = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    former.basis_out.value = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    layer.load_state_dict(former.state_dict())
    (block,) = layer.blocks()
    expected = former.basis_out.value.T @ block @ former.basis_in.value
    torch.testing.assert_close(layer.kernel(), expected, rtol=0, atol=1e-12)
    layer.load_state_dict(LipschitzLinear(*actions).state_dict())
    (block,) = layer.blocks()
    torch.testing.assert_close(layer.double().kernel(), block, rtol=0, atol=1e-12)


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
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * 6 + 2  # four pairs of fields, two biases
    blocks = layer.matrix().unflatten(0, (2, 6)).unflatten(-1, (3, 6)).abs().amax((1, 3))
    assert (blocks[0, 1:] == 0).all()
    assert (blocks[0, 0] > 0).all()
    assert (blocks[1] > 0).all()


TIED = [name for name, pair in PAIRS.items() if all(action.is_signed_permutation for action in pair)]


@pytest.mark.parametrize("name", TIED)
def test_white_inputs_give_outputs_of_unit_variance(name):
    """In the mean over draws of the weights, wherever an output coordinate reads anything."""
    torch.manual_seed(0)
    matrices = torch.stack([EquivariantLinear(*PAIRS[name], bias=False).matrix() for _ in range(100)])
    variances = matrices.square().sum(-1).mean(0)
    reached = variances > 0
    torch.testing.assert_close(variances[reached], torch.ones(int(reached.sum())), rtol=0, atol=0.35)


def test_the_variance_at_the_start_is_that_of_weights_by_components():
    """Where every irrep of the output occurs in the input."""
    torch.manual_seed(0)
    pair = VectorAction.regular("D3", copies=2), VectorAction.regular("D3")
    norms = [
        torch.stack([kind(*pair, bias=False).matrix().square().sum() for _ in range(30)]).mean()
        for kind in (EquivariantLinear, Former)
    ]
    torch.testing.assert_close(*norms, rtol=0.2, atol=0)


@pytest.mark.parametrize("kind", [EquivariantLinear, LipschitzLinear])
def test_the_blocks_are_those_of_the_matrix(pair, kind):
    """Their singular values, each as often as the irrep has dimensions, are those of the matrix."""
    layer = kind(*pair, bias=False).double()
    found = torch.cat([torch.linalg.svdvals(block) for block in layer.blocks()] or [torch.zeros(0)]).sort().values
    dense = torch.linalg.svdvals(layer.matrix().detach()).sort().values
    torch.testing.assert_close(found[found > 1e-9].double(), dense[dense > 1e-9].double(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("labels", [None, ([0, 1, 1], [2, 0])], ids=["all", "masked"])
@pytest.mark.parametrize("pick", ["regular", "signed"])
def test_weights_by_components_of_an_earlier_format_are_the_same_map(labels, pick):
    block = VectorAction.regular("D3") if pick == "regular" else VectorAction.plane("D4")
    pair = block.copies(3), block.copies(2)
    former = randomize_(Former(*pair, autoregressive=labels).double())
    layer = EquivariantLinear(*pair, autoregressive=labels).double()
    layer.load_state_dict({name.removeprefix("layer."): value for name, value in former.state_dict().items()})
    x = torch.randn(7, pair[0].numel, dtype=torch.float64)
    torch.testing.assert_close(layer(x), former(x), rtol=0, atol=1e-12)
    inside = torch.nn.Sequential(EquivariantLinear(*pair, autoregressive=labels).double())
    inside.load_state_dict({f"0.{name}": value for name, value in former.state_dict().items()})
    assert torch.equal(inside(x), layer(x))


class Former(EquivariantLinear):
    """A subclass keeps weights for the isotypic components, as all these layers did up to format 3."""


def test_weights_of_another_map_are_refused():
    block = VectorAction.regular("D3")
    former = Former(block, block)
    layer = EquivariantLinear(block.copies(2), block)
    with pytest.raises(RuntimeError, match=r"entries have shape \(6, 6\) in place of \(6, 12\)"):
        layer.load_state_dict(former.state_dict())


def test_equal_fields_have_their_orbits_found_once():
    """Wide layers of a large group take little time to set up: the entries are 4 million, those of two fields 1024."""
    wide = VectorAction.regular("C32", copies=64)
    began = time.process_time()
    layer = EquivariantLinear(wide, wide)
    assert time.process_time() - began < 2.0
    assert layer.entries.weights.numel() == 32 * 64 * 64


def test_copies_pickles_and_descriptions_are_the_same_layer(pair):
    layer = randomize_(EquivariantLinear(*pair).double())
    x = torch.randn(3, pair[0].numel, dtype=torch.float64)
    again = build(describe(layer)).double()
    again.load_state_dict(layer.state_dict())
    assert describe(layer)["class"] == "EquivariantLinear"
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), again):
        assert type(other) is type(layer) and repr(other) == repr(layer)
        assert torch.equal(other(x), layer(x))


def test_loses_nothing_on_the_way_through_float32():
    pair = PAIRS["quotient to plane D3"]
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
