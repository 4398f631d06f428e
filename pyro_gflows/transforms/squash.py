"""Maps of every coordinate into an interval, such as the logit preprocessing of images."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_gflows.actions import LinearAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.base import EquivariantTransform

__all__ = ["GNormalCdf", "GSigmoid", "Squash"]


class Squash(EquivariantTransform):
    r"""The base class of layers that map every coordinate into an interval, by one increasing function.

    As the last layer of a flow such a map makes data with bounds, such as gray levels. The ready-made ones are
    :class:`GSigmoid`, for most purposes, and :class:`GNormalCdf`. A subclass of your own writes ``squash(x)`` for the
    function s below, ``stretch(p)`` for its inverse, and ``log_slope(x)``, all of them coordinate by coordinate.

    .. math:: y_i = a + (b - a)\,\frac{s(x_i) - \alpha}{1 - 2\alpha}, \qquad
        \log|\det J| = \sum_i \log s'(x_i) + n \log\frac{b - a}{1 - 2\alpha}

    where x_i and y_i are the n coordinates of an event, (a, b) is the ``interval``, :math:`\alpha` is the margin, and s
    rises from 0 to 1. Events keep their shape. The range contains [a, b] with a margin of
    :math:`\alpha/(1-2\alpha)` times its length on both sides. The map is bijective onto the open range because s is
    increasing. It is equivariant because it is the same for all coordinates, which the group permutes. Values outside
    the range are outside the support of a flow that ends with this layer: their log-density raises ValueError (Pyro's
    validation), and the inverse of the layer alone gives NaN.

    Args:
        action: How the group acts on events, by permutations of the coordinates.
        interval: The ends (a, b) between which the data lie: ``scaling.interval()`` of
            :class:`~pyro_gflows.datasets.GrayLevels`.
        alpha: The margin; it must be above 0 where data may be equal to a or b.

    Raises:
        TypeError: ``action`` is not a LinearAction.
        ValueError: The group does not permute coordinates, a >= b, or alpha is outside [0, 1/2).

    Example:
        >>> from pyro_gflows import VectorAction
        >>> class GArctan(Squash):
        ...     def squash(self, x):
        ...         return 0.5 + x.arctan() / math.pi
        ...     def stretch(self, p):
        ...         return (math.pi * (p - 0.5)).tan()
        ...     def log_slope(self, x):
        ...         return -(math.pi * (1 + x**2)).log()
        >>> GArctan(VectorAction.rows("S3"), (-1.0, 1.0), alpha=0.0)(torch.zeros(3)).tolist()
        [0.0, 0.0, 0.0]
    """

    def __init__(self, action: LinearAction, interval: Sequence[float] = (0.0, 1.0), *, alpha: float = 0.05) -> None:
        super().__init__(action)
        require_linear(action)
        if not action.is_permutation:
            kind = "a signed permutation" if action.is_signed_permutation else "no permutation"
            raise ValueError(
                f"a map into an interval commutes with permutations of the coordinates only, got {kind}: {action}; "
                "put it where the events are plain pixels (trivial or regular fields)"
            )
        low, high = (float(end) for end in interval)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"expected an interval (low, high) with low < high, both finite, got {tuple(interval)}")
        if not 0 <= alpha < 0.5:
            raise ValueError(f"expected alpha in [0, 1/2), got {alpha}")
        self.alpha = alpha
        self._length = (high - low) / (1 - 2 * alpha)
        self._bottom = low - alpha * self._length

    # -- what a subclass writes ---------------------------------------------------------------------------------------
    @abstractmethod
    def squash(self, x: Tensor) -> Tensor:
        """The value s(x), in [0, 1]."""

    @abstractmethod
    def stretch(self, p: Tensor) -> Tensor:
        """The x with s(x) = p, for p strictly between 0 and 1."""

    @abstractmethod
    def log_slope(self, x: Tensor) -> Tensor:
        """The logarithm of the slope, log s'(x)."""

    # -- the transform ------------------------------------------------------------------------------------------------
    @property
    def limits(self) -> tuple[float, float]:
        """The open interval of all y."""
        return self._bottom, self._bottom + self._length

    @property
    def codomain(self) -> constraints.Constraint:
        return constraints.independent(constraints.interval(*self.limits), self.action_out.event_dim)

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # clamped, so that a draw can be scored also where s is rounded to 0 or 1
        return (self._bottom + self._length * _inside(self.squash(x))).clamp(*self.limits), self._ladj(x)

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        p = (y - self._bottom) / self._length
        x = self.stretch(_inside(p)).masked_fill(self._is_outside(p), math.nan)
        return x, -self._ladj(x)

    def reaches(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        outside = self._is_outside((y - self._bottom) / self._length)
        return ~outside.flatten(y.ndim - self.action_out.event_dim).any(-1)

    def _is_outside(self, p: Tensor) -> Tensor:
        # a draw on an end counts as inside, also after rounding errors of other layers and their inverses
        slack = 4 * torch.finfo(p.dtype).eps * (1 + max(map(abs, self.limits)) / self._length)
        return (p < -slack) | (p > 1 + slack)

    def _ladj(self, x: Tensor) -> Tensor:
        slopes = self.log_slope(x).flatten(x.ndim - self.action_in.event_dim).sum(-1)
        return slopes + self.action_in.numel * math.log(self._length)

    def extra_repr(self) -> str:
        low, high = self.limits
        return f"{super().extra_repr()}, onto ({low:.4g}, {high:.4g})"


def _inside(p: Tensor) -> Tensor:
    kind = torch.finfo(p.dtype)
    return p.clamp(kind.tiny, 1 - kind.eps)


@registered
class GSigmoid(Squash):
    r"""The logistic map :math:`s(x) = 1/(1 + e^{-x})` into an interval, for the logit preprocessing of images.

    It is a :class:`Squash`, with its arguments, and :math:`\log s'(x) = \log s(x) + \log s(-x)`, which does not
    overflow.

    Source: RealNVP, arXiv:1605.08803 (section 4.1).

    Example:
        >>> from pyro_gflows import ImageAction
        >>> layer = GSigmoid(ImageAction("D4", size=2), (-1.0, 3.0), alpha=0.0)
        >>> layer(torch.zeros(1, 2, 2)).flatten().tolist()
        [1.0, 1.0, 1.0, 1.0]
        >>> layer.inv(torch.full((1, 2, 2), 9.0)).isnan().all()
        tensor(True)
    """

    def squash(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)

    def stretch(self, p: Tensor) -> Tensor:
        return torch.logit(p)

    def log_slope(self, x: Tensor) -> Tensor:
        log_sigmoid = torch.nn.functional.logsigmoid
        return log_sigmoid(x) + log_sigmoid(-x)


@registered
class GNormalCdf(Squash):
    r"""The distribution function of the standard normal distribution, into an interval.

    It is a :class:`Squash`, with its arguments, and :math:`\log s'(x) = -x^2/2 - \tfrac12 \log 2\pi`. With ``alpha=0``
    it takes the isotropic normal distribution to the uniform one, exactly: this is how the noise of a dequantizer
    starts.

    Example:
        >>> from pyro_gflows import EquivariantFlow, InvariantNormal, VectorAction
        >>> action = VectorAction.regular("C4")
        >>> EquivariantFlow(InvariantNormal(action), [GNormalCdf(action, (0.0, 2.0), alpha=0.0)])(torch.ones(4)).exp()
        tensor(0.0625)
    """

    def squash(self, x: Tensor) -> Tensor:
        return torch.special.ndtr(x)

    def stretch(self, p: Tensor) -> Tensor:
        return torch.special.ndtri(p)

    def log_slope(self, x: Tensor) -> Tensor:
        return -0.5 * (x.square() + math.log(2 * math.pi))
