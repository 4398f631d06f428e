"""escnn comes in through one door, quietly, and its representations leave it as plain tensors."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pyro_gflows.groups.escnn_adapter import ESCNN_INSTALL, escnn_group, evaluate_continuous, representation_data

PACKAGE = Path(__file__).parents[2] / "pyro_gflows"


@pytest.fixture(scope="module")
def groups():
    try:
        return escnn_group()
    except ImportError as error:
        pytest.skip(str(error))


def finite_groups(groups):
    return [
        groups.cyclic_group(1),
        groups.cyclic_group(5),
        groups.dihedral_group(4),
        groups.dihedral_group(8),
        groups.octa_group(),
    ]


def defining(element):
    """The defining matrix of an escnn element, with the conventions of escnn's documentation."""
    name = element.group.name
    if name == "SO(2)":
        reflects, angle = 0, element.to("radians")
    elif name == "O(2)":
        reflects, angle = element.to("radians")
    elif name == "SO(3)":
        return torch.tensor(element.to("MAT"))
    else:
        reflects, rotation = element.to("MAT")
        return torch.tensor(rotation) * (-1) ** reflects
    c, s, sign = math.cos(angle), math.sin(angle), (-1) ** reflects
    return torch.tensor([[c, -s * sign], [s, c * sign]], dtype=torch.float64)


def continuous_representations(groups):
    so2, o2, so3, o3 = groups.so2_group(3), groups.o2_group(3), groups.so3_group(4), groups.o3_group(3)
    return [
        *(group.standard_representation() for group in (so2, o2, so3, o3)),
        groups.directsum([so2.irrep(3), so2.irrep(0), so2.irrep(1), so2.irrep(3)]),
        groups.directsum([o2.irrep(0, 0), o2.irrep(1, 0), o2.irrep(1, 3)]),
        *(so3.irrep(degree) for degree in range(5)),
        groups.directsum([so3.irrep(2), so3.standard_representation(), so3.irrep(2)]),
        *(o3.irrep(parity, degree) for parity in range(2) for degree in range(4)),
    ]


def test_only_the_door_imports_escnn():
    imports = re.compile(r"^\s*(from|import) escnn\b|import_module\(\"escnn", re.MULTILINE)
    assert [path.name for path in PACKAGE.rglob("*.py") if imports.search(path.read_text())] == ["escnn_adapter.py"]


@pytest.mark.long
def test_the_package_does_not_import_escnn_until_asked():
    code = (
        "import sys, pyro_gflows.groups.escnn_adapter; sys.exit('escnn' in sys.modules or 'lie_learn' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


@pytest.mark.long
def test_importing_escnn_is_silent_even_where_warnings_are_errors(groups):
    code = "from pyro_gflows.groups.escnn_adapter import escnn_group; escnn_group()"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, cwd=PACKAGE.parent, capture_output=True, text=True
    )
    assert done.stdout + done.stderr == ""


def test_without_escnn_the_error_is_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "escnn.group", None)
    with pytest.raises(ImportError, match=re.escape("pip install --no-deps escnn==1.0.11")):
        escnn_group.__wrapped__()
    assert ESCNN_INSTALL == "pip install --no-deps escnn==1.0.11"


def test_a_folder_that_escnn_cannot_write_to_is_named(monkeypatch):
    def refuse(name):
        raise PermissionError(13, "Permission denied", "escnn/group/_cache")

    monkeypatch.setattr("importlib.import_module", refuse)
    with pytest.raises(ImportError, match="may write to its folder.*_cache"):
        escnn_group.__wrapped__()


@pytest.mark.long
def test_finite_groups_multiply_by_their_table(groups):
    for group in finite_groups(groups):
        data = representation_data(group.trivial_representation)
        order = group.order()
        assert data.group == group.name
        assert data.table.shape == (order, order)
        assert data.table[0].tolist() == data.table[:, 0].tolist() == list(range(order))
        assert all(sorted(row) == list(range(order)) for row in data.table.tolist())
        elements = sorted(group.elements, key=lambda element: element != group.identity)
        for i, j in [(order // 2, order - 1), (order - 1, order // 3), (order // 4, order // 2)]:
            assert elements[i] @ elements[j] == elements[data.table[i, j]]


@pytest.mark.long
def test_finite_representations_are_orthogonal_homomorphisms(groups):
    for group in finite_groups(groups):
        for representation in [*group.irreps(), group.regular_representation]:
            data = representation_data(representation)
            matrices = data.matrices
            assert matrices.dtype == torch.float64
            identity = torch.eye(matrices.shape[-1], dtype=torch.float64)
            assert (matrices[0] - identity).abs().max() <= 1e-12
            assert (matrices @ matrices.mT - identity).abs().max() <= 1e-12
            for generator in data.generators:
                assert (matrices[generator] @ matrices - matrices[data.table[generator]]).abs().max() <= 1e-12


@pytest.mark.long
def test_regular_representations_are_exact_permutations(groups):
    for group in finite_groups(groups):
        matrices = representation_data(group.regular_representation).matrices
        assert set(matrices.unique().tolist()) <= {0.0, 1.0}
        assert (matrices.sum(-1) == 1).all()
        assert (matrices.sum(-2) == 1).all()


def test_continuous_representations_agree_with_escnn(groups):
    for representation in continuous_representations(groups):
        data = representation_data(representation)
        samples = [representation.group.sample() for _ in range(5)]
        ours = evaluate_continuous(
            data.group, data.irreps, data.change_of_basis, torch.stack([defining(g) for g in samples])
        )
        theirs = torch.stack([torch.as_tensor(representation(g)) for g in samples])
        assert (ours - theirs).abs().max() <= 1e-12, str(representation)


def test_continuous_representations_are_orthogonal_homomorphisms(groups):
    for representation in continuous_representations(groups):
        data = representation_data(representation)
        samples = torch.stack([defining(representation.group.sample()) for _ in range(6)]).reshape(2, 3, -1)
        g, h = samples.unflatten(-1, (math.isqrt(samples.shape[-1]), -1))

        def rho(elements, data=data):
            return evaluate_continuous(data.group, data.irreps, data.change_of_basis, elements)

        assert (rho(g) @ rho(h) - rho(g @ h)).abs().max() <= 1e-12
        assert (rho(g) @ rho(g).mT - torch.eye(representation.size, dtype=torch.float64)).abs().max() <= 1e-12


def test_the_standard_representation_is_the_defining_one(groups):
    for group in (groups.so2_group(1), groups.o2_group(1), groups.so3_group(1), groups.o3_group(1)):
        data = representation_data(group.standard_representation())
        elements = torch.stack([defining(group.sample()) for _ in range(4)])
        ours = evaluate_continuous(data.group, data.irreps, data.change_of_basis, elements)
        assert (ours - elements).abs().max() <= 1e-12


def test_degree_one_in_space_is_the_vector_y_z_x():
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    turn = turn * torch.linalg.det(turn)
    order = [1, 2, 0]
    ours = evaluate_continuous("SO(3)", [(1,)], torch.eye(3, dtype=torch.float64), turn)
    assert torch.equal(ours, turn[order][:, order])


def test_high_degrees_stay_orthogonal():
    turn = torch.linalg.qr(torch.randn(7, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    identity = torch.eye(33, dtype=torch.float64)
    matrices = evaluate_continuous("O(3)", [(0, 16)], identity, turn)
    assert (matrices @ matrices.mT - identity).abs().max() <= 1e-12


@pytest.mark.parametrize(
    ("group", "irreps", "size", "shape", "message"),
    [
        ("SO(4)", [(1,)], 2, (2, 2), "expected one of SO"),
        ("SO(2)", [(1,)], 2, (3, 3), "shape"),
        ("SO(2)", [(1, 1)], 2, (2, 2), "frequency"),
        ("O(2)", [(0, 1)], 2, (2, 2), "parity 1"),
        ("SO(2)", [(1,)], 3, (2, 2), "change of basis"),
    ],
)
def test_bad_continuous_data_is_named(group, irreps, size, shape, message):
    with pytest.raises(ValueError, match=message):
        evaluate_continuous(group, irreps, torch.eye(size), torch.eye(*shape))


def test_what_is_no_representation_of_a_known_group_is_refused(groups):
    with pytest.raises(TypeError, match="expected an escnn representation, got str"):
        representation_data("C4")
    with pytest.raises(ValueError, match="expected a finite group or one of"):
        representation_data(groups.cylinder_group(1).trivial_representation)
