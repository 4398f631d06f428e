"""The sites of an automatic guide: values that its latent vector decides, with the density that their maps add."""

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
    r"""The point :math:`v = T(u)` that a latent u decides, with :math:`-\log|\det J_T(u)|` as its log-density.

    A Pyro Delta in all but three respects, in which a Delta forgets that its density is a function of the point. Its KL
    divergence to p is :math:`-\log|\det J_T(u)| - \log p(v)`, where that of a Delta has the second term alone, so that
    TraceMeanField_ELBO is off by the log-det of every constrained site. And a detached point has a density without a
    gradient: ReweightedWakeSleep scores constant draws. And a draw is a tensor of its own, where that of a Delta is the
    point itself (often a view of the latent u): changed in place, it is another point, which has density 0.

    Args:
        v: the point.
        log_density: :math:`-\log|\det J_T(u)|`, of the batch shape.
        event_dim: how many dimensions of v are one event.

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
    """A context in which every Delta that is sampled is a :class:`Pushforward`.

    Example:
        >>> import pyro, torch
        >>> from pyro import poutine
        >>> with poutine.trace() as trace, pushforward_sites():
        ...     _ = pyro.sample("z", dist.Delta(torch.tensor(1.0)))
        >>> type(trace.trace.nodes["z"]["fn"]).__name__
        'Pushforward'
    """
    return _Pushforwards()
