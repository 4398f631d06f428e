"""EquivariantFlow: an invariant base and equivariant transforms, checked to agree."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pyro_gflows.actions import Action
from pyro_gflows.distributions import InvariantUniformBall
from pyro_gflows.distributions.masked import MaskedNormal
from pyro_gflows.distributions.supports import interval_of
from pyro_gflows.flows.distribution import FlowDistribution, drawn_out
from pyro_gflows.serialization.registry import build, describe, registered
from pyro_gflows.spaces import require_inside
from pyro_gflows.transforms.base import EquivariantTransform
from pyro_gflows.transforms.compose import Compose
from pyro_gflows.transforms.masked import Masked
from pyro_gflows.transforms.torch_interface import forget_param_store

__all__ = ["EquivariantFlow"]

_OF_THE_CALLER = 3  # the constructor is wrapped by the registry


@registered
class EquivariantFlow(nn.Module):
    r"""A density that is exactly invariant under a group: an invariant base pushed through equivariant bijections.

    .. math:: \log p(y) = \log p_{base}(T^{-1} y) + \log|\det J_{T^{-1}}(y)|, \qquad p(\rho(g) y) = p(y)

    It is the object to train, save and sample from. With transforms that take a context it is a family of densities
    with :math:`p(\rho(g)\,y \mid \rho_c(g)\,c) = p(y \mid c)`; ``condition(context)`` gives the densities for a batch
    of contexts, which are not invariant one by one.

    Args:
        base: A Pyro distribution with an ``action`` (InvariantNormal, Symmetrized).
        transforms: EquivariantTransforms, from base to data, in this order; each one's ``action_in`` must be the
            ``action_out`` of the one before, and that of the first one the action of the base.

    Raises:
        TypeError: The base is not an invariant distribution, or a transform is not an EquivariantTransform.
        ValueError: There is no transform, the actions of two neighbors differ, or a transform that is defined on an
            interval only (the inverse of a GSigmoid) receives values outside of it.

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649.

    Example:
        >>> from pyro_gflows import InvariantNormal, VectorAction, g_residual
        >>> action = VectorAction.plane("D8")
        >>> flow = EquivariantFlow(InvariantNormal(action), [g_residual(action) for _ in range(2)])
        >>> flow.dist.sample((5,)).shape
        torch.Size([5, 2])
    """

    def __init__(self, base: Any, transforms: Sequence[EquivariantTransform]) -> None:
        super().__init__()
        if not isinstance(getattr(base, "action", None), Action):
            raise TypeError(
                f"expected an invariant base such as InvariantNormal(action), got {type(base).__name__}; "
                "wrap any distribution as Symmetrized(distribution, action)"
            )
        self.transform = Compose(transforms)
        if base.action != self.transform.action_in:
            raise ValueError(
                f"the base and the first transform do not fit: the base is invariant under {base.action}, "
                f"the transform expects {self.transform.action_in}"
            )
        _require_domains(base, self.transform)
        self.base_module = base.module
        self._base = base
        if self.trains_jumps:
            warnings.warn(
                f"the density of {type(base).__name__} may jump, and a trainable layer after it changes where it "
                "jumps; gradients of a likelihood, and gradients along paths of draws, miss what this contributes, and "
                "fit refuses such a flow. Put all that is trained inside the base (steps=, width=), or use an "
                "equivariant flow on InvariantNormal or OrbitFlow",
                stacklevel=_OF_THE_CALLER,
            )

    @property
    def trains_jumps(self) -> bool:
        """Whether trainable layers follow a base whose density may jump (Canonicalized), and change where it jumps."""
        trainable = any(parameter.requires_grad for parameter in self.transform.parameters())
        return trainable and getattr(self._base, "may_jump", False)

    @property
    def base(self) -> Any:
        """The invariant base distribution."""
        return self._base

    @property
    def action(self) -> Action:
        """How the group acts on the data."""
        return self.transform.action_out

    @property
    def transforms(self) -> list[EquivariantTransform]:
        """The transforms, from base to data."""
        return self.transform.transforms

    @property
    def context_action(self) -> Action | None:
        """How the group acts on the context that the flow takes; None if it takes none."""
        return self.transform.context_action

    @property
    def dist(self) -> FlowDistribution:
        """The density, as a Pyro distribution that shares the flow's parameters.

        Raises:
            ValueError: The flow needs a context.
        """
        if self.context_action is not None:
            raise ValueError(f"this flow needs a context, an event of {self.context_action}: flow.condition(context)")
        return FlowDistribution(self._base, self.transform)

    def condition(self, context: Tensor | None = None, *, mask: Tensor | None = None) -> FlowDistribution:
        """The densities for a batch of contexts, of masks, or of both, as a Pyro distribution of their batch shape.

        A mask says which rows of an event are there, so that sets of different sizes lie in one batch: the density of n
        rows is that of the same layers for n rows. Rows that are not there are 0 in draws and are not scored.

        Args:
            context: Contexts of shape ``batch_shape + context_action.event_shape``; None if the flow takes none.
            mask: Which rows are there, boolean, shape ``batch_shape + (n,)`` for a :class:`RowsAction` of n rows.

        Raises:
            TypeError: There is a mask, but events do not consist of rows, or the mask is not boolean.
            ValueError: The flow takes no context (or one is missing), contexts or masks have another shape, or the base
                or a layer takes no mask.
        """
        if mask is not None:
            return FlowDistribution(MaskedNormal(self._base, mask), Masked(self.transform, mask, context))
        if context is None:
            raise ValueError("expected a context, a mask or both, got none; without them the density is flow.dist")
        return FlowDistribution(self._base, self.transform.condition(context))

    def forward(self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None) -> Tensor:
        """The log-density of x, given the context and the rows that are there; DistributedDataParallel wraps this call.

        Args:
            x: Events of shape ``batch_shape + action.event_shape``.
            context: Contexts of the same batch shape, if the flow takes one.
            mask: Which rows are there, boolean, shape ``batch_shape + (n,)``; None where all are.
        """
        self.action.check_event(x)
        density = self.dist if context is None and mask is None else self.condition(context, mask=mask)
        log_prob: Tensor = density.log_prob(x)
        return log_prob

    def initialize(self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None) -> None:
        """Set the parameters of all data-dependent layers (GActNorm, GOrbitNorm) from a batch of data.

        In a training loop of your own, call it once before the first step, with some hundred events; SVI does not call
        it. Every call sets the parameters anew, also in a trained flow, except in layers with a frozen parameter.
        :func:`pyro_gflows.training.fit` calls it for the layers that are not set yet.

        Args:
            x: Events of shape ``(rows,) + action.event_shape``.
            context: Contexts of the same batch shape, if the flow takes one.
            mask: Which rows are there, boolean, shape ``(rows, n)``; None where all are.

        Raises:
            ValueError: There are fewer than 2 events, they have another shape, they are not finite, or no draw can
                equal them, as outside the interval of a GSigmoid, or where the center of mass of particles is not 0.
        """
        self.action.check_event(x)
        if x.numel() < 2 * self.action.numel:
            raise ValueError(f"expected at least 2 events to measure a scale on, got shape {tuple(x.shape)}")
        if not x.isfinite().all():
            raise ValueError("expected finite events, got NaN or inf; remove these rows before initialize")
        require_inside(self.action.space, x)
        if mask is not None:
            Masked(self.transform, mask, context).initialize_inverse(x)
            return
        self._require_reached(x, context)
        self.transform.initialize_inverse(x, context)

    def _require_reached(self, x: Tensor, context: Tensor | None) -> None:
        """Raise ValueError where no draw can equal an event: the inverse, and thereby every loss, would be NaN there.

        Only the last layer is asked, since the values that reach the layers before depend on weights that are not set.
        """
        last = self.transform.transforms[-1]
        outside = ~last.reaches(x, context)
        if not outside.any():
            return
        low, high = interval_of(last.codomain)
        raise ValueError(
            f"expected events with entries between {low:.4g} and {high:.4g}, onto which the last layer of the flow "
            f"({type(last).__name__}) maps, got entries between {float(x.min()):.4g} and {float(x.max()):.4g} "
            f"({int(outside.sum())} of {outside.numel()} events are outside); scale the data into that interval: whole "
            "gray levels of images by scaling.dequantize(images) with scaling = GrayLevels(n), whose "
            "scaling.interval() is the interval of the layer"
        )

    def config(self) -> dict[str, Any]:
        """The structure as JSON data, for :meth:`from_config`; the weights are in ``state_dict``."""
        return dict(describe(self))

    @staticmethod
    def from_config(config: dict[str, Any]) -> EquivariantFlow:
        """The flow that :meth:`config` described, with new weights."""
        flow = build(config)
        if not isinstance(flow, EquivariantFlow):
            raise ValueError(f"expected the description of an EquivariantFlow, got that of {type(flow).__name__}")
        return flow

    def __getattr__(self, name: str) -> Any:
        if name in ("sample", "rsample", "log_prob"):
            density = "dist" if self.context_action is None else "condition(context)"
            raise AttributeError(f"a flow has no {name!r}; use flow.{density}.{name}(...)")
        return super().__getattr__(name)

    def __getstate__(self) -> dict[str, Any]:
        forget_param_store(self)
        return self.__dict__

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.parameters())
        return f"EquivariantFlow: {self.action}, {count:,} parameters\n{drawn_out(self._base, self.transform)}"


def _require_domains(base: Any, transform: Compose) -> None:
    """Raise ValueError where a transform is not defined on all values that reach it: its draws would be NaN."""
    # the support of a ball is stated as all of R^n, so that points outside have a score; its radius is not known here
    arriving = (0.0, 0.0) if isinstance(base, InvariantUniformBall) else interval_of(base.support)
    for part in transform.steps:
        low, high = interval_of(part.domain)
        if arriving[0] < low or arriving[1] > high:
            raise ValueError(
                f"{' '.join(repr(part).split())} is defined between {low:g} and {high:g} only, but values between "
                f"{arriving[0]:g} and {arriving[1]:g} reach it; put a map into that interval (GSigmoid, GNormalCdf) "
                "before it, or use its .inv"
            )
        arriving = interval_of(part.codomain)
