"""EquivariantTransform: the one place where the contract with Pyro is kept; its inverse and its conditioned view."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_gflows.actions import Action
from pyro_gflows.actions.requirements import require_exact
from pyro_gflows.numerics.precision import full_precision, is_low, on_methods, refuse_low
from pyro_gflows.serialization.registry import registered
from pyro_gflows.spaces import Euclidean, Space, require_space
from pyro_gflows.transforms.torch_interface import TorchInterface, taking_a_context

__all__ = ["Conditioned", "EquivariantTransform", "Invert", "Wrapper"]


class EquivariantTransform(TorchInterface):
    r"""The base class of all layers: a bijection T of events that commutes with the group (is equivariant).

    .. math:: T(\rho_{in}(g)\,x \mid \rho_c(g)\,c) = \rho_{out}(g)\,T(x \mid c)

    Here x is an event, c a context (for a layer that takes one), and g any group element, which acts on x, on c and on
    the value of T by :math:`\rho_{in}(g)`, :math:`\rho_c(g)` and :math:`\rho_{out}(g)`. Most flows need only
    ready-made layers: :func:`g_coupling`, :func:`g_residual`, :func:`g_autoregressive`, :func:`g_radial`,
    :class:`GActNorm` and :class:`GLinear`.

    A layer of your own is a subclass that writes two methods, ``call_and_ladj(x, context=None)`` and
    ``inv_call_and_ladj(y, context=None)``. Each returns the value, of shape ``batch_shape + event_shape``, and the
    log|det| of the map that it computes, of shape ``batch_shape``. A layer that takes no context ignores the argument,
    or leaves it out. A map of other spaces than R^n names them in ``spaces``. All other methods that Pyro and torch
    call are derived here. Transforms remember nothing between calls;
    :class:`~pyro_gflows.flows.FlowDistribution` keeps the last draw, so that it can be scored.

    Inside ``torch.autocast`` these methods, networks included, compute in full precision: an event that was rounded to
    three digits would have lost its symmetry and its log-det.

    Args:
        action_in: How the group acts on x.
        action_out: How it acts on y; by default as on x.

    Raises:
        TypeError: ``action_in`` is not an Action; (in a call) events, contexts or weights of half precision.
        ValueError: The two actions are of different groups, or events lie on a space that is not among :attr:`spaces`.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> class Double(EquivariantTransform):
        ...     def call_and_ladj(self, x, context=None):
        ...         return 2 * x, torch.full(x.shape[:-1], x.shape[-1] * torch.tensor(2.0).log())
        ...     def inv_call_and_ladj(self, y, context=None):
        ...         return y / 2, -self.call_and_ladj(y)[1]
        >>> Double(VectorAction.plane("D4")).inv(torch.ones(2))
        tensor([0.5000, 0.5000])
    """

    spaces: ClassVar[tuple[type[Space], ...]] = (Euclidean,)
    """The kinds of spaces on which this map is a bijection; ``(Space,)`` for a layer that wraps other layers."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        on_methods(cls, ("call_and_ladj", "inv_call_and_ladj"), taking_a_context, check=_refuse_low)
        on_methods(cls, ("initialize", "initialize_inverse"), check=_refuse_low)
        on_methods(cls, ("lipschitz_bound",))

    def __init__(self, action_in: Action, action_out: Action | None = None) -> None:
        super().__init__(cache_size=0)
        require_exact(action_in)
        if not isinstance(action_in, Action):
            raise TypeError(f"expected an Action such as VectorAction.plane('D4'), got {type(action_in).__name__}")
        self.action_in = action_in
        self.action_out = action_in if action_out is None else action_out
        if self.action_out.group != action_in.group:
            raise ValueError(f"expected two actions of one group, got {action_in} and {self.action_out}")
        for action in (self.action_in, self.action_out):
            require_space(action.space, self.spaces, type(self).__name__)
        self._inverse_ref: weakref.ref[EquivariantTransform] | None = None

    # -- what a subclass writes ---------------------------------------------------------------------------------------
    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(T(x | context), log|det dT/dx|)``."""
        raise NotImplementedError(f"{type(self).__name__} has to write call_and_ladj(x, context=None)")

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(T^{-1}(y | context), log|det dT^{-1}/dy|)``."""
        raise NotImplementedError(f"{type(self).__name__} has to write inv_call_and_ladj(y, context=None)")

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Set the parameters that depend on data, if any, from events x on the side of the base; return T(x)."""
        with torch.no_grad():
            return self.call_and_ladj(x, context)[0]

    def initialize_inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """Set the same parameters from events y on the side of the data, and return T^{-1}(y)."""
        with torch.no_grad():
            return self.inv_call_and_ladj(y, context)[0]

    # -- contexts: see ConditionalTransform ---------------------------------------------------------------------------
    @property
    def context_action(self) -> Action | None:
        """How the group acts on the context that this transform takes; None if it takes none."""
        return None

    @full_precision
    def condition(self, context: Tensor) -> Conditioned:
        """This transform for a batch of contexts: a :class:`Conditioned` view that shares the weights."""
        return Conditioned(self, context)

    @property
    def reaches_all(self) -> bool:
        """Whether every event is a value of T for all weights: it is not where a layer maps into an interval."""
        own = type(self).codomain
        return own is TorchInterface.codomain or self.codomain is self.action_out.space.constraint

    def reaches(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """Which events are values of T, as booleans of the batch shape."""
        if self.reaches_all or not y.numel():
            return torch.ones(y.shape[: y.ndim - self.action_out.event_dim], dtype=torch.bool, device=y.device)
        inside: Tensor = self.codomain.check(y)
        return inside

    @property
    def inv(self) -> EquivariantTransform:
        inverse = None if self._inverse_ref is None else self._inverse_ref()
        if inverse is None:
            inverse = Invert(self)
            self._inverse_ref = weakref.ref(inverse)
        return inverse


def _refuse_low(transform: EquivariantTransform, *values: Any) -> None:
    """TypeError for events, contexts or weights of half precision."""
    for value in values:
        refuse_low(value, "events and contexts")
    held = transform
    while isinstance(held, Invert | Wrapper):  # a wrapper may have been made after the change of dtype
        held = held.transform
    if held._has_low_weights:
        refuse_low(next(filter(is_low, held.parameters()), None), "weights")


@registered
class Invert(EquivariantTransform):
    r"""The inverse bijection, :math:`y \mapsto T^{-1}(y)`, as a Module that owns the transform it inverts.

    Its log-det is :math:`-\log|\det J_T(T^{-1}(y))|`, where :math:`J_T` is the Jacobian of T. It is equivariant because
    T is. ``transform.inv`` makes it.

    Args:
        transform: The transform T to invert.

    Example:
        >>> from pyro_gflows import VectorAction, g_residual
        >>> layer = g_residual(VectorAction.plane("D8"))
        >>> layer.inv.inv is layer
        True
    """

    spaces = (Space,)

    def __init__(self, transform: EquivariantTransform) -> None:
        super().__init__(transform.action_out, transform.action_in)
        self.transform = transform

    @property
    def inv(self) -> EquivariantTransform:
        return self.transform

    @property
    def context_action(self) -> Action | None:
        return self.transform.context_action

    @property
    def domain(self) -> constraints.Constraint:
        return self.transform.codomain

    @property
    def codomain(self) -> constraints.Constraint:
        return self.transform.domain

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        return self.transform.inverse_shape(shape)

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        return self.transform.forward_shape(shape)

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.inv_call_and_ladj(x, context)

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.call_and_ladj(y, context)

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.transform.initialize_inverse(x, context)

    def initialize_inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self.transform.initialize(y, context)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -self.transform.log_abs_det_jacobian(y, x)


class Wrapper(EquivariantTransform):
    """A transform that computes the map of another one in a way of its own, with the same domain and image."""

    spaces = (Space,)
    transform: EquivariantTransform

    @property
    def domain(self) -> constraints.Constraint:
        return self.transform.domain

    @property
    def codomain(self) -> constraints.Constraint:
        return self.transform.codomain

    @property
    def reaches_all(self) -> bool:
        return self.transform.reaches_all

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        return self.transform.forward_shape(shape)

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        return self.transform.inverse_shape(shape)


class Conditioned(Wrapper):
    r""":math:`x \mapsto T(x \mid c)` for a batch of contexts: a light view that shares T's weights.

    Its batch shape is the broadcast of the batch shapes of events and contexts, so that a distribution draws one base
    sample for each context. For one fixed context the map has no symmetry left, so this view claims the trivial group.

    Args:
        transform: T, with a ``context_action``.
        context: Contexts of shape ``batch_shape + context_action.event_shape``.

    Raises:
        ValueError: T takes no context, or the context has another event shape.

    Example:
        >>> from pyro_gflows import GAffine, VectorAction
        >>> action = VectorAction.plane("D4")
        >>> layer = GAffine(action, context_action=VectorAction.regular("D4"))
        >>> view = layer.condition(torch.zeros(5, 8))
        >>> view(torch.zeros(2)).shape, view.action_in
        (torch.Size([5, 2]), VectorAction(C1 on R^2: 2 x trivial))
    """

    context: Tensor

    def __init__(self, transform: EquivariantTransform, context: Tensor) -> None:
        action = transform.context_action
        if action is None:
            raise ValueError(
                f"expected a transform that takes a context, got {transform}; give its constructor context_action="
            )
        action.check_event(context, "context")
        refuse_low(context, "events and contexts")
        super().__init__(transform.action_in.without_symmetry(), transform.action_out.without_symmetry())
        self.transform = transform
        # a buffer, so that a distribution notices when the context changes after its last draw
        self.register_buffer("context", context, persistent=False)
        self._context_dim = action.event_dim
        self.training = transform.training

    @property
    def _batch_shape(self) -> torch.Size:
        return self.context.shape[: self.context.ndim - self._context_dim]

    def reaches(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self.transform.reaches(*self._pair(y, self.action_out))

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        return self._joined(super().forward_shape(shape), self.action_out)

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        return self._joined(super().inverse_shape(shape), self.action_in)

    def _joined(self, shape: torch.Size, action: Action) -> torch.Size:
        batch = shape[: len(shape) - action.event_dim]
        try:
            return torch.broadcast_shapes(batch, self._batch_shape) + action.event_shape
        except RuntimeError:
            raise ValueError(
                f"the batch shapes of the events and of the contexts do not broadcast: {tuple(batch)} and "
                f"{tuple(self._batch_shape)}"
            ) from None

    def _pair(self, x: Tensor, action: Action) -> tuple[Tensor, Tensor]:
        """Events and contexts, of one batch shape."""
        shape = self._joined(x.shape, action)
        batch = shape[: len(shape) - action.event_dim]
        return x.expand(shape), self.context.expand(batch + self.context.shape[self.context.ndim - self._context_dim :])

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.call_and_ladj(*self._pair(x, self.action_in))

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.inv_call_and_ladj(*self._pair(y, self.action_out))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, for contexts of batch shape {tuple(self._batch_shape)}"
