"""Three ways to run a model for many latent vectors: in one additional plate, by vmap, or one vector at a time."""

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

_PLATE = "num_particles_vectorized"  # the name that Pyro's ELBOs use, so that models treat both alike


class RowRun:
    r"""A way to evaluate the log-joint at many latent vectors for one minibatch; the base class of the three ways.

    The function is :math:`u \mapsto \log p(T(u), x) + \log|\det J_T(u)|`.

    Args:
        guide: A guide that has already run the model and so knows how its latent sites are packed into one vector.
        joint: The log-joint of the model.
    """

    cost = ""
    """How the log-joint is evaluated and at what cost, for a warning; empty for the fastest way."""

    def __init__(self, guide: AutoContinuous, joint: JointModel) -> None:
        self._guide, self._joint = guide, joint

    def __call__(self, latent: Tensor, batch: Minibatch) -> Tensor:
        """The log-joint at each latent vector.

        Args:
            latent: Unconstrained vectors, shape ``(rows, latent_dim)``.
            batch: The rows of the minibatched plates.

        Returns:
            A tensor of shape ``(rows,)``.
        """
        raise NotImplementedError

    def _values(self, latent: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
        """The name, value and log-det of each site for vectors of any batch shape."""
        for site, free in self._guide._unpack_latent(latent):
            transform = biject_to(site["fn"].support)
            value = transform(free)
            yield site["name"], value, transform.log_abs_det_jacobian(free, value)

    def _unpacked(self, row: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The values of all sites and the total log-det of the maps to them, for one vector."""
        values, total = {}, row.new_zeros(())
        for name, value, log_det in self._values(row):
            values[name] = value
            total = total + log_det.sum()
        return values, total

    def _one(self, row: Tensor, batch: Minibatch) -> Tensor:
        """The log-joint of one vector, from one run of the model."""
        values, log_det = self._unpacked(row)
        total = batch.share * log_det
        for term in self._joint.terms(values, batch).values():
            total = total + term
        return total


class OneByOne(RowRun):
    """One run of the model for each vector: the slow reference with which the other ways are compared."""

    cost = "one by one, so that a step costs one run of the model for each draw"

    def __call__(self, latent: Tensor, batch: Minibatch) -> Tensor:
        if len(latent) == 0:
            return latent.sum(-1)
        return torch.stack([self._one(row, batch) for row in latent])


class ByVmap(RowRun):
    """One run of the model under ``torch.func.vmap``, without Pyro's validation, which branches on values."""

    cost = "by torch.func.vmap, which costs a few times as much as a plate"

    def __call__(self, latent: Tensor, batch: Minibatch) -> Tensor:
        with pyro.validation_enabled(False):
            if self._joint.summed:
                return self._summed(latent, batch)
            values: Tensor = torch.func.vmap(lambda row: self._one(row, batch))(latent)
        return values

    def _summed(self, latent: Tensor, batch: Minibatch) -> Tensor:
        """The same with discrete sites summed out, after vmap and for all rows at once, since vmap cannot take sums."""
        structures: list[Structure] = []

        def one(row: Tensor) -> tuple[Tensor, ...]:
            values, log_det = self._unpacked(row)
            structure, factors = self._joint.factors(values, batch)
            structures.append(structure)
            return log_det, *factors

        log_det, *factors = torch.func.vmap(one)(latent)
        return log_det + structures[0].total(factors, rows=True)


class InAPlate(RowRun):
    """One run of the model for all vectors, in one additional plate around the model's own plates.

    Raises:
        ValueError: When called: a site's log-probabilities have no dimension for the vectors, or the model has discrete
            sites to sum out.
    """

    def __call__(self, latent: Tensor, batch: Minibatch) -> Tensor:
        rows, nesting = len(latent), self._joint.nesting
        if self._joint.summed:
            raise ValueError(
                f"the discrete sites {self._joint.summed} are to be summed out, which does not work inside one "
                "additional plate; use torch.func.vmap"
            )
        values, total = {}, latent.new_zeros(rows)
        for name, value, log_det in self._values(latent.reshape(rows, *[1] * nesting, -1)):
            values[name] = value
            total = total + batch.share * log_det.reshape(rows, -1).sum(-1)
        with poutine.block():  # constructing the plate sends a message, too
            plate = pyro.plate(_PLATE, rows, dim=-nesting - 1)
        sites = self._joint.sites(values, batch, plate)
        for name, site in sites.items():
            score = site["log_prob"]
            if score.ndim != nesting + 1 or len(score) != rows:
                raise ValueError(
                    f"site {name!r} has log-probabilities of shape {tuple(score.shape)}, but expected dimension "
                    f"{-nesting - 1} to have size {rows}, one entry for each vector"
                )
            total = total + batch.weighed(site).reshape(rows, -1).sum(-1)
        return total
