"""CircularSpline: a spline of the circle with free parameters, for plain use in Pyro."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_gflows.nn import BoundedKnots, Knots
from pyro_gflows.nn.circular_knots import circular_pieces
from pyro_gflows.numerics import circular_spline
from pyro_gflows.numerics.angles import wrap_angle
from pyro_gflows.numerics.precision import full_precision
from pyro_gflows.transforms.spline import MOST_BINS

__all__ = ["CircularSpline"]


class CircularSpline(TransformModule):
    r"""A bijection of angles by a learnable spline of each coordinate, which is smooth across the seam of the circle.

    Pyro's own splines act on the line. This one makes a flexible density of angles from any density on the circle, as
    Pyro's ``Spline`` does for real numbers, and can have several modes. It acts on every coordinate by itself.

    .. math:: y = S(x) + t \bmod 2\pi, \qquad \log\frac{dy}{dx} = \log S'(x)

    S is an increasing rational-quadratic spline of the circle (:func:`~pyro_gflows.numerics.circular_spline`) and t a
    phase shift. The map goes once around the circle, and its derivative is continuous everywhere. Every real number is
    an angle, in radians; values lie in :math:`[0, 2\pi)`. So it goes with base densities that have period
    :math:`2\pi`, such as ``VonMises``. It starts as the identity. Map and inverse have a closed form. No piece is
    narrower than 0.2 / ``bins`` of the circle with the default knots, whose other bounds
    :class:`~pyro_gflows.nn.BoundedKnots` states.

    Args:
        shape: The shape of the coordinates that have a spline each, as the last dimensions of x; () for one spline.
        bins: The number of pieces of each spline.
        knots: How the parameters become widths, heights and slopes; by default BoundedKnots.

    Raises:
        ValueError: A size is not positive, or the number of bins is not in 2..998.

    Source: Normalizing Flows on Tori and Spheres, arXiv:2002.02428.

    Example:
        >>> import pyro.distributions as dist
        >>> base = dist.VonMises(torch.tensor(0.0), torch.tensor(1.0))
        >>> density = dist.TransformedDistribution(base, [CircularSpline(bins=4)])
        >>> angle = torch.tensor(1.0)
        >>> torch.allclose(density.log_prob(angle), density.log_prob(angle + 2 * torch.pi))
        True
    """

    bijective = True
    domain: ClassVar[constraints.Constraint] = constraints.real
    codomain: ClassVar[constraints.Constraint] = constraints.real

    def __init__(self, shape: Sequence[int] = (), *, bins: int = 8, knots: Knots | None = None) -> None:
        super().__init__(cache_size=0)
        self.shape, self.bins = torch.Size(shape), bins
        if any(size < 1 for size in self.shape) or not 2 <= bins <= MOST_BINS:
            raise ValueError(
                f"expected positive sizes and from 2 to {MOST_BINS} bins, got shape {tuple(shape)} and {bins} bins"
            )
        self.knots = BoundedKnots() if knots is None else knots
        self.widths, self.heights, self.slopes = (nn.Parameter(torch.zeros(*self.shape, bins)) for _ in range(3))
        self.phase = nn.Parameter(torch.zeros(self.shape))

    def _spline(self, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        if x.shape[x.ndim - len(self.shape) :] != self.shape or x.ndim < len(self.shape):
            raise ValueError(f"expected angles of shape (..., {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        *sizes, slopes = (
            pieces.expand(*x.shape, self.bins)
            for pieces in circular_pieces(self.knots, self.widths, self.heights, self.slopes)
        )
        return circular_spline(x, (sizes[0], sizes[1]), slopes, inverse=inverse)

    @full_precision
    def _call(self, x: Tensor) -> Tensor:
        return wrap_angle(self._spline(x, inverse=False)[0] + self.phase)

    @full_precision
    def _inverse(self, y: Tensor) -> Tensor:
        return wrap_angle(self._spline(y - self.phase, inverse=True)[0])

    @full_precision
    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The logarithm of the slope at x, of the shape of x.

        Args:
            x: Angles.
            y: Their images, which are not used.
        """
        return self._spline(x, inverse=False)[1]

    def with_cache(self, cache_size: int = 1) -> CircularSpline:
        """This transform itself: the cache of torch would not notice when parameters change.

        Args:
            cache_size: Not used.
        """
        return self

    __repr__ = nn.Module.__repr__  # that of torch's Transform prints only the class name

    def extra_repr(self) -> str:
        return f"shape={tuple(self.shape)}, bins={self.bins}"
