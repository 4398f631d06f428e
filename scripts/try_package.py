"""Uses an installed package as its user would: fits, saves and loads a small flow, and calls the command."""

import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch

import pyro_gflows
from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction, fit, g_residual
from pyro_gflows.serialization import load, save
from pyro_gflows.training import FitSettings


def try_flow(folder: Path) -> None:
    """A flow of the plane is fitted, is invariant, and is the same after it was saved and loaded."""
    torch.manual_seed(0)
    action = VectorAction.plane("D4")
    flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action), g_residual(action)])
    points = torch.randn(256, 2)
    fit(flow, points, settings=FitSettings(steps=5, batch_size=64), progress=False)
    with torch.no_grad():
        scores = flow.dist.log_prob(points)
        assert torch.allclose(flow.dist.log_prob(points.flip(-1)), scores, atol=1e-5), "the density is not invariant"
        save(flow, folder / "flow")
        assert torch.equal(load(folder / "flow").dist.log_prob(points), scores), "the loaded flow is another one"


def try_command() -> None:
    """The command is installed beside this Python, and knows the package's version."""
    command = Path(sys.executable).with_name("pyro-gflows")
    for argument, expected in [("--version", f"pyro-gflows {version('pyro-gflows')}"), ("--help", "fit")]:
        said = subprocess.run([command, argument], check=True, capture_output=True, text=True).stdout
        assert expected in said, f"expected {expected!r} in what {command} {argument} says, got {said!r}"


if __name__ == "__main__":
    place = Path(pyro_gflows.__file__)
    assert place.is_relative_to(sys.prefix), f"expected the package of this environment, got {place}"
    assert (place.parent / "py.typed").exists(), "py.typed is missing, so type checkers do not read the package"
    assert pyro_gflows.__version__ == version("pyro-gflows")
    with tempfile.TemporaryDirectory() as name:
        try_flow(Path(name))
    try_command()
    print(f"pyro-gflows {pyro_gflows.__version__} works in {place.parent}")
