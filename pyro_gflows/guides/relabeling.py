"""Which group element makes a draw match a mean best: found among all elements, by assignment, or sign by sign."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pyro_gflows.actions import RowsAction, VectorAction
from pyro_gflows.groups.base import EnumerableGroup
from pyro_gflows.groups.sign_representation import SignRepresentation
from pyro_gflows.groups.signs import SignGroup
from pyro_gflows.guides.near_elements import near_elements
from pyro_gflows.numerics.constants import made_once

__all__ = ["Relabeling", "relabeling_for"]

_AT_ONCE = 2**22  # coordinates of images that are computed at a time
_COMPARED = 200  # draws
_DRAWS_AT_ONCE = 1000  # each has a cost for every pair of rows


class Relabeling(ABC):
    """How the best element for a draw is found.

    Args:
        sites: How the group acts on each site.
        joint: How it acts on the vector of all sites side by side.
    """

    def __init__(self, sites: Sequence[VectorAction], joint: VectorAction) -> None:
        self.sites, self.joint = list(sites), joint

    def view(self, x: Tensor) -> Tensor:
        """The coordinates of events in which they are compared with a mean.

        Args:
            x: Events, shape ``(draws, numel)``.
        """
        return x

    @property
    def view_sizes(self) -> list[int]:
        """The number of these coordinates of each site."""
        return [site.numel for site in self.sites]

    @abstractmethod
    def nearest(self, x: Tensor, mean: Tensor, weights: Tensor) -> Tensor:
        """The element for each draw whose image is nearest to the mean.

        Args:
            x: Events, shape ``(draws, numel)``.
            mean: The mean, in the coordinates of :meth:`view`.
            weights: A weight for each of these coordinates.
        """

    @abstractmethod
    def first(self, mean: Tensor) -> Tensor:
        """The element that takes an event to the image that comes first in lexicographic order.

        Args:
            mean: An event, shape ``(numel,)``.
        """

    def most_spread(self, x: Tensor, weights: Tensor) -> int:
        """The draw whose nearest other image is farthest away.

        Args:
            x: Events, shape ``(draws, numel)``.
            weights: A weight for each coordinate of :meth:`view`.
        """
        some = x[torch.linspace(0, len(x) - 1, min(len(x), _COMPARED)).long()]
        elements = near_elements(self.joint.group)
        gaps = []
        root = weights.sqrt()
        for index, event in enumerate(some):
            own = (self.view(event[None]) * root)[0]
            found = [
                (self.view(self.joint.act_each(part, event)) * root - own).norm(dim=-1).min()
                for part in elements.split(max(1, _AT_ONCE // self.joint.numel**2))
            ]
            gaps.append((float(min(found)), index))
        chosen = max(gaps)[1]
        return int(torch.linspace(0, len(x) - 1, min(len(x), _COMPARED)).long()[chosen])


def relabeling_for(sites: Sequence[VectorAction], joint: VectorAction) -> Relabeling:
    """The way that serves a group: all elements of a small one, assignment of rows, or signs one by one.

    Args:
        sites: How the group acts on each site.
        joint: How it acts on the vector of all sites side by side.

    Raises:
        ValueError: The group is too large to try its elements, and it is not known how rows or signs make it up.
    """
    if isinstance(joint.group, EnumerableGroup):
        return _ByElements(sites, joint)
    rows = all(isinstance(site, RowsAction) for site in sites)
    if rows and isinstance(joint, RowsAction) and not joint.structure.has_inner:
        return _ByAssignment(sites, joint)
    if isinstance(joint.group, SignGroup) and any(isinstance(field, SignRepresentation) for field in joint.fields):
        return _BySigns(sites, joint)
    raise ValueError(
        f"expected a group whose elements can be listed, permutations of rows (RowsAction without a feature group) or "
        f"sign flips (VectorAction.signs), got {joint}, whose group has {joint.group.order_in_words} elements; relabel "
        "with the action of a subgroup"
    )


class _ByElements(Relabeling):
    """All elements are tried."""

    def nearest(self, x: Tensor, mean: Tensor, weights: Tensor) -> Tensor:
        # sum w (g x - m)^2, without the term that is the same for all g
        nearness = [images.square() @ weights - 2 * (images @ (weights * mean)) for images in self._images(x)]
        nearest = torch.cat([part.argmin(0) for part in nearness])
        return self.joint.elements().to(nearest.device)[nearest]

    def first(self, mean: Tensor) -> Tensor:
        images = self.joint.act_all(mean)
        return self.joint.elements()[min(range(len(images)), key=lambda index: images[index].tolist())]

    def most_spread(self, x: Tensor, weights: Tensor) -> int:
        gaps = []
        for images in self._images(x * weights.sqrt()):
            gaps.append((images[1:] - images[0]).norm(dim=-1).amin(0) if len(images) > 1 else images[0].norm(dim=-1))
        return int(torch.cat(gaps).argmax())

    def _images(self, x: Tensor) -> Iterator[Tensor]:
        """All images of the draws under the group, for a few draws at a time."""
        chunk = max(1, _AT_ONCE // (len(self.joint.elements()) * x.shape[-1]))
        return (self.joint.act_all(part) for part in x.split(chunk))


class _ByAssignment(Relabeling):
    """Rows are assigned to the rows of the mean at the least cost, each with the better sign; matrices do not count."""

    joint: RowsAction

    def view(self, x: Tensor) -> Tensor:
        return torch.cat([table.flatten(-2) for site in self._tables(x) for table in site], -1)

    @property
    def view_sizes(self) -> list[int]:
        return [sum(rows * count for rows, count in site) for site in self._shapes]

    def _tables(self, x: Tensor) -> list[list[Tensor]]:
        """For each site, the even and the odd features of each block in turn."""
        parts = x.split([site.numel for site in self.sites], -1)
        found = []
        for site, part in zip(self.sites, parts, strict=True):
            assert isinstance(site, RowsAction)
            rows = site.unpack(part)
            found.append([table for pair in zip(rows.even, rows.odd, strict=True) for table in pair])
        return found

    @made_once
    def _shapes(self) -> list[list[tuple[int, int]]]:
        tables = self._tables(torch.zeros(1, self.joint.numel))
        return [[(table.shape[-2], table.shape[-1]) for table in site] for site in tables]

    def _of_view(self, values: Tensor) -> list[list[Tensor]]:
        """The tables of a vector in the coordinates of the view."""
        shapes = [shape for site in self._shapes for shape in site]
        flat = values.split([rows * count for rows, count in shapes])
        tables = iter([part.reshape(shape) for part, shape in zip(flat, shapes, strict=True)])
        return [[next(tables) for _ in site] for site in self._shapes]

    def nearest(self, x: Tensor, mean: Tensor, weights: Tensor) -> Tensor:
        return torch.cat([self._nearest(part, mean, weights) for part in x.split(_DRAWS_AT_ONCE)])

    def _nearest(self, x: Tensor, mean: Tensor, weights: Tensor) -> Tensor:
        tables = zip(self._tables(x), self._of_view(mean), self._of_view(weights), strict=True)
        sites = [list(zip(*site, strict=True)) for site in tables]
        permutations, signs = [], []
        for block in range(len(self.joint.structure.sizes)):
            even = [site[2 * block] for site in sites]
            odd = [site[2 * block + 1] for site in sites]
            # sum w (x - m)^2 for each row of the draw and of the mean, without what is the same for all of its rows
            squares = torch.stack([own.square() @ weight.T for own, _, weight in (*even, *odd)]).sum(0)
            cross, signed = (
                torch.stack([own @ (weight * center).T for own, center, weight in part]).sum(0) for part in (even, odd)
            )
            places = _assigned(squares - 2 * cross - 2 * signed.abs())
            permutations.append(places)
            chosen = signed.gather(-1, places[..., None]).squeeze(-1)
            signs.append(torch.where(chosen < 0, -1, 1))
        return self.joint.structure.elements_of(permutations, signs)

    def first(self, mean: Tensor) -> Tensor:
        tables = self._tables(mean)
        permutations, signs = [], []
        for block in range(len(self.joint.structure.sizes)):
            odd = torch.cat([site[2 * block + 1] for site in tables], -1)
            sign = torch.where(odd[..., 0] > 0, -1, 1) if odd.shape[-1] else torch.ones(len(odd), dtype=torch.int64)
            columns = [
                column
                for site in tables
                for column in torch.cat([site[2 * block], site[2 * block + 1] * sign[:, None]], -1).unbind(-1)
            ]
            order = np.lexsort([column.detach().cpu().numpy() for column in reversed(columns)])
            permutations.append(torch.from_numpy(order).argsort())
            signs.append(sign)
        return self.joint.structure.elements_of(permutations, signs)


class _BySigns(Relabeling):
    """Each sign is the better one by itself."""

    def nearest(self, x: Tensor, mean: Tensor, weights: Tensor) -> Tensor:
        products = x * (weights * mean)
        total = products.new_zeros(*products.shape[:-1], self._group.n)
        for index, part in self._signed(products):
            total[..., index] += part
        return self._group.elements_of(signs=torch.where(total < 0, -1, 1))

    def first(self, mean: Tensor) -> Tensor:
        leading = mean.new_zeros(self._group.n)
        for index, part in reversed(self._signed(mean)):
            leading[index] = part
        return self._group.elements_of(signs=torch.where(leading > 0, -1, 1))

    @property
    def _group(self) -> SignGroup:
        assert isinstance(self.joint.group, SignGroup)
        return self.joint.group

    def _signed(self, x: Tensor) -> list[tuple[int, Tensor]]:
        """The coordinates that a sign changes, each with the index of the sign."""
        pairs = zip(self.joint.fields, x.unbind(-1), strict=True)
        return [(field.index, part) for field, part in pairs if isinstance(field, SignRepresentation)]


def _assigned(costs: Tensor) -> Tensor:
    """For each draw, the row of the mean for each row of the draw, at the least total cost."""
    table = costs.detach().cpu().double().numpy()
    return torch.stack([torch.from_numpy(linear_sum_assignment(cost)[1]) for cost in table]).to(costs.device)
