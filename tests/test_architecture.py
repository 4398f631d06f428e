"""The house: which room may import which, and the doors to the outside."""

import ast
import functools
import importlib
from pathlib import Path

import pyro.distributions.transforms
import pyro.infer.autoguide
import pyro.nn
import pytest

import pyro_gflows

PACKAGE = Path(pyro_gflows.__file__).parent

# Every room may import itself and the rooms before it.
ROOMS = [
    "version",
    "deprecation",
    "serialization",
    "numerics",
    "groups",
    "spaces",
    "actions",
    "nn",
    "distributions",
    "transforms",
    "flows",
    "testing",
    "targets",
    "datasets",
    "evaluation",
    "training",
    "lightning",
    "guides",
    "plots",
    "experiments",
    "cli",
]

# Where alone each of these may be imported.
DOORS = {
    "escnn": ["groups/escnn_adapter.py"],
    "lie_learn": [],  # groups/wigner.py computes what escnn asks of it
    "argparse": [
        "cli/__init__.py",
        "cli/commands.py",
        "cli/comparison.py",
        "cli/data_check.py",
        "cli/devices.py",
        "cli/folders.py",
        "cli/recipes.py",
        "cli/streaming.py",
    ],
    "matplotlib": ["plots/figures.py"],
    "pyarrow": ["datasets/arrow_store.py"],
    "zarr": ["datasets/zarr_store.py"],
    "sklearn": ["datasets/optical_digits.py", "datasets/image_sets.py"],
    "pickle": ["datasets/cifar_batches.py"],  # the published format; whatever is no array is refused
    "lightning": [
        "lightning/__init__.py",
        "lightning/data.py",
        "lightning/ending.py",
        "lightning/module.py",
        "training/engines/fabric.py",
    ],
    "typing_extensions": [],
}

pytestmark = pytest.mark.all_cases  # quick, and what a change breaks is in the file that was changed

# The old places of public names, for one minor version: nothing in the package imports them.
OLD_PLACES = {"image_flows", "infer", "registry"}

FILES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent != PACKAGE or path.stem not in {"__init__", "__main__", *OLD_PLACES}
]


@functools.cache
def imports(path):
    """The modules that a file imports; what only the type checker reads is left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unread = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in unread:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: write absolute imports"
            found.add(node.module)
            if node.module == "pyro_gflows":
                found.update(f"pyro_gflows.{alias.name}" for alias in node.names)
    return found


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_up_the_list_of_rooms(path):
    assert room(path) in ROOMS, f"give the room {room(path)!r} its place in the list"
    allowed = ROOMS[: ROOMS.index(room(path)) + 1]
    inside = {name for name in imports(path) if name.split(".")[0] == "pyro_gflows"}
    wrong = {name for name in inside if name.count(".") and name.split(".")[1] not in allowed}
    assert not wrong, f"{room(path)} may import {allowed}"


@pytest.mark.parametrize("package", DOORS)
@pytest.mark.long
def test_each_outside_package_has_its_door(package):
    users = [path for path in FILES if any(name.split(".")[0] == package for name in imports(path))]
    assert {path.relative_to(PACKAGE).as_posix() for path in users} <= set(DOORS[package])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_unpickled_and_no_device_is_assumed(path):
    text = path.read_text(encoding="utf-8")
    assert ".cuda()" not in text
    assert "torch.load(" not in text
    assert "allow_pickle=True" not in text


def modules():
    """All modules of the package, by name, without the old places of names."""
    for path in FILES:
        name = ".".join(("pyro_gflows", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        yield name, importlib.import_module(name)


def test_no_module_is_shadowed_by_a_function_of_its_name():
    for name, module in modules():
        package, _, own = name.rpartition(".")
        if package:
            assert getattr(importlib.import_module(package), own) is module, f"{name}: rename the file or the function"


def test_no_class_has_the_name_of_another_layer_of_pyro():
    theirs = {
        name: value
        for module in (pyro.distributions.transforms, pyro.nn, pyro.infer.autoguide)
        for name, value in vars(module).items()
        if isinstance(value, type)
    }
    assert "MatrixExponential" in theirs and "AutoNormal" in theirs
    for module_name, module in modules():
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if isinstance(value, type) and name in theirs:
                assert issubclass(value, theirs[name]), f"{module_name}.{name} is another thing in Pyro"
