"""A model with its arguments, run at given values of a guide's sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_gflows.guides.enumeration import Enumerate, Structure, log_factors
from pyro_gflows.guides.hidden_sites import visible_and_hidden
from pyro_gflows.guides.minibatch import Minibatch, cover, random_minibatch
from pyro_gflows.guides.scoring import score, unless_out_of_support

__all__ = ["JointModel"]

_SUMMED = "all sites, with the discrete ones summed out"


class JointModel:
    """The log-joint of a model at given values of the latent sites that a guide has.

    The model runs once at construction, at ``start``, to find out: its plates, which of them hold minibatches, whether
    it has discrete sites to sum out (``infer={"enumerate": "parallel"}``), and what it hides. It never draws a site
    whose value is given, so that priors which cannot be drawn from (ImproperUniform) do no harm.

    Args:
        model: a Pyro model.
        start: for each latent site of the guide, a value.
        args: arguments of the model.
        kwargs: its keyword arguments.

    Raises:
        ValueError: a latent site has no value, and cannot be drawn.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        start: Mapping[str, Tensor],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._model, self._args, self._kwargs = model, tuple(args), dict(kwargs or {})
        drawn = _DrawnMinibatches()
        with torch.no_grad():
            try:
                conditioned = drawn(self._given(start, Minibatch()))
                trace, self.hidden = visible_and_hidden(conditioned, self._args, self._kwargs)
            except NotImplementedError as error:
                raise ValueError(
                    f"the model has a latent site that is not one of the guide's {sorted(start)} and that cannot be "
                    f"drawn ({error}); give the whole model with this site held fixed as AutoGFlow(..., "
                    "joint=poutine.condition(model, data={site: value}))"
                ) from error
        sites = {name: site for name, site in trace.nodes.items() if site["type"] == "sample"}
        self.plates = {
            name: site["fn"]
            for name, site in sites.items()
            if name in drawn.names and len(site["value"]) < site["fn"].size
        }
        """The minibatched plates whose rows the model draws, and the distribution of these."""
        frames = [frame for site in sites.values() for frame in site["cond_indep_stack"]]
        self.nesting = max((-frame.dim for frame in frames if frame.vectorized), default=0)
        """How many dimensions the plates of the model take."""
        latent = {name for name, site in sites.items() if not site["is_observed"] and not site_is_subsample(site)}
        self.summed = sorted(name for name in latent if sites[name]["infer"].get("enumerate") == "parallel")
        """The discrete sites that are summed out."""
        self.unknown = sorted(latent - set(self.summed))
        """Latent sites that are not the guide's."""
        self._fault = self._of_minibatches(start, sites)

    # -- what is wrong with it ----------------------------------------------------------------------------------------
    @property
    def hidden_observed(self) -> list[str]:
        """Hidden sites whose terms the log-joint lacks."""
        return sorted(name for name, site in self.hidden.items() if site["is_observed"])

    @property
    def hidden_latent(self) -> list[str]:
        """Hidden sites that are drawn anew in every run."""
        return sorted(name for name, site in self.hidden.items() if not site["is_observed"])

    def fault(self) -> str:
        """Why this is no log-joint of the guide's sites: hidden terms, sites without a value, minibatches of them; or
        "", where it is one."""
        if missing := self.hidden_observed:
            drawn = f", and draws {self.hidden_latent} unseen" if self.hidden_latent else ""
            return (
                f"the model hides the observed sites {missing} behind poutine.block{drawn}, so that their terms are "
                "missing and the prior is all that is left of what they say; pass joint=, the whole model, with the "
                "latent sites of other guides held fixed: joint=poutine.condition(model, data={site: value})"
            )
        if self._fault:
            return self._fault
        if self.unknown:
            return (
                f"site {self.unknown[0]!r} is latent, but not one of the guide's; sum it out of the model (discrete "
                'sites with infer={"enumerate": "parallel"} are summed out here), or hold it fixed by '
                "poutine.condition, and give that model as AutoGFlow(..., joint=)"
            )
        return ""

    def _of_minibatches(self, start: Mapping[str, Tensor], sites: Mapping[str, Any]) -> str:
        if self.summed and self.plates:
            return (
                f"the discrete sites {self.summed} cannot be summed out beside minibatches of the plates "
                f"{sorted(self.plates)}: the sum over a minibatch, scaled, is not that over all rows; give the model "
                "without subsample_size= as AutoGFlow(..., joint=)"
            )
        for name, site in sites.items():
            plates = [frame.name for frame in site["cond_indep_stack"] if frame.name in self.plates]
            if plates and name in start:
                return (
                    f"site {name!r} stands in a minibatch of plate {plates[0]!r}: the guide has values for as many "
                    "rows as a minibatch holds, whichever these are, so that there is no log-joint of all data; give "
                    "the plate without subsample_size=, or write an amortized guide"
                )
        return ""

    def why_random(self) -> str:
        """What is to be said where two runs at the same values differ."""
        names = f"{self.hidden_latent or self.unknown}, " if self.hidden_latent or self.unknown else ""
        return (
            "changes from run to run at the same latent values, so the model draws sites that the guide does not see "
            f"({names}discrete ones behind poutine.block, say); pass joint=, the same model with them summed out, by "
            'hand or by infer={"enumerate": "parallel"} without the block, or held fixed by poutine.condition'
        )

    # -- running it ---------------------------------------------------------------------------------------------------
    def minibatch(self) -> Minibatch:
        """Random rows of the minibatched plates."""
        return random_minibatch(self.plates)

    def cover(self) -> Iterator[Minibatch]:
        """Minibatches that together are all rows."""
        return cover(self.plates)

    def sites(
        self, values: Mapping[str, Tensor], batch: Minibatch, plate: AbstractContextManager[Any] | None = None
    ) -> dict[str, Any]:
        """The sites that have a density, with their log-probabilities, in one run, inside of one more plate if any."""
        model = self._given(values, batch)

        def run() -> tuple[Any, bool]:
            with poutine.block(), plate or nullcontext():
                trace = poutine.trace(model).get_trace(*self._args, **self._kwargs)
            return trace, score(trace, values)

        trace = unless_out_of_support(run)
        return {
            name: site for name, site in trace.nodes.items() if site["type"] == "sample" and not site_is_subsample(site)
        }

    def terms(self, values: Mapping[str, Tensor], batch: Minibatch) -> dict[str, Tensor]:
        """The log-probability of each site in one run; a single term where discrete sites are summed out."""
        if not self.summed:
            return {name: batch.weighed(site).sum() for name, site in self.sites(values, batch).items()}
        structure, factors = self.factors(values, batch)
        return {_SUMMED: structure.total(factors)}

    def factors(self, values: Mapping[str, Tensor], batch: Minibatch) -> tuple[Structure, list[Tensor]]:
        """The log-probabilities of all sites, at all values of the discrete sites that are summed out."""
        model = Enumerate(-1 - self.nesting)(self._given(values, batch))

        def run() -> tuple[tuple[Structure, list[Tensor]], bool]:
            with poutine.block():
                trace = poutine.trace(model).get_trace(*self._args, **self._kwargs)
            outside = score(trace, values)
            return log_factors(trace), outside

        return unless_out_of_support(run)

    def _given(self, values: Mapping[str, Tensor], batch: Minibatch) -> Callable[..., Any]:
        return poutine.condition(self._model, data={**values, **batch.rows})


class _DrawnMinibatches(Messenger):
    """Takes down the plates whose rows are drawn; those of ``pyro.plate(..., subsample=rows)`` are given."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg) and msg["value"] is None:
            self.names.add(msg["name"])
