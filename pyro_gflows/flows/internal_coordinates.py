"""InternalCoordinates: a density of a few particles from a flow in the frame of the first ones."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions import CoordinateSplit, ParticleAction, VectorAction
from pyro_gflows.distributions import InvariantNormal, Symmetrized
from pyro_gflows.distributions.invariant_base import InvariantBase
from pyro_gflows.distributions.particle_order import in_frame
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.numerics.contrasts import contrasts, from_contrasts
from pyro_gflows.numerics.precision import full_precision, refuse_low
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms import EquivariantTransform, GActNorm, g_autoregressive
from pyro_gflows.transforms.spline import ElementwiseSpline

__all__ = ["InternalCoordinates", "symmetrized_internal_coordinates"]

_MOST_PARTICLES = 5  # the sum over permutations and reflections has 2 n! terms


@registered
class InternalCoordinates(InvariantBase):
    r"""A density of particles that is invariant under rotations, by a flow without symmetry in a frame of their own.

    Rotations act on a configuration of particles, but not on its internal coordinates: those relative to a frame that
    the first particles define. Any density of these coordinates makes a density of configurations that is exactly
    invariant under rotations. Here it is an autoregressive flow with splines, which can have several modes. It is for
    small n, and the simplest flow that reaches good fits there. Permutations and reflections do change the coordinates;
    :func:`symmetrized_internal_coordinates` sums over them.

    The frame is that of the Jacobi vectors :math:`v_1, \dots, v_{n-1}`, orthonormal coordinates in which each particle
    is compared with the center of mass of those before it. In the plane, :math:`v_1` lies on the first axis of the
    frame, and in space on the last one, with :math:`v_2` in the plane of the last and the first axis. The coordinates
    u are :math:`\log |v_1|`, in space also the logarithm of the distance :math:`\rho` of :math:`v_2` from the axis of
    :math:`v_1` and its component along it, then the components of the other vectors. With the density q of the flow,

    .. math:: \log p(x) = \log q(u) - 2 \log |v_1| - \log 2\pi
        \quad\text{or}\quad \log q(u) - 3 \log |v_1| - 2 \log \rho - \log 8\pi^2

    in the plane or in space. This is a density on :class:`~pyro_gflows.spaces.MeanFree`, and continuous where
    :math:`v_1` (in space also :math:`\rho`) is not 0.

    Args:
        n: The number of particles, at least 3.
        d: The dimension of the space, 2 or 3.
        layers: Autoregressive layers with splines, each in the opposite order of the one before.
        width: Hidden features of the network of each coordinate.
        bins: Pieces of each spline.
        validate_args: As for every torch distribution.

    Raises:
        ValueError: There are fewer than 3 particles, or d is neither 2 nor 3.

    Example:
        >>> density = InternalCoordinates(4, 2, layers=1, width=4)
        >>> x = density.rsample((5,))
        >>> images = density.action.act(density.action.sample(), x)
        >>> (density.log_prob(images) - density.log_prob(x)).abs().max().item() < 1e-3
        True
    """

    action: ParticleAction
    has_rsample = True

    def __init__(
        self,
        n: int,
        d: int,
        *,
        layers: int = 3,
        width: int = 32,
        bins: int = 10,
        validate_args: bool | None = None,
    ) -> None:
        if n < 3 or d not in (2, 3):
            raise ValueError(f"expected at least 3 particles in 2 or 3 dimensions, got n = {n} and d = {d}")
        self.action = ParticleAction((1,) * n, d, group=f"SO({d})")
        self.module = _spline_flow((n - 1) * d - d * (d - 1) // 2, layers=layers, width=width, bins=bins)
        super().__init__(torch.Size(), self.action.event_shape, validate_args=validate_args)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Set scale and location of the coordinates from a batch of data; call it before training.

        Args:
            x: Configurations, shape ``(rows, n, d)``.
        """
        self._check_value(x)
        self.module.initialize(self._coordinates(x)[0])

    @full_precision
    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))[:-2]
        u, d = self.module.dist.rsample(shape), self.action.d
        first = u[..., 0].exp()
        zero = torch.zeros_like(first)
        if d == 2:
            known, rest = [first, zero], u[..., 1:]
        else:
            known, rest = [zero, zero, first, u[..., 1].exp(), zero, u[..., 2]], u[..., 3:]
        vectors = torch.cat([torch.stack(known, -1), rest], -1).unflatten(-1, (self.action.n - 1, d))
        return self.action.act_each(self.action.sample(shape), from_contrasts(vectors, -2))

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        batch_shape = torch.broadcast_shapes(value.shape[:-2], self.batch_shape)
        u, log_volume = self._coordinates(value.expand(batch_shape + self.event_shape))
        log_prob: Tensor = self.module.dist.log_prob(u) - log_volume
        return log_prob

    def _coordinates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The internal coordinates, and how much volume of configurations there is for one of coordinates."""
        refuse_low(x, "values")
        lengths, units = in_frame(contrasts(x, -2).reshape(-1, self.action.n - 1, self.action.d))
        vectors = lengths[..., None] * units
        log_first = lengths[:, 0].log()
        if self.action.d == 2:
            u = torch.cat([log_first[:, None], vectors[:, 1:].flatten(1)], 1)
            log_volume = 2 * log_first + math.log(2 * math.pi)
        else:
            log_distance = vectors[:, 1, 0].clamp_min(1e-12).log()
            known = torch.stack([log_first, log_distance, vectors[:, 1, 2]], 1)
            u = torch.cat([known, vectors[:, 2:].flatten(1)], 1)
            log_volume = 3 * log_first + 2 * log_distance + math.log(8 * math.pi**2)
        return u.reshape(*x.shape[:-2], u.shape[-1]), log_volume.reshape(x.shape[:-2])

    def __repr__(self) -> str:
        return f"InternalCoordinates({self.action})"


def symmetrized_internal_coordinates(n: int, d: int, **options: Any) -> Symmetrized:
    r"""A density of up to 5 particles that is invariant under rotations, reflections and permutations.

    It is the exact mean of :class:`InternalCoordinates` over the :math:`2\,n!` elements of the group that permutations
    and a reflection generate, with as many evaluations of its flow.

    Args:
        n: The number of particles, from 3 to 5.
        d: The dimension of the space, 2 or 3.
        options: ``layers``, ``width`` and ``bins``, as for :class:`InternalCoordinates`.

    Raises:
        ValueError: There are more than 5 particles, which would take too many terms.

    Example:
        >>> density = symmetrized_internal_coordinates(3, 2, layers=1, width=4)
        >>> x = density.sample((5,))
        >>> (density.log_prob(x.flip(-1)) - density.log_prob(x)).abs().max().item() < 1e-3  # the axes are exchanged
        True
    """
    if n > _MOST_PARTICLES:
        raise ValueError(
            f"expected at most {_MOST_PARTICLES} particles for a sum over 2 n! permutations and reflections, got {n}; "
            "take SequentialPlacement, which sums over the n centers only"
        )
    base = InternalCoordinates(n, d, **options)
    mirror = torch.eye(d, dtype=torch.float64)
    mirror[0, 0] = -1
    reflections = VectorAction.from_generators([mirror], name="reflection")
    return Symmetrized(base, ParticleAction(n, d, group=reflections))


def _spline_flow(count: int, *, layers: int, width: int, bins: int) -> EquivariantFlow:
    plain = VectorAction.trivial("C1", copies=count)
    order = [[coordinate] for coordinate in range(count)]
    made: list[EquivariantTransform] = [
        g_autoregressive(
            plain,
            split=CoordinateSplit(plain, order if layer % 2 == 0 else order[::-1]),
            transformer=functools.partial(ElementwiseSpline, bins=bins),
            width=width,
        )
        for layer in range(layers)
    ]
    return EquivariantFlow(InvariantNormal(plain), [*made, GActNorm(plain)])
