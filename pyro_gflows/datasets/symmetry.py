"""Whether data have a symmetry, before a flow with that symmetry is fitted to them."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.actions.base import Action
from pyro_gflows.datasets.checks import check_data
from pyro_gflows.datasets.rows import random_order
from pyro_gflows.groups.element_names import element_name
from pyro_gflows.numerics import TwoSampleResult, two_sample_test

__all__ = ["SymmetryReport", "check_symmetry", "warn_of_contradictions"]

_FEWEST_ROWS = 40
_ALL_UP_TO, _FROM_LARGE_GROUPS = 12, 8  # elements tested: all of a small group, so many of a large one
_ROWS_IN_FIT = 500


@dataclass(frozen=True)
class SymmetryReport:
    """What :func:`check_symmetry` found.

    Attributes:
        action: the group and what it acts on, in words.
        rows: how many rows were used.
        level: probability that data which have the symmetry are said to contradict any element at all.
        elements: the elements tested, one a row (indices, or matrices of a continuous group).
        names: what they are called.
        results: of the two-sample test of each.
    """

    action: str
    rows: int
    level: float
    elements: Tensor
    names: tuple[str, ...]
    results: tuple[TwoSampleResult, ...]

    @property
    def contradicted(self) -> Tensor:
        """The elements under which the data are not invariant."""
        return self.elements[torch.tensor([result.is_different for result in self.results], dtype=torch.bool)]

    @property
    def contradicted_names(self) -> tuple[str, ...]:
        """What they are called."""
        return tuple(name for name, result in zip(self.names, self.results, strict=True) if result.is_different)

    @property
    def is_consistent(self) -> bool:
        """Whether no element is contradicted. (That is no proof of the symmetry: a small violation needs many rows.)"""
        return not self.contradicted_names

    def __str__(self) -> str:
        width = max((len(name) for name in self.names), default=0)
        lines = [f"{self.action}: {self.rows} rows, {len(self.names)} elements, level {self.level:g} for all together"]
        for name, result in zip(self.names, self.results, strict=True):
            sign, verdict = ("<=", "CONTRADICTED") if result.is_different else ("=", "no contradiction")
            lines.append(f"  {name:{width}}  {verdict:16}  p {sign} {result.p_value:.2g}")
        if self.is_consistent:
            lines.append("The data do not contradict the symmetry.")
        else:
            lines.append(
                f"The data contradict {len(self.contradicted_names)} of {len(self.names)} elements: a flow with this "
                "symmetry cannot fit them. Take a smaller group, or center the data at the point that the group fixes."
            )
        return "\n".join(lines)


def check_symmetry(
    data: Tensor | np.ndarray,
    action: Action,
    *,
    elements: Tensor | None = None,
    level: float = 1e-3,
    rows: int = 1000,
    seed: int = 0,
) -> SymmetryReport:
    r"""Test whether data are distributed alike before and after a group acts on them, element by element.

    For each element g, one half of the rows is compared with the other half after g acted on it. If the density is
    invariant, :math:`p(\rho(g)\,x) = p(x)`, the two halves are samples of one distribution; a test by random swaps, of
    level ``level / number of elements``, says whether they can be. Takes a second or two.

    Args:
        data: Independent events, shape (rows,) + event_shape.
        action: How the group acts on them.
        elements: Which elements to test, as ``action.elements()`` gives them. By default all but the identity of a
            group of at most 13 elements; of a larger or continuous one its generators and random elements, 8 together;
            of an OffGridAction those of its ``exact_subgroup``, since interpolation alone changes images.
        level: Probability of any contradiction at all where the data have the symmetry.
        rows: How many rows to use at most, drawn without replacement.
        seed: Of the rows, the random elements and the swaps; the caller's random state is left as it was.

    Raises:
        TypeError: Data that are not floating-point, or no action of a group on one event.
        ValueError: Fewer than 40 rows, data of the wrong shape or not finite, or a level outside (0, 1).

    Example:
        >>> from pyro_gflows import VectorAction
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(2000, 2, generator=generator) * torch.tensor([1.0, 2.0])
        >>> report = check_symmetry(x, VectorAction.plane("D2"))
        >>> report.is_consistent
        True
        >>> check_symmetry(x, VectorAction.plane("C4")).contradicted_names
        ('element 1, rotation by 90 degrees', 'element 3, rotation by 270 degrees')
    """
    if not isinstance(action, Action):
        raise TypeError(f"expected an Action such as VectorAction.plane('D4'), got {type(action).__name__}")
    if not 0 < level < 1:
        raise ValueError(f"expected a level in (0, 1), got {level}")
    generator = torch.Generator().manual_seed(seed)
    some = check_data(_some_rows(data, rows, generator), event_shape=action.event_shape, source="data")
    if len(some) < _FEWEST_ROWS:
        raise ValueError(f"expected at least {_FEWEST_ROWS} rows to compare two halves, got {len(some)}")
    if elements is None:
        action = action.exact_subgroup
        elements = _some_elements(action, generator)
    x = some.detach().double().cpu()
    half = len(x) // 2
    x = x[: 2 * half]
    results = tuple(
        two_sample_test(
            *_one_scale(action, x[:half], action.act(element, x[half:])),
            level=level / len(elements),
            generator=generator,
        )
        for element in elements
    )
    names = tuple(element_name(action.group, element) for element in elements)
    return SymmetryReport(str(action), len(x), level, elements, names, results)


def _some_rows(data: Tensor | np.ndarray, rows: int, generator: torch.Generator) -> Tensor | np.ndarray:
    """Random rows of what has rows, in random order; of a memory-mapped array no others are read."""
    if not isinstance(data, Tensor | np.ndarray) or data.ndim == 0:
        return data
    index = random_order(len(data), generator)[:rows].long()
    return data[index.numpy()] if isinstance(data, np.ndarray) else data[index.to(data.device)]


def _some_elements(action: Action, generator: torch.Generator) -> Tensor:
    """The elements that are tested by default."""
    if action.group.order <= _ALL_UP_TO + 1:
        return action.elements()[1:]
    chosen: list[Tensor] = []
    drawn = action.sample((4 * _FROM_LARGE_GROUPS,), generator=generator)
    identity = action.group.identity()
    for element in itertools.chain(action.generators(), drawn):
        if not any(torch.equal(element, other) for other in (identity, *chosen)):
            chosen.append(element)
    return torch.stack(chosen[:_FROM_LARGE_GROUPS])


def _one_scale(action: Action, *samples: Tensor) -> list[Tensor]:
    """The samples as rows, each field of the event divided by its spread in both together, so that none hides another.

    What is done to both samples alike, without knowing which row is of which, leaves the level as it is.
    """
    both = torch.cat(samples)
    dim = both.ndim - action.event_dim
    fields = (both - both.mean(0)).split(action.field_sizes, dim=dim)
    scaled = [field / (field.square().mean().sqrt() or 1.0) for field in fields]
    return list(torch.cat(scaled, dim=dim).flatten(1).split([len(sample) for sample in samples]))


def warn_of_contradictions(action: Action, data: Tensor | np.ndarray, *, seed: int = 0) -> None:
    """Warn where a few hundred rows contradict the generators of a group; silent where there are too few rows.

    Args:
        action: How the group acts on one event.
        data: Finite events, shape (rows,) + event_shape.
        seed: Of all that is drawn; the caller's random state is left as it was.
    """
    action = action.exact_subgroup
    generators = action.generators()
    if len(data) < _FEWEST_ROWS or not len(generators):
        return
    report = check_symmetry(data, action, elements=generators, rows=_ROWS_IN_FIT, seed=seed)
    if not report.is_consistent:
        warnings.warn(
            f"the data are not symmetric under {action.group}: {report.rows} rows contradict "
            f"{' and '.join(report.contradicted_names)} (two-sample test, level {report.level:g}). A flow with this "
            "symmetry cannot fit them: print(check_symmetry(data, flow.action)) tests each element; "
            "FitSettings(check_symmetry=False) leaves this check out",
            stacklevel=3,
        )
