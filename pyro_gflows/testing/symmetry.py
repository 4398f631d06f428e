"""Checks that a map is equivariant, and that a density is invariant."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform

from pyro_gflows.actions import Action
from pyro_gflows.testing.bijection import inverse, log_det_at
from pyro_gflows.testing.report import SCALARS, EquivarianceReport, compare, require, tolerance

__all__ = ["assert_equivariant", "assert_invariant", "default_elements", "equivariance_error", "require_action"]

_ALL_ELEMENTS_UP_TO = 32


def equivariance_error(
    function: Callable[[Tensor], Tensor],
    action_in: Action,
    action_out: Action,
    x: Tensor,
    *,
    elements: Tensor | None = None,
) -> EquivarianceReport:
    r"""Return the largest deviation of a map f from equivariance, :math:`f(\rho_{in}(g)\,x) = \rho_{out}(g)\,f(x)`.

    Use it to measure a map that is only nearly equivariant; :func:`assert_equivariant` compares the error with a
    tolerance.

    Args:
        function: A transform (its forward map is tested), a module or any callable on tensors.
        action_in: How the group acts on x.
        action_out: How the group acts on f(x).
        x: Events, shape ``batch_shape + action_in.event_shape``.
        elements: The group elements to try; by default all elements of a group of at most 32, otherwise the generators
            and 16 random elements (the same ones each time).

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> action = VectorAction.plane("C4")
        >>> report = equivariance_error(lambda x: x * x.norm(dim=-1, keepdim=True), action, action, torch.randn(3, 2))
        >>> report.error < 1e-5
        True
    """
    call = "assert_equivariant(transform, action_in, action_out, x)"
    require_action(action_in, "action_in", call)
    require_action(action_out, "action_out", call)
    action_in.check_event(x)
    elements = default_elements(action_in) if elements is None else elements
    with torch.no_grad():
        y = function(x.clone())
        action_out.check_event(y, "f(x)")
        expected = torch.stack([action_out.act(element, y) for element in elements])
        received = _at_images(function, action_in, elements, x)
    return compare(expected, received, elements, action_out.space)


def assert_equivariant(
    transform: Callable[[Tensor], Tensor],
    action_in: Action,
    action_out: Action,
    x: Tensor,
    *,
    elements: Tensor | None = None,
    tol: float | None = None,
) -> None:
    r"""Assert that a map T is equivariant: :math:`T(\rho_{in}(g)\,x) = \rho_{out}(g)\,T(x)`.

    For a torch or Pyro transform, the check includes that the inverse is equivariant and that the log-det is invariant.

    Args:
        transform: A torch or Pyro transform, a module or any callable on tensors.
        action_in: How the group acts on x.
        action_out: How the group acts on T(x).
        x: Events, shape ``batch_shape + action_in.event_shape``.
        elements: The group elements to try, as in :func:`equivariance_error`.
        tol: The largest allowed error; by default 1e-10 in float64 and 1e-4 in float32.

    Raises:
        AssertionError: If an error is larger than ``tol``; the message names the element and the sample with the
            largest one.

    Example:
        >>> from pyro_gflows import VectorAction, g_residual
        >>> action = VectorAction.plane("D8")
        >>> assert_equivariant(g_residual(action).double(), action, action, torch.randn(4, 2, dtype=torch.float64))
    """
    tol = tolerance("symmetry", x) if tol is None else tol
    require(equivariance_error(transform, action_in, action_out, x, elements=elements), tol, "not equivariant")
    if not isinstance(transform, Transform):
        return
    with torch.no_grad():
        y = transform(x.clone()).clone()
    require(
        equivariance_error(lambda y: inverse(transform, y), action_out, action_in, y, elements=elements),
        tol,
        "the inverse is not equivariant",
    )
    assert_invariant(lambda x: log_det_at(transform, x), action_in, x, elements=elements, tol=tol, what="log-det")


def assert_invariant(
    log_prob: Distribution | nn.Module | Callable[[Tensor], Tensor],
    action: Action,
    x: Tensor,
    *,
    elements: Tensor | None = None,
    tol: float | None = None,
    what: str = "log-prob",
) -> None:
    r"""Assert that a log-density is invariant: :math:`\log p(\rho(g)\,x) = \log p(x)`.

    The logarithms are compared, since the densities of images are so small that all are rounded to 0.

    Args:
        log_prob: A distribution, a flow (a module whose ``forward`` is its log-density) or any callable on tensors.
        action: How the group acts on x.
        x: Events, shape ``batch_shape + action.event_shape``.
        elements: The group elements to try, as in :func:`equivariance_error`.
        tol: The largest allowed error; by default 1e-10 in float64 and 1e-4 in float32.
        what: The name of the values in the error message.

    Raises:
        AssertionError: If an error is larger than ``tol`` (the message names the element and the sample with the
            largest one), or if the result has another shape than the batch shape.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> assert_invariant(lambda x: -x.square().sum(-1), VectorAction.plane("O(2)"), torch.randn(4, 2))
    """
    require_action(action, "action", "assert_invariant(log_prob, action, x)")
    function = log_prob.log_prob if isinstance(log_prob, Distribution) else log_prob
    action.check_event(x)
    elements = default_elements(action) if elements is None else elements
    with torch.no_grad():
        value = function(x.clone())
        batch_shape = x.shape[: x.ndim - action.event_dim]
        if value.shape != batch_shape:
            raise AssertionError(f"{what}: expected the batch shape {tuple(batch_shape)}, got {tuple(value.shape)}")
        received = _at_images(function, action, elements, x)
    report = compare(value.expand_as(received), received, elements, SCALARS)
    require(report, tolerance("symmetry", x) if tol is None else tol, f"{what} is not invariant")


def require_action(action: object, what: str, call: str) -> None:
    """Raise TypeError unless an argument is an Action; the message shows the order of the arguments."""
    if not isinstance(action, Action):
        raise TypeError(
            f"expected {what} to be an Action such as VectorAction.plane('D4'), got {type(action).__name__}; the order "
            f"of the arguments is {call}"
        )


def default_elements(action: Action) -> Tensor:
    """Return all elements of a small group, or generators and random elements of a larger one."""
    if action.group.order <= _ALL_ELEMENTS_UP_TO:
        return action.elements()
    return torch.cat([action.generators(), action.sample((16,), torch.Generator().manual_seed(0))])


def _at_images(function: Callable[[Tensor], Tensor], action: Action, elements: Tensor, x: Tensor) -> Tensor:
    """Return the values of a function at the images of x under each element, stacked."""
    images = torch.stack([action.act(element, x) for element in elements])
    if x.ndim == action.event_dim:
        return torch.stack([function(image.clone()) for image in images])
    # one call for all elements, with as many batch dimensions as x has, since a layer may need just as many
    return function(images.flatten(0, 1)).unflatten(0, images.shape[:2])
