"""The log-joint of a model at chosen values of a guide's sites."""

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
    """The log-joint of a model as a function of the values of a guide's latent sites.

    The model runs once at construction, at ``start``, to find its plates, which plates hold minibatches, whether it has
    discrete sites to sum out (``infer={"enumerate": "parallel"}``), and which sites it hides. It never draws a site
    that has a value, so priors without samples (ImproperUniform) are allowed.

    Args:
        model: A Pyro model.
        start: A value for each latent site of the guide.
        args: Arguments of the model.
        kwargs: Keyword arguments of the model.

    Raises:
        ValueError: A latent site has no value and its prior cannot be sampled.
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
                conditioned = drawn(self._conditioned(start, Minibatch()))
                trace, self.hidden = visible_and_hidden(conditioned, self._args, self._kwargs)
            except NotImplementedError as error:
                raise ValueError(
                    f"the model has a latent site that is not one of the guide's sites {sorted(start)} and whose prior "
                    f"cannot be sampled ({error}); pass the whole model with this site held fixed as AutoGFlow(..., "
                    "joint=poutine.condition(model, data={site: value}))"
                ) from error
        sites = {name: site for name, site in trace.nodes.items() if site["type"] == "sample"}
        self.plates = {
            name: site["fn"]
            for name, site in sites.items()
            if name in drawn.names and len(site["value"]) < site["fn"].size
        }
        """The minibatched plates whose rows the model draws, and the distribution of the rows."""
        frames = [frame for site in sites.values() for frame in site["cond_indep_stack"]]
        self.nesting = max((-frame.dim for frame in frames if frame.vectorized), default=0)
        """The number of dimensions that the plates of the model use."""
        latent = {name for name, site in sites.items() if not site["is_observed"] and not site_is_subsample(site)}
        self.summed = sorted(name for name in latent if sites[name]["infer"].get("enumerate") == "parallel")
        """The names of the discrete sites that are summed out."""
        self.unknown = sorted(latent - set(self.summed))
        """The names of the latent sites that the guide does not have."""
        self._fault = self._of_minibatches(start, sites)

    # -- faults -------------------------------------------------------------------------------------------------------
    @property
    def hidden_observed(self) -> list[str]:
        """The hidden observed sites, whose terms are missing from the log-joint."""
        return sorted(name for name, site in self.hidden.items() if site["is_observed"])

    @property
    def hidden_latent(self) -> list[str]:
        """The hidden latent sites, which are drawn again in every run."""
        return sorted(name for name, site in self.hidden.items() if not site["is_observed"])

    def fault(self) -> str:
        """The reason why the model has no log-joint of the guide's sites; empty if it has one.

        The reasons are hidden observed sites, latent sites without a value, and latent sites inside a minibatch.
        """
        if missing := self.hidden_observed:
            drawn = f" and draws the hidden sites {self.hidden_latent}" if self.hidden_latent else ""
            return (
                f"the model hides the observed sites {missing} behind poutine.block{drawn}, so the likelihood of these "
                "sites is missing from the log-joint; pass joint=, the whole model, with the latent sites of other "
                "guides held fixed: joint=poutine.condition(model, data={site: value})"
            )
        if self._fault:
            return self._fault
        if self.unknown:
            return (
                f"site {self.unknown[0]!r} is latent, but it is not one of the guide's sites; sum it out of the model "
                '(a discrete site with infer={"enumerate": "parallel"} is summed out automatically) or hold it fixed '
                "by poutine.condition, and pass this model as AutoGFlow(..., joint=)"
            )
        return ""

    def _of_minibatches(self, start: Mapping[str, Tensor], sites: Mapping[str, Any]) -> str:
        if self.summed and self.plates:
            return (
                f"the discrete sites {self.summed} cannot be summed out together with minibatches of the plates "
                f"{sorted(self.plates)}: scaling the sum over a minibatch does not estimate the sum over all rows; "
                "pass the model without subsample_size= as AutoGFlow(..., joint=)"
            )
        for name, site in sites.items():
            plates = [frame.name for frame in site["cond_indep_stack"] if frame.name in self.plates]
            if plates and name in start:
                return (
                    f"site {name!r} is inside a minibatch of plate {plates[0]!r}: the guide has values for one "
                    "minibatch of rows only, so there is no log-joint of all data; use the plate without "
                    "subsample_size=, or write an amortized guide"
                )
        return ""

    def why_random(self) -> str:
        """The end of an error message for a model of which two runs at the same values differ."""
        names = f"{self.hidden_latent or self.unknown}, " if self.hidden_latent or self.unknown else ""
        return (
            "changes from run to run at the same latent values, so the model draws sites that the guide does not have "
            f"({names}such as discrete ones behind poutine.block); pass joint=, the same model with these sites summed "
            'out, by hand or by infer={"enumerate": "parallel"} without the block, or held fixed by poutine.condition'
        )

    # -- running the model --------------------------------------------------------------------------------------------
    def minibatch(self) -> Minibatch:
        """A minibatch of random rows of the minibatched plates."""
        return random_minibatch(self.plates)

    def cover(self) -> Iterator[Minibatch]:
        """Minibatches that together hold all rows."""
        return cover(self.plates)

    def sites(
        self, values: Mapping[str, Tensor], batch: Minibatch, plate: AbstractContextManager[Any] | None = None
    ) -> dict[str, Any]:
        """The sites with a density and their log-probabilities, from one run inside an optional additional plate."""
        model = self._conditioned(values, batch)

        def run() -> tuple[Any, bool]:
            with poutine.block(), plate or nullcontext():
                trace = poutine.trace(model).get_trace(*self._args, **self._kwargs)
            return trace, score(trace, values)

        trace = unless_out_of_support(run)
        return {
            name: site for name, site in trace.nodes.items() if site["type"] == "sample" and not site_is_subsample(site)
        }

    def terms(self, values: Mapping[str, Tensor], batch: Minibatch) -> dict[str, Tensor]:
        """The log-probability of each site in one run; a single term if discrete sites are summed out."""
        if not self.summed:
            return {name: batch.weighed(site).sum() for name, site in self.sites(values, batch).items()}
        structure, factors = self.factors(values, batch)
        return {_SUMMED: structure.total(factors)}

    def factors(self, values: Mapping[str, Tensor], batch: Minibatch) -> tuple[Structure, list[Tensor]]:
        """The log-probabilities of all sites at all values of the discrete sites, with their structure."""
        model = Enumerate(-1 - self.nesting)(self._conditioned(values, batch))

        def run() -> tuple[tuple[Structure, list[Tensor]], bool]:
            with poutine.block():
                trace = poutine.trace(model).get_trace(*self._args, **self._kwargs)
            outside = score(trace, values)
            return log_factors(trace), outside

        return unless_out_of_support(run)

    def _conditioned(self, values: Mapping[str, Tensor], batch: Minibatch) -> Callable[..., Any]:
        return poutine.condition(self._model, data={**values, **batch.rows})


class _DrawnMinibatches(Messenger):
    """Records the plates whose rows are drawn, unlike the rows of ``pyro.plate(..., subsample=rows)``."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg) and msg["value"] is None:
            self.names.add(msg["name"])
