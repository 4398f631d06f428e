"""Checks of symmetry for maps and densities that take a context."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_gflows.actions import Action
from pyro_gflows.testing.report import SCALARS, compare, require, tolerance
from pyro_gflows.testing.symmetry import default_elements, require_action
from pyro_gflows.transforms import EquivariantTransform

__all__ = ["assert_conditionally_equivariant", "assert_conditionally_invariant"]

_Call = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def assert_conditionally_equivariant(
    transform: EquivariantTransform,
    x: Tensor,
    context: Tensor,
    *,
    elements: Tensor | None = None,
    tol: float | None = None,
) -> None:
    r"""Assert that a conditional transform is equivariant when the group acts on x and on the context together.

    The check is :math:`T(\rho_{in}(g)\,x \mid \rho_c(g)\,c) = \rho_{out}(g)\,T(x \mid c)`, the same equation for the
    inverse, and the invariance of both log-dets.

    Args:
        transform: A transform with a ``context_action``.
        x: Events, shape ``batch_shape + action_in.event_shape``.
        context: Contexts, shape ``batch_shape + context_action.event_shape``.
        elements: The group elements to try; by default all elements of a group of at most 32, otherwise the generators
            and 16 random elements (the same ones each time).
        tol: The largest allowed error; by default 1e-10 in float64 and 1e-4 in float32.

    Raises:
        AssertionError: If an error is larger than ``tol``; the message names the element and the sample with the
            largest one.
        ValueError: If the transform takes no context.

    Example:
        >>> from pyro_gflows import VectorAction, g_coupling
        >>> action = VectorAction.plane("D4", copies=2)
        >>> layer = g_coupling(action, context_action=VectorAction.regular("D4"))
        >>> assert_conditionally_equivariant(layer, torch.randn(3, 4), torch.randn(3, 8))
    """
    action_in, action_out, context_action = transform.action_in, transform.action_out, transform.context_action
    if context_action is None:
        raise ValueError(f"expected a transform that takes a context, got {transform}; use assert_equivariant")
    tol = tolerance("symmetry", x) if tol is None else tol
    with torch.no_grad():
        y = transform.call_and_ladj(x, context)[0]
    group = default_elements(action_in) if elements is None else elements
    forth: _Call = transform.call_and_ladj
    back: _Call = transform.inv_call_and_ladj
    for what, call, points, before, after in [
        ("", forth, x, action_in, action_out),
        ("the inverse is ", back, y, action_out, action_in),
    ]:
        for part, action, message in [
            (0, after, f"{what}not equivariant"),
            (1, None, f"{what}log-det is not invariant"),
        ]:

            def output(points: Tensor, context: Tensor, call: _Call = call, part: int = part) -> Tensor:
                return call(points, context)[part]

            _assert_symmetry(output, before, context_action, action, points, context, group, tol, message)


def assert_conditionally_invariant(
    log_prob: Callable[[Tensor, Tensor], Tensor],
    action: Action,
    context_action: Action,
    x: Tensor,
    context: Tensor,
    *,
    elements: Tensor | None = None,
    tol: float | None = None,
) -> None:
    r"""Assert that a conditional density is invariant when the group acts on x and on the context together.

    The check is :math:`\log q(\rho(g)\,x \mid \rho_c(g)\,c) = \log q(x \mid c)`, which an equivariant amortized
    posterior satisfies.

    Args:
        log_prob: A conditional flow, or any callable ``log_prob(x, context)``.
        action: How the group acts on x.
        context_action: How the group acts on the context, which may be another kind of event (an image, for example).
        x: Events, shape ``batch_shape + action.event_shape``.
        context: Contexts, shape ``batch_shape + context_action.event_shape``.
        elements: The group elements to try, as in :func:`assert_conditionally_equivariant`.
        tol: The largest allowed error; by default 1e-10 in float64 and 1e-4 in float32.

    Raises:
        AssertionError: If an error is larger than ``tol``; the message names the element and the sample with the
            largest one.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> action = VectorAction.plane("O(2)")
        >>> def log_prob(x, context):
        ...     return -(x - context).square().sum(-1)
        >>> assert_conditionally_invariant(log_prob, action, action, torch.randn(3, 2), torch.randn(3, 2))
    """
    call = "assert_conditionally_invariant(log_prob, action, context_action, x, context)"
    require_action(action, "action", call)
    require_action(context_action, "context_action", call)
    group = default_elements(action) if elements is None else elements
    tol = tolerance("symmetry", x) if tol is None else tol
    _assert_symmetry(log_prob, action, context_action, None, x, context, group, tol, "log-prob is not invariant")


def _assert_symmetry(
    function: Callable[[Tensor, Tensor], Tensor],
    action: Action,
    context_action: Action,
    action_out: Action | None,
    x: Tensor,
    context: Tensor,
    elements: Tensor,
    tol: float,
    message: str,
) -> None:
    """Assert that a function is equivariant, or invariant where ``action_out`` is None."""
    action.check_event(x)
    context_action.check_event(context, "context")
    with torch.no_grad():
        value = function(x.clone(), context.clone())
        received = torch.stack([function(action.act(g, x), context_action.act(g, context)) for g in elements])
        if action_out is None:
            expected = value.expand_as(received)
        else:
            expected = torch.stack([action_out.act(g, value) for g in elements])
    require(compare(expected, received, elements, SCALARS if action_out is None else action_out.space), tol, message)
