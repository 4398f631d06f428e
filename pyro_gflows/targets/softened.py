"""Energies that are softened for training, so that particles that overlap do not rule the gradient of a fit."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_gflows.targets.exact_density import Density
from pyro_gflows.targets.log_density import LogDensity, known_log_z, log_density_of, on_full_plates

__all__ = ["SoftenedDensity", "soften"]


def soften(energy: Tensor, above: float, *, width: float = 1.0) -> Tensor:
    r"""Return energies that grow only logarithmically above a value.

    The map is e up to the value a, and :math:`a + w \log(1 + (e - a)/w)` above it, with a continuous slope.

    Args:
        energy: Energies, of any shape.
        above: The value a.
        width: The width w: the slope is 1/2 where e = a + w.

    Raises:
        ValueError: If ``above`` is not finite, or ``width`` is not positive.

    Example:
        >>> soften(torch.tensor([3.0, 10.0, 1e6]), 10.0)
        tensor([ 3.0000, 10.0000, 23.8155])
    """
    if not (math.isfinite(above) and width > 0):
        raise ValueError(f"expected a finite energy and a positive width, got above={above} and width={width}")
    over = (energy - above).clamp_min(0)
    return torch.where(energy > above, above + width * torch.log1p(over / width), energy)


class SoftenedDensity:
    r"""A log-density for training with a softened energy, which knows the exact one for everything that is reported.

    An energy with a hard core is huge where particles overlap, as they do in draws of an untrained flow, and a few such
    draws rule the gradient. ``fit_energy(flow, SoftenedDensity(target, above=100))`` is trained on
    :math:`-s(-\log p)` with the map s of :func:`soften`, whose gradient still points out of the core.
    Effective sample sizes, log Z and every other figure of the report are computed from log p itself, which
    ``on_full_plates`` returns; so are the weights of :class:`OwnDraws`.

    Energies of particles have a method :meth:`ParticleTarget.softened`, which softens each pair alone where it can.

    Args:
        target: A density, or a function from events to log p up to a constant.
        above: The energy -log p above which it grows logarithmically.
        width: The width of the transition, as in :func:`soften`.
        soft: Another log-density for training, which softens parts of the energy in place of the whole.

    Attributes:
        log_z: The log-normalizer of the exact density, or None.

    Raises:
        ValueError: If ``above`` is not finite, or ``width`` is not positive.

    Example:
        >>> density = SoftenedDensity(lambda x: -x.square().sum(-1), above=2.0)
        >>> x = torch.tensor([[1.0], [4.0]])
        >>> density(x), density.on_full_plates(x)
        (tensor([-1.0000, -4.7081]), tensor([ -1., -16.]))
    """

    def __init__(
        self, target: LogDensity | Density, *, above: float, width: float = 1.0, soft: LogDensity | None = None
    ) -> None:
        soften(torch.zeros(()), above, width=width)
        self.above, self.width = above, width
        self.log_z = known_log_z(target)
        self._exact = on_full_plates(log_density_of(target))
        self._trained = log_density_of(target)
        self._soft = soft
        self._name = str(target) if isinstance(target, Density) else getattr(target, "__qualname__", repr(target))

    def __call__(self, x: Tensor) -> Tensor:
        """Return the softened log-density, shape ``(n,)``, of events of shape ``(n, *event_shape)``."""
        if self._soft is not None:
            return self._soft(x)
        return -soften(-self._trained(x), self.above, width=self.width)

    def on_full_plates(self, x: Tensor) -> Tensor:
        """Return the exact log-density, shape ``(n,)``, of events of shape ``(n, *event_shape)``."""
        return self._exact(x)

    def __repr__(self) -> str:
        return f"SoftenedDensity({self._name}, above={self.above:g}, width={self.width:g})"
