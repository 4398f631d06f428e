"""Checks that a map is inverted by its inverse, and that its log-det agrees with the Jacobian from autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.distributions.supports import is_real
from pyro_gflows.spaces import Euclidean, Space
from pyro_gflows.testing.report import SCALARS, compare, require, tolerance
from pyro_gflows.transforms import EquivariantTransform

__all__ = ["assert_bijective", "assert_log_det", "dense_log_det", "inverse", "log_det_at"]


def assert_bijective(transform: Any, x: Tensor, *, y: Tensor | None = None, tol: float | None = None) -> None:
    r"""Assert that the inverse of a transform inverts it: :math:`T^{-1}(T(x)) = x` and :math:`T(T^{-1}(y)) = y`.

    The transform is called on clones, so that a cache of its values does not hide a wrong inverse.

    Args:
        transform: Any torch or Pyro transform.
        x: Events of the domain, shape ``batch_shape + event_shape``.
        y: Events of the codomain, shape ``batch_shape + event_shape``; by default T(x), plus a small shift where the
            codomain is the whole space, so that the inverse is also tested away from the values T(x).
        tol: The largest allowed absolute error of a component; by default 1e-8 in float64 and 1e-4 in float32.

    Raises:
        AssertionError: If an error is larger than ``tol``; the message names the sample with the largest one.

    Example:
        >>> assert_bijective(torch.distributions.transforms.ExpTransform(), torch.randn(4, dtype=torch.float64))
    """
    tol = tolerance("round trip", x) if tol is None else tol
    with torch.no_grad():
        image = transform(x.clone()).clone()
        back = inverse(transform, image)
        space_in, space = _spaces(transform, x, image)
        require(compare(x[None], back[None], None, space_in), tol, "inverse(forward(x)) is not x")
        if y is None:
            shifted = space.project(image + 0.1 * torch.sin(7.0 * image + 1.0))
            y = shifted if _fills(transform, space) else image
        forth = transform(inverse(transform, y.clone()).clone())
        require(compare(y[None], forth[None], None, space), tol, "forward(inverse(y)) is not y")


def assert_log_det(transform: Any, x: Tensor, *, tol: float | None = None) -> None:
    r"""Assert that the log-det of a transform, and of its inverse, agrees with the dense Jacobian from autograd.

    The log-det of T is checked at x, and that of :math:`T^{-1}` at T(x). On a curved space the Jacobian is taken in
    orthonormal bases of the tangent spaces at x and at T(x) (:meth:`pyro_gflows.spaces.Space.tangent_basis`), as a
    density with respect to the Riemannian volume needs it.

    Args:
        transform: Any torch or Pyro transform.
        x: Events of the domain, shape ``batch_shape + event_shape``; each event costs one backward pass per coordinate.
        tol: The largest allowed error; by default 1e-8 in float64 and 1e-4 in float32.

    Raises:
        AssertionError: If an error is larger than ``tol`` (the message names the sample with the largest one), or if a
            log-det has another shape than the batch shape.

    Example:
        >>> from pyro_gflows import VectorAction, g_radial
        >>> assert_log_det(g_radial(VectorAction.plane("O(2)")), torch.randn(4, 2))
    """
    tol = tolerance("log-det", x) if tol is None else tol
    with torch.no_grad():
        y = transform(x.clone()).clone()
    event_dim = max(transform.domain.event_dim, transform.codomain.event_dim)
    space_in, space_out = _spaces(transform, x, y)
    directions = [
        ("log-det", transform, x, (space_in, space_out), log_det_at(transform, x)),
        (
            "log-det of the inverse",
            lambda y: inverse(transform, y),
            y,
            (space_out, space_in),
            log_det_at(transform.inv, y),
        ),
    ]
    for what, function, points, spaces, received in directions:
        batch_shape = points.shape[: points.ndim - event_dim]
        if received.shape != batch_shape:
            raise AssertionError(f"{what}: expected the batch shape {tuple(batch_shape)}, got {tuple(received.shape)}")
        expected = dense_log_det(function, points, event_dim=event_dim, spaces=spaces)
        require(compare(expected[None], received.detach()[None], None, SCALARS), tol, f"the {what} is not autograd's")


def inverse(transform: Any, y: Tensor) -> Tensor:
    """Return the image of a clone of y under the inverse of a transform."""
    return transform.inv(y.clone())


def log_det_at(transform: Any, x: Tensor) -> Tensor:
    """Return log|det| at x, computed from new clones, which no cache holds."""
    with torch.no_grad():
        y = transform(x.clone()).clone()
    return transform.log_abs_det_jacobian(x.clone(), y).detach()


def dense_log_det(
    function: Callable[[Tensor], Tensor], x: Tensor, *, event_dim: int = 1, spaces: tuple[Space, Space] | None = None
) -> Tensor:
    r"""Return log|det| of the Jacobian of a map at each event, from the dense matrix that autograd computes.

    The result is a reference for a log-det in closed form. The map is called with one event at a time, as a batch of
    one.

    Args:
        function: A map f from events to events.
        x: Events, shape ``batch_shape + event_shape``; each event costs one backward pass per coordinate.
        event_dim: The number of the last dimensions that form one event.
        spaces: The spaces in which x and f(x) live; the Jacobian is taken in their tangent bases. By default both are
            R^n.

    Example:
        >>> dense_log_det(lambda x: 2 * x, torch.zeros(3, 2)).exp().tolist()
        [4.0, 4.0, 4.0]
    """
    batch_shape, event_shape = x.shape[: x.ndim - event_dim], x.shape[x.ndim - event_dim :]
    before, after = spaces or (Euclidean(event_shape), Euclidean(event_shape))
    events = x.detach().reshape(-1, *event_shape)
    return torch.stack([_dense_log_det(function, event, before, after) for event in events]).reshape(batch_shape)


def _dense_log_det(function: Callable[[Tensor], Tensor], event: Tensor, before: Space, after: Space) -> Tensor:
    # a batch of one, since a layer may require a batch
    with torch.enable_grad():
        jacobian = torch.autograd.functional.jacobian(lambda v: function(v[None])[0], event.clone())
    with torch.no_grad():
        image = function(event[None])[0]
    dense = jacobian.reshape(image.numel(), event.numel())
    return torch.linalg.slogdet(after.tangent_basis(image) @ dense @ before.tangent_basis(event).mT).logabsdet


def _spaces(transform: Any, x: Tensor, y: Tensor) -> tuple[Space, Space]:
    """Return the spaces of the events before and after a transform, which are R^n if the transform has no actions."""
    if isinstance(transform, EquivariantTransform):
        return transform.action_in.space, transform.action_out.space
    event_dim = max(transform.domain.event_dim, transform.codomain.event_dim)
    return Euclidean(x.shape[x.ndim - event_dim :]), Euclidean(y.shape[y.ndim - event_dim :])


def _fills(transform: Any, space: Space) -> bool:
    """Return whether every point of the space is a value of the transform."""
    if isinstance(transform, EquivariantTransform):
        return transform.reaches_all
    return is_real(transform.codomain) and isinstance(space, Euclidean)
