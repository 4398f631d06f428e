"""A model's log-joint as a function of many unconstrained latent vectors at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from pyro.infer.autoguide.guides import AutoContinuous
from torch import Tensor

from pyro_gflows.guides.joint_model import JointModel
from pyro_gflows.guides.minibatch import Minibatch
from pyro_gflows.guides.row_check import alike, finite_rows, first_that_agrees, wide_rows
from pyro_gflows.guides.row_runs import ByVmap, InAPlate, OneByOne, RowRun
from pyro_gflows.numerics.random_state import random_state_kept

__all__ = ["LogJoint"]


class LogJoint:
    r"""The function :math:`u \mapsto \log p(T(u), x) + \log|\det J_T(u)|` of vectors u packed as a guide packs them.

    The model runs once for all vectors, in one more plate outside of its own, where it gives what its own trace of each
    vector gives. A model that is not written for that (another shape, an error, or rows that are mixed) runs by
    ``torch.func.vmap``, and where that does not work either, one vector at a time; ``note`` says so.

    Where plates hold minibatches, a call draws their rows anew, the same for all vectors, and scales their terms up: an
    unbiased estimate, for training. :meth:`on_full_plates` is the log-joint of all rows, for reports.

    Args:
        guide: has seen the model, and knows its latent sites.
        model: the model; all its latent sites are the guide's, or discrete and summed out by
            ``infer={"enumerate": "parallel"}``.
        args: arguments of the model.
        kwargs: its keyword arguments.

    Raises:
        ValueError: the model has latent sites which the guide does not see, or hides observed ones; its values change
            from run to run; or (when called) vectors of another shape than ``(rows, latent_dim)``.
    """

    def __init__(
        self, guide: AutoContinuous, model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self.__qualname__ = "log_joint.<locals>.log_density"  # the name by which saved runs know it
        self._latent_dim = guide.latent_dim
        start = {name: site["value"] for name, site in guide.prototype_trace.iter_stochastic_nodes()}
        self._joint = JointModel(model, start, args, kwargs)
        if fault := self._joint.fault():
            raise ValueError(fault)
        self._surest = OneByOne(guide, self._joint)
        self._ways: list[RowRun] = [InAPlate(guide, self._joint), ByVmap(guide, self._joint), self._surest]
        self.note = ""
        """What a model that does not run in one more plate costs."""
        self._choose(guide._init_loc())

    def __call__(self, latent: Tensor) -> Tensor:
        return self._run(latent, self._joint.minibatch())

    def on_full_plates(self, latent: Tensor) -> Tensor:
        """The log-joint of all rows of all plates: as many runs as it takes minibatches to hold each row once."""
        if not self._joint.plates:
            return self(latent)
        total = latent.new_zeros(len(latent))
        for batch in self._joint.cover():
            total = total + self._run(latent, batch)
        return total

    @property
    def is_one_by_one(self) -> bool:
        """Whether the model runs once for each vector."""
        return self._ways[0] is self._surest

    def __repr__(self) -> str:
        return f"LogJoint of {self._latent_dim} unconstrained numbers"

    def _choose(self, start: Tensor) -> None:
        """Keep the ways that give what the model's own trace gives."""
        batch = self._joint.minibatch()
        reference = partial(self._surest, batch=batch)
        with torch.no_grad(), random_state_kept(start.device, seed=0):
            rows = torch.cat([finite_rows(reference, start), wide_rows(reference, start)])
            if not alike(reference(rows), reference(rows)):
                raise ValueError(f"the model's log-joint {self._joint.why_random()}")
            chosen, reason = first_that_agrees([partial(way, batch=batch) for way in self._ways], reference, rows)
        self._leave_out(0 if chosen is None else chosen, reason)
        if self._joint.hidden_latent:
            warnings.warn(
                f"the model hides the latent sites {self._joint.hidden_latent} behind poutine.block; at the points "
                "that were tried the log-joint did not depend on them, but they are no part of it; if anything "
                "observed does, pass joint=, the same model with them summed out or held fixed by poutine.condition",
                stacklevel=4,
            )

    def _leave_out(self, count: int, reason: str) -> None:
        del self._ways[:count]
        if count and self._joint.summed:
            self.note = (
                f"the discrete sites {self._joint.summed} are summed out of the log-joint, which is evaluated "
                f"{self._ways[0].cost}"
            )
        elif count:
            self.note = (
                f"the model does not run in one more plate ({reason}), so its log-joint is evaluated "
                f"{self._ways[0].cost}; index from the right and sum over the model's own dimensions only, as "
                "vectorize_particles=True asks for, to run all draws at once"
            )

    def _run(self, latent: Tensor, batch: Minibatch) -> Tensor:
        if latent.ndim != 2 or latent.shape[1] != self._latent_dim:
            raise ValueError(f"expected vectors of shape (rows, {self._latent_dim}), got {tuple(latent.shape)}")
        for index, way in enumerate(self._ways):
            try:
                values = way(latent, batch)
            except Exception as error:
                # shapes may fit for the number of rows that was tried and for no other; an error of the model itself
                # comes again when it runs for each vector alone
                if way is self._surest:
                    raise
                reason = f"{type(error).__name__} for {len(latent)} rows"
                continue
            if index:
                self._leave_out(index, reason)
                warnings.warn(self.note, stacklevel=3)
            return values
        raise AssertionError("the last way returns or raises")
