"""The choice of the keys by which events get a canonical form: those that tell the rows apart best at a mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from pyro_gflows.actions import VectorAction
from pyro_gflows.flows.domains.choice import Canonical, domain_for
from pyro_gflows.numerics.precision import full_precision

__all__ = ["best_key"]

_RANDOM = 64
_STEPS = (0.3, 0.1, 0.03)  # of the search around the best candidate, relative to its length
_TIED = 1e-6


@full_precision
@torch.no_grad()
def best_key(
    action: VectorAction, location: Tensor, factor: Tensor, *, canonical: Canonical | None = None
) -> tuple[Tensor, float]:
    r"""The keys whose smallest gap at a mode is largest, in posterior standard deviations of the gap.

    Where rows have several features, each direction in the space of the features gives a key, and the order of the rows
    by this key is the canonical form. It is stable where the keys of all rows differ by many standard deviations. The
    candidates are the feature axes, the principal axes of the rows at the mode, with and without the features in units
    of their standard deviations, and random directions.

    Args:
        action: How the group acts on events.
        location: The mode, shape ``(N,)``.
        factor: A factor F of the covariance :math:`F F^T` at the mode, shape ``(N, N)``.
        canonical: The domain, if it is known already.

    Returns:
        The map from events to keys, shape ``(size, N)``, in float64, and its smallest gap at the mode in standard
        deviations.

    Raises:
        ValueError: The mode is not finite, or its rows agree in every key.

    Example:
        >>> action = VectorAction.rows("S2", features=2)
        >>> mode = torch.tensor([0.0, 5.0, 1.0, 5.1])  # the rows differ most in their first feature
        >>> keys_of, gap = best_key(action, mode, 0.1 * torch.eye(4))
        >>> keys_of[0].abs().round(decimals=1).tolist(), round(gap, 1)
        ([0.5, 0.0, 0.5, 0.0], 7.1)
    """
    found = domain_for(action) if canonical is None else canonical
    if not (location.isfinite().all() and factor.isfinite().all()):
        raise ValueError("expected a finite mode to choose a key at, got NaN or inf")
    location, factor = location.double(), factor.double()
    spaces = [space.to(location) for space in found.spaces]
    weights = [torch.ones(len(space)).to(location) for space in spaces]
    for part, space in enumerate(spaces):

        def smallest_gap(weight: Tensor, part: int = part) -> float:
            tried = [weight if index == part else other for index, other in enumerate(weights)]
            return float(_gaps_in_deviations(action, found, _keys_of(found, tried, location), location, factor)[part])

        weights[part] = _best(space, location, factor, smallest_gap)
    keys_of = _keys_of(found, weights, location)
    gaps = _gaps_in_deviations(action, found, keys_of, location, factor)
    if not gaps.max() > _TIED:
        raise ValueError(
            f"expected a mode whose rows differ in a key, but in every key of {action} all rows tie at the given point "
            "(or all keys are 0), which is its own image under the group; use an equivariant flow on InvariantNormal"
        )
    return keys_of, float(gaps.min())


def _keys_of(canonical: Canonical, weights: Sequence[Tensor], location: Tensor) -> Tensor:
    return canonical.domain.centered(canonical.keys_of(weights), location)


def _gaps_in_deviations(
    action: VectorAction, canonical: Canonical, keys_of: Tensor, location: Tensor, factor: Tensor
) -> Tensor:
    """For each part of the keys, the smallest gap of the canonical form in standard deviations of this gap."""
    domain = canonical.domain
    element = domain.element(keys_of @ location)
    gaps = domain.gaps(keys_of @ action.act_each(element, location))
    spread = domain.gaps(action.act_each(element, factor.T) @ keys_of.T).norm(dim=0)  # gaps are linear functions
    parts = (gaps / spread).split(domain.part_dimensions)
    return torch.stack([part.min() for part in parts])


def _best(space: Tensor, location: Tensor, factor: Tensor, value: Callable[[Tensor], float]) -> Tensor:
    """The weights of a basis of keys with the largest value, among some candidates and then in small steps from it."""
    generator = torch.Generator().manual_seed(0)
    best, height = None, -torch.inf
    for candidate in _candidates(space, location, factor, generator):
        if (found := value(candidate)) > height or best is None:
            best, height = candidate, found
    assert best is not None
    if len(space) == 1:
        return best
    for size in _STEPS:
        for _ in range(_RANDOM // 4):
            step = torch.randn(len(space), generator=generator, dtype=torch.float64).to(best)
            trial = best + size * step * best.norm() / step.norm()
            if (found := value(trial)) > height:
                best, height = trial, found
    return best


def _candidates(space: Tensor, location: Tensor, factor: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Feature axes, principal axes in two units, and random directions; weights of shape ``(count,)``."""
    yield from torch.eye(len(space)).to(location)
    if len(space) == 1:
        return
    rows = space @ location  # each feature of each row
    noise = (space @ factor).flatten(1)
    units = torch.linalg.cholesky(noise @ noise.T / rows.shape[1] + 1e-12 * torch.eye(len(space)).to(rows))
    yield from torch.linalg.svd(rows)[0].T
    whitened = torch.linalg.svd(torch.linalg.solve_triangular(units, rows, upper=False))[0]
    yield from torch.linalg.solve_triangular(units.T, whitened, upper=True).T
    yield from torch.randn(_RANDOM, len(space), generator=generator, dtype=torch.float64).to(location)
