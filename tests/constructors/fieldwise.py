"""Rows of layers that act on each field, or on the radii, without a network."""

from __future__ import annotations

from pyro_gflows.actions import ImageAction, VectorAction
from pyro_gflows.nn import FreeKnots
from pyro_gflows.transforms import (
    Compose,
    GActNorm,
    GConvExponential,
    GLinear,
    GLinearPLU,
    GNormalCdf,
    GOrbitNorm,
    GRadial,
    GSigmoid,
    GSpectralConv,
)
from tests.constructors.actions import QUATERNIONS, SIGN_FLIPS, shifts_with_rotations
from tests.constructors.row import Row

__all__ = ["ROWS"]

ROWS = (
    Row("actnorm", "sign flips", lambda: GActNorm(VectorAction.from_generators(SIGN_FLIPS))),
    Row("actnorm", "image D4, regular", lambda: GActNorm(ImageAction("D4", 1, size=2, fields="regular")), image=True),
    Row("linear", "rows of S3", lambda: GLinear(VectorAction.rows("S3", features=2))),
    Row("linear", "two vectors SO(3)", lambda: GLinear(VectorAction.space("SO(3)", copies=2))),
    Row("linear", "image D4, regular", lambda: GLinear(ImageAction("D4", 1, size=2, fields="regular")), image=True),
    Row("linear, triangular", "rows of S3", lambda: GLinearPLU(VectorAction.rows("S3", features=2))),
    Row("linear, triangular", "two vectors C4", lambda: GLinearPLU(VectorAction.plane("C4", copies=2))),
    Row("linear, triangular", "quaternions", lambda: GLinearPLU(VectorAction.from_generators(QUATERNIONS))),
    Row(
        "linear, triangular",
        "image C4, regular",
        lambda: GLinearPLU(ImageAction("C4", 1, size=2, fields="regular")),
        image=True,
    ),
    Row(
        "exponential of a convolution",
        "image C4, regular",
        lambda: GConvExponential(ImageAction("C4", 1, size=2, fields="regular")),
        image=True,
    ),
    Row(
        "exponential of a convolution",
        "shifts and D4",
        lambda: GConvExponential(shifts_with_rotations(2), kernel_size=5),
        image=True,
    ),
    Row(
        "spectral convolution",
        "image C4, regular",
        lambda: GSpectralConv(ImageAction("C4", 1, size=2, fields="regular")),
        image=True,
    ),
    Row("spectral convolution", "shifts and D4", lambda: GSpectralConv(shifts_with_rotations(2)), image=True),
    Row("orbit norm", "image D4", lambda: GOrbitNorm(ImageAction("D4", 2, size=3)), image=True),
    # a layer with weights comes first, since these have none; the intervals hold all events of the tests
    Row(
        "sigmoid",
        "image D4",
        lambda: Compose(
            [GActNorm(ImageAction("D4", 1, size=2)), GSigmoid(ImageAction("D4", 1, size=2), (-20.0, 30.0))]
        ),
        image=True,
        bounded=True,
    ),
    Row(
        "normal cdf",
        "rows of S3",
        lambda: Compose(
            [GActNorm(VectorAction.rows("S3")), GNormalCdf(VectorAction.rows("S3"), (-20.0, 30.0), alpha=0.0)]
        ),
        bounded=True,
    ),
    Row("radial", "O(2)", lambda: GRadial(VectorAction.plane("O(2)"), bins=6)),
    Row("radial", "knots without bounds, O(2)", lambda: GRadial(VectorAction.plane("O(2)"), bins=6, knots=FreeKnots())),
    Row("radial", "trivial and sign of C2", lambda: GRadial(VectorAction.regular("C2"), bins=6)),
)
