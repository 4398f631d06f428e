"""SequentialPlacement: a density of particles that are placed one after another around one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from pyro_gflows.actions import ParticleAction
from pyro_gflows.distributions.invariant_base import InvariantBase
from pyro_gflows.distributions.particle_order import around_center, in_frame
from pyro_gflows.nn.placement import Placed, Placement
from pyro_gflows.nn.placement_grids import PlacementGrids
from pyro_gflows.numerics.precision import full_precision, refuse_low
from pyro_gflows.serialization.registry import registered

__all__ = ["SequentialPlacement"]

_ROWS_AT_ONCE = 96  # the tables of so many fit into a processor's cache


@registered
class SequentialPlacement(InvariantBase):
    r"""A density of configurations of particles, which are placed one after another around one of them.

    It is an autoregressive flow whose conditionals have the form that forces between particles give them. It is for
    small clusters (of about 3 to 20 particles) with an energy of distances, where it needs few parameters and few data.
    Both a draw and a score are exact and take one pass; nothing is integrated or inverted numerically.

    One particle is the center, and the others follow by increasing distance from it. For each of them, a *field* gives
    every would-be position y a log-weight: a learned function of distances, :math:`v(|y - x_j|)`, summed over all
    particles :math:`x_j` that are placed; a function of :math:`|y|`; and a small network of distances for the particles
    that are still to come. The distance from the center has the density of the field averaged over directions, then the
    direction has the density of the field at that distance. Both are tabulated on grids and interpolated so that their
    logarithms are linear between knots. For the last particle of a system with forces between pairs, the field has the
    exact form.

    The fields are functions of distances, and the grids are symmetric under reflections. So the density q of the
    differences :math:`y_k = x_k - x_c` from the center c, sorted by length, is exactly invariant under rotations and
    reflections, and in a frame of the first ones it is a product of the conditionals and of the volumes
    :math:`r_k^{d-1}`. Any particle may be the center:

    .. math:: p(x) = \frac{n^{d/2}}{n!} \sum_{c=1}^n q(\text{sorted } (x_k - x_c)_{k \ne c}),

    where :math:`n^{d/2}` is the change of volume from orthonormal coordinates to differences. So p is exactly invariant
    under the group of the action, and under all rotations and reflections also where that group is smaller.

    A score takes n evaluations; training takes fewer. By likelihood, train the lower bound :meth:`most_central`, whose
    sum leaves out particles at the surface. By an energy, train :attr:`around_first`, the density with the first
    particle as the center, whose divergence from an invariant target bounds that of p from above. Then use p, whose
    effective sample size is higher.

    The density p is not continuous: it may jump where two particles are at the same distance from a third, as their
    order changes. So all that is trained belongs inside, and no trainable layer comes after it. And p is for particles
    that repel each other: where two of them meet it grows like :math:`1/r^{d-1}`, which is integrable, but not bounded.

    Attributes:
        may_jump: That the density may jump, for flows that are to have layers after it.
        centers: Over how many of the most central particles a score sums, or None for all.

    Args:
        action: A ParticleAction on n >= 3 particles of one species in the plane or in space. With species (1, n - 1)
            the first particle is the center.
        shortest: A distance below which particles hardly ever are, in the unit of the events.
        longest: A distance above which particles hardly ever are.
        grids: The resolution of the conditionals; by default ``PlacementGrids.default(d)``.
        width: The hidden features of the network.
        centers: Over how many of the most central particles a score sums, a lower bound; by default over all, exactly.
        validate_args: Whether arguments and values are checked, as for every torch distribution.

    Raises:
        TypeError: ``action`` is not a ParticleAction.
        ValueError: The particles are of other species, fewer than 3, in another dimension or free to leave the center
            of mass; the two distances are not positive and in order; or the number of centers is not positive.

    Example:
        >>> density = SequentialPlacement(ParticleAction(4, 2), shortest=1.0, longest=9.0)
        >>> x = density.rsample((5,))
        >>> images = density.action.act(density.action.sample(), x)
        >>> (density.log_prob(images) - density.log_prob(x)).abs().max().item() < 1e-3
        True
        >>> density.around_first
        SequentialPlacement(ParticleAction(S1 x S3 x O(2) on 4 particles in R^2, mean-free), 1 center)
    """

    action: ParticleAction
    has_rsample = True
    may_jump = True
    described_before: ClassVar[dict[str, Any]] = {"centers": lambda: None}

    def __init__(
        self,
        action: ParticleAction,
        *,
        shortest: float,
        longest: float,
        grids: PlacementGrids | None = None,
        width: int = 24,
        centers: int | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(action, ParticleAction):
            raise TypeError(f"expected a ParticleAction, got {type(action).__name__}")
        n, d = action.n, action.d
        if action.center != "mean-free" or d not in (2, 3) or action.species not in ((n,), (1, n - 1)) or n < 3:
            raise ValueError(
                "expected a ParticleAction on n >= 3 particles, of one species or of species (1, n - 1), in 2 or 3 "
                f"dimensions and with center='mean-free', got {action}"
            )
        if not 0 < shortest < longest < math.inf:
            raise ValueError(f"expected 0 < shortest < longest, got {shortest} and {longest}")
        self.action, self.centers = action, None if centers is None else _positive(centers)
        self._symmetry = ParticleAction(action.species, d)  # all rotations and reflections act on draws
        self.module = Placement(
            action.n,
            action.d,
            shortest=shortest,
            longest=longest,
            grids=PlacementGrids.default(action.d) if grids is None else grids,
            width=width,
        )
        # the chart of differences from the center, the order of the others, and the rotations
        self._log_constant = (
            0.5 * d * math.log(n) - math.lgamma(n) - math.log(2 * math.pi if d == 2 else 8 * math.pi**2)
        )
        super().__init__(torch.Size(), action.event_shape, validate_args=validate_args)

    def start_at(self, pair_energy: Callable[[Tensor], Tensor]) -> None:
        """Start the function of distances at minus an energy of pairs, where it is known; call it before training.

        With it the last particle has its exact conditional density, and a fit to the energy starts close to its end.

        Args:
            pair_energy: The energy of a pair over the temperature, as a function of squared distances, such as
                ``DoubleWell().pair_energy``.
        """
        self.module.pair.start_at(lambda squares: -pair_energy(squares))

    @torch.no_grad()
    def on_grids(self, grids: PlacementGrids) -> SequentialPlacement:
        """A density with copies of the same weights and conditionals of another resolution.

        The weights are those of functions, not of grids. So a density may be trained on coarse grids, where a step is
        quick, and used on finer ones, where the interpolated conditionals are closer to the functions.

        Args:
            grids: The resolution of the conditionals.
        """
        module = self.module
        new = SequentialPlacement(
            self.action,
            shortest=module.pair.shortest,
            longest=module.pair.longest,
            grids=grids,
            width=module.ahead.hidden.out_features,
            centers=self.centers,
            validate_args=self._validate_args,
        )
        new.module.to(module.pair.coefficients).train(module.training)
        for weight, trained in zip(new.module.parameters(), module.parameters(), strict=True):
            weight.copy_(trained)
            weight.requires_grad_(trained.requires_grad)
        return new.expand(self.batch_shape)

    @full_precision
    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))[:-2]
        reference = self.module.pair.coefficients
        refuse_low(reference, "a base")
        uniforms = torch.rand(
            shape.numel(), self.action.n - 1, self.action.d, dtype=reference.dtype, device=reference.device
        )
        x = self.in_frame(uniforms).reshape(shape + self.event_shape)
        return self._symmetry.act_each(self._symmetry.sample(shape), x)

    def in_frame(self, uniforms: Tensor) -> Tensor:
        """Configurations in the frame of the first particles around the center, as a function of uniform variables.

        The center is the first particle, and the others follow by distance from it. A random permutation, rotation and
        reflection then make it a draw.

        Args:
            uniforms: Shape ``(batch, n - 1, d)``, between 0 and 1; not all of them count.

        Returns:
            Shape ``(batch, n, d)``.
        """
        placed = self._nobody(len(uniforms), uniforms)
        for uniform in uniforms.unbind(1):
            radius, _ = self.module.radius(placed, None, uniform[:, 0])
            unit, _ = self._direction(placed, radius, None, uniform[:, 1:])
            placed = placed.with_one_more(radius, unit)
        others = placed.radii[..., None] * placed.units
        x = torch.cat([torch.zeros_like(others[:, :1]), others], 1)
        return x - x.mean(1, keepdim=True)

    @property
    def around_first(self) -> SequentialPlacement:
        """The density in which the first particle is the center of all draws, with the same module.

        It is invariant under permutations of the *other* particles. A score takes one evaluation in place of n, and its
        divergence from an invariant target is at least that of the sum over centers. So this is the density to train:
        it has no sum, and no jump that moves with the parameters.
        """
        new = self.expand(self.batch_shape)
        new.action = ParticleAction((1, self.action.n - 1), self.action.d, group=self.action.position)
        new._symmetry = ParticleAction((1, self.action.n - 1), self.action.d)
        return new

    def most_central(self, count: int) -> SequentialPlacement:
        """The same distribution with a lower bound of its score, for training: the sum over fewer centers.

        The bound sums over the particles that are closest to the center of mass, and leaves out the others, whose terms
        are positive. It is invariant as p is, costs ``count`` evaluations in place of n, and shares the module. By
        likelihood it trains better than one center, as the weights need not serve all particles alike.

        Args:
            count: The number of particles over which the score sums.

        Raises:
            ValueError: The count is not positive.
        """
        new = self.expand(self.batch_shape)
        new.centers = _positive(count)
        return new

    def computed_arguments(self) -> dict[str, Any]:
        """The action and the centers, which :attr:`around_first` and :meth:`most_central` change."""
        return {"action": self.action, "centers": self.centers}

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        batch_shape = torch.broadcast_shapes(value.shape[:-2], self.batch_shape)
        x = value.expand(batch_shape + self.event_shape).reshape(-1, *self.event_shape)
        centers = self._centers(x)
        rows = x.repeat_interleave(centers.shape[1], 0)
        pieces = zip(rows.split(_ROWS_AT_ONCE), centers.flatten().split(_ROWS_AT_ONCE), strict=True)
        log_q = torch.cat([self._around(*piece) for piece in pieces]).reshape(centers.shape)
        return (log_q.logsumexp(1) - math.log(self.action.species[0])).reshape(batch_shape)

    def _centers(self, x: Tensor) -> Tensor:
        """The particles over which a score sums, shape ``(batch, particles)``."""
        possible = self.action.species[0]
        if self.centers is None or self.centers >= possible:
            return torch.arange(possible, device=x.device).expand(len(x), -1)
        return x.detach().square().sum(-1)[:, :possible].topk(self.centers, largest=False).indices

    def _around(self, x: Tensor, center: Tensor) -> Tensor:
        """The log-density with this particle as the center."""
        radii, units = in_frame(around_center(x, center))
        placed = self._nobody(len(x), x)
        log_q = torch.full_like(radii[:, 0], self._log_constant)
        for known, unit in zip(radii.unbind(1), units.unbind(1), strict=True):
            log_q = log_q + self.module.radius(placed, known)[1] + self._direction(placed, known, unit)[1]
            log_q = log_q - (self.action.d - 1) * known.log()
            placed = placed.with_one_more(known, unit)
        return log_q

    def _direction(
        self, placed: Placed, radius: Tensor, known: Tensor | None, uniforms: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if placed.radii.shape[1] == 0:  # the frame is that of the first direction
            unit = torch.zeros(len(radius), self.action.d, dtype=radius.dtype, device=radius.device)
            unit[:, -1 if self.action.d == 3 else 0] = 1.0
            return unit, torch.zeros_like(radius)
        return self.module.direction(placed, radius, known, uniforms)

    def _nobody(self, count: int, like: Tensor) -> Placed:
        return Placed(like.new_zeros(count, 0), like.new_zeros(count, 0, self.action.d), like.new_zeros(count, 0))

    def __repr__(self) -> str:
        count = self.action.species[0]
        scored = "" if self.centers is None else f", scored by the {self.centers} most central"
        return f"SequentialPlacement({self.action}, {count} center{'s' if count > 1 else ''}{scored})"


def _positive(centers: int) -> int:
    if centers < 1:
        raise ValueError(f"expected a positive number of centers, got {centers}")
    return centers
