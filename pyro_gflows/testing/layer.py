"""All that an equivariant layer promises, in one check."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.testing.bijection import assert_bijective, assert_log_det
from pyro_gflows.testing.conditional import assert_conditionally_equivariant
from pyro_gflows.testing.report import compare, require, tolerance
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

    These are :func:`assert_equivariant` (with a context, :func:`assert_conditionally_equivariant`),
    :func:`assert_bijective` and :func:`assert_log_det`; and ``inv_call_and_ladj`` must undo
    ``call_and_ladj``, the log-det as well as the value.

    Args:
        transform: the layer; one whose log-det is random belongs in ``eval()``.
        x: shape ``batch_shape + action_in.event_shape``.
        context: of a layer that takes one, shape ``batch_shape + context_action.event_shape``.
        elements: which group elements to try, as in :func:`equivariance_error`.
        tol: the largest error allowed, absolute for values below 1 and relative above; by default those of the checks.

    Raises:
        AssertionError: with the worst sample, and the group element where there is one.
        ValueError: a context for a layer that takes none, or none for one that does.

    Example:
        >>> from pyro_gflows import VectorAction, g_residual
        >>> layer = g_residual(VectorAction.plane("D8")).double()
        >>> assert_layer(layer, torch.randn(4, 2, dtype=torch.float64))
    """
    takes = transform.context_action
    if (context is None) != (takes is None):
        raise ValueError(f"expected {'no context' if takes is None else f'a context of {takes}'} for {transform}")
    action_in = transform.action_in
    if context is None or takes is None:
        assert_equivariant(transform, action_in, transform.action_out, x, elements=elements, tol=tol)
        _assert_bijection(transform, x, action_in.event_dim, tol)
        return
    assert_conditionally_equivariant(transform, x, context, elements=elements, tol=tol)
    rows = x.reshape(-1, 1, *action_in.event_shape)
    contexts = context.reshape(-1, *takes.event_shape)
    for row, given in zip(rows, contexts, strict=True):
        _assert_bijection(transform.condition(given), row, action_in.event_dim, tol)


def _assert_bijection(transform: EquivariantTransform, x: Tensor, event_dim: int, tol: float | None) -> None:
    assert_bijective(transform, x, tol=tol)
    assert_log_det(transform, x, tol=tol)
    tol = tolerance("log-det", x) if tol is None else tol
    with torch.no_grad():
        y, log_det = transform.call_and_ladj(x.clone())
        back, log_det_back = transform.inv_call_and_ladj(y.clone())
    require(compare(x[None], back[None], None, event_dim), tol, "inv_call_and_ladj(call_and_ladj(x)) is not x")
    require(compare(-log_det[None], log_det_back[None], None, 0), tol, "the two log-dets do not cancel")
