"""Flows on a padded space as densities of events: the padding is integrated out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pyro
import torch
from pyro.distributions import ImproperUniform, TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_gflows.actions import Action, LinearAction, ParticleAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.flows.padding_encoder import g_padding
from pyro_gflows.flows.padding_noise import PaddingNoise
from pyro_gflows.flows.variational import VariationalFlow
from pyro_gflows.serialization.registry import registered

__all__ = ["AugmentedFlow", "augment"]


def augment(
    flow: EquivariantFlow,
    *,
    padding: LinearAction | EquivariantFlow,
    draws: int = 64,
    seed: int = 0,
    particles: ParticleAction | None = None,
) -> AugmentedFlow:
    r"""The density of x that a flow of padded events (x, a) gives when the padding a is integrated out.

    A flow on a larger space has more freedom than one on the space of x, and more layers apply: no coupling splits a
    single vector of the plane, but couplings split x from a. The price is that log p(x) is an integral, which is
    bounded in training and estimated in evaluation; :class:`AugmentedFlow` says how.

    Args:
        flow: The flow of (x, a), which lie side by side along dimension ``-event_dim``.
        padding: How the group acts on a, the last fields of ``flow.action``, for the default density q(a | x) of
            :func:`g_padding`; or a conditional flow q(a | x), whose context is x.
        draws: The number of draws of a for each x, from which log p(x) is estimated in evaluation.
        seed: The seed of these draws.
        particles: How the group acts on x if events are configurations of particles, of which the flow reads the
            ``coordinates``; None where x itself lies beside a.

    Raises:
        TypeError: ``flow`` is not an EquivariantFlow, or ``padding`` is neither an action nor a flow.
        ValueError: The last fields of the flow's action are not those of the padding, no field is left for x, the flow
            takes a context, the conditional flow does not fit, or ``draws`` is below 1.

    Source: Augmented Normalizing Flows, arXiv:2002.07101; VFlow, arXiv:2002.09741.

    Example:
        >>> from pyro_gflows import GActNorm, InvariantNormal, VectorAction, g_coupling
        >>> plane, padded = VectorAction.plane("D4"), VectorAction.plane("D4", copies=2)
        >>> flow = EquivariantFlow(InvariantNormal(padded), [GActNorm(padded), g_coupling(padded), g_coupling(padded)])
        >>> density = augment(flow, padding=plane).eval()
        >>> density(torch.zeros(3, 2)).shape, density.sample((5,)).shape
        (torch.Size([3]), torch.Size([5, 2]))
    """
    if not isinstance(flow, EquivariantFlow):
        raise TypeError(f"expected the flow of the padded events, an EquivariantFlow, got {type(flow).__name__}")
    if isinstance(padding, EquivariantFlow):
        return AugmentedFlow(flow, padding, draws=draws, seed=seed, particles=particles)
    if not isinstance(padding, LinearAction):
        raise TypeError(
            f"expected padding to be a LinearAction on the padding a, or a conditional flow q(a | x), got "
            f"{type(padding).__name__}"
        )
    action = require_linear(flow.action)
    kept, last = action.fields[: -len(padding.fields)], action.fields[-len(padding.fields) :]
    if last != padding.fields or not kept:
        raise ValueError(
            f"expected a flow of events (x, a) whose last fields are those of the padding, {padding}, after at least "
            f"one field of x, got a flow of {action}; build it on action.direct_sum(padding)"
        )
    like = next(flow.parameters(), None)
    encoder = g_padding(action.with_fields(kept), padding)
    encoder = encoder if like is None else encoder.to(like)
    return AugmentedFlow(flow, encoder, draws=draws, seed=seed, particles=particles)


@registered
class AugmentedFlow(VariationalFlow):
    r"""The density p(x) of a flow p(x, a) of padded events, with a density q(a | x) of the padding a.

    .. math:: p(x) = \int p(x, a)\,da, \qquad
        \log p(x) \ge E_{q(a \mid x)} [\log p(x, a) - \log q(a \mid x)]

    In training mode ``forward`` is this bound from one draw of a for each x; ``fit`` and Pyro's ``Trace_ELBO`` with
    :meth:`model` and :meth:`guide` maximize it. In evaluation mode ``forward`` is an estimate of log p(x) from
    importance weights with a stated number of fixed draws (``repr`` shows it), so it is a smooth function of x. All
    events share these draws, so more events do not reduce the error of a mean; more draws do, and other seeds show it.
    ``importance_bound`` is the same with new draws for each event: on average it is below log p(x), and the one to
    report.

    **Invariance.** With :math:`p(g x, g a) = p(x, a)` and :math:`q(g a \mid g x) = q(a \mid x)` for every group
    element g, the density p(x) and the expectation of the bound are exactly invariant. A single draw is as random at
    g x as at x: the value is the same only if the noise behind a is replaced by its image under g. In evaluation the
    fixed noise follows the group: for up to 64 elements the estimate averages over all images of the noise; for a
    larger finite group one image follows x, so the estimate may jump where the canonical element of x changes. So it
    is exactly invariant under a finite group. Under a continuous group the noise stays as it is, and the estimate is
    invariant within its error only.

    **Particles.** With ``particles``, x is a configuration, and the flow and the encoder read its orthonormal
    coordinates; densities are those on the space of the configurations.

    **Importance weights.** A reweighting of draws by a target pi(x) is done on the padded space, since p(x) itself is
    only estimated: :meth:`padded_log_density` is :math:`\log \pi(x) + \log q(a \mid x)`, which has the same
    normalizer as pi, so ``energy_report(density.flow, density.padded_log_density(log_pi))`` has the effective sample
    size of draws of (x, a), and log Z.

    Args:
        flow: The flow of (x, a), side by side along dimension ``-event_dim``.
        encoder: The conditional flow q(a | x), whose context is x.
        draws: The number of draws of a for each x in evaluation, images of draws included.
        seed: The seed of these draws.
        particles: How the group acts on x if events are configurations of particles, of whose ``coordinates`` the flow
            and the encoder are.

    Raises:
        TypeError: ``flow`` or ``encoder`` is not an EquivariantFlow, or ``particles`` is not a ParticleAction.
        ValueError: The encoder does not fit the flow, the flow takes a context, or ``draws`` is below 1.

    Source: Augmented Normalizing Flows, arXiv:2002.07101; Importance Weighted Autoencoders, arXiv:1509.00519.

    Example:
        >>> from pyro_gflows import GActNorm, InvariantNormal, VectorAction
        >>> plane, padded = VectorAction.plane("D4"), VectorAction.plane("D4", copies=2)
        >>> flow = EquivariantFlow(InvariantNormal(padded), [GActNorm(padded)])
        >>> print(repr(AugmentedFlow(flow, g_padding(plane, plane), draws=16)).splitlines()[0])
        AugmentedFlow: VectorAction(D4 on R^2: defining), log p(x) in evaluation from 16 draws (2 and their 8 images)
    """

    def __init__(
        self,
        flow: EquivariantFlow,
        encoder: EquivariantFlow,
        *,
        draws: int = 64,
        seed: int = 0,
        particles: ParticleAction | None = None,
    ) -> None:
        super().__init__()
        for what, part in (("flow of the padded events", flow), ("conditional flow q(a | x)", encoder)):
            if not isinstance(part, EquivariantFlow):
                raise TypeError(f"expected the {what}, an EquivariantFlow, got {type(part).__name__}")
        context = encoder.context_action
        if context is None:
            raise ValueError(f"expected a conditional flow q(a | x) of the padding, whose context is x, got {encoder}")
        if flow.context_action is not None:
            raise ValueError(f"expected a flow of (x, a) without a context, got one that takes {flow.context_action}")
        self._x, self._padding = require_linear(context), require_linear(encoder.action)
        padded = self._x.direct_sum(self._padding)
        if flow.action != padded:
            raise ValueError(
                f"expected a flow of the padded events of {padded}, as the encoder of {self._padding} for contexts of "
                f"{self._x} needs it, got one of {flow.action}"
            )
        if particles is not None and not isinstance(particles, ParticleAction):
            raise TypeError(f"expected particles to be a ParticleAction or None, got {type(particles).__name__}")
        if particles is not None and particles.coordinates != self._x:
            raise ValueError(
                f"expected an encoder whose context is the coordinates of the particles, {particles.coordinates}, got "
                f"the context {self._x}"
            )
        self.flow, self.encoder, self.particles = flow, encoder, particles
        self._noise = PaddingNoise(self._x, self._padding, draws=draws, seed=seed)

    @property
    def action(self) -> Action:
        """How the group acts on x."""
        return self._x if self.particles is None else self.particles

    def _read(self, x: Tensor) -> Tensor:
        """What the flow and the encoder read of x."""
        self.action.check_event(x)
        return x if self.particles is None else self.particles.to_coordinates(x)

    @property
    def draws(self) -> int:
        """The number of draws of a for each x from which log p(x) is estimated in evaluation."""
        return self._noise.total

    def forward(self, x: Tensor) -> Tensor:
        """In training mode the bound of log p(x) from one draw; in evaluation mode the estimate from fixed draws."""
        return super().forward(x) if self.training else self._estimate(x)

    def log_weights(self, x: Tensor, draws: int) -> Tensor:
        x = self._read(x)
        batch = x.shape[: x.ndim - self._x.event_dim]
        return self._weights_of_noise(x, self.encoder.base.rsample((draws, *batch)))

    def _estimate(self, x: Tensor) -> Tensor:
        x = self._read(x)
        weights = [self._weights_of_noise(x, noise) for noise in self._noise.blocks(self.encoder.base, x)]
        return torch.logsumexp(torch.cat(weights), 0) - math.log(self.draws)

    def _weights_of_noise(self, x: Tensor, noise: Tensor) -> Tensor:
        """The values log p(x, a) - log q(a | x) for the padding a that each noise gives."""
        a, ladj = self.encoder.transform.condition(x).call_and_ladj(noise)
        log_q: Tensor = self.encoder.base.log_prob(noise) - ladj
        return self.flow(self._joined(x, a)) - log_q

    def _joined(self, x: Tensor, a: Tensor) -> Tensor:
        event_dim = self._x.event_dim
        batch = torch.broadcast_shapes(x.shape[: x.ndim - event_dim], a.shape[: a.ndim - event_dim])
        return torch.cat(
            [x.expand(*batch, *self._x.event_shape), a.expand(*batch, *self._padding.event_shape)], -event_dim
        )

    def initialize(self, x: Tensor) -> None:
        """Set the flow's data-dependent parameters from events x, with one draw of a for each."""
        x = self._read(x)
        self.flow.initialize(self._joined(x, self.encoder.condition(x).sample()))

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Exact draws of x: draws of (x, a) without a.

        Args:
            sample_shape: The batch shape of the draw.
        """
        return self._apart(self.flow.dist.sample(torch.Size(sample_shape)))[0]

    def padded_log_density(self, log_density: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        r"""The log-density :math:`\log \pi(x) + \log q(a \mid x)` of padded events, for a log-density of x.

        It is the target on the padded space: its normalizer is that of :math:`\pi`, and x has the density :math:`\pi`
        under it. So ``fit_energy`` and ``energy_report`` take it with ``density.flow``. The first does not train q.

        Args:
            log_density: The log of a density of x, up to a constant.
        """

        def of_padded(y: Tensor) -> Tensor:
            x, a = self._apart(y)
            log_q: Tensor = self.encoder.condition(self._read(x)).log_prob(a)
            return log_density(x) + log_q

        return of_padded

    def _apart(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Events x and their padding, from padded events."""
        sizes = [self._x.event_shape[0], self._padding.event_shape[0]]
        x, a = y.split(sizes, -self._x.event_dim)
        return x if self.particles is None else self.particles.from_coordinates(x), a

    def model(self, x: Tensor) -> None:
        """The Pyro model p(x, a) with x observed and a latent; draw from :meth:`sample`, not from this model.

        Args:
            x: Events of shape ``(rows,) + action.event_shape``.
        """
        pyro.module("augmented", self)
        with pyro.plate("data", len(x)):
            # the joint density is the factor of x, so the site of a adds nothing
            a = pyro.sample("a", ImproperUniform(self.flow.dist.support, torch.Size(), self._padding.event_shape))
            pyro.sample("x", _Joint(self, a), obs=x)

    def guide(self, x: Tensor) -> None:
        """The Pyro guide a ~ q(a | x).

        Args:
            x: Events of shape ``(rows,) + action.event_shape``.
        """
        pyro.module("augmented", self)
        with pyro.plate("data", len(x)):
            pyro.sample("a", self.encoder.condition(self._read(x)))

    def __repr__(self) -> str:
        parts = [f"  flow: {self.flow!r}", f"  encoder: {self.encoder!r}"]
        head = f"AugmentedFlow: {self.action}, log p(x) in evaluation from {self._noise.in_words()}"
        return "\n".join([head, *(part.replace("\n", "\n  ") for part in parts)])


class _Joint(TorchDistribution):
    """The joint density p(x, a) as a function of x, for values of a that are drawn already."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, augmented: AugmentedFlow, a: Tensor) -> None:
        self._augmented, self._a = augmented, a
        batch = a.shape[: a.ndim - augmented.encoder.action.event_dim]
        super().__init__(batch, augmented.action.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        particles = self._augmented.particles
        return self._augmented.flow.dist.support if particles is None else particles.space.constraint

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> _Joint:
        augmented = self._augmented
        return _Joint(augmented, self._a.expand(*batch_shape, *augmented.encoder.action.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        augmented = self._augmented
        return augmented.flow(augmented._joined(augmented._read(value), self._a))
