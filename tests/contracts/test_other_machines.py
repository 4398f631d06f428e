"""A flow is the same density on every machine, although rounding determines eigenvectors and singular vectors.

Another machine is simulated: every ``eigh`` and ``svd`` returns values with an error of one unit of rounding, vectors
of another sign, and another basis of every degenerate space.
"""

import copy
import itertools
import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from pyro_gflows import (
    EquivariantFlow,
    ImageAction,
    InvariantNormal,
    IrrepSplit,
    VectorAction,
    g_autoregressive,
    g_coupling,
    g_coupling_image_flow,
    isotypic_split,
)
from pyro_gflows.actions import eigenvector_blocks
from pyro_gflows.groups.decomposition import decompose
from pyro_gflows.serialization import load, save
from pyro_gflows.testing import randomize_
from pyro_gflows.training import FitSettings, fit
from tests.constructors import CONDITIONAL, TABLE, conditional_flow, events, make_flow

_EIGH, _SVD = torch.linalg.eigh, torch.linalg.svd


def _rotated(values, *bases):
    """Return bases (columns) with every space of nearly equal values in the same random basis."""
    out = [basis.clone() for basis in bases]
    scale = max(float(values.abs().max()), 1e-30)
    ends = [0, *(int(i) + 1 for i in torch.nonzero(values.diff().abs() > 1e-9 * scale)), len(values)]
    for start, stop in itertools.pairwise(ends):
        rotation = torch.linalg.qr(torch.randn(stop - start, stop - start, dtype=bases[0].dtype))[0]
        for basis in out:
            basis[:, start:stop] = basis[:, start:stop] @ rotation
    return out


def _one_ulp(values):
    return values * (1 + torch.finfo(values.dtype).eps * torch.randint(-1, 2, values.shape))


def _batched(function):
    def call(matrix, *args, **kwargs):
        if matrix.ndim > 2:
            parts = [call(part, *args, **kwargs) for part in matrix.flatten(0, -3)]
            return tuple(torch.stack(p).reshape(*matrix.shape[:-2], *p[0].shape) for p in zip(*parts, strict=True))
        return function(matrix, *args, **kwargs)

    return call


@_batched
def other_eigh(matrix, *args, **kwargs):
    values, vectors = _EIGH(matrix, *args, **kwargs)
    return (_one_ulp(values), *_rotated(values, vectors))


@_batched
def other_svd(matrix, full_matrices=True, **kwargs):
    u, s, vh = _SVD(matrix, full_matrices=full_matrices, **kwargs)
    k = len(s)
    left, right = _rotated(s, u[:, :k], vh[:k].mT)
    return torch.cat([left, u[:, k:]], 1), _one_ulp(s), torch.cat([right.mT, vh[k:]], 0)


@pytest.fixture
def other_machine(monkeypatch):
    """A function that simulates another machine from its call on."""

    def switch():
        decompose.cache_clear()
        monkeypatch.setattr(torch.linalg, "eigh", other_eigh)
        monkeypatch.setattr(torch.linalg, "svd", other_svd)

    yield switch
    decompose.cache_clear()


def flow_of(name):
    return conditional_flow(name) if name in CONDITIONAL else make_flow(name)


def log_prob(flow, x):
    with torch.no_grad():
        if flow.context_action is None:
            return flow.dist.log_prob(x)
        context = torch.randn(
            *x.shape[:1],
            *flow.context_action.event_shape,
            generator=torch.Generator().manual_seed(7),
            dtype=torch.float64,
        )
        return flow.condition(context).log_prob(x)


def test_the_other_machine_finds_other_vectors():
    """The simulated decompositions are right, and in other bases."""
    matrix = torch.diag(torch.tensor([2.0, 2.0, 5.0], dtype=torch.float64))
    values, vectors = other_eigh(matrix)
    torch.testing.assert_close(vectors @ torch.diag(values) @ vectors.T, matrix)
    assert vectors[:2, :2].abs().min() > 1e-3
    u, s, vh = other_svd(matrix)
    torch.testing.assert_close(u @ torch.diag(s) @ vh, matrix)
    torch.testing.assert_close(u @ vh, torch.eye(3, dtype=torch.float64))
    assert u[:2, 1:].abs().min() > 1e-3 or u[1:, 1:].abs().min() > 1e-3


@pytest.mark.parametrize("name", TABLE)
def test_a_described_flow_is_the_same_density_elsewhere(name, other_machine):
    """A saved folder holds the structure as JSON and the weights as a ``state_dict``."""
    flow = flow_of(name)
    x = events(flow, 4)
    expected = log_prob(flow, x)
    structure, weights = json.dumps(flow.config()), copy.deepcopy(flow.state_dict())
    other_machine()
    rebuilt = EquivariantFlow.from_config(json.loads(structure)).double().eval()
    rebuilt.load_state_dict(weights)
    torch.testing.assert_close(log_prob(rebuilt, x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", TABLE)
def test_a_flow_built_by_the_same_code_elsewhere_is_the_same_density(name, other_machine):
    """Bases are canonical, so that the parameters are enough, as in Pyro's parameter store."""
    flow = flow_of(name)
    x = events(flow, 4)
    expected = log_prob(flow, x)
    parameters = {key: value.detach().clone() for key, value in flow.named_parameters()}
    other_machine()
    structure = json.loads(json.dumps(flow.config()), object_hook=_without_blocks)
    rebuilt = EquivariantFlow.from_config(structure).double().eval()
    with torch.no_grad():
        for key, value in rebuilt.named_parameters():
            value.copy_(parameters[key])
    torch.testing.assert_close(log_prob(rebuilt, x), expected, rtol=1e-7, atol=1e-7)
    here = flow.state_dict()
    for key, value in rebuilt.state_dict().items():  # the bases too
        torch.testing.assert_close(value, here[key], rtol=1e-9, atol=1e-9)


def _without_blocks(node):
    return {key: value for key, value in node.items() if key != "blocks"} if "parts" in node else node


SPLIT_BY_IRREPS = {
    "regular D4": lambda: VectorAction.regular("D4"),
    "regular S3": lambda: VectorAction.regular("S3"),
    "regular D8": lambda: VectorAction.regular("D8"),
    "rows of S4": lambda: VectorAction.rows("S4", features=2),
    "planes under D5": lambda: VectorAction.plane("D5", copies=3),
    "vectors under O(3)": lambda: VectorAction.space("O(3)", copies=3),
    "image fields of D4": lambda: ImageAction("D4", size=4, fields="regular"),
}


@pytest.mark.parametrize("name", SPLIT_BY_IRREPS)
@pytest.mark.parametrize("split", [IrrepSplit, isotypic_split])
def test_the_basis_of_a_split_is_canonical(name, split, other_machine):
    try:
        here = split(SPLIT_BY_IRREPS[name]())
    except ValueError:
        pytest.skip("one irrep only")
    other_machine()
    there = split(SPLIT_BY_IRREPS[name]())
    torch.testing.assert_close(there.basis, here.basis, rtol=0, atol=1e-12)
    assert there == here and hash(there) == hash(here)
    identity = torch.eye(len(here.basis), dtype=torch.float64)
    torch.testing.assert_close(here.basis @ here.basis.T, identity, rtol=0, atol=1e-14)


def test_weights_of_another_basis_are_refused():
    action = VectorAction.regular("D4")
    split = IrrepSplit(action)
    blocks = split.computed_arguments()["blocks"]
    rotation = torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=torch.float64)
    elsewhere = IrrepSplit(action, blocks=[rotation @ block if len(block) == 2 else block for block in blocks])
    assert elsewhere != split
    trained = g_coupling(action, split=elsewhere)
    with pytest.raises(RuntimeError, match="another basis"):
        g_coupling(action, split=split).load_state_dict(trained.state_dict())
    g_coupling(action, split=elsewhere).load_state_dict(trained.state_dict())


def test_weights_without_a_basis_are_refused_unless_one_says_so():
    layer = g_coupling(VectorAction.regular("D4"), split=IrrepSplit(VectorAction.regular("D4")))
    state = {key: value for key, value in layer.state_dict().items() if not key.endswith("split_basis.value")}
    with pytest.raises(RuntimeError, match="did not save the basis"):
        layer.load_state_dict(state)
    layer.load_state_dict(state, strict=False)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([torch.eye(8)[:4], torch.eye(8)[4:7]], "invariant|orthogonal|representation"),
        ([torch.eye(8)[:, :7]], "shape"),
    ],
)
def test_blocks_that_are_none_are_refused(blocks, message):
    with pytest.raises(ValueError, match=message):
        IrrepSplit(VectorAction.regular("D4"), blocks=blocks)


def test_parts_act_in_the_basis_of_the_blocks_that_were_given():
    """A block may be a whole field in another basis."""
    action = VectorAction.plane("D5", copies=2)
    rotation = torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=torch.float64)
    split = IrrepSplit(action, blocks=torch.kron(torch.eye(2, dtype=torch.float64), rotation).split(2))
    x = torch.randn(3, 4, dtype=torch.float64)
    for element in action.elements():
        images = split.split(action.act(element, x))
        for part, image, original in zip(split.parts, images, split.split(x), strict=True):
            torch.testing.assert_close(image, part.act(element, original))


def test_blocks_of_a_continuous_group_must_be_invariant_too():
    with pytest.raises(ValueError, match="a generator leads out of it"):
        IrrepSplit(VectorAction.space("SO(3)", copies=2), blocks=torch.eye(6).split([2, 1, 3]))


@pytest.mark.long
def test_a_resumed_run_accepts_the_same_flow_elsewhere(tmp_path, other_machine):
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    settings = FitSettings(steps=6, batch_size=16, checkpoint_every=1)

    def run(*, stop_at=None, **others):
        calls = 0

        def augment(x, generator):
            nonlocal calls
            calls += 1
            if calls == stop_at:
                os.kill(os.getpid(), signal.SIGINT)
            return x

        torch.manual_seed(0)
        action = VectorAction.regular("S3")
        flow = EquivariantFlow(InvariantNormal(action), [g_coupling(action, width=2, depth=1)])
        fit(flow, x, settings=settings, augment=augment, progress=False, **others)
        return flow

    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(folder=tmp_path, stop_at=3)
    other_machine()
    resumed = run(folder=tmp_path, resume=True)
    torch.testing.assert_close(log_prob(resumed, x), log_prob(whole, x), rtol=1e-4, atol=1e-4)


ELSEWHERE = """
import sys, torch
from pyro_gflows.serialization import load
for folder in sys.argv[1:]:
    x = torch.load(folder + "/x.pt", weights_only=True)
    print(load(folder).dist.log_prob(x).tolist())
"""


@pytest.mark.slow
def test_a_saved_flow_is_the_same_density_under_another_code_path(tmp_path):
    """The mathematics library of another process uses only the instructions of an old processor."""
    pixels = ImageAction("D4", 1, size=8)
    regular = VectorAction.regular("D8")
    flows = {
        "coupling": EquivariantFlow(InvariantNormal(regular), [g_coupling(regular, width=2, depth=1)]),
        "autoregressive": EquivariantFlow(InvariantNormal(regular), [g_autoregressive(regular, width=2, depth=1)]),
        "image": g_coupling_image_flow(pixels, scales=2, blocks=1, width=2, depth=1),
    }
    expected = []
    for name, flow in flows.items():
        randomize_(flow.double(), scale=0.1, generator=torch.Generator().manual_seed(1))
        flow.eval()
        x = events(flow, 3)
        save(flow, tmp_path / name)
        torch.save(x, tmp_path / name / "x.pt")
        expected.append(log_prob(flow, x))
    folders = [str(tmp_path / name) for name in flows]
    environment = {**os.environ, "MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "default"}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *folders], env=environment, capture_output=True, text=True, check=True
    )
    found = torch.stack([torch.tensor(json.loads(line), dtype=torch.float64) for line in done.stdout.splitlines()])
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-9, atol=1e-9)


def test_a_folder_of_the_first_format_loads_and_says_what_it_lacks(request):
    """Version 0.1.0 wrote the folder; any machine recomputes its blocks, which have one dimension and no ties."""
    folder = request.path.parents[1] / "data" / "format_1"
    with pytest.warns(UserWarning, match="did not save the basis"):
        flow = load(folder)
    recorded = json.loads((folder / "recorded.json").read_text())
    x = torch.tensor(recorded["x"], dtype=torch.float64)
    expected = torch.tensor(recorded["log_prob"], dtype=torch.float64)
    torch.testing.assert_close(log_prob(flow, x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.long
def test_the_first_format_is_as_it_was_on_the_machine_that_wrote_it(tmp_path):
    """The blocks of format 1 are eigenvectors, which are recomputed on the same machine here."""
    action = VectorAction.regular("D8")
    blocks = eigenvector_blocks(action)
    split = IrrepSplit(action, blocks=blocks)
    flow = EquivariantFlow(InvariantNormal(action), [g_autoregressive(action, split=split, width=2, depth=1)])
    randomize_(flow.double(), generator=torch.Generator().manual_seed(1))
    save(flow.eval(), tmp_path)
    description = json.loads((tmp_path / "model.json").read_text())
    description = json.loads(json.dumps({**description, "format": 1}), object_hook=_without_blocks)
    (tmp_path / "model.json").write_text(json.dumps(description))
    x = events(flow, 4)
    with pytest.warns(UserWarning, match="did not save the basis"):
        old = load(tmp_path)
    torch.testing.assert_close(log_prob(old, x), log_prob(flow, x), rtol=1e-9, atol=1e-9)
