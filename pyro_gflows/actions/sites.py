"""SitesAction: one group that acts on several sites of a model at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from pyro_gflows.actions.base import Action
from pyro_gflows.actions.canonical_form import reference_event
from pyro_gflows.actions.rows import RowsAction
from pyro_gflows.actions.vector import VectorAction
from pyro_gflows.deprecation import renamed_attributes
from pyro_gflows.groups.closure import as_matrix, generate_group
from pyro_gflows.groups.elements import as_element
from pyro_gflows.groups.finite import Group
from pyro_gflows.groups.names import parse_group
from pyro_gflows.groups.representations import MatrixRepresentation, Representation, TrivialRepresentation
from pyro_gflows.numerics.constants import made_once
from pyro_gflows.serialization.registry import registered

__all__ = ["SitesAction"]


@renamed_attributes(move="act_on_site", moves="acts_on")
@registered
class SitesAction(Action):
    r"""How one group acts on several latent sites of a model jointly, :math:`(z_s)_s \mapsto (\rho_s(g)\,z_s)_s`.

    This is the action for guides. Relabeling the components of a mixture, for example, permutes the weights and the
    means together, and leaves the noise scale as it is.

    The values of a model are a mapping from site names to tensors, and :meth:`act` takes and gives such a mapping. The
    value of a site counts as a vector of its coordinates in order (row by row), whatever its shape, and a site that is
    not named stays as it is. The action also acts on tensors: then an event is the vector that holds the named sites
    side by side, as for :attr:`vector_action`.

    Args:
        group: The group, or its name.
        sites: For each site on which the group acts, its name and the action on its value.

    Raises:
        TypeError: ``sites`` is not a mapping, or the action of a site is not a VectorAction.
        ValueError: There is no site, or an action of another group.

    Example:
        >>> rows = VectorAction.rows("S3")
        >>> action = SitesAction("S3", {"weights": rows, "means": VectorAction.rows("S3", features=2)})
        >>> action
        SitesAction(S3 on weights: rows, means: rows of 2)
        >>> image = action.act(torch.tensor(3), {"weights": torch.tensor([0.25, 0.25, 0.5]), "noise": torch.ones(2)})
        >>> image["weights"].tolist(), image["noise"].tolist()
        ([0.5, 0.25, 0.25], [1.0, 1.0])
    """

    def __init__(self, group: Group | str, sites: Mapping[str, VectorAction]) -> None:
        self.group = parse_group(group)
        if not isinstance(sites, Mapping):
            raise TypeError(
                "expected a mapping from site names to actions, such as {'means': VectorAction.rows('S3')}, got "
                f"{type(sites).__name__}"
            )
        self.sites = dict(sites)
        if not self.sites:
            raise ValueError("expected at least one site on which the group acts, got none")
        for name, action in self.sites.items():
            if not isinstance(action, VectorAction):
                raise TypeError(
                    f"site {name!r}: expected a VectorAction such as VectorAction.rows('S3'), "
                    f"got {type(action).__name__}"
                )
            if action.group != self.group:
                raise ValueError(f"site {name!r}: expected an action of {self.group}, got {action}")
        self.event_shape = torch.Size([sum(action.numel for action in self.sites.values())])

    @classmethod
    def from_generators(
        cls, generators: Sequence[Mapping[str, Any]], *, max_order: int = 1024, name: str | None = None
    ) -> SitesAction:
        """The group whose elements are all products of joint generators, and its action on the sites.

        This makes groups that are not a direct product, such as the permutations of several factors together with a
        sign flip of each factor.

        Args:
            generators: Each generator is a mapping from site names to an orthogonal matrix or a permutation (a list of
                indices). A site that a generator does not name stays as it is under that generator.
            max_order: The largest number of elements that is accepted.
            name: The name of the group, by default made from its order.

        Raises:
            ValueError: There is no generator, a matrix is not orthogonal (to 1e-12), or there are more than
                ``max_order`` elements.

        Example:
            >>> swap, flip = {"a": [1, 0], "b": [1, 0]}, {"a": [[-1, 0], [0, 1]]}
            >>> SitesAction.from_generators([swap, flip], name="signed S2").group.order
            8
        """
        by_site = [
            {site: as_matrix(each, f"generator {index}, site {site!r}") for site, each in generator.items()}
            for index, generator in enumerate(generators)
        ]
        sizes = {site: len(matrix) for generator in by_site for site, matrix in generator.items()}
        for generator in by_site:
            for site, matrix in generator.items():
                if len(matrix) != sizes[site]:
                    raise ValueError(
                        f"site {site!r}: expected generators of one size, got {len(matrix)}, {sizes[site]}"
                    )
        joint = [
            torch.block_diag(
                *[generator.get(site, torch.eye(size, dtype=torch.float64)) for site, size in sizes.items()]
            )
            for generator in by_site
        ]
        group, matrices = generate_group(joint, max_order, name)
        sites, start = {}, 0
        for site, size in sizes.items():
            block = matrices[:, start : start + size, start : start + size]
            sites[site] = VectorAction(MatrixRepresentation(group, block, name=f"{size}x{size} matrices"))
            start += size
        return cls(group, sites)

    # -- one vector that holds the sites side by side ------------------------------------------------------------------
    @made_once
    def vector_action(self) -> VectorAction:
        """The linear action on the vector of all named sites side by side, in the order in which they are named."""
        return self.packed({name: action.numel for name, action in self.sites.items()})

    @property
    def field_sizes(self) -> list[int]:
        return self.vector_action.field_sizes

    def canonical(self, x: Tensor) -> Tensor | None:
        return self.vector_action.canonical(x)

    def without_symmetry(self) -> SitesAction:
        return SitesAction("C1", {name: action.without_symmetry() for name, action in self.sites.items()})

    # -- acting on vectors, and on the values of a model ---------------------------------------------------------------
    @overload
    def act(self, element: Tensor | int, x: Tensor) -> Tensor: ...

    @overload
    def act(self, element: Tensor | int, x: Mapping[str, Tensor]) -> dict[str, Tensor]: ...

    def act(self, element: Tensor | int, x: Tensor | Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
        """The image of vectors, or of the values of all sites of a model, under one element.

        Args:
            element: One group element g; of a finite group also its index as an int.
            x: Vectors, shape ``batch_shape + (numel,)``, or a mapping from site names to values, whose batch dimensions
                come first.
        """
        return self.act_each(as_element(self.group, element), x)

    @overload
    def act_each(self, elements: Tensor, x: Tensor) -> Tensor: ...

    @overload
    def act_each(self, elements: Tensor, x: Mapping[str, Tensor]) -> dict[str, Tensor]: ...

    def act_each(self, elements: Tensor, x: Tensor | Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
        """The images of vectors, or of the values of all sites of a model, with an element of its own for each.

        Args:
            elements: Group elements, whose batch shape broadcasts with that of the vectors, or of every value.
            x: Vectors, shape ``batch_shape + (numel,)``, or a mapping from site names to values.
        """
        if isinstance(x, Tensor):
            return self.vector_action.act_each(elements, x)
        return {
            name: self.act_on_site(name, elements, value) if name in self.sites else value for name, value in x.items()
        }

    def act_on_site(self, site: str, elements: Tensor, value: Tensor) -> Tensor:
        """The image of the value of one site under group elements.

        The event of a site with a single coordinate may have shape () or any number of dimensions of size 1, so its
        batch shape can be read in several ways. Then the elements decide: the batch shape is that of the elements where
        this is possible, else one that broadcasts with it.

        Args:
            site: The name of a site on which the group acts.
            elements: Group elements, whose batch shape broadcasts with that of the value.
            value: The value of the site; its last dimensions hold the coordinates of one event.

        Raises:
            ValueError: The last dimensions of the value do not hold as many coordinates as the action of the site.

        Example:
            >>> action = SitesAction("S3", {"weights": VectorAction.rows("S3")})
            >>> action.act_on_site("weights", torch.tensor(3), torch.tensor([0.25, 0.25, 0.5])).tolist()
            [0.5, 0.25, 0.25]
        """
        wanted = self.group.batch_shape(elements)
        batches = [value.shape[: value.ndim - rank] for rank in self._event_ranks(site, value)]
        same = [batch for batch in batches if batch == wanted]
        fitting = [batch for batch in batches if _broadcast(wanted, batch)]
        batch = [*same, *fitting, *batches][0]
        image = self.sites[site].act_each(elements, value.reshape(*batch, self.sites[site].numel))
        return image.reshape(image.shape[:-1] + value.shape[len(batch) :])

    def flatten(self, site: str, value: Tensor) -> Tensor:
        """The value of one site as vectors, shape ``batch_shape + (numel,)``.

        Args:
            site: The name of a site on which the group acts.
            value: The value of the site; its last dimensions hold the coordinates of one event.

        Raises:
            ValueError: The last dimensions of the value do not hold as many coordinates as the action of the site.

        Example:
            >>> action = SitesAction("S3", {"means": VectorAction.rows("S3", features=2)})
            >>> action.flatten("means", torch.zeros(5, 3, 2)).shape
            torch.Size([5, 6])
        """
        rank = self._event_ranks(site, value)[0]
        return value.reshape(*value.shape[: value.ndim - rank], self.sites[site].numel)

    def _event_ranks(self, site: str, value: Tensor) -> list[int]:
        """The possible counts of last dimensions that hold one event of the site, the fewest first."""
        numel = self.sites[site].numel
        sizes = [math.prod(value.shape[value.ndim - rank :]) for rank in range(value.ndim + 1)]
        if numel not in sizes:
            raise ValueError(
                f"site {site!r}: expected {numel} coordinates in the last dimensions, for {self.sites[site]}, "
                f"got shape {tuple(value.shape)}"
            )
        return [rank for rank, size in enumerate(sizes) if size == numel]

    def acts_on(self, site: str) -> bool:
        """Whether any group element changes the values of a site.

        Args:
            site: The name of any site; one that is not named stays as it is.

        Example:
            >>> SitesAction("C1", {"x": VectorAction.trivial("C1", copies=2)}).acts_on("x")
            False
        """
        if site not in self.sites:
            return False
        action, x = self.sites[site], reference_event(self.sites[site].event_shape)
        return bool(((action.act_each(self.generators(), x) - x).abs() > 1e-9).any())

    def packed(self, sizes: Mapping[str, int]) -> VectorAction:
        """The action on the vector that holds all latent sites of a model side by side.

        Args:
            sizes: For each site, its name and its number of coordinates, in the order in which the vector holds them.
                The group leaves a site as it is that this action does not name.

        Raises:
            ValueError: A site has another size than its action, or a named site is missing.

        Example:
            >>> action = SitesAction("S3", {"weights": VectorAction.rows("S3")})
            >>> action.packed({"noise": 1, "weights": 3})
            VectorAction(S3 on R^4: trivial + rows)
        """
        missing = [name for name in self.sites if name not in sizes]
        if missing:
            raise ValueError(f"expected the sites {list(sizes)}, got an action on {missing}; check the names")
        fields: list[Representation] = []
        for name, size in sizes.items():
            if name not in self.sites:
                fields += [TrivialRepresentation(self.group)] * size
                continue
            if self.sites[name].numel != size:
                raise ValueError(f"site {name!r} has {size} coordinates, but its action is {self.sites[name]}")
            fields += self.sites[name].fields
        # an action on rows makes another one, where it can
        rows = next((action for action in self.sites.values() if isinstance(action, RowsAction)), None)
        return VectorAction(fields) if rows is None else rows.with_fields(fields)

    # -- values -------------------------------------------------------------------------------------------------------
    def _key(self) -> Any:
        return (self.group, tuple(self.sites.items()))

    @staticmethod
    def _derived() -> tuple[str, ...]:
        return ("vector_action",)

    def __repr__(self) -> str:
        parts = [f"{name}: {str(action).split(': ', 1)[1][:-1]}" for name, action in self.sites.items()]
        return f"SitesAction({self.group} on {', '.join(parts)})"


def _broadcast(first: Sequence[int], second: Sequence[int]) -> bool:
    """Whether the two shapes broadcast with each other."""
    return all(a == b or 1 in (a, b) for a, b in zip(reversed(first), reversed(second), strict=False))
