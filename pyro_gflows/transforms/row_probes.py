"""Probes of an estimated log-det on rows whose features a group acts on that has no canonical form."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_gflows.actions import RowsAction
from pyro_gflows.actions.row_invariants import InvariantOrder
from pyro_gflows.groups.decomposition import intertwiner
from pyro_gflows.nn.component_tables import ComponentTable
from pyro_gflows.numerics import CarriedProbes, ProbeImages
from pyro_gflows.numerics.constants import as_constants

__all__ = ["CarriedRowProbes", "RowProbes"]

_NOTE = "; probes follow the rows of x, so the estimate may jump where rows cross"


class CarriedRowProbes(CarriedProbes):
    """Probes that follow the rows of an event, :class:`~pyro_gflows.numerics.CarriedProbes` that say so."""

    note = _NOTE


class RowProbes(ProbeImages):
    r"""Images of probes on rows under :math:`S_n \times H`, where no canonical form under H is known.

    The permutation and the signs of the rows follow the event x, as in
    :class:`~pyro_gflows.numerics.CarriedProbes`. For H every probe p is replaced, for each irrep V of H, by the vectors
    :math:`p_V \otimes e_i`, where the :math:`e_i` are an orthonormal basis of V and :math:`p_V` holds one coordinate of
    p for each copy of V. The sum :math:`\sum_i (p_V \otimes e_i)(p_V \otimes e_i)^T = p_V p_V^T \otimes I` commutes
    with H by itself, so that the estimate is invariant under the whole group, and its mean is the trace.

    Args:
        action: How the group acts on rows; without matrices.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> images = RowProbes(RowsAction(5, VectorAction.plane("O(2)")))
        >>> images(torch.randn(4, 10), torch.randn(3, 10), 1).shape  # 2 images of 4 probes for 3 events
        torch.Size([2, 4, 3, 10])
    """

    note = _NOTE

    def __init__(self, action: RowsAction) -> None:
        self.action, self._order = action, InvariantOrder(action)
        self._tables = [ComponentTable.of(isotype) for isotype in action.decomposition]
        with as_constants():
            self._kinds = _kinds_of_irreps(action)
        self._count = sum(self._tables[members[0][0]].inner for members in self._kinds)

    def __call__(self, probes: Tensor, x: Tensor, event_dim: int) -> Tensor:
        with torch.no_grad():
            images = self._spread(probes).to(x)
            shape = (*images.shape[:2], *[1] * (x.ndim - 1), self.action.numel)
            return self._order.undo(x, images.reshape(shape))

    def _spread(self, probes: Tensor) -> Tensor:
        """For each irrep V and each basis vector e_i the probes p_V (x) e_i, shape ``(images, count, numel)``."""
        sizes = self.action.decomposition.sizes
        parts = self.action.decomposition.coordinates(probes.double()).split(sizes, -1)
        images = []
        for members in self._kinds:
            for i in range(self._tables[members[0][0]].inner):
                coordinates = [torch.zeros_like(part) for part in parts]
                for index, change in members:
                    table = self._tables[index]
                    copies = parts[index].unflatten(-1, (table.copies, table.outer, table.inner))[..., :1]
                    coordinates[index] = (copies * change[:, i].to(copies)).flatten(-3)
                images.append(self.action.decomposition.event(torch.cat(coordinates, -1)))
        return math.sqrt(self._count) * torch.stack(images)  # the mean over the images is to be their sum


def _kinds_of_irreps(action: RowsAction) -> list[list[tuple[int, Tensor]]]:
    """The components of each irrep of H, and the change from its basis in the first of them to that in each."""
    found: list[list[tuple[int, Tensor]]] = []
    components = action.decomposition
    for index, component in enumerate(components):
        assert component.inner is not None
        for members in found:
            first = components[members[0][0]].inner
            assert first is not None
            change = intertwiner(first, component.inner)
            if change is not None:
                members.append((index, change))
                break
        else:
            found.append([(index, torch.eye(component.inner.dim, dtype=torch.float64))])
    return found
