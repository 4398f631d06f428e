"""Transforms that take a context, T(x | c), and the view of one under given contexts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_gflows.actions import GroupAction
from pyro_gflows.transforms.base import EquivariantTransform
from pyro_gflows.transforms.wrapper import Wrapper

__all__ = ["ConditionalTransform", "Conditioned"]


class ConditionalTransform(EquivariantTransform):
    r"""A bijection of events for every context, with :math:`T(\rho_{in}(g)\,x \mid \rho_c(g)\,c) = \rho_{out}(g)\,T(x
    \mid c)`; without a ``context_action`` it is a plain EquivariantTransform.

    A subclass writes ``call_given(x, context)`` and ``inv_call_given(y, context)``, which get ``None`` or contexts of
    the batch shape of the events; see :class:`EquivariantTransform`.

    Args:
        action_in: how the group moves x.
        action_out: how it moves y (as x, unless given).
        context_action: how it moves the context: an action of the same group, on the same kind of event (vectors, or
            images of the same size). None: there is no context.

    Raises:
        TypeError: ``context_action`` is not a GroupAction.
        ValueError: actions of different groups.
    """

    def __init__(
        self,
        action_in: GroupAction,
        action_out: GroupAction | None = None,
        *,
        context_action: GroupAction | None = None,
    ) -> None:
        super().__init__(action_in, action_out)
        self._context_action = self.require_context_action(context_action)

    def require_context_action(self, context_action: GroupAction | None) -> GroupAction | None:
        """The action of the contexts, if it fits this transform."""
        if context_action is None:
            return None
        if not isinstance(context_action, GroupAction):
            raise TypeError(f"expected a GroupAction for the context, got {type(context_action).__name__}")
        if context_action.group != self.action_in.group:
            raise ValueError(
                f"expected a context moved by {self.action_in.group}, as the events are, got {context_action}"
            )
        return context_action

    @property
    def context_action(self) -> GroupAction | None:
        """How the group moves the context; None where there is none."""
        return self._context_action

    def call_given(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """``(T(x | context), log|det dT/dx|)``."""
        raise NotImplementedError

    def inv_call_given(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """``(T^{-1}(y | context), log|det dT^{-1}/dy|)``."""
        raise NotImplementedError

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.call_given(x, None)

    def inv_call_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.inv_call_given(y, None)

    # -- what a conditioner reads -------------------------------------------------------------------------------------
    def inputs_action(self, *parts: GroupAction) -> GroupAction:
        """How the group moves parts of the event and the context, side by side."""
        first, *rest = [*parts, *([] if self.context_action is None else [self.context_action])]
        return first.direct_sum(*rest)

    def inputs(self, parts: Sequence[Tensor], context: Tensor | None) -> Tensor:
        """Parts of the event and, where this transform takes one, the context, side by side."""
        given = [] if self.context_action is None else [self.require_context(context)]
        return torch.cat([*parts, *given], -self.action_in.event_dim)

    def require_context(self, context: Tensor | None) -> Tensor:
        """The context; ValueError where it is missing."""
        if context is None:
            raise ValueError(
                f"expected a context, which {self.context_action} moves; write transform.condition(context), or "
                "flow.condition(context) for a distribution"
            )
        return context

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.context_action is None else f", given {self.context_action}")


class Conditioned(Wrapper):
    r""":math:`x \mapsto T(x \mid c)` for a batch of contexts: a light view that shares T's weights.

    It has a cache of its own, and its batch shape is that of the events joined with that of the contexts, so that a
    distribution draws one base sample for each context. For a fixed context nothing is left of the symmetry: the view
    claims the trivial group only.

    Args:
        transform: T, with a ``context_action``.
        context: shape ``batch_shape + context_action.event_shape``.

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
        super().__init__(transform.action_in.without_symmetry(), transform.action_out.without_symmetry())
        self.transform = transform
        # a buffer, so that the memory of the last draw sees when the context is changed
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

    def _joined(self, shape: torch.Size, action: GroupAction) -> torch.Size:
        batch = shape[: len(shape) - action.event_dim]
        try:
            return torch.broadcast_shapes(batch, self._batch_shape) + action.event_shape
        except RuntimeError:
            raise ValueError(
                f"the batch shapes of the events and of the contexts do not broadcast: {tuple(batch)} and "
                f"{tuple(self._batch_shape)}"
            ) from None

    def _pair(self, x: Tensor, action: GroupAction) -> tuple[Tensor, Tensor]:
        """Events and contexts, of one batch shape."""
        shape = self._joined(x.shape, action)
        batch = shape[: len(shape) - action.event_dim]
        return x.expand(shape), self.context.expand(batch + self.context.shape[self.context.ndim - self._context_dim :])

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.transform.call_given(*self._pair(x, self.action_in))

    def inv_call_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.transform.inv_call_given(*self._pair(y, self.action_out))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, for contexts of batch shape {tuple(self._batch_shape)}"
