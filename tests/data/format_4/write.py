"""Writes the saved flows of this folder: run with the version that wrote format 4, never with a later one.

    PYTHONPATH=<a checkout of that version> python write.py <an empty folder>

They are as those of format 3, and hold the classes of particles.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from pyro_gflows import EquivariantFlow, GActNorm, GPairPotential, InCoordinates, InvariantNormal, ParticleAction, save
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import GRelative, RowStretch, g_augmented_coupling, g_graph_residual


def particles() -> EquivariantFlow:
    action = ParticleAction((2, 1), 2)
    layers = [
        GPairPotential(action, knots=4),
        InCoordinates(GActNorm(action.coordinates), action),
        g_graph_residual(action, width=1, depth=1),
    ]
    return EquivariantFlow(InvariantNormal(action), layers)


def particles_with_auxiliary_vectors() -> EquivariantFlow:
    action = ParticleAction(3, 2)
    stretch = functools.partial(RowStretch, bins=3)
    coupling = g_augmented_coupling(action, width=2, depth=1, transformer=stretch)
    return EquivariantFlow(InvariantNormal(coupling.action_in), [coupling, GRelative(action)])


FLOWS: list[Callable[[], EquivariantFlow]] = [particles, particles_with_auxiliary_vectors]


def record(make: Callable[[], EquivariantFlow], folder: Path) -> None:
    """Save the flow, and what it gives."""
    torch.manual_seed(0)
    flow = make().double()
    randomize_(flow, scale=0.2, generator=torch.Generator().manual_seed(1))
    save(flow.eval(), folder)
    structure = folder / "model.json"
    structure.write_text(json.dumps(json.loads(structure.read_text()), separators=(",", ":")) + "\n")
    torch.manual_seed(2)
    with torch.no_grad():
        base = flow.base.sample((2,)).double()
        sample = flow.transform(base.clone())
        x = flow.action.space.project(sample + 0.1 * torch.randn_like(sample))
        log_prob = flow.dist.log_prob(x.clone())
    recorded = {"x": x, "context": None, "log_prob": log_prob, "base": base, "sample": sample}
    plain = {name: None if value is None else value.tolist() for name, value in recorded.items()}
    (folder / "recorded.json").write_text(json.dumps(plain) + "\n")


if __name__ == "__main__":
    for flow in FLOWS:
        record(flow, Path(sys.argv[1]) / flow.__name__)
