"""Canonicalized: an invariant density for finite groups of any size, from a density of canonical forms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_gflows.actions import VectorAction
from pyro_gflows.actions.requirements import require_vector
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.distributions.invariant_base import InvariantBase
from pyro_gflows.distributions.last_draw import LastDraw
from pyro_gflows.flows.canonical_key import best_key
from pyro_gflows.flows.distribution import FlowDistribution
from pyro_gflows.flows.domains.choice import Canonical, domain_for
from pyro_gflows.flows.gap_layers import GapCoupling, GapPlacement
from pyro_gflows.flows.into_domain import IntoDomain
from pyro_gflows.groups.order import order_in_words
from pyro_gflows.numerics.precision import full_precision
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms import Compose, EquivariantTransform

__all__ = ["Canonicalized"]

_NOTHING = nn.Identity()  # the element that made a draw depends on no weights; q remembers on which its score depends


@registered
class Canonicalized(InvariantBase):
    r"""An exactly invariant density for finite groups that are too large for a sum over their elements.

    .. math:: p(x) = \frac{1}{|G|}\, q(c(x)), \qquad c(x) = g(x)\,x

    Here :math:`c(x)` is the canonical form of x, which is the same event for all images of x: for permutations of rows,
    the rows sorted by a *key*, such as one of their features; for sign flips, the event with positive keys. The density
    q of canonical forms is a flow without symmetry. A draw is a draw of q on which a random element acts. This serves
    posteriors with one mode for each image of a point, as label switching makes them: like
    :class:`~pyro_gflows.flows.OrbitFlow`, q is about one mode only; but a score takes one evaluation of q for a group
    of any size, such as the 20! 2^20 elements of signed permutations of 20 hidden units.

    An equivariant linear map takes events to their keys, which lie in a fundamental domain with walls: the keys of two
    neighboring rows agree, or a key is 0. A gap to a wall is the quantile of a normal distribution that is truncated at
    the wall, far from it :math:`m + s u`; m depends linearly on the gaps before, so that q starts as the normal
    distribution at a mode, of which only negative gaps are cut off. The layers of q are the identity where u tends to
    minus infinity, so that q is finite and positive at each wall. The density p is continuous across mirrors only,
    where a reflection of the group takes one side to the other and acts on nothing but the keys. It may jump where the
    keys of two rows agree, if the rows have other features, and at the edges of the sectors of a group of rotations.
    Therefore all that is trained belongs inside q: a trainable layer *after* this base moves the jumps, and gradients
    of likelihoods and of paths miss a term there.

    Features on which a further factor H of the group acts (as rotations act on points) cannot be keys. If H is finite
    and small, p is the mean over the elements h of H of :math:`q(c(h\,x)) / |G|`, where G is the rest of the group.

    Attributes:
        may_jump: Whether p may jump on these events.

    Args:
        action: How the finite group acts on vectors.
        steps: Coupling steps of q; each changes a random half of the coordinates, with parameters from the other half.
        width: Hidden features of the networks of these steps.
        key: The map from events to keys, shape ``(keys, numel)``; its scale does not matter. By default
            :meth:`start_at` chooses it, and before that a first feature is the key.
        validate_args: As for every torch distribution.

    Raises:
        TypeError: ``action`` is not a VectorAction.
        ValueError: The group is continuous, no fundamental domain of it is known on these events, or ``key`` does not
            commute with the group.

    Source: Normalizing flows, arXiv:1505.05770; Neural Spline Flows, arXiv:1906.04032.

    Example:
        >>> base = Canonicalized(VectorAction.rows("S3", features=2), steps=2, width=4)
        >>> x = base.rsample((5,))
        >>> images = base.action.act_all(x)
        >>> base.log_prob(images).var(0).max().item() < 1e-6
        True
    """

    action: VectorAction
    has_rsample = True

    def __init__(
        self,
        action: VectorAction,
        *,
        steps: int = 8,
        width: int = 32,
        key: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        require_vector(action)
        self.action = action
        self._canonical = domain_for(action)
        self._has_own_key = key is not None
        first = [torch.eye(len(space))[0].double() for space in self._canonical.spaces]
        keys_of = self._canonical.keys_of(first) if key is None else _normalized(key, self._canonical, action)
        self.module = _Module(action, self._canonical, keys_of, steps=steps, width=width)
        self._log_order = math.log(self._canonical.domain.order) + math.log(len(self._canonical.averaged))
        self._last_draw = LastDraw()
        self.may_jump = _may_jump(action, self._canonical, self.module.into)
        super().__init__(torch.Size(), action.event_shape, validate_args=validate_args)

    @property
    def density(self) -> FlowDistribution:
        """The density q of canonical forms, as a distribution of the group without symmetry on the same events."""
        return self.module.density

    @property
    def order(self) -> int:
        """The number of different transformations by which the group acts (of a large group, an exact integer)."""
        return self._canonical.domain.order

    @torch.no_grad()
    def start_at(self, location: Tensor, factor: Tensor) -> None:
        r"""Choose the keys at a mode, and place q there with covariance :math:`F F^T`; call it before training.

        Far from the walls q is then this normal distribution.

        Args:
            location: The mode, shape ``(numel,)``.
            factor: A matrix F, shape ``(numel, numel)``.

        Raises:
            ValueError: A shape is wrong, the mode is not finite, or all its rows agree in every key.
        """
        n = self.action.numel
        if location.shape != (n,) or factor.shape != (n, n):
            raise ValueError(
                f"expected a mode of shape ({n},) and a factor of shape ({n}, {n}) for {self.action}, got "
                f"{tuple(location.shape)} and {tuple(factor.shape)}"
            )
        if not self._has_own_key:
            self.module.into.read_by(best_key(self.action, location, factor, canonical=self._canonical)[0])
        self.clear_cache()
        element = self.element(location)
        self.module.place(self.action.act_each(element, location), self.action.act_each(element, factor.T).T)

    @torch.no_grad()
    def element(self, x: Tensor) -> Tensor:
        """The element g(x) that takes an event to its canonical form.

        Args:
            x: Events, shape ``batch_shape + (numel,)``.
        """
        exact = x.detach().double()
        return self._canonical.domain.element(exact @ self.module.into.keys_of(exact).T)

    def canonical_form(self, x: Tensor) -> Tensor:
        """The canonical form c(x) of events, which is the same event for all images of x.

        Args:
            x: Events, shape ``batch_shape + (numel,)``.
        """
        return self.action.act_each(self.element(x), x)

    @full_precision
    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    @full_precision
    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        drawn = self.density.rsample(torch.Size(sample_shape) + self.batch_shape)
        x = self.action.act_each(self.action.sample(drawn.shape[:-1]), drawn)
        if not torch.compiler.is_compiling():
            self._last_draw.keep(_NOTHING, drawn, x, x.new_zeros(()))
        return x

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        remembered = self._last_draw.take(_NOTHING, value)
        if remembered is not None and len(self._canonical.averaged) == 1:
            return self.density.log_prob(remembered[0]) - self._log_order
        batch_shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        x = value.expand(batch_shape + self.event_shape)
        if len(self._canonical.averaged) == 1:
            return self.density.log_prob(self.canonical_form(x)) - self._log_order
        images = self.action.act_each(self._averaged(x), x)
        return self.density.log_prob(self.canonical_form(images)).logsumexp(0) - self._log_order

    def _averaged(self, x: Tensor) -> Tensor:
        elements = self._canonical.averaged.to(x.device)
        return elements.reshape(len(elements), *[1] * (x.ndim - 1), *self.action.group.element_shape)

    def expand(self, batch_shape: Sequence[int], _instance: Canonicalized | None = None) -> Canonicalized:
        new = super().expand(batch_shape, _instance)
        new._last_draw = LastDraw()
        return new

    def clear_cache(self) -> None:
        """Forget the last draw."""
        self._last_draw.drop()

    def __repr__(self) -> str:
        continuous = "continuous across mirrors only" if self.may_jump else "continuous"
        group = self.action.group
        count = group.order_in_words if group.order == self.order else order_in_words(self.order)
        return f"Canonicalized({self.action}; {count} images of an event, {continuous})"


class _Module(nn.Module):
    """The flow q, whose parameters expanded distributions share, and the dtype and device of its draws."""

    reference: Tensor

    def __init__(self, action: VectorAction, canonical: Canonical, keys_of: Tensor, *, steps: int, width: int) -> None:
        super().__init__()
        self.register_buffer("reference", torch.zeros(()), persistent=False)
        plain, gaps = VectorAction.trivial("C1", copies=action.numel), canonical.domain.dimension
        layers: list[EquivariantTransform] = [
            GapCoupling(plain, gaps, half, width=width)
            for half in (_random_half(action.numel, step) for step in range(steps))
            if len(half)
        ]
        self.placement = GapPlacement(plain, gaps)
        self.into = IntoDomain(plain, canonical.domain, keys_of)
        base = InvariantNormal(plain)
        self.base = base.module
        self.transform = Compose([*layers, self.placement, self.into])
        self.density = FlowDistribution(base, self.transform)

    def place(self, location: Tensor, factor: Tensor) -> None:
        """Place q at an event in canonical form, with a factor of the covariance."""
        location, factor = location.double(), factor.double()
        upper = torch.linalg.qr(self.into.coordinates(factor.T))[1]
        self.placement.place(self.into.coordinates(location), (upper * upper.diagonal().sign()[:, None]).T)


def _random_half(count: int, step: int) -> Tensor:
    """The coordinates that a step changes: one half in even steps, and the other half in the step that follows."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(step // 2))
    return order[count // 2 :] if step % 2 == 0 else order[: count // 2]


def _normalized(key: Tensor, canonical: Canonical, action: VectorAction) -> Tensor:
    """The user's map to the keys, with orthonormal rows, where it commutes with the group."""
    sizes = [space.shape[1] for space in canonical.spaces]
    if key.shape != (sum(sizes), action.numel):
        raise ValueError(f"expected a key of shape ({sum(sizes)}, {action.numel}) for {action}, got {tuple(key.shape)}")
    key = key.detach().to("cpu", torch.float64)
    weights = [
        torch.einsum("cki,ki->c", space, part) / space[0].square().sum()
        for space, part in zip(canonical.spaces, key.split(sizes), strict=True)
    ]
    parts = [torch.einsum("c,cki->ki", weight, space) for weight, space in zip(weights, canonical.spaces, strict=True)]
    missed = canonical.domain.gaps((key - torch.cat(parts)).T)  # a common shift of the keys of all rows has no gaps
    if not missed.abs().max() <= 1e-6 * key.abs().max() or not all(weight.norm() > 0 for weight in weights):
        raise ValueError(
            f"expected a key that commutes with the group, key @ (g x) = g (key @ x), and is not 0, for {action}, such "
            "as one feature of the rows on which nothing else acts; got one that is off by "
            f"{float(missed.abs().max()):.1e}"
        )
    return canonical.keys_of(weights)


def _may_jump(action: VectorAction, canonical: Canonical, into: IntoDomain) -> bool:
    """Whether a wall is no mirror, or the group acts on anything but the keys."""
    free = into.free.value
    acts_on_free = any(not torch.allclose(action.act(h, free), free, atol=1e-9) for h in action.generators())
    return acts_on_free or not canonical.domain.has_only_mirrors
