"""Rows of couplings and autoregressive layers."""

from __future__ import annotations

import functools

from pyro_gflows.actions import (
    CoordinateSplit,
    ImageAction,
    IrrepSplit,
    VectorAction,
    checkerboard_split,
    isotypic_split,
)
from pyro_gflows.nn import HiddenFields, SoftNetwork, conditioner
from pyro_gflows.transforms import (
    ElementwiseSpline,
    GCoupling,
    GInverseAutoregressive,
    MatrixScale,
    g_autoregressive,
    g_coupling,
)
from tests.constructors.actions import SIGN_FLIPS, frequencies, rows_and_signs, shifts_with_rotations
from tests.constructors.row import Row

__all__ = ["ROWS"]


def by_irreps(action: VectorAction) -> GCoupling:
    return GCoupling(action, split=IrrepSplit(action), transformed=0, width=2, depth=1)


ROWS = (
    Row(
        "coupling",
        "regular C4",
        lambda: GCoupling(VectorAction.regular("C4", copies=2), width=2, depth=1),
        splits=True,
    ),
    Row(
        "coupling",
        "sign flips",
        lambda: g_coupling(VectorAction.from_generators(SIGN_FLIPS), width=2, depth=1),
        splits=True,
    ),
    Row(
        "coupling",
        "rows of S3",
        lambda: g_coupling(VectorAction.rows("S3", features=2), width=2, depth=1),
        splits=True,
    ),
    Row(
        "coupling",
        "rows and signs",
        lambda: g_coupling(rows_and_signs(), width=2, depth=1),
        splits=True,
    ),
    Row(
        "coupling",
        "irrep scales, SO(3)",
        lambda: GCoupling(VectorAction.space("SO(3)", copies=2), width=2, depth=1),
        splits=True,
    ),
    Row(
        "coupling",
        "frequencies 1 and 2 of SO(2)",
        lambda: g_coupling(frequencies(), width=2, depth=1),
        splits=True,
    ),
    Row(
        "coupling",
        "irreps, O(3)",
        lambda: by_irreps(VectorAction.space("O(3)", copies=2)),
        splits=True,
    ),
    Row(
        "coupling",
        "irrep scales, plane D5",
        lambda: by_irreps(VectorAction.plane("D5", copies=2)),
        splits=True,
    ),
    Row(
        "coupling",
        "matrix exponential, O(2)",
        lambda: g_coupling(VectorAction.plane("O(2)", copies=2), transformer=MatrixScale, width=2, depth=1),
        splits=True,
    ),
    Row(
        "coupling",
        "hidden fields, O(2)",
        lambda: g_coupling(
            VectorAction.plane("O(2)", copies=2),
            network=functools.partial(conditioner, hidden_fields=HiddenFields(3, 2), width=2, depth=1),
        ),
        splits=True,
    ),
    Row(
        "coupling",
        "splines, sign flips",
        lambda: g_coupling(
            VectorAction.from_generators(SIGN_FLIPS),
            transformer=lambda part: ElementwiseSpline(part, bins=4),
            width=2,
            depth=1,
        ),
        splits=True,
    ),
    Row(
        "coupling",
        "checkerboard, image D4",
        lambda: g_coupling(
            ImageAction("D4", 1, size=4), split=checkerboard_split(ImageAction("D4", 1, size=4)), width=1, depth=1
        ),
        image=True,
        splits=True,
    ),
    Row(
        "coupling",
        "soft network of D4, image C4",
        lambda: GCoupling(
            ImageAction("C4", 1, size=4),
            split=checkerboard_split(ImageAction("C4", 1, size=4)),
            network=functools.partial(SoftNetwork, group="D4", width=1, depth=1),
        ),
        image=True,
        splits=True,
    ),
    Row(
        "coupling",
        "isotypes, image C4, placed",
        lambda: g_coupling(
            ImageAction("C4", size=2, fields="regular"),
            split=isotypic_split(ImageAction("C4", size=2, fields="regular")),
            network=functools.partial(conditioner, bias="pixels", width=1, depth=1),
        ),
        image=True,
        splits=True,
    ),
    Row(
        "coupling",
        "channels, image C4",
        lambda: g_coupling(ImageAction("C4", 2, size=3), width=1, depth=1),
        image=True,
        splits=True,
    ),
    Row(
        "coupling",
        "channels, shifts with D4",
        lambda: g_coupling(shifts_with_rotations(2), width=1, depth=0),
        image=True,
        splits=True,
    ),
    Row(
        "autoregressive",
        "regular C3",
        lambda: g_autoregressive(VectorAction.regular("C3", copies=3), width=2, depth=1),
        splits=True,
    ),
    Row(
        "autoregressive",
        "plane C5",
        lambda: g_autoregressive(VectorAction.plane("C5", copies=3), width=2, depth=1),
        splits=True,
    ),
    Row(
        "inverse autoregressive",
        "sign flips",
        lambda: GInverseAutoregressive(
            VectorAction.from_generators(SIGN_FLIPS),
            split=CoordinateSplit(VectorAction.from_generators(SIGN_FLIPS), [[0], [1], [2]]),
            width=2,
            depth=1,
        ),
        splits=True,
    ),
    Row(
        "inverse autoregressive",
        "SO(3)",
        lambda: g_autoregressive(VectorAction.space("SO(3)", copies=2), width=2, depth=1, fast="sample"),
        splits=True,
    ),
)
