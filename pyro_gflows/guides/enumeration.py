"""Discrete sites, summed out of a trace; also of many traces at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro.ops.contract import contract_to_tensor
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

__all__ = ["Enumerate", "Structure", "log_factors"]

_ROWS = "Z"  # the dimension of many traces, in letters as Pyro names dimensions


class Enumerate(EnumMessenger):
    """Pyro's parallel enumeration, which asks each value for its ``data`` to learn its shape; vmap does not give that.

    Args:
        first_available_dim: to the left of all plates, such as -2 for a model with one.
    """

    def _pyro_post_sample(self, msg: Any) -> None:
        value = msg["value"]
        stand_in = torch.empty(value.shape, device="meta") if isinstance(value, Tensor) else value
        super()._pyro_post_sample({**msg, "value": stand_in})


@dataclass(frozen=True)
class Structure:
    """What the dimensions of a trace's log-probabilities are: one letter for each, plates or discrete sites.

    Attributes:
        dims: the letters of each tensor.
        plates: for each tensor, the plates that it stands in.
        summed: the letters of the discrete sites.
    """

    dims: tuple[str, ...]
    plates: tuple[frozenset[str], ...]
    summed: frozenset[str]

    def total(self, factors: Sequence[Tensor], *, rows: bool = False) -> Tensor:
        """The log of the sum, over all values of the discrete sites, of the product of all factors.

        Args:
            factors: the log-probabilities; with ``rows``, each has one more dimension in front, of one trace each.
            rows: whether they have.

        Returns:
            A tensor without dimensions, or of shape ``(rows,)``.
        """
        outer = frozenset(_ROWS) if rows else frozenset()
        terms: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
        for factor, dims, plates in zip(factors, self.dims, self.plates, strict=True):
            named = factor.view_as(factor)
            named._pyro_dims = (_ROWS if rows else "") + dims  # type: ignore[attr-defined]
            terms.setdefault(plates | outer, []).append(named)
        total: Tensor = contract_to_tensor(terms, set(self.summed), target_ordinal=outer)
        return total


def log_factors(trace: Any) -> tuple[Structure, list[Tensor]]:
    """The log-probabilities of an enumerated and scored trace, and what their dimensions are (none of size 1)."""
    trace.pack_tensors()
    sites = [site for site in trace.nodes.values() if site["type"] == "sample" and not site_is_subsample(site)]
    factors = [site["packed"]["log_prob"] for site in sites]
    letters = trace.plate_to_symbol
    structure = Structure(
        dims=tuple(factor._pyro_dims for factor in factors),
        plates=tuple(frozenset(letters[f.name] for f in site["cond_indep_stack"] if f.vectorized) for site in sites),
        summed=frozenset(trace.symbol_to_dim) - frozenset(letters.values()),
    )
    return structure, factors
