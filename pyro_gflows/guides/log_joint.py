"""The log-joint of a model as a function of many unconstrained latent vectors at once."""

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
    r"""The log-joint of a model as a function of unconstrained latent vectors, packed as a guide packs its sites.

    With T the map from unconstrained vectors u to the values of the sites, it is
    :math:`u \mapsto \log p(T(u), x) + \log|\det J_T(u)|`.

    Call it with vectors of shape ``(n, latent_dim)``; it returns log-densities of shape ``(n,)``.
    :meth:`AutoGFlow.log_density` makes one.

    The model runs once for all vectors, inside one additional plate around its own plates, if this gives the same
    values as a separate run for each vector. If it does not (an error, a wrong shape, or values for one vector that
    depend on the others), the model runs under ``torch.func.vmap``; if that fails as well, it runs once for each
    vector. The attribute ``note`` then states the reason and the cost.

    If plates hold minibatches, each call draws a new minibatch, the same for all vectors, and scales its terms up: an
    unbiased estimate, for training. :meth:`on_full_plates` is the log-joint of the whole data set, for reports.

    Args:
        guide: A guide that has already run the model and so knows its latent sites.
        model: The model. Each of its latent sites is also a site of the guide, or is discrete and summed out by
            ``infer={"enumerate": "parallel"}``.
        args: Arguments of the model.
        kwargs: Keyword arguments of the model.

    Raises:
        ValueError: The model has latent sites that the guide does not have, or hides observed ones (by
            ``poutine.block``, say); or its log-joint at the same vector and minibatch changes from run to run. When
            called: the vectors do not have the shape ``(n, latent_dim)``.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyro_gflows import AutoGFlow, SitesAction, VectorAction
        >>> def model(x):
        ...     z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        ...     pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)
        >>> x = torch.tensor(0.0)
        >>> guide = AutoGFlow(model, SitesAction("S2", {"z": VectorAction.rows("S2")}), args=(x,))
        >>> target = guide.log_density(x)
        >>> target
        LogJoint of unconstrained vectors with 2 coordinates
        >>> target(torch.zeros(3, 2))  # -3/2 log(2 pi)
        tensor([-2.7568, -2.7568, -2.7568])
    """

    def __init__(
        self, guide: AutoContinuous, model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self.__qualname__ = "log_joint.<locals>.log_density"  # the name that is written in saved runs
        self._latent_dim = guide.latent_dim
        start = {name: site["value"] for name, site in guide.prototype_trace.iter_stochastic_nodes()}
        self._joint = JointModel(model, start, args, kwargs)
        if fault := self._joint.fault():
            raise ValueError(fault)
        self._surest = OneByOne(guide, self._joint)
        self._ways: list[RowRun] = [InAPlate(guide, self._joint), ByVmap(guide, self._joint), self._surest]
        self.note = ""
        """The reason why the model does not run inside one additional plate, and the cost; empty if it does."""
        self._choose(guide._init_loc())

    def __call__(self, latent: Tensor) -> Tensor:
        return self._run(latent, self._joint.minibatch())

    def on_full_plates(self, latent: Tensor) -> Tensor:
        """The log-joint of all rows of all plates, from one run for each of the minibatches that cover the rows.

        Args:
            latent: Unconstrained vectors, shape ``(rows, latent_dim)``.
        """
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
        return f"LogJoint of unconstrained vectors with {self._latent_dim} coordinates"

    def _choose(self, start: Tensor) -> None:
        """Keep the ways of running the model that agree with a separate run for each vector."""
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
                f"the model hides the latent sites {self._joint.hidden_latent} behind poutine.block, so they are not "
                "part of the log-joint, which did not depend on them at the points that were tried; if an observed "
                "site depends on them, pass joint=, the same model with these sites summed out or held fixed by "
                "poutine.condition",
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
                f"the model does not run inside one additional plate ({reason}), so its log-joint is evaluated "
                f"{self._ways[0].cost}; to run all draws at once, index dimensions from the right and sum over the "
                "model's own dimensions only, as for vectorize_particles=True"
            )

    def _run(self, latent: Tensor, batch: Minibatch) -> Tensor:
        if latent.ndim != 2 or latent.shape[1] != self._latent_dim:
            raise ValueError(f"expected vectors of shape (rows, {self._latent_dim}), got {tuple(latent.shape)}")
        for index, way in enumerate(self._ways):
            try:
                values = way(latent, batch)
            except Exception as error:
                # shapes may fit only for the number of rows that was tried; an error of the model itself is raised
                # again when it runs for each vector alone
                if way is self._surest:
                    raise
                reason = f"{type(error).__name__} for {len(latent)} rows"
                continue
            if index:
                self._leave_out(index, reason)
                warnings.warn(self.note, stacklevel=3)
            return values
        raise AssertionError("the last way returns or raises")
