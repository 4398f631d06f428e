"""The distribution of an automatic guide's sites: a point that the latent vector determines, with its log-det."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import register_kl

__all__ = ["Pushforward", "pushforward_sites"]


class Pushforward(dist.Delta):
    r"""A point :math:`v = T(u)` determined by a latent vector u, with the log-density :math:`-\log|\det J_T(u)|`.

    Pyro's automatic guides use a Delta for their sites. This class differs from a Delta in three ways, because its
    density is a function of the point:

    - Its KL divergence to p is :math:`-\log|\det J_T(u)| - \log p(v)`. The divergence of a Delta lacks the first term,
      so that TraceMeanField_ELBO misses the log-det of every constrained site.
    - The log-density of a detached point has no gradient, since ReweightedWakeSleep scores its draws as constants.
    - A draw is a new tensor. A draw of a Delta is the point itself, often a view of u, and if a model changes it in
      place it becomes another point with density 0.

    Args:
        v: The point.
        log_density: :math:`-\log|\det J_T(u)|`, of the batch shape.
        event_dim: The number of trailing dimensions of v that form one event.

    Example:
        >>> import torch
        >>> from torch.distributions import kl_divergence
        >>> point = Pushforward(torch.tensor(1.0), log_density=torch.tensor(0.5))
        >>> normal = dist.Normal(0.0, 1.0)
        >>> bool(torch.isclose(kl_divergence(point, normal), 0.5 - normal.log_prob(point.v)))
        True
    """

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        drawn: Tensor = super().rsample(torch.Size(sample_shape))
        return drawn.clone()

    def log_prob(self, x: Tensor) -> Tensor:
        at_point = super().log_prob(x)
        if x.requires_grad or not self.log_density.requires_grad:
            return at_point
        return at_point.detach()


@register_kl(Pushforward, dist.Distribution)
def _kl_pushforward(p: Pushforward, q: Any) -> Tensor:
    return p.log_density - q.log_prob(p.v)


class _Pushforwards(Messenger):
    def _pyro_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        if type(fn) is dist.Delta:
            msg["fn"] = Pushforward(fn.v, log_density=fn.log_density, event_dim=fn.event_dim)


def pushforward_sites() -> Messenger:
    """A context manager in which every sampled Delta is replaced by a :class:`Pushforward`.

    Example:
        >>> import pyro, torch
        >>> from pyro import poutine
        >>> with poutine.trace() as trace, pushforward_sites():
        ...     _ = pyro.sample("z", dist.Delta(torch.tensor(1.0)))
        >>> type(trace.trace.nodes["z"]["fn"]).__name__
        'Pushforward'
    """
    return _Pushforwards()
