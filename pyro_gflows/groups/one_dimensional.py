"""The isotypic component of a representation on a single coordinate, known without an average over the group."""

from __future__ import annotations

import torch

from pyro_gflows.groups.components import Decomposition
from pyro_gflows.groups.isotypes import Isotype, Summands
from pyro_gflows.groups.representations import Representation
from pyro_gflows.numerics.constants import as_constants

__all__ = ["single_coordinate"]


@as_constants()
def single_coordinate(representation: Representation, *, is_trivial: bool, outer: str | None = None) -> Decomposition:
    """The decomposition of a representation on one coordinate, which is irreducible.

    Args:
        representation: A representation of size 1.
        is_trivial: Whether every element leaves the coordinate as it is.
        outer: A name that tells the irrep from the other ones of its group, where an average over the group cannot.

    Example:
        >>> from pyro_gflows.groups import TrivialRepresentation
        >>> single_coordinate(TrivialRepresentation("S50"), is_trivial=True).sizes
        [1]
    """
    unit = torch.ones(1, 1, dtype=torch.float64)
    summands = Summands(lambda: unit[None], 1, torch.zeros(1, 1, dtype=torch.int64), (0,), (0,))
    shape = torch.Size([1])
    isotype = Isotype((summands,), unit[None], (representation, unit), is_trivial, shape, None, outer)
    return Decomposition([isotype])
