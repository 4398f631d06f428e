"""Ways to run a model for many latent vectors: in one more plate, by vmap, or one by one."""

from __future__ import annotations

from collections.abc import Iterator

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide.guides import AutoContinuous
from torch import Tensor
from torch.distributions import biject_to

from pyro_gflows.guides.enumeration import Structure
from pyro_gflows.guides.joint_model import JointModel
from pyro_gflows.guides.minibatch import Minibatch

__all__ = ["ByVmap", "InAPlate", "OneByOne", "RowRun"]

_PLATE = "num_particles_vectorized"  # as Pyro's ELBOs call theirs, so that models treat both alike


class RowRun:
    r"""The function :math:`u \mapsto \log p(T(u), x) + \log|\det J_T(u)|` of latent vectors, for one minibatch.

    Args:
        guide: has seen the model, and knows how its latent sites are packed into one vector.
        joint: the model.
    """

    cost = ""
    """What it costs where the cheapest way does not work."""

    def __init__(self, guide: AutoContinuous, joint: JointModel) -> None:
        self._guide, self._joint = guide, joint

    def __call__(self, latent: Tensor, batch: Minibatch) -> Tensor:
        """From shape ``(rows, latent_dim)`` to ``(rows,)``."""
        raise NotImplementedError

    def _values(self, latent: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
        """The name, value and log-det of each site, from vectors of any batch shape."""
        for site, free in self._guide._unpack_latent(latent):
            transform = biject_to(site["fn"].support)
            value = transform(free)
            yield site["name"], value, transform.log_abs_det_jacobian(free, value)

    def _unpacked(self, row: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The values of all sites, and the log-det of the maps to them, of one vector."""
        values, total = {}, row.new_zeros(())
        for name, value, log_det in self._values(row):
            values[name] = value
            total = total + log_det.sum()
        return values, total

    def _one(self, row: Tensor, batch: Minibatch) -> Tensor:
        """The log-joint of one vector, by the model's own trace."""
        values, log_det = self._unpacked(row)
        total = batch.share * log_det
        for term in self._joint.terms(values, batch).values():
            total = total + term
        return total


class OneByOne(RowRun):
    """The model's own trace of each vector: what the other ways are compared with."""

    cost = "one by one, so that a step costs one run of the model for each draw"

    def __call__(self, latent: Tensor, batch: Minibatch) -> Tensor:
        if len(latent) == 0:
            return latent.sum(-1)
        return torch.stack([self._one(row, batch) for row in latent])


class ByVmap(RowRun):
    """``torch.func.vmap`` of the model's own trace. Validation is off, as it branches on values."""

    cost = "by torch.func.vmap, which costs a few times as much as a plate"

    def __call__(self, latent: Tensor, batch: Minibatch) -> Tensor:
        with pyro.validation_enabled(False):
            if self._joint.summed:
                return self._summed(latent, batch)
            values: Tensor = torch.func.vmap(lambda row: self._one(row, batch))(latent)
        return values

    def _summed(self, latent: Tensor, batch: Minibatch) -> Tensor:
        """Where discrete sites are summed out: the sum is over all rows at once, since it is no function of vmap's."""
        structures: list[Structure] = []

        def one(row: Tensor) -> tuple[Tensor, ...]:
            values, log_det = self._unpacked(row)
            structure, factors = self._joint.factors(values, batch)
            structures.append(structure)
            return log_det, *factors

        log_det, *factors = torch.func.vmap(one)(latent)
        return log_det + structures[0].total(factors, rows=True)


class InAPlate(RowRun):
    """One run for all vectors, in one more plate outside of the model's own.

    Raises:
        ValueError: (when called) a site's log-probabilities have no dimension for the vectors, or discrete sites are to
            be summed out.
    """

    def __call__(self, latent: Tensor, batch: Minibatch) -> Tensor:
        rows, nesting = len(latent), self._joint.nesting
        if self._joint.summed:
            raise ValueError(f"the discrete sites {self._joint.summed} are summed out, over all rows of a plate")
        values, total = {}, latent.new_zeros(rows)
        for name, value, log_det in self._values(latent.reshape(rows, *[1] * nesting, -1)):
            values[name] = value
            total = total + batch.share * log_det.reshape(rows, -1).sum(-1)
        with poutine.block():  # the plate itself is a message, too
            plate = pyro.plate(_PLATE, rows, dim=-nesting - 1)
        sites = self._joint.sites(values, batch, plate)
        for name, site in sites.items():
            score = site["log_prob"]
            if score.ndim != nesting + 1 or len(score) != rows:
                raise ValueError(
                    f"site {name!r} has log-probabilities of shape {tuple(score.shape)} where {rows} vectors need "
                    f"their own dimension at {-nesting - 1}"
                )
            total = total + batch.weighed(site).reshape(rows, -1).sum(-1)
        return total
