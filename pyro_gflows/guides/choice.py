"""The base that a guide chooses by itself: what the posterior needs, from its mode and the images of the mode."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions import VectorAction
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flows.canonicalized import Canonicalized
from pyro_gflows.flows.domains.choice import domain_for
from pyro_gflows.flows.orbit_flow import OrbitFlow
from pyro_gflows.groups.base import EnumerableGroup, Group
from pyro_gflows.groups.monomial import MonomialGroup
from pyro_gflows.groups.products import ProductGroup
from pyro_gflows.groups.symmetric import SymmetricGroup
from pyro_gflows.numerics.precision import full_precision

__all__ = ["ChosenBase", "choose_base", "nearest_other_image"]

_SAME = 0.5  # of the mode and its image, in standard deviations: one mode, which is its own image
_APART = 4.0
_SUMMED_UP_TO = 720  # elements, over which OrbitFlow sums
_LISTED_UP_TO = 4096
_AT_ONCE = 2**22

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChosenBase:
    """A base, why it was chosen, and where it is to be placed.

    Attributes:
        base: The base.
        reason: The reason, with the figure that decided, in words.
        mode: The mode and a factor of the covariance there, for a base that is placed at a mode; else None.
    """

    base: Any
    reason: str
    mode: tuple[Tensor, Tensor] | None = None


def choose_base(action: VectorAction, find: Callable[[], tuple[Tensor, Tensor]]) -> ChosenBase:
    """The base for a posterior with a symmetry, where the user names none.

    What decides is how far the mode of the posterior is from its nearest other image under the group, in standard
    deviations of Laplace's approximation there. If the images coincide (below 0.5), the posterior has one mode and an
    InvariantNormal under equivariant layers fits it; so do the posteriors of continuous groups, and of groups whose
    canonical forms are not known. If they are far apart (at least 4) and the group has at most 720 elements, an
    OrbitFlow is exact and smooth. In all other cases it is Canonicalized.

    Args:
        action: How the group acts on the unconstrained vector.
        find: A function that finds the mode and a factor of the covariance there. It is called only where the mode
            matters, and raises a ValueError where the posterior has none that can be found.

    Example:
        >>> action = VectorAction.rows("S2")
        >>> choice = choose_base(action, lambda: (torch.tensor([0.0, 6.0]), torch.eye(2)))
        >>> type(choice.base).__name__, choice.reason
        ('OrbitFlow', 'the nearest other image of the mode is 8.5 Laplace standard deviations away')
    """
    chosen = _chosen(action, find)
    _LOG.info("%s for %s: %s", type(chosen.base).__name__, action, chosen.reason)
    return chosen


def _chosen(action: VectorAction, find: Callable[[], tuple[Tensor, Tensor]]) -> ChosenBase:
    def symmetric(reason: str) -> ChosenBase:
        return ChosenBase(InvariantNormal(action), reason)

    if action.group.order == 1:
        return symmetric("the group is trivial")
    if not action.is_finite:
        return symmetric("the group is continuous")
    try:
        domain_for(action)
    except ValueError:
        return symmetric("no canonical form is known for this group")
    try:
        mode = find()
    except (ValueError, torch.linalg.LinAlgError) as error:
        return symmetric(f"no mode was found ({error})")
    distance = nearest_other_image(action, *mode)
    figure = f"the nearest other image of the mode is {distance:.1f} Laplace standard deviations away"
    if not distance >= _SAME:
        return symmetric(figure)
    if _is_summed(action) and distance >= _APART:
        return ChosenBase(OrbitFlow(action), figure, mode)
    return ChosenBase(Canonicalized(action), figure, mode)


def _is_summed(action: VectorAction) -> bool:
    return isinstance(action.group, EnumerableGroup) and action.group.order <= _SUMMED_UP_TO and action.numel > 1


@full_precision
@torch.no_grad()
def nearest_other_image(action: VectorAction, location: Tensor, factor: Tensor) -> float:
    r"""The distance of a point z to its nearest other image under a finite group, in standard deviations.

    It is the least of :math:`|F^{-1}(g z - z)|` over elements g that do not leave every point as it is. Of large groups
    these are the exchanges of two rows, the sign flips of one, and both together, since other elements take a point
    farther away.

    Args:
        action: How the group acts.
        location: The point z, shape ``(numel,)``.
        factor: The lower triangular factor F of a covariance.

    Example:
        >>> action = VectorAction.signs(2)
        >>> nearest_other_image(action, torch.tensor([3.0, 1.0]), torch.eye(2))
        2.0
    """
    probe = torch.randn(action.numel, generator=torch.Generator().manual_seed(0)).to(location)
    nearest = torch.inf
    for elements in _near(action.group).split(max(1, _AT_ONCE // action.numel**2)):
        moved = (action.act_each(elements, probe) - probe).abs().amax(-1) > 1e-4
        steps = (action.act_each(elements, location) - location)[moved]
        if len(steps):
            scaled = torch.linalg.solve_triangular(factor.T, steps, upper=True, left=False)
            nearest = min(nearest, float(scaled.norm(dim=-1).min()))
    return nearest


def _near(group: Group) -> Tensor:
    """Elements that take a point to the nearest of its images: all of a small group, and those that act on two rows."""
    if isinstance(group, EnumerableGroup) and group.order <= _LISTED_UP_TO:
        return group.elements()
    if isinstance(group, ProductGroup):
        return torch.cat([_embedded(group, index) for index in range(len(group.factors))])
    assert isinstance(group, MonomialGroup)
    same = torch.arange(group.n)
    first, second = torch.triu_indices(group.n, group.n, 1)
    pairs = torch.arange(len(first))
    exchanges = same.repeat(len(first), 1)
    exchanges[pairs, first], exchanges[pairs, second] = second, first
    flips = 1 - 2 * torch.eye(group.n, dtype=torch.int64)
    if isinstance(group, SymmetricGroup):
        return group.elements_of(permutations=exchanges)
    if torch.equal(group.permutations_of(group.generators()), same.expand(len(group.generators()), -1)):
        return group.elements_of(signs=flips)
    both = flips[first] * flips[second]
    return torch.cat(
        [
            group.elements_of(permutations=exchanges),
            group.elements_of(permutations=exchanges, signs=both),
            group.elements_of(signs=flips),
        ]
    )


def _embedded(group: ProductGroup, index: int) -> Tensor:
    own = _near(group.factors[index])
    batch = group.factors[index].batch_shape(own)
    identities = [factor.identity().expand(batch + factor.element_shape) for factor in group.factors]
    return group.join([own if other == index else identity for other, identity in enumerate(identities)])
