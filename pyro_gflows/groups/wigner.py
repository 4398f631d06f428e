"""Wigner's D matrices by three angles, the one function that escnn asks of the package lie_learn."""

from __future__ import annotations

import math
from typing import Any

import torch

from pyro_gflows.groups.irreps import evaluate_irrep

__all__ = ["wigner_d_matrix"]


def wigner_d_matrix(degree: int, alpha: float, beta: float, gamma: float, *, field: str = "real") -> Any:
    r"""The matrix of one irrep of SO(3) at the rotation that three Euler angles name.

    Stands in for ``lie_learn.representations.SO3.wigner_d.wigner_D_matrix``, so that escnn works on every Python and
    beside every numpy, which the compiled parts of lie_learn do not. The map is
    :math:`D^l(R_z(\alpha) R_y(\beta) R_z(\gamma))` on the real spherical harmonics in the order m = -l, ..., l.

    Args:
        degree: l, at least 0.
        alpha: angle of the last rotation about z, in radians.
        beta: angle of the rotation about y, in radians.
        gamma: angle of the first rotation about z, in radians.
        field: "real", as escnn asks for no other.

    Returns:
        A numpy array of shape ``(2 l + 1, 2 l + 1)``, float64, orthogonal.

    Raises:
        ValueError: another field, or a negative degree.

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
