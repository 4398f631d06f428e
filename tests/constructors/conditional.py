"""Rows of the families that take a context, on which the group acts in another way than on the events."""

from __future__ import annotations

from pyro_gflows.actions import CoordinateSplit, ImageAction, VectorAction
from pyro_gflows.transforms import (
    Compose,
    GActNorm,
    GAffine,
    GCoupling,
    GSplit,
    MatrixScale,
    g_autoregressive,
    g_coupling,
    g_radial,
    g_residual,
)
from tests.constructors.row import Row

__all__ = ["ROWS"]


def planes() -> VectorAction:
    return VectorAction.plane("D4", copies=2)


def corners() -> VectorAction:
    return VectorAction.regular("D4")


def picture() -> ImageAction:
    return ImageAction("D4", 2, size=3)


def arrows() -> VectorAction:
    return VectorAction.space("SO(3)", copies=2)


def affine_map() -> GAffine:
    return GAffine(planes(), context_action=corners(), width=2)


def coupling() -> GCoupling:
    return g_coupling(planes(), context_action=corners(), width=2, depth=1)


ROWS = (
    Row("affine", "plane D4", affine_map, takes_context=True),
    Row(
        "affine",
        "matrix exponential, SO(3)",
        lambda: GAffine(arrows(), context_action=arrows(), transformer=MatrixScale, width=2),
        takes_context=True,
    ),
    Row(
        "affine",
        "image D4",
        lambda: GAffine(picture(), context_action=ImageAction("D4", 1, size=3), width=1),
        takes_context=True,
        image=True,
    ),
    Row(
        "coupling",
        "plane D4",
        coupling,
        takes_context=True,
        splits=True,
    ),
    Row(
        "coupling",
        "channels, image D4",
        lambda: g_coupling(picture(), context_action=picture(), width=1, depth=1),
        takes_context=True,
        image=True,
        splits=True,
    ),
    Row(
        "autoregressive",
        "plane D4",
        lambda: g_autoregressive(planes(), context_action=corners(), width=2, depth=1),
        takes_context=True,
        splits=True,
    ),
    Row(
        "inverse autoregressive",
        "rows of S3",
        lambda: g_autoregressive(
            VectorAction.rows("S3", features=2), context_action=VectorAction.rows("S3"), width=2, depth=1, fast="sample"
        ),
        takes_context=True,
        splits=True,
    ),
    Row(
        "inverse autoregressive",
        "two vectors given a third, SO(3)",
        lambda: g_autoregressive(arrows(), context_action=VectorAction.space("SO(3)"), width=2, depth=1, fast="sample"),
        takes_context=True,
        splits=True,
    ),
    Row(
        "radial",
        "plane and scalar of C4",
        lambda: g_radial(
            VectorAction.plane("C4").direct_sum(VectorAction.trivial("C4")),
            bins=6,
            context_action=VectorAction.plane("C4", copies=2),
        ),
        takes_context=True,
    ),
    Row(
        "residual",
        "ridges, plane D4",
        lambda: g_residual(VectorAction.plane("D4"), context_action=corners()),
        takes_context=True,
    ),
    Row(
        "residual",
        "for sampling, SO(3)",
        lambda: g_residual(arrows(), context_action=arrows(), fast="sample", bound=0.8),
        takes_context=True,
    ),
    Row(
        "residual",
        "image D2",
        lambda: g_residual(ImageAction("D2", 1, size=2), context_action=ImageAction("D2", 1, size=2), bound=0.6),
        takes_context=True,
        image=True,
    ),
    Row(
        "split",
        "plane D4",
        lambda: GSplit(
            planes(),
            GAffine(VectorAction.plane("D4"), context_action=corners(), width=2),
            split=CoordinateSplit(planes()),
            width=2,
            depth=1,
            context_action=corners(),
        ),
        takes_context=True,
        splits=True,
    ),
    Row(
        "inverted",
        "plane D4",
        lambda: coupling().inv,
        takes_context=True,
        splits=True,
    ),
    Row(
        "composed",
        "plane D4",
        lambda: Compose(
            [
                GActNorm(planes()),
                affine_map(),
                GCoupling(planes(), width=2, depth=1),
            ]
        ),
        takes_context=True,
        splits=True,
    ),
)
