"""The only module that imports escnn; it reads representations and filters of escnn as plain tensors."""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import threading
import types
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.groups.irreps import evaluate_irrep
from pyro_gflows.groups.wigner import wigner_d_matrix
from pyro_gflows.numerics.blocks import block_diagonal

__all__ = [
    "ESCNN_INSTALL",
    "ContinuousData",
    "FiniteData",
    "escnn_group",
    "evaluate_continuous",
    "representation_data",
    "ring_harmonics",
]

ESCNN_INSTALL = "pip install --no-deps escnn==1.0.11"

_WIGNER_D = "lie_learn.representations.SO3.wigner_d"  # all that escnn imports of lie_learn, in one of its files
_importing = threading.RLock()


@functools.cache
def escnn_group() -> types.ModuleType:
    """The module ``escnn.group``, imported at the first call.

    Representations of escnn can be passed to :class:`~pyro_gflows.actions.VectorAction`. escnn imports one function of
    the package lie_learn, Wigner's D matrix. This package computes that matrix, and provides it under the name of the
    lie_learn module while escnn is imported, so lie_learn need not be installed. A lie_learn that is installed is
    neither imported nor changed. After this call, ``import escnn`` works anywhere in the program. Warnings during the
    import are not shown (py3nj may be missing, which is optional for escnn).

    Raises:
        ImportError: escnn is not installed (the error gives the command that installs it), or its folder is not
            writable at the first use.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> c4 = escnn_group().cyclic_group(4)
        >>> VectorAction(c4.regular_representation)
        VectorAction(C4 on R^4: regular)
    """
    with warnings.catch_warnings(), _stand_in_for_lie_learn():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module("escnn.group")
        except ImportError as error:
            raise ImportError(f"this needs escnn, which could not be imported ({error}): {ESCNN_INSTALL}") from error
        except PermissionError as error:
            # escnn makes a cache folder beside its code when it is first imported
            raise ImportError(f"import escnn once as a user who may write to its folder: {error}") from error


@contextlib.contextmanager
def _stand_in_for_lie_learn() -> Iterator[None]:
    """Let ``from lie_learn.representations.SO3.wigner_d import wigner_D_matrix`` find the function of this package.

    Python searches the imported modules for the full name first, so it does not import the packages above it.
    """
    stand_in = types.ModuleType(_WIGNER_D)
    stand_in.__dict__["wigner_D_matrix"] = wigner_d_matrix
    with _importing:
        absent = object()
        kept: Any = sys.modules.get(_WIGNER_D, absent)
        sys.modules[_WIGNER_D] = stand_in
        try:
            yield
        finally:
            if kept is absent:
                del sys.modules[_WIGNER_D]
            else:
                sys.modules[_WIGNER_D] = kept


@dataclass(frozen=True)
class FiniteData:
    """An escnn representation of a finite group as plain data.

    Attributes:
        group: The name of the group, such as "C4".
        name: The name of the representation.
        table: The multiplication table ``g_i g_j = g_table[i][j]``, shape ``(|G|, |G|)``; element 0 is the identity.
        generators: Indices of elements whose products are all elements.
        matrices: One matrix for each element, shape ``(|G|, d, d)``, float64.
    """

    group: str
    name: str
    table: Tensor
    generators: tuple[int, ...]
    matrices: Tensor


@dataclass(frozen=True)
class ContinuousData:
    """An escnn representation of SO(2), O(2), SO(3) or O(3) as plain data, for ``evaluate_continuous``.

    Attributes:
        group: The name of the group, such as "SO(3)".
        name: The name of the representation.
        irreps: escnn's names of the irreps, in order.
        change_of_basis: An orthogonal matrix, shape ``(d, d)``, float64.
        matrices: None, because a continuous group has no table of matrices.
    """

    group: str
    name: str
    irreps: tuple[tuple[int, ...], ...]
    change_of_basis: Tensor
    matrices: None = None


def representation_data(representation: Any) -> FiniteData | ContinuousData:
    """An escnn representation as plain data, from which it can be evaluated and saved without escnn.

    Args:
        representation: A representation of a finite group, or of SO(2), O(2), SO(3) or O(3).

    Raises:
        TypeError: The argument is not an escnn representation.
        ValueError: The matrices are not orthogonal to 1e-10, or the group is another continuous group.

    Example:
        >>> data = representation_data(escnn_group().cyclic_group(4).regular_representation)
        >>> data.group, data.generators, tuple(data.matrices.shape)
        ('C4', (1,), (4, 4, 4))
    """
    if not isinstance(representation, escnn_group().Representation):
        raise TypeError(f"expected an escnn representation, got {type(representation).__name__}")
    group = representation.group
    if group.continuous:
        return _continuous_data(representation)
    elements = sorted(group.elements, key=lambda element: element != group.identity)  # stable: the identity goes first
    table, generators = _table(group, elements)
    matrices = torch.stack([torch.as_tensor(representation(g), dtype=torch.float64) for g in elements])
    # escnn builds permutations through a Fourier basis, so entries that should be integers are rounded
    matrices = torch.where((matrices - matrices.round()).abs() < 1e-12, matrices.round(), matrices)
    _require_orthogonal(matrices, representation)
    return FiniteData(group.name, representation.name, table, generators, matrices)


def _table(group: Any, elements: list[Any]) -> tuple[Tensor, tuple[int, ...]]:
    """The multiplication table and the indices of the generators.

    Products in escnn are slow, so only products by generators are taken from it.
    """
    index = {element: i for i, element in enumerate(elements)}
    by_generator = {index[g]: torch.tensor([index[g @ h] for h in elements]) for g in group.generators}
    rows = {0: torch.arange(len(elements))}
    frontier = [0]
    while frontier:
        found = {int(row[h]): row[rows[h]] for h in frontier for row in by_generator.values()}  # (g h) k = g (h k)
        frontier = [i for i in found if i not in rows]
        rows |= {i: found[i] for i in frontier}
    return torch.stack([rows[i] for i in range(len(elements))]), tuple(by_generator)


def _continuous_data(representation: Any) -> ContinuousData:
    group = representation.group.name
    if group not in ("SO(2)", "O(2)", "SO(3)", "O(3)"):
        raise ValueError(f"expected a finite group or one of SO(2), O(2), SO(3), O(3), got {group}")
    change_of_basis = torch.tensor(representation.change_of_basis, dtype=torch.float64)
    _require_orthogonal(change_of_basis, representation)
    irreps = tuple(tuple(int(i) for i in irrep) for irrep in representation.irreps)
    return ContinuousData(group, representation.name, irreps, change_of_basis)


def _require_orthogonal(matrices: Tensor, representation: Any) -> None:
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype)
    defect = (matrices @ matrices.mT - identity).abs().max().item()
    if defect > 1e-10:
        raise ValueError(f"expected an orthogonal representation, got {representation} with defect {defect:.1e}")


def evaluate_continuous(
    group: str, irreps: Sequence[Sequence[int]], change_of_basis: Tensor, elements: Tensor
) -> Tensor:
    r"""The matrices :math:`Q \,(\oplus_i \rho_i(g))\, Q^T` of a representation of SO(2), O(2), SO(3) or O(3).

    The matrices are computed without escnn.

    Args:
        group: The name of the group.
        irreps: escnn's names of the irreps :math:`\rho_i`, in order.
        change_of_basis: The orthogonal matrix Q, shape ``(d, d)``.
        elements: Orthogonal matrices g, shape ``(..., 2, 2)`` or ``(..., 3, 3)``.

    Returns:
        Shape ``(..., d, d)``, in the dtype and on the device of the elements.

    Raises:
        ValueError: The sizes of the irreps do not add up to d, or
            ``evaluate_irrep`` raises an error.

    Example:
        >>> evaluate_continuous("SO(2)", [(0,), (1,)], torch.eye(3), torch.eye(2)).shape
        torch.Size([3, 3])
    """
    known = {irrep: evaluate_irrep(group, irrep, elements) for irrep in {tuple(irrep) for irrep in irreps}}
    blocks = [known[tuple(irrep)] for irrep in irreps]
    size = sum(block.shape[-1] for block in blocks)
    if change_of_basis.shape != (size, size):
        raise ValueError(f"expected a change of basis of shape ({size}, {size}), got {tuple(change_of_basis.shape)}")
    basis = change_of_basis.to(elements)
    return basis @ block_diagonal(blocks) @ basis.mT


def ring_harmonics(
    points: Tensor, rings: Sequence[float], widths: Sequence[float], frequencies: Sequence[int]
) -> Tensor:
    r"""Steerable filters of the plane, which are Gaussian rings times circular harmonics, sampled with escnn.

    A filter is :math:`e^{-(r - r_i)^2 / 2 w_i^2}` times the cosine or the sine of :math:`k \theta`, for every frequency
    k up to the highest frequency of ring i. The kernel bases of escnn for any group of the plane are linear
    combinations of these filters.

    Args:
        points: The points at which filters are sampled, shape ``(n, 2)``.
        rings: The radius :math:`r_i` of each ring.
        widths: The standard deviation :math:`w_i` of the Gaussian of each ring.
        frequencies: The highest frequency of each ring.

    Returns:
        Shape ``(filters, n)``, float64.

    Raises:
        ImportError: escnn is not installed.

    Example:
        >>> ring_harmonics(torch.zeros(1, 2), [0.0, 1.0], [0.5, 0.5], [0, 2]).shape
        torch.Size([6, 1])
    """
    escnn_group()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kernels = importlib.import_module("escnn.kernels")
    highest = dict(zip([float(torch.tensor(ring)) for ring in rings], frequencies, strict=True))  # escnn keeps float32
    basis = kernels.CircularShellsBasis(
        max(frequencies),
        kernels.GaussianRadialProfile(list(rings), list(widths)),
        filter=lambda entry: entry["irrep:frequency"] <= highest[entry["radius"]],
    )
    sampled: Tensor = basis.double().sample(points.double())
    return sampled[:, :, 0, 0].T.contiguous()
