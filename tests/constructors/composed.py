"""Rows of layers that contain other layers."""

from __future__ import annotations

from pyro_gflows.actions import CoordinateSplit, ImageAction, IrrepSplit, VectorAction
from pyro_gflows.transforms import (
    Compose,
    GActNorm,
    GCoupling,
    GRadial,
    GSplit,
    GSqueeze,
    Recompute,
    residual_realization,
)
from tests.constructors.own_branch import Minus
from tests.constructors.residual import octagonal, of_regular_fields
from tests.constructors.row import Row

__all__ = ["ROWS"]

ROWS = (
    Row("recomputed", "plane D8", lambda: Recompute(octagonal())),
    Row(
        "squeeze and coupling",
        "image D4",
        lambda: Compose(
            [
                squeeze := GSqueeze(ImageAction("D4", 1, size=4)),
                GCoupling(squeeze.action_out, split=IrrepSplit(squeeze.action_out), width=1, depth=1),
            ]
        ),
        image=True,
        splits=True,
    ),
    Row(
        "split",
        "inner radial, plane D3",
        lambda: GSplit(
            VectorAction.plane("D3", copies=2),
            GRadial(VectorAction.plane("D3"), bins=6),
            split=CoordinateSplit(VectorAction.plane("D3", copies=2)),
            width=2,
            depth=1,
        ),
        splits=True,
    ),
    Row("inverted", "plane D8", lambda: octagonal().inv),
    # a layer with weights comes first, since a realization has none of its own
    Row(
        "realization",
        "x to -x, plane D4",
        lambda: Compose(
            [
                GActNorm(VectorAction.plane("D4", copies=2)),
                residual_realization(Minus(), Minus(), action=VectorAction.plane("D4"), lipschitz=(1.0, 1.0)),
            ]
        ),
    ),
    Row(
        "composed",
        "regular C4",
        lambda: Compose(
            [
                GActNorm(VectorAction.regular("C4")),
                of_regular_fields().inv,
                Compose([of_regular_fields(), GActNorm(VectorAction.regular("C4"))]),
            ]
        ),
    ),
)
