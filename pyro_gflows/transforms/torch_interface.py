"""The interface of torch and Pyro, derived from the two methods that a layer writes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor
from torch.distributions import constraints

from pyro_gflows.actions import Action
from pyro_gflows.numerics.precision import is_low

__all__ = ["TorchInterface", "forget_param_store", "taking_a_context"]

_Self = TypeVar("_Self", bound="TorchInterface")


class TorchInterface(TransformModule):
    """The part of ``EquivariantTransform`` that torch's Transform and torch's Module ask for.

    Nothing is remembered between calls, since the cache of torch does not notice when weights change.
    """

    action_in: Action
    action_out: Action
    bijective = True
    _has_low_weights = False

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """T(x | context) and the log|det| of its Jacobian; a subclass writes it."""
        raise NotImplementedError

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The inverse at y and the log|det| of its Jacobian; a subclass writes it."""
        raise NotImplementedError

    # -- torch's Transform --------------------------------------------------------------------------------------------
    @property
    def domain(self) -> constraints.Constraint:
        return self.action_in.space.constraint

    @property
    def codomain(self) -> constraints.Constraint:
        return self.action_out.space.constraint

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        return _exchange(shape, self.action_in, self.action_out)

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        return _exchange(shape, self.action_out, self.action_in)

    def _call(self, x: Tensor) -> Tensor:
        self.action_in.check_event(x)
        return self.call_and_ladj(x)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        self.action_out.check_event(y, "y")
        return self.inv_call_and_ladj(y)[0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self.call_and_ladj(x)[1]

    def with_cache(self: _Self, cache_size: int = 1) -> _Self:
        return self  # the cache of torch does not notice when weights change

    # -- torch's Module -----------------------------------------------------------------------------------------------
    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        super()._apply(*args, **kwargs)
        self._has_low_weights = any(is_low(parameter) for parameter in self.parameters())
        return self

    def __getstate__(self) -> dict[str, Any]:
        forget_param_store(self)
        return {**self.__dict__, "_inverse_ref": None, "_inv": None}

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = torch.nn.Module.__hash__
    __repr__ = torch.nn.Module.__repr__  # that of torch's Transform prints only the class name

    def extra_repr(self) -> str:
        if self.action_out == self.action_in:
            return str(self.action_in)
        return f"{self.action_in} -> {self.action_out}"


def taking_a_context(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method itself if it takes a context; else a method that takes a context and ignores it.

    Example:
        >>> taking_a_context(lambda self, x: 2 * x)(None, 3.0, None)
        6.0
    """
    if len(inspect.signature(method).parameters) > 2:
        return method

    @functools.wraps(method)
    def inner(self: TorchInterface, event: Tensor, context: Tensor | None = None) -> Any:
        return method(self, event)

    del inner.__wrapped__  # type: ignore[attr-defined]  # inspect would show the signature without a context
    return inner


def forget_param_store(module: torch.nn.Module) -> None:
    """Drop the weak references that Pyro's param store keeps at parameters.

    With them a trained module cannot be pickled. Pyro sets them anew whenever it hands out a parameter.
    """
    for parameter in module.parameters():
        parameter.__dict__.pop("unconstrained", None)


def _exchange(shape: Sequence[int], old: Action, new: Action) -> torch.Size:
    shape = torch.Size(shape)
    batch = len(shape) - old.event_dim
    if batch < 0 or shape[batch:] != old.event_shape:
        raise ValueError(
            f"expected a shape (..., {', '.join(map(str, old.event_shape))}) for {old}, got {tuple(shape)}"
        )
    return shape[:batch] + new.event_shape
