"""Writes the saved flows of this folder: run with the version that wrote format 3, never with a later one.

    PYTHONPATH=<a checkout of that version> python write.py <an empty folder>

Each flow is written as ``save`` writes it (but for the indentation of its JSON), with random weights in float64, beside
what it gave: events with their log-probs, and draws of the base with their images. They hold classes that no file of an
earlier format holds.
"""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from pyro_gflows import (
    Canonicalized,
    EquivariantFlow,
    GActNorm,
    GConvExponential,
    GCoupling,
    GGradient,
    GLinearPLU,
    GSpectralConv,
    ImageAction,
    InvariantNormal,
    InvariantUniform,
    InvariantVonMises,
    MatrixScale,
    RowsAction,
    TorusAction,
    TorusSplit,
    VectorAction,
    g_coupling,
    g_residual,
    save,
)
from pyro_gflows.guides.default_flow import identity_transforms
from pyro_gflows.nn import PeriodicNetwork, PooledBranch, TorusPotential
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import ElementwiseCircularSpline


def couplings_of_angles() -> EquivariantFlow:
    action = TorusAction.point_group("D2").with_translations([[math.pi, math.pi]])
    splines = functools.partial(ElementwiseCircularSpline, bins=3)
    split = TorusSplit(action, [range(2)])
    layers = [
        g_coupling(action, transformer=splines, width=1, depth=1),
        GCoupling(action, split=split, transformed=0, transformer=splines, width=1, depth=1),
    ]
    return EquivariantFlow(InvariantVonMises(action, components=2), layers)


def couplings_under_all_translations() -> EquivariantFlow:
    action = TorusAction.fixing([[1, 1]])
    return EquivariantFlow(InvariantUniform(action), [g_coupling(action, width=1, depth=1)])


def gradient_and_residual_of_angles() -> EquivariantFlow:
    action = TorusAction.point_group("D4")
    branch = functools.partial(PeriodicNetwork, width=2, bound=0.6)
    layers = [GGradient(action, TorusPotential(action, frequencies=2, waves=2)), g_residual(action, branch=branch)]
    return EquivariantFlow(InvariantUniform(action), layers)


def triangular_factors() -> EquivariantFlow:
    action = VectorAction.plane("C4", copies=2).direct_sum(VectorAction.trivial("C4", copies=2))
    layers = [GLinearPLU(action), g_coupling(action, transformer=MatrixScale, width=1, depth=1)]
    return EquivariantFlow(InvariantNormal(action), layers)


def convolutions() -> EquivariantFlow:
    action = ImageAction("C4", 2, size=3)
    return EquivariantFlow(InvariantNormal(action), [GConvExponential(action), GSpectralConv(action, support=3)])


def layers_on_rows() -> EquivariantFlow:
    rows = RowsAction(7, 2, signed=[1])
    action = rows.direct_sum(rows.trivial_fields(1))
    layers = [g_coupling(action, width=1, depth=1), g_residual(action, branch=PooledBranch), GActNorm(action)]
    return EquivariantFlow(InvariantNormal(action, covariance="isotypic"), layers)


def canonical_forms() -> EquivariantFlow:
    action = RowsAction(7, mean_free=True).direct_sum(RowsAction(7))
    return EquivariantFlow(Canonicalized(action, steps=1, width=1), identity_transforms(action))


FLOWS: list[Callable[[], EquivariantFlow]] = [
    couplings_of_angles,
    couplings_under_all_translations,
    gradient_and_residual_of_angles,
    triangular_factors,
    convolutions,
    layers_on_rows,
    canonical_forms,
]


def record(make: Callable[[], EquivariantFlow], folder: Path) -> None:
    """Save the flow, and what it gives."""
    torch.manual_seed(0)
    flow = make().double()
    randomize_(flow, scale=0.2, generator=torch.Generator().manual_seed(1))
    save(flow.eval(), folder)
    structure = folder / "model.json"
    structure.write_text(json.dumps(json.loads(structure.read_text()), separators=(",", ":")) + "\n")
    generator = torch.Generator().manual_seed(2)
    torch.manual_seed(3)
    with torch.no_grad():
        base = flow.base.sample((2,)).double()
        sample = flow.transform(base.clone())
        x = sample + 0.1 * torch.randn(sample.shape, generator=generator, dtype=torch.float64)
        log_prob = flow.dist.log_prob(x.clone())
    recorded = {"x": x, "context": None, "log_prob": log_prob, "base": base, "sample": sample}
    plain = {name: None if value is None else value.tolist() for name, value in recorded.items()}
    (folder / "recorded.json").write_text(json.dumps(plain) + "\n")


if __name__ == "__main__":
    for flow in FLOWS:
        record(flow, Path(sys.argv[1]) / flow.__name__)
