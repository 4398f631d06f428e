"""The base that a guide chooses by itself: what the posterior needs, from its mode and the images of the mode."""

from __future__ import annotations

import logging
import warnings
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
from pyro_gflows.groups.base import EnumerableGroup
from pyro_gflows.guides.near_elements import near_elements
from pyro_gflows.guides.start import Mode
from pyro_gflows.numerics.precision import full_precision
from pyro_gflows.numerics.random_state import random_state_kept

__all__ = ["ChosenBase", "chosen_base", "nearest_other_image"]

_SAME = 0.5  # of the mode and its image, in standard deviations: one mode, which is its own image
_APART = 4.0
_SUMMED_UP_TO = 720  # elements, over which OrbitFlow sums
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


def chosen_base(
    action: VectorAction, base: Any, transforms: Any, *, find: Callable[[], Mode | tuple[Tensor, Tensor]]
) -> ChosenBase:
    """The base of a guide: the one that the user's function makes, or the one that the mode of the posterior asks for.

    What decides is how far the mode of the posterior is from its nearest other image under the group, in standard
    deviations of Laplace's approximation there. If the images coincide (below 0.5), the posterior has one mode and an
    InvariantNormal under equivariant layers fits it; so do the posteriors of continuous groups, and of groups whose
    canonical forms are not known. If they are far apart (at least 4) and the group has at most 720 elements, an
    OrbitFlow is exact and smooth. In all other cases it is Canonicalized.

    Args:
        action: How the group acts on the unconstrained vector.
        base: The user's function from the action to a base, or None.
        transforms: The user's function from the action to layers, or None. Layers without a base follow an
            InvariantNormal.
        find: A function that finds the mode and a factor of the covariance there. It is called only where the mode
            matters, and leaves the random state as it was. It raises a ValueError where no mode can be found.

    Example:
        >>> action = VectorAction.rows("S2")
        >>> choice = chosen_base(action, None, None, find=lambda: (torch.tensor([0.0, 6.0]), torch.eye(2)))
        >>> type(choice.base).__name__, choice.reason
        ('OrbitFlow', 'the nearest other image of the mode is 8.5 Laplace standard deviations away')
    """
    if base is not None:
        return ChosenBase(base(action), "")
    if transforms is not None:
        return ChosenBase(InvariantNormal(action), "transforms were given without a base")
    with random_state_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the cost of the log-joint, which is stated where a user asks for it
        chosen = _chosen(action, find)
    _LOG.info("%s for %s: %s", type(chosen.base).__name__, action, chosen.reason)
    return chosen


def _chosen(action: VectorAction, find: Callable[[], Mode | tuple[Tensor, Tensor]]) -> ChosenBase:
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
        found = Mode(*find())
    except (ValueError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        return symmetric(f"no mode was found ({error})")
    # the normal at the mode may be narrower than Laplace's approximation, in whose deviations the distance is
    distance = nearest_other_image(action, found.location, found.factor / found.narrowing)
    mode = (found.location, found.factor)
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
    for elements in near_elements(action.group).split(max(1, _AT_ONCE // action.numel**2)):
        moved = (action.act_each(elements, probe) - probe).abs().amax(-1) > 1e-4
        steps = (action.act_each(elements, location) - location)[moved]
        if len(steps):
            scaled = torch.linalg.solve_triangular(factor.T, steps, upper=True, left=False)
            nearest = min(nearest, float(scaled.norm(dim=-1).min()))
    return nearest
