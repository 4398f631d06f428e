"""One check of all properties of an equivariant layer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.spaces import Torus
from pyro_gflows.testing.bijection import assert_bijective, assert_log_det
from pyro_gflows.testing.conditional import assert_conditionally_equivariant
from pyro_gflows.testing.report import SCALARS, compare, require, tolerance
from pyro_gflows.testing.symmetry import assert_equivariant
from pyro_gflows.transforms import EquivariantTransform

__all__ = ["assert_layer"]


def assert_layer(
    transform: EquivariantTransform,
    x: Tensor,
    *,
    context: Tensor | None = None,
    elements: Tensor | None = None,
    tol: float | None = None,
) -> None:
    r"""Assert that a layer is an equivariant bijection with the log-dets of its Jacobians.

    Call it on every layer that you write: it runs :func:`assert_equivariant` (with a context,
    :func:`assert_conditionally_equivariant`), :func:`assert_bijective` and :func:`assert_log_det`, and checks that
    ``inv_call_and_ladj`` undoes ``call_and_ladj``, in the value and in the log-det. On a torus it checks as well that
    full circles do not change a value or a log-det: a network that reads angles as they are is no function of angles.

    Args:
        transform: The layer, in ``eval()`` mode if its log-det is random in training.
        x: Events, shape ``batch_shape + action_in.event_shape``.
        context: Contexts for a layer that takes one, shape ``batch_shape + context_action.event_shape``.
        elements: The group elements to try, as in :func:`equivariance_error`.
        tol: The largest allowed error, absolute for values below 1 and relative above; by default the one of each
            check.

    Raises:
        AssertionError: If an error is larger than ``tol``; the message names the sample with the largest one, and the
            group element for an error of the symmetry.
        TypeError: If ``transform`` is not an EquivariantTransform, but the class of one, for example.
        ValueError: If there is a context for a layer that takes none, or none for a layer that takes one.

    Example:
        >>> from pyro_gflows import VectorAction, g_residual
        >>> layer = g_residual(VectorAction.plane("D8")).double()
        >>> assert_layer(layer, torch.randn(4, 2, dtype=torch.float64))
    """
    given: Any = transform
    if not isinstance(given, EquivariantTransform):
        got = f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
        raise TypeError(f"expected a layer, an object of a subclass of EquivariantTransform, got {got}")
    context_action = transform.context_action
    if (context is None) != (context_action is None):
        expected = "no context" if context_action is None else f"a context of {context_action}"
        raise ValueError(f"expected {expected} for {transform}, got {'none' if context is None else 'one'}")
    action_in = transform.action_in
    if context is None or context_action is None:
        assert_equivariant(transform, action_in, transform.action_out, x, elements=elements, tol=tol)
        _assert_bijection(transform, x, tol)
        return
    assert_conditionally_equivariant(transform, x, context, elements=elements, tol=tol)
    rows = x.reshape(-1, 1, *action_in.event_shape)
    contexts = context.reshape(-1, *context_action.event_shape)
    for row, one_context in zip(rows, contexts, strict=True):
        _assert_bijection(transform.condition(one_context), row, tol)


def _assert_bijection(transform: EquivariantTransform, x: Tensor, tol: float | None) -> None:
    assert_bijective(transform, x, tol=tol)
    assert_log_det(transform, x, tol=tol)
    tol = tolerance("log-det", x) if tol is None else tol
    with torch.no_grad():
        y, log_det = transform.call_and_ladj(x.clone())
        back, log_det_back = transform.inv_call_and_ladj(y.clone())
    space = transform.action_in.space
    if isinstance(space, Torus):
        with torch.no_grad():
            # by other numbers of circles for each angle, which differences of angles show as well
            circles = torch.arange(1, space.dimension + 1, dtype=x.dtype, device=x.device).reshape(space.event_shape)
            around, log_det_around = transform.call_and_ladj(x + 2 * math.pi * circles)
        require(compare(y[None], around[None], None, transform.action_out.space), tol, "the value has no period 2 pi")
        require(compare(log_det[None], log_det_around[None], None, SCALARS), tol, "the log-det has no period 2 pi")
    require(compare(x[None], back[None], None, space), tol, "inv_call_and_ladj(call_and_ladj(x)) is not x")
    require(compare(-log_det[None], log_det_back[None], None, SCALARS), tol, "the two log-dets do not cancel")
