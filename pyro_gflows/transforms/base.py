"""EquivariantTransform: the one place where the contract with Pyro is kept."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor
from torch.distributions import constraints

from pyro_gflows.actions import GroupAction
from pyro_gflows.distributions.supports import is_real
from pyro_gflows.precision import full_precision, is_low, on_methods, refuse_low
from pyro_gflows.transforms.last_draw import LastDraw

__all__ = ["EquivariantTransform", "forget_param_store"]


class EquivariantTransform(TransformModule):
    r"""A bijection T of events with :math:`T(\rho_{in}(g)\,x) = \rho_{out}(g)\,T(x)`.

    A subclass writes ``call_and_ladj(x)`` and ``inv_call_and_ladj(y)``: value and log|det| of that very map in one
    pass, the log-det of exactly the batch shape. All that Pyro and torch ask for is derived here, and that inside
    ``torch.autocast`` these methods compute without it, networks included: an event that was rounded to three digits
    has lost its symmetry and its log-det.

    Args:
        action_in: how the group moves x.
        action_out: how it moves y (as x, unless given).

    Raises:
        TypeError: ``action_in`` is not a GroupAction; (in a call) events, contexts or weights of half precision.
        ValueError: two actions of different groups.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> class Double(EquivariantTransform):
        ...     def call_and_ladj(self, x):
        ...         return 2 * x, torch.full(x.shape[:-1], x.shape[-1] * torch.tensor(2.0).log())
        ...     def inv_call_and_ladj(self, y):
        ...         return y / 2, -self.call_and_ladj(y)[1]
        >>> Double(VectorAction.plane("D4")).inv(torch.ones(2))
        tensor([0.5000, 0.5000])
    """

    bijective = True
    _has_low_weights = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        on_methods(cls, _COMPUTING, lambda method: full_precision(_refusing_low(method)))
        on_methods(cls, ("lipschitz_bound",), full_precision)

    def __init__(self, action_in: GroupAction, action_out: GroupAction | None = None) -> None:
        super().__init__(cache_size=0)
        if not isinstance(action_in, GroupAction):
            raise TypeError(f"expected a GroupAction such as VectorAction.plane('D4'), got {type(action_in).__name__}")
        action_in.require_representation()
        self.action_in = action_in
        self.action_out = action_in if action_out is None else action_out
        if self.action_out.group != action_in.group:
            raise ValueError(f"expected two actions of one group, got {action_in} and {self.action_out}")
        self._last_draw = LastDraw()
        self._inverse_ref: weakref.ref[EquivariantTransform] | None = None

    # -- what a subclass writes ---------------------------------------------------------------------------------------
    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(T(x), log|det dT/dx|)``."""
        raise NotImplementedError

    def inv_call_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """``(T^{-1}(y), log|det dT^{-1}/dy|)``."""
        raise NotImplementedError

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Set data-dependent parameters from base-side events x, and return T(x). Most transforms have none."""
        with torch.no_grad():
            return self.call_given(x, context)[0]

    def initialize_inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """As :meth:`initialize`, from data-side events y; returns T^{-1}(y)."""
        with torch.no_grad():
            return self.inv_call_given(y, context)[0]

    # -- contexts: see ConditionalTransform ---------------------------------------------------------------------------
    @property
    def context_action(self) -> GroupAction | None:
        """How the group moves the context that this transform takes; None: it takes none."""
        return None

    def call_given(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """``call_and_ladj`` under a context; one that takes none is the same under all."""
        return self.call_and_ladj(x)

    def inv_call_given(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """``inv_call_and_ladj`` under a context."""
        return self.inv_call_and_ladj(y)

    @full_precision
    def condition(self, context: Tensor) -> EquivariantTransform:
        """This transform under a batch of contexts, a :class:`Conditioned` view that shares the weights."""
        from pyro_gflows.transforms.conditional import Conditioned  # it is an EquivariantTransform itself

        return Conditioned(self, context)

    # -- torch's Transform --------------------------------------------------------------------------------------------
    @property
    def domain(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, self.action_in.event_dim)

    @property
    def codomain(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, self.action_out.event_dim)

    @property
    def reaches_all(self) -> bool:
        """Whether every event is a value of T, whatever its weights: no layer maps into an interval."""
        return is_real(self.codomain)

    def reaches(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """Which events are values of T, NaN included; the batch shape."""
        if self.reaches_all or not y.numel():
            return torch.ones(y.shape[: y.ndim - self.action_out.event_dim], dtype=torch.bool, device=y.device)
        inside: Tensor = self.codomain.check(y)
        return inside

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        return _exchange(shape, self.action_in, self.action_out)

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        return _exchange(shape, self.action_out, self.action_in)

    def _call(self, x: Tensor) -> Tensor:
        drawn = self._last_draw.source_of(self, x)
        if drawn is not None:
            return drawn
        self.action_in.check_event(x)
        y, ladj = self.call_and_ladj(x)
        self._last_draw.keep(self, x, y, ladj)
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        drawn = self.drawn_from(y)
        if drawn is not None:
            return drawn
        x, ladj = self.inv_call_and_ladj(y)
        self._last_draw.keep(self, y, x, -ladj)
        return x

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        kept = self._last_draw.take(self, x, y)
        return self.call_and_ladj(x)[1] if kept is None else kept

    def drawn_from(self, y: Tensor) -> Tensor | None:
        """What this very tensor was made from, if it was made last and nothing has changed since; else None."""
        drawn = self._last_draw.source_of(self, y)
        if drawn is None:
            self.action_out.check_event(y, "y")
        return drawn

    @property
    def inv(self) -> EquivariantTransform:
        inverse = None if self._inverse_ref is None else self._inverse_ref()
        if inverse is None:
            from pyro_gflows.transforms.invert import Invert  # it is an EquivariantTransform itself

            inverse = Invert(self)
            self._inverse_ref = weakref.ref(inverse)
        return inverse

    def with_cache(self, cache_size: int = 1) -> EquivariantTransform:
        return self  # its own cache is always on, and never stale

    def clear_cache(self) -> None:
        """Forget the last drawn value."""
        self._last_draw.drop()

    # -- nothing outlives the weights that made it --------------------------------------------------------------------
    def train(self, mode: bool = True) -> EquivariantTransform:
        self.clear_cache()
        super().train(mode)
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self.clear_cache()
        super()._apply(*args, **kwargs)
        self._has_low_weights = any(is_low(parameter) for parameter in self.parameters())
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.clear_cache()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        forget_param_store(self)
        return {**self.__dict__, "_last_draw": LastDraw(), "_inverse_ref": None, "_inv": None}

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = torch.nn.Module.__hash__
    __repr__ = torch.nn.Module.__repr__  # torch's Transform would print the class name alone

    def extra_repr(self) -> str:
        if self.action_out == self.action_in:
            return str(self.action_in)
        return f"{self.action_in} -> {self.action_out}"


_COMPUTING = (
    "call_and_ladj",
    "inv_call_and_ladj",
    "call_given",
    "inv_call_given",
    "initialize",
    "initialize_inverse",
)


def _refusing_low(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a transform that refuses events, contexts and weights of half precision."""

    @functools.wraps(method)
    def inner(self: EquivariantTransform, *args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            refuse_low(value, "events and contexts")
        if self._has_low_weights:
            refuse_low(next(filter(is_low, self.parameters()), None), "weights")
        return method(self, *args, **kwargs)

    return inner


def forget_param_store(module: torch.nn.Module) -> None:
    """Drop the weak references that Pyro's param store hangs on parameters: with them a trained module cannot be
    pickled, and Pyro sets them anew whenever it hands a parameter out."""
    for parameter in module.parameters():
        parameter.__dict__.pop("unconstrained", None)


def _exchange(shape: Sequence[int], old: GroupAction, new: GroupAction) -> torch.Size:
    shape = torch.Size(shape)
    batch = len(shape) - old.event_dim
    if batch < 0 or shape[batch:] != old.event_shape:
        raise ValueError(
            f"expected a shape (..., {', '.join(map(str, old.event_shape))}) for {old}, got {tuple(shape)}"
        )
    return shape[:batch] + new.event_shape
