"""Rows of layers with a contraction: residual and monotone layers."""

from __future__ import annotations

from pyro_gflows.actions import ImageAction, VectorAction
from pyro_gflows.nn import CustomContraction, LipschitzDenseNetwork, LipschitzNetwork, LipschitzSum, RadialTerm
from pyro_gflows.numerics import (
    AndersonSolver,
    BanachSolver,
    ConstantMemory,
    ExactLogDet,
    KrylovLogDet,
    RouletteLogDet,
    SeriesLogDet,
)
from pyro_gflows.transforms import GMonotone, GResidual
from tests.constructors.actions import QUATERNIONS, interleaved, network, ridges, shifts_with_rotations
from tests.constructors.own_branch import OwnBranch
from tests.constructors.row import Row

__all__ = ["ROWS"]


def estimated(action: VectorAction | ImageAction) -> GResidual:
    return GResidual(action, network(action), log_det=RouletteLogDet(evaluation=SeriesLogDet(8, probes=1)))


def by_krylov(action: VectorAction | ImageAction) -> GResidual:
    return GResidual(action, network(action), log_det=KrylovLogDet(probes=1, unbiased=True))


def followed() -> GResidual:
    action = VectorAction.plane("D40")  # 80 elements are too many to average over
    return GResidual(action, ridges(action), log_det=RouletteLogDet(evaluation=SeriesLogDet(8, probes=1)))


def octagonal() -> GResidual:
    return GResidual(VectorAction.plane("D8"), ridges(VectorAction.plane("D8")))


def of_regular_fields() -> GResidual:
    return GResidual(VectorAction.regular("C4"), network(VectorAction.regular("C4")))


ROWS = (
    Row("residual", "ridges, plane D8", octagonal),
    Row(
        "residual",
        "for sampling, plane C3",
        lambda: GResidual(VectorAction.plane("C3"), ridges(VectorAction.plane("C3")), fast="sample"),
    ),
    Row(
        "residual",
        "radial, O(2)",
        lambda: GResidual(VectorAction.plane("O(2)"), LipschitzSum([RadialTerm(VectorAction.plane("O(2)"), knots=8)])),
    ),
    Row(
        "residual",
        "network, regular C4",
        of_regular_fields,
    ),
    Row(
        "residual",
        "network, two vectors SO(3)",
        lambda: GResidual(VectorAction.space("SO(3)", copies=2), network(VectorAction.space("SO(3)", copies=2))),
    ),
    Row(
        "residual",
        "network, quaternions",
        lambda: GResidual(
            VectorAction.from_generators(QUATERNIONS), network(VectorAction.from_generators(QUATERNIONS))
        ),
    ),
    Row("residual", "network, interleaved fields", lambda: GResidual(interleaved(), network(interleaved()))),
    Row(
        "residual",
        "network, no symmetry",
        lambda: GResidual(VectorAction.trivial("C1", copies=3), network(VectorAction.trivial("C1", copies=3))),
    ),
    Row(
        "residual",
        "network, image C4",
        lambda: GResidual(ImageAction("C4", 1, size=4), network(ImageAction("C4", 1, size=4))),
        image=True,
    ),
    Row(
        "residual",
        "network, shifts",
        lambda: GResidual(ImageAction.translations(1, size=3), network(ImageAction.translations(1, size=3))),
        image=True,
    ),
    Row(
        "residual",
        "network, shifts with D4",
        lambda: GResidual(shifts_with_rotations(1), network(shifts_with_rotations(1))),
        image=True,
    ),
    Row(
        "residual",
        "sorted pairs, regular C4",
        lambda: GResidual(
            VectorAction.regular("C4"),
            LipschitzNetwork(VectorAction.regular("C4"), width=2, depth=1, bound=0.6, activation="sorted_pairs"),
        ),
        piecewise_linear=True,
    ),
    Row(
        "residual",
        "concatenated swishes, nearly orthogonal layers, image C4",
        lambda: GResidual(
            ImageAction("C4", 1, size=3),
            LipschitzNetwork(
                ImageAction("C4", 1, size=3),
                width=1,
                bound=0.6,
                activation="clipswish",
                layer="almost_orthogonal",
                units="field",
            ),
        ),
        image=True,
    ),
    Row(
        "residual",
        "curves, polar layers, image C4",
        lambda: GResidual(
            ImageAction("C4", 1, size=3),
            LipschitzNetwork(ImageAction("C4", 1, size=3), width=1, bound=0.6, activation="curves", layer="polar"),
        ),
        image=True,
    ),
    Row(
        "residual",
        "dense network, image C4",
        lambda: GResidual(
            ImageAction("C4", 1, size=3), LipschitzDenseNetwork(ImageAction("C4", 1, size=3), width=1, bound=0.6)
        ),
        image=True,
    ),
    Row(
        "monotone",
        "network, image C4",
        lambda: GMonotone(ImageAction("C4", 1, size=3), network(ImageAction("C4", 1, size=3))),
        image=True,
    ),
    Row("residual", "estimated, regular C4", lambda: estimated(VectorAction.regular("C4")), estimated=True),
    Row(
        "residual",
        "CNN of places, image D4",
        lambda: GResidual(
            ImageAction("D4", 1, size=3),
            LipschitzNetwork(ImageAction("D4", 1, size=3), width=1, bound=0.6, bias="pixels"),
        ),
        image=True,
    ),
    Row("residual", "probes that follow x, plane D40", followed, estimated=True),
    Row("residual", "Krylov spaces, regular C4", lambda: by_krylov(VectorAction.regular("C4")), estimated=True),
    Row(
        "residual",
        "Krylov spaces, image D2",
        lambda: by_krylov(ImageAction("D2", 1, size=3)),
        image=True,
        estimated=True,
    ),
    Row("residual", "a module of the user's own, O(3)", lambda: GResidual(VectorAction.space("O(3)"), OwnBranch())),
    Row(
        "residual",
        "a module of the user's own with a promised bound, plane D3",
        lambda: GResidual(
            VectorAction.plane("D3"), CustomContraction(OwnBranch(), VectorAction.plane("D3"), bound=0.9)
        ),
    ),
    Row("residual", "estimated, image D2", lambda: estimated(ImageAction("D2", 1, size=3)), image=True, estimated=True),
    Row(
        "residual",
        "by the Banach iteration, regular C4",
        lambda: GResidual(
            VectorAction.regular("C4"), network(VectorAction.regular("C4")), solver=BanachSolver(max_iterations=5000)
        ),
    ),
    Row(
        "residual",
        "by Anderson acceleration, regular C4",
        lambda: GResidual(
            VectorAction.regular("C4"), network(VectorAction.regular("C4")), solver=AndersonSolver(max_iterations=500)
        ),
    ),
    Row(
        "residual",
        "in constant memory, regular C4",
        lambda: GResidual(
            VectorAction.regular("C4"), network(VectorAction.regular("C4")), log_det=ConstantMemory(ExactLogDet())
        ),
    ),
)
