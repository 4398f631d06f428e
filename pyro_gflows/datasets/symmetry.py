"""A test of whether data have a symmetry, before a flow with this symmetry is fitted to them."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.actions.base import Action
from pyro_gflows.datasets.checks import check_data
from pyro_gflows.datasets.orders import new_order
from pyro_gflows.datasets.rows import Rows, as_rows, is_stored
from pyro_gflows.groups.element_names import element_name
from pyro_gflows.numerics import TwoSampleResult, two_sample_test
from pyro_gflows.spaces import Torus

__all__ = ["SymmetryReport", "check_symmetry", "warn_of_contradictions"]

_FEWEST_ROWS = 40
_ALL_UP_TO, _FROM_LARGE_GROUPS = 12, 8  # all elements of a group of up to 12 others than the identity, else 8
_ROWS_IN_FIT = 500


@dataclass(frozen=True)
class SymmetryReport:
    """The result of :func:`check_symmetry`: a two-sample test for each group element.

    Attributes:
        action: The group and the events that it acts on, in words.
        rows: The number of rows that were used.
        level: The probability that data with the symmetry are reported to contradict it.
        elements: The tested elements, one a row: indices, or matrices of a continuous group.
        names: The name of each tested element.
        results: The result of the two-sample test of each tested element.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0)) + 1
        >>> report = check_symmetry(x, VectorAction.plane("C2"))
        >>> report.is_consistent, report.contradicted_names
        (False, ('element 1, rotation by 180 degrees',))
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
        """The names of the elements under which the data are not invariant."""
        return tuple(name for name, result in zip(self.names, self.results, strict=True) if result.is_different)

    @property
    def is_consistent(self) -> bool:
        """Whether the data contradict no element, which is no proof: a small violation is only found in many rows."""
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
                "symmetry cannot fit them. Take a smaller group, or center the data at a fixed point of the group."
            )
        return "\n".join(lines)


def check_symmetry(
    data: Tensor | np.ndarray | Rows,
    action: Action,
    *,
    elements: Tensor | None = None,
    level: float = 1e-3,
    rows: int = 1000,
    seed: int = 0,
) -> SymmetryReport:
    r"""Test whether the distribution of data is invariant under a group, one element after the other.

    A flow with a symmetry that the data do not have cannot fit them, however long it is trained; this test takes a
    second or two before the fit. For each element g, one half of the rows is compared with the other half after g has
    acted on it. If the density is invariant, :math:`p(\rho(g)\,x) = p(x)`, the two halves are samples of one
    distribution. A permutation test (:func:`~pyro_gflows.numerics.two_sample_test`) of level
    ``level / number of elements`` decides whether this may be so.

    Args:
        data: Independent events, shape (rows,) + event_shape.
        action: How the group acts on one event.
        elements: The elements to test, as ``action.elements()`` returns them. By default, these are all elements but
            the identity for a group of at most 13 elements, and 8 elements, generators and random ones, for a larger or
            continuous group. For an OffGridAction they are elements of its ``exact_subgroup``, since interpolation
            alone changes images.
        level: The probability that data with the symmetry are reported to contradict it.
        rows: The largest number of rows to use; they are drawn without replacement.
        seed: The seed of the rows, the random elements and the permutations. The caller's random state is left as it
            was.

    Raises:
        TypeError: If the data are not floating-point, or if ``action`` is no Action.
        ValueError: If there are fewer than 40 rows, if the data have a wrong shape or are not finite, or if the level
            is outside of (0, 1).

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


def _some_rows(data: Any, rows: int, generator: torch.Generator) -> Any:
    """Return random rows in random order; of a memory-mapped array or a file no others are read."""
    if not isinstance(data, Tensor | np.ndarray) and not is_stored(data):
        return data
    stored = as_rows(data)
    if len(stored.shape) < 2:
        return data
    return stored.take(new_order(stored, generator).rows(0, rows))


def _some_elements(action: Action, generator: torch.Generator) -> Tensor:
    """Return the elements that are tested by default."""
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
    """Return the samples as rows, with each field of the event divided by its spread in both samples together.

    Without the division, a field with large values would hide the others. It leaves the level of the test as it is,
    since it treats all rows of both samples alike.
    """
    both = torch.cat(samples)
    if isinstance(action.space, Torus):  # points of circles, since angles near 0 and near 2 pi are neighbors
        return list(torch.cat([both.cos(), both.sin()], -1).split([len(sample) for sample in samples]))
    dim = both.ndim - action.event_dim
    fields = (both - both.mean(0)).split(action.field_sizes, dim=dim)
    scaled = [field / (field.square().mean().sqrt() or 1.0) for field in fields]
    return list(torch.cat(scaled, dim=dim).flatten(1).split([len(sample) for sample in samples]))


def warn_of_contradictions(action: Action, data: Tensor | np.ndarray | Rows, *, seed: int = 0) -> None:
    """Warn if a few hundred rows contradict the generators of a group; fewer than 40 rows are not tested.

    Args:
        action: How the group acts on one event.
        data: Finite events, shape (rows,) + event_shape.
        seed: The seed of the test; the caller's random state is left as it was.

    Warns:
        UserWarning: If the data contradict a generator.
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
