"""Transforms that take a context, T(x | c)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_gflows.actions import Action, LinearAction, RowsAction, VectorAction
from pyro_gflows.transforms.base import EquivariantTransform

__all__ = ["ConditionalTransform"]


class ConditionalTransform(EquivariantTransform):
    r"""The base class of layers that may read a context c: a bijection T(x | c) of events x for every context.

    .. math:: T(\rho_{in}(g)\,x \mid \rho_c(g)\,c) = \rho_{out}(g)\,T(x \mid c)

    Here g is any group element, which acts on x, on c and on the value of T by :math:`\rho_{in}(g)`, :math:`\rho_c(g)`
    and :math:`\rho_{out}(g)`. A context is, for example, the data of an amortized guide. Without a ``context_action``
    the layer is a plain :class:`EquivariantTransform`. Ready-made layers with an argument ``context_action`` are
    :class:`GAffine`, :class:`GCoupling`, :class:`GAutoregressive` and :class:`GRadial`. A subclass of your own writes
    ``call_and_ladj(x, context)`` and ``inv_call_and_ladj(y, context)``: events have shape ``batch_shape +
    event_shape``, and ``context`` is None or a tensor of shape ``batch_shape + context_action.event_shape``.

    Args:
        action_in: How the group acts on x.
        action_out: How it acts on y; by default as on x.
        context_action: How it acts on the context: an action of the same group, on the same kind of event (vectors, or
            images of the same size). None: there is no context.

    Raises:
        TypeError: ``context_action`` is not an Action.
        ValueError: The actions are of different groups.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> class Shift(ConditionalTransform):
        ...     def call_and_ladj(self, x, context=None):
        ...         return x + self.require_context(context), x.new_zeros(x.shape[:-1])
        ...     def inv_call_and_ladj(self, y, context=None):
        ...         return y - self.require_context(context), y.new_zeros(y.shape[:-1])
        >>> plane = VectorAction.plane("D4")
        >>> Shift(plane, context_action=plane).condition(torch.ones(3, 2))(torch.zeros(2)).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        action_in: Action,
        action_out: Action | None = None,
        *,
        context_action: Action | None = None,
    ) -> None:
        super().__init__(action_in, action_out)
        self._context_action = self.require_context_action(context_action)

    def require_context_action(self, context_action: Action | None) -> Action | None:
        """The action on the contexts; TypeError or ValueError unless it fits this transform."""
        if context_action is None:
            return None
        if not isinstance(context_action, Action):
            raise TypeError(f"expected an Action for the context, got {type(context_action).__name__}")
        if context_action.group != self.action_in.group:
            raise ValueError(
                f"expected a context on which {self.action_in.group} acts, as on the events, got {context_action}"
            )
        return context_action

    @property
    def context_action(self) -> Action | None:
        """How the group acts on the context; None where there is none."""
        return self._context_action

    # -- what a conditioner reads -------------------------------------------------------------------------------------
    def inputs_action(self, *parts: LinearAction) -> LinearAction:
        """How the group acts on parts of the event and the context side by side, which a network reads.

        Raises:
            TypeError: The group does not act linearly on the context, so that no network can read it.
        """
        context = self.context_action
        if context is None:
            return parts[0].direct_sum(*parts[1:])
        if not isinstance(context, LinearAction):
            raise TypeError(f"expected a LinearAction for the context that a network reads, got {context}")
        if isinstance(self.action_in, RowsAction) and isinstance(context, VectorAction):
            context = self.action_in.with_fields(context.fields)  # a plain vector is the context of all rows
        first, *rest = [*parts, context]
        return first.direct_sum(*rest)

    def inputs(self, parts: Sequence[Tensor], context: Tensor | None) -> Tensor:
        """Parts of the event and, where this transform takes one, the context, side by side."""
        if self._context_action is not None:
            parts = [*parts, self.require_context(context)]
        return parts[0] if len(parts) == 1 else torch.cat(list(parts), -self.action_in.event_dim)

    def require_context(self, context: Tensor | None) -> Tensor:
        """The context; ValueError if it is missing."""
        if context is None:
            raise ValueError(
                f"expected a context, an event of {self.context_action}; write transform.condition(context), or "
                "flow.condition(context) for a distribution"
            )
        return context

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.context_action is None else f", given {self.context_action}")
