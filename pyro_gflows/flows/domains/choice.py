"""Which fundamental domain serves an action: the domain of the group that acts, without its kernel."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_gflows.actions import VectorAction
from pyro_gflows.flows.domains.base import FundamentalDomain, Represent
from pyro_gflows.flows.domains.permutations import SignedRows, SortedRows
from pyro_gflows.flows.domains.plane import Sector, Wedge
from pyro_gflows.flows.domains.product import ProductDomain
from pyro_gflows.flows.domains.signs import PositiveKeys
from pyro_gflows.groups.base import EnumerableGroup, Group
from pyro_gflows.groups.finite import CyclicGroup, DihedralGroup
from pyro_gflows.groups.products import ProductGroup
from pyro_gflows.groups.signed_permutations import SignedPermutationGroup
from pyro_gflows.groups.signs import SignGroup
from pyro_gflows.groups.symmetric import SymmetricGroup
from pyro_gflows.numerics.constants import as_constants

__all__ = ["Canonical", "domain_for"]

_AVERAGED_UP_TO = 64  # elements, each of which costs an evaluation of the density
_TRIED = 64
_SAME = 1e-8


@dataclass(frozen=True)
class Canonical:
    """How events of an action get a canonical form.

    Attributes:
        domain: The domain into which an element takes the keys of an event.
        spaces: For each part of the keys, a basis of the possible maps from events to these keys.
        averaged: Further elements, over which a density is averaged; the identity alone where the domain is one of all
            of the group.
    """

    domain: FundamentalDomain
    spaces: list[Tensor]
    averaged: Tensor

    def keys_of(self, weights: Sequence[Tensor]) -> Tensor:
        """The map from events to keys that some combinations of the bases give, shape ``(size, N)``.

        Args:
            weights: For each part, weights of its basis, of any length; shape ``(count,)``.
        """
        pairs = zip(self.spaces, weights, strict=True)
        return torch.cat([torch.einsum("c,cki->ki", weight / weight.norm(), space) for space, weight in pairs])


@as_constants()
def domain_for(action: VectorAction) -> Canonical:
    """The domain of the finite group that acts, and the possible keys.

    Elements that leave every event as it is (the kernel) do not count, so that the order of the domain is the number of
    different transformations. If the domain of a whole product is not known, then the factors without one are averaged
    over if they have at most 64 elements together.

    Args:
        action: How the group acts on events.

    Raises:
        ValueError: The group is continuous, or no domain of it is known on these events.

    Example:
        >>> domain_for(VectorAction.rows("S3", features=2)).domain.order
        6
        >>> domain_for(VectorAction.plane("D4")).spaces[0].shape
        torch.Size([1, 2, 2])
    """
    group = action.group
    if not group.is_finite:
        raise ValueError(
            f"a canonical form by a fundamental domain needs a finite group, got {group}, which has infinitely many "
            "elements; use an equivariant flow on InvariantNormal, or the action of a finite subgroup"
        )
    candidates = sorted(_domains(group, action.matrix), key=lambda domain: -domain.order)[:_TRIED]
    found: list[tuple[FundamentalDomain, list[Tensor]]] = []
    for domain in candidates:
        spaces = domain.key_spaces(action.matrix, [])
        if not all(len(space) for space in spaces):
            continue
        canonical = Canonical(domain, spaces, group.identity()[None])
        if _covers(canonical, action):
            return canonical
        found.append((domain, spaces))
    for domain, spaces in found:
        canonical = Canonical(domain, spaces, _others(domain))
        if len(canonical.averaged) > 1 and _covers(canonical, action):
            return canonical
    raise ValueError(
        f"no fundamental domain is known for {action}: it takes permutations of rows, sign flips, signed permutations, "
        "rotations and reflections of the plane, or a product of these, and keys (a feature of the rows, a vector of "
        "the plane) on which the other factors do not act; use OrbitFlow for a small group, or equivariant layers"
    )


def _domains(group: Group, represent: Represent) -> list[FundamentalDomain]:
    """The known domains of a group and of its subgroups of the same kind."""
    if isinstance(group, ProductGroup):
        return _of_product(group, represent)
    if isinstance(group, SymmetricGroup):
        return [SortedRows(group)] if group.n > 1 else []
    if isinstance(group, SignedPermutationGroup):
        flips = PositiveKeys(group, group.elements_of(signs=1 - 2 * torch.eye(group.n, dtype=torch.int64)))
        return [flips] if group.n == 1 else [SignedRows(group), SortedRows(group)]
    if isinstance(group, SignGroup):
        return [_signs(group, group.generators(), represent)]
    if isinstance(group, DihedralGroup) and group.n == 2:
        return [PositiveKeys(group, torch.tensor([3, 2]))]  # x -> -x and y -> -y
    if isinstance(group, EnumerableGroup) and group.order == 2:
        return [PositiveKeys(group, torch.tensor([1]))]
    if isinstance(group, DihedralGroup) and group.n > 2:
        return [Wedge(group)]
    if isinstance(group, CyclicGroup) and group.n > 2:
        return [Sector(group)]
    return []


def _of_product(group: ProductGroup, represent: Represent) -> list[FundamentalDomain]:
    if all(factor.order == 2 for factor in group.factors):
        return [_signs(group, group.generators(), represent)]
    whole = ProductDomain(group, {})
    choices: list[list[FundamentalDomain | None]] = [
        [*_domains(factor, whole.within(represent, index)), None] for index, factor in enumerate(group.factors)
    ]
    found: list[FundamentalDomain] = []
    for chosen in itertools.islice(itertools.product(*choices), 4 * _TRIED):
        parts = {index: part for index, part in enumerate(chosen) if part is not None}
        if parts:
            found.append(ProductDomain(group, parts))
    return found


def _signs(group: Group, flips: Tensor, represent: Represent) -> PositiveKeys:
    """The domain of all flips, or of those that are left when flips are dropped that have no key beside the others."""
    domain = PositiveKeys(group, flips)
    if all(len(space) for space in domain.key_spaces(represent, [])):
        return domain
    kept: list[int] = []
    for index in range(len(flips)):
        trial = PositiveKeys(group, flips[[*kept, index]])
        if all(len(space) for space in trial.key_spaces(represent, [])):
            kept.append(index)
    return PositiveKeys(group, flips[kept])


def _others(domain: FundamentalDomain) -> Tensor:
    """All elements of the factors of a product that have no domain in it, if they are few; else the identity."""
    group = domain.group
    if not isinstance(domain, ProductDomain) or not isinstance(group, ProductGroup):
        return group.identity()[None]
    others = [factor for index, factor in enumerate(group.factors) if index not in domain.parts]
    listed = [factor for factor in others if isinstance(factor, EnumerableGroup)]
    if len(listed) < len(others) or math.prod(factor.order for factor in listed) > _AVERAGED_UP_TO:
        return group.identity()[None]
    elements = [
        factor.identity()[None] if index in domain.parts else factor.elements()  # type: ignore[attr-defined]
        for index, factor in enumerate(group.factors)
    ]
    grid = torch.cartesian_prod(*[torch.arange(len(each)) for each in elements]).reshape(-1, len(elements)).T
    return group.join([each[where] for each, where in zip(elements, grid, strict=True)])


def _covers(canonical: Canonical, action: VectorAction) -> bool:
    """Whether every generator takes events to events of the same canonical forms, so that no element is missing."""
    generator = torch.Generator().manual_seed(0)
    keys_of = canonical.keys_of([torch.randn(len(space), generator=generator).double() for space in canonical.spaces])
    events = torch.randn(2, 1, action.numel, generator=generator, dtype=torch.float64)
    probe = torch.randn(action.numel, generator=generator, dtype=torch.float64)

    def forms(x: Tensor) -> Tensor:
        images = action.act_each(canonical.averaged, x)
        forms = action.act_each(canonical.domain.element(images @ keys_of.T), images)
        return (forms @ probe).sort(-1).values

    expected = forms(events)
    return all(bool((forms(action.act(h, events)) - expected).abs().max() < _SAME) for h in action.generators())
