"""Sums discrete sites out of one trace or of many traces at once."""

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

_ROWS = "Z"  # the letter for the dimension of the traces, as Pyro names dimensions by letters


class Enumerate(EnumMessenger):
    """Pyro's parallel enumeration in a form that also works under ``torch.func.vmap``.

    Pyro reads the shape of a value from its ``data``, which is not accessible under vmap. Here a tensor without storage
    and of the same shape takes its place.

    Args:
        first_available_dim: The first dimension to the left of all plates, such as -2 for a model with one plate.
    """

    def _pyro_post_sample(self, msg: Any) -> None:
        value = msg["value"]
        stand_in = torch.empty(value.shape, device="meta") if isinstance(value, Tensor) else value
        super()._pyro_post_sample({**msg, "value": stand_in})


@dataclass(frozen=True)
class Structure:
    """The names of the dimensions of a trace's log-probabilities: one letter for each plate and each discrete site.

    Attributes:
        dims: For each log-probability, the letters of its dimensions.
        plates: For each log-probability, the letters of the plates around its site.
        summed: The letters of the discrete sites, which are summed out.
    """

    dims: tuple[str, ...]
    plates: tuple[frozenset[str], ...]
    summed: frozenset[str]

    def total(self, factors: Sequence[Tensor], *, rows: bool = False) -> Tensor:
        """The log of the sum, over all values of the discrete sites, of the product of all factors.

        Args:
            factors: The log-probabilities of all sites.
            rows: Whether each factor has an additional first dimension with one entry for each trace.

        Returns:
            A scalar tensor, or a tensor of shape ``(rows,)``.
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
    """The log-probabilities of an enumerated and scored trace, without dimensions of size 1, and their structure."""
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
