"""Wigner's D matrices from three angles, the one function of the package lie_learn that escnn needs."""

from __future__ import annotations

import math
from typing import Any

import torch

from pyro_gflows.groups.irreps import evaluate_irrep

__all__ = ["wigner_d_matrix"]


def wigner_d_matrix(degree: int, alpha: float, beta: float, gamma: float, *, field: str = "real") -> Any:
    r"""The matrix of one irreducible representation of SO(3) at a rotation with three Euler angles.

    This function replaces ``lie_learn.representations.SO3.wigner_d.wigner_D_matrix``, so that escnn works on every
    version of Python and numpy; the compiled parts of lie_learn do not. The matrix is
    :math:`D^l(R_z(\alpha) R_y(\beta) R_z(\gamma))` on the real spherical harmonics in the order m = -l, ..., l.

    Args:
        degree: The degree l, at least 0.
        alpha: The angle of the last rotation about the z axis, in radians.
        beta: The angle of the rotation about the y axis, in radians.
        gamma: The angle of the first rotation about the z axis, in radians.
        field: "real", the only field for which escnn asks.

    Returns:
        An orthogonal numpy array of shape ``(2 l + 1, 2 l + 1)``, float64.

    Raises:
        ValueError: The field is not "real", or the degree is negative.

    Example:
        >>> wigner_d_matrix(1, 0.0, 0.0, 0.0).tolist()  # the identity
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    if field != "real":
        raise ValueError(f"expected field='real', the basis of real spherical harmonics, got {field!r}")
    rotation = _about_z(alpha) @ _about_y(beta) @ _about_z(gamma)
    return evaluate_irrep("SO(3)", (int(degree),), rotation).numpy()


def _about_z(angle: float) -> torch.Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def _about_y(angle: float) -> torch.Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]], dtype=torch.float64)
