"""Is a map equivariant, is a density invariant?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform

from pyro_gflows.actions import Action
from pyro_gflows.testing.bijection import inverse, log_det_at
from pyro_gflows.testing.report import EquivarianceReport, compare, require, tolerance

__all__ = ["assert_equivariant", "assert_invariant", "default_elements", "equivariance_error"]

_ALL_ELEMENTS_UP_TO = 32


def equivariance_error(
    function: Callable[[Tensor], Tensor],
    action_in: Action,
    action_out: Action,
    x: Tensor,
    *,
    elements: Tensor | None = None,
) -> EquivarianceReport:
    r"""The largest deviation from :math:`f(\rho_{in}(g)\,x) = \rho_{out}(g)\,f(x)`.

    Args:
        function: a transform (its forward map is tested), a module or any callable on tensors.
        action_in: how the group moves x.
        action_out: how the group moves f(x).
        x: shape ``batch_shape + action_in.event_shape``.
        elements: which group elements to try; by default all of a finite group of at most 32 elements, otherwise the
            generators and 16 random elements (the same ones each time).

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> action = VectorAction.plane("C4")
        >>> report = equivariance_error(lambda x: x * x.norm(dim=-1, keepdim=True), action, action, torch.randn(3, 2))
        >>> report.error < 1e-5
        True
    """
    action_in.check_event(x)
    elements = default_elements(action_in) if elements is None else elements
    with torch.no_grad():
        y = function(x.clone())
        action_out.check_event(y, "f(x)")
        expected = torch.stack([action_out.act(element, y) for element in elements])
        received = _at_images(function, action_in, elements, x)
    return compare(expected, received, elements, action_out.event_dim)


def assert_equivariant(
    transform: Callable[[Tensor], Tensor],
    action_in: Action,
    action_out: Action,
    x: Tensor,
    *,
    elements: Tensor | None = None,
    tol: float | None = None,
) -> None:
    r"""Assert :math:`T(\rho_{in}(g)\,x) = \rho_{out}(g)\,T(x)`; of a transform, also that its inverse is equivariant
    and its log-det invariant.

    Args:
        transform: a torch or Pyro transform, a module or any callable.
        action_in: how the group moves x.
        action_out: how the group moves T(x).
        x: shape ``batch_shape + action_in.event_shape``.
        elements: as in :func:`equivariance_error`.
        tol: the largest error allowed; by default 1e-10 in float64 and 1e-4 in float32.

    Raises:
        AssertionError: with the worst element and sample.

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
    r"""Assert :math:`\log p(\rho(g)\,x) = \log p(x)`: of the logarithms, since densities of images are all 0.

    Args:
        log_prob: a distribution, a flow (a module whose ``forward`` is its log-prob) or any callable on tensors.
        action: how the group moves x.
        x: shape ``batch_shape + action.event_shape``.
        elements: as in :func:`equivariance_error`.
        tol: the largest error allowed; by default 1e-10 in float64 and 1e-4 in float32.
        what: what the values are called in the message.

    Raises:
        AssertionError: with the worst element and sample; or if the result has another shape than the batch shape.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> assert_invariant(lambda x: -x.square().sum(-1), VectorAction.plane("O(2)"), torch.randn(4, 2))
    """
    function = log_prob.log_prob if isinstance(log_prob, Distribution) else log_prob
    action.check_event(x)
    elements = default_elements(action) if elements is None else elements
    with torch.no_grad():
        value = function(x.clone())
        batch_shape = x.shape[: x.ndim - action.event_dim]
        if value.shape != batch_shape:
            raise AssertionError(f"{what}: expected the batch shape {tuple(batch_shape)}, got {tuple(value.shape)}")
        received = _at_images(function, action, elements, x)
    report = compare(value.expand_as(received), received, elements, event_dim=0)
    require(report, tolerance("symmetry", x) if tol is None else tol, f"{what} is not invariant")


def default_elements(action: Action) -> Tensor:
    if action.group.order <= _ALL_ELEMENTS_UP_TO:
        return action.elements()
    return torch.cat([action.generators(), action.sample((16,), torch.Generator().manual_seed(0))])


def _at_images(function: Callable[[Tensor], Tensor], action: Action, elements: Tensor, x: Tensor) -> Tensor:
    """f at the images of x under each element, stacked."""
    images = torch.stack([action.act(element, x) for element in elements])
    if x.ndim == action.event_dim:
        return torch.stack([function(image.clone()) for image in images])
    # one call for all, of the same batch rank as x: a layer may take no other
    return function(images.flatten(0, 1)).unflatten(0, images.shape[:2])
