"""Checks of symmetry, invertibility and log-determinants, for layers of this package and for the user's own.

Every check compares tensors, and log-densities rather than densities, element by element; a failure is an
AssertionError that names the group element and the sample with the largest error. Inputs are cloned before every
call, so that a transform that caches by identity is asked, not remembered. Stochastic layers belong in ``eval()``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform

from pyro_gflows.actions import GroupAction

__all__ = [
    "EquivarianceReport",
    "assert_bijective",
    "assert_equivariant",
    "assert_invariant",
    "assert_log_det",
    "equivariance_error",
    "randomize_",
]

_TOLERANCES = {"symmetry": 1e-10, "round trip": 1e-8, "log-det": 1e-8}
_ALL_ELEMENTS_UP_TO = 32


@dataclass(frozen=True)
class EquivarianceReport:
    """What :func:`equivariance_error` found.

    Attributes:
        error: the largest error of all elements and samples; errors are absolute where the expected value is
            smaller than 1, and relative to it elsewhere.
        errors: the error of each element and sample, shape ``(elements, *batch_shape)``.
        element: the group element with the largest error.
        index: the sample (index into the batch shape) with the largest error.
        expected: what that sample should have become.
        received: what it became.
    """

    error: float
    errors: Tensor
    element: Tensor
    index: tuple[int, ...]
    expected: Tensor
    received: Tensor

    def __str__(self) -> str:
        return (
            f"error {self.error:.2e} at group element {self.element.tolist()}, sample {list(self.index)}: "
            f"expected {_brief(self.expected)}, received {_brief(self.received)}"
        )


def equivariance_error(
    function: Callable[[Tensor], Tensor],
    action_in: GroupAction,
    action_out: GroupAction,
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
    elements = _default_elements(action_in) if elements is None else elements
    with torch.no_grad():
        y = function(x.clone())
        action_out.check_event(y, "f(x)")
        expected = torch.stack([action_out.act(element, y) for element in elements])
        received = _at_images(function, action_in, elements, x)
    return _report(expected, received, elements, action_out.event_dim)


def assert_equivariant(
    transform: Callable[[Tensor], Tensor],
    action_in: GroupAction,
    action_out: GroupAction,
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
    tol = _tolerance("symmetry", x) if tol is None else tol
    _check(equivariance_error(transform, action_in, action_out, x, elements=elements), tol, "not equivariant")
    if not isinstance(transform, Transform):
        return
    with torch.no_grad():
        y = transform(x.clone()).clone()
    _check(
        equivariance_error(lambda y: _inverse(transform, y), action_out, action_in, y, elements=elements),
        tol,
        "the inverse is not equivariant",
    )
    assert_invariant(lambda x: _log_det(transform, x), action_in, x, elements=elements, tol=tol, what="log-det")


def assert_invariant(
    log_prob: Distribution | nn.Module | Callable[[Tensor], Tensor],
    action: GroupAction,
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
    elements = _default_elements(action) if elements is None else elements
    with torch.no_grad():
        value = function(x.clone())
        batch_shape = x.shape[: x.ndim - action.event_dim]
        if value.shape != batch_shape:
            raise AssertionError(f"{what}: expected the batch shape {tuple(batch_shape)}, got {tuple(value.shape)}")
        received = _at_images(function, action, elements, x)
    report = _report(value.expand_as(received), received, elements, event_dim=0)
    _check(report, _tolerance("symmetry", x) if tol is None else tol, f"{what} is not invariant")


def assert_bijective(transform: Any, x: Tensor, *, y: Tensor | None = None, tol: float | None = None) -> None:
    r"""Assert :math:`T^{-1}(T(x)) = x` and :math:`T(T^{-1}(y)) = y`, on clones, so that no cache answers.

    Args:
        transform: any torch or Pyro transform.
        x: shape ``batch_shape + event_shape`` of the domain.
        y: points of the codomain; by default T(x), moved a little where the codomain is all of R^n.
        tol: the largest error allowed; by default 1e-8 in float64 and 1e-4 in float32.

    Raises:
        AssertionError: with the worst sample.

    Example:
        >>> assert_bijective(torch.distributions.transforms.ExpTransform(), torch.randn(4, dtype=torch.float64))
    """
    tol = _tolerance("round trip", x) if tol is None else tol
    with torch.no_grad():
        image = transform(x.clone()).clone()
        back = _inverse(transform, image)
        _check(_report(x[None], back[None], None, transform.domain.event_dim), tol, "inverse(forward(x)) is not x")
        if y is None:
            moved = image + 0.1 * torch.sin(7.0 * image + 1.0)
            y = moved if _is_real(transform.codomain) else image
        forth = transform(_inverse(transform, y.clone()).clone())
        _check(_report(y[None], forth[None], None, transform.codomain.event_dim), tol, "forward(inverse(y)) is not y")


def assert_log_det(transform: Any, x: Tensor, *, tol: float | None = None) -> None:
    r"""Assert that the log-dets of T at x and of T^{-1} at T(x) are those of the dense Jacobians that autograd gives.

    Args:
        transform: any torch or Pyro transform.
        x: shape ``batch_shape + event_shape`` of the domain; each sample costs one backward pass per coordinate.
        tol: the largest error allowed; by default 1e-8 in float64 and 1e-4 in float32.

    Raises:
        AssertionError: with the worst sample; or if the log-det has another shape than the batch shape.

    Example:
        >>> from pyro_gflows import VectorAction, g_radial
        >>> assert_log_det(g_radial(VectorAction.plane("O(2)")), torch.randn(4, 2))
    """
    tol = _tolerance("log-det", x) if tol is None else tol
    with torch.no_grad():
        y = transform(x.clone()).clone()
    event_dim = max(transform.domain.event_dim, transform.codomain.event_dim)
    directions = [
        ("log-det", transform, x, _log_det(transform, x)),
        ("log-det of the inverse", lambda y: _inverse(transform, y), y, _log_det(transform.inv, y)),
    ]
    for what, function, points, received in directions:
        batch_shape = points.shape[: points.ndim - event_dim]
        if received.shape != batch_shape:
            raise AssertionError(f"{what}: expected the batch shape {tuple(batch_shape)}, got {tuple(received.shape)}")
        events = points.detach().reshape(-1, *points.shape[points.ndim - event_dim :])
        expected = torch.stack([_dense_log_det(function, event) for event in events]).reshape(batch_shape)
        _check(_report(expected[None], received.detach()[None], None, 0), tol, f"the {what} is not autograd's")


def randomize_(module: nn.Module, *, scale: float = 0.3, generator: torch.Generator | None = None) -> nn.Module:
    """Add normal noise to every parameter, so that nothing is left at a trivial start such as 0 or the identity.

    Args:
        module: changed in place, and returned.
        scale: standard deviation of the noise.
        generator: where the noise comes from; give one on the CPU, the noise is then the same on every device.

    Example:
        >>> bool(randomize_(nn.LayerNorm(3)).bias.abs().sum() > 0)
        True
    """
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((scale * noise).to(parameter))
    return module


def _default_elements(action: GroupAction) -> Tensor:
    if action.is_finite and len(action.elements()) <= _ALL_ELEMENTS_UP_TO:
        return action.elements()
    return torch.cat([action.generators(), action.sample((16,), torch.Generator().manual_seed(0))])


def _at_images(function: Callable[[Tensor], Tensor], action: GroupAction, elements: Tensor, x: Tensor) -> Tensor:
    """f at the images of x under each element, stacked."""
    images = torch.stack([action.act(element, x) for element in elements])
    if x.ndim == action.event_dim:
        return torch.stack([function(image.clone()) for image in images])
    # one call for all, of the same batch rank as x: a layer may take no other
    return function(images.flatten(0, 1)).unflatten(0, images.shape[:2])


def _tolerance(kind: str, x: Tensor) -> float:
    return _TOLERANCES[kind] if x.dtype == torch.float64 else 1e-4


def _inverse(transform: Any, y: Tensor) -> Tensor:
    return transform.inv(y.clone())


def _log_det(transform: Any, x: Tensor) -> Tensor:
    """log|det| at x, computed afresh: of fresh clones no cache knows anything."""
    with torch.no_grad():
        y = transform(x.clone()).clone()
    return transform.log_abs_det_jacobian(x.clone(), y).detach()


def _dense_log_det(function: Callable[[Tensor], Tensor], event: Tensor) -> Tensor:
    # a batch of one, since a layer may ask for a batch
    with torch.enable_grad():
        jacobian = torch.autograd.functional.jacobian(lambda v: function(v[None])[0], event.clone())
    return torch.linalg.slogdet(jacobian.reshape(event.numel(), event.numel())).logabsdet


def _is_real(constraint: Any) -> bool:
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    return constraint is torch.distributions.constraints.real


def _report(expected: Tensor, received: Tensor, elements: Tensor | None, event_dim: int) -> EquivarianceReport:
    """Compare tensors of shape ``(elements, *batch_shape, *event_shape)``."""
    if expected.shape != received.shape:
        raise AssertionError(f"expected shape {tuple(expected.shape[1:])}, got {tuple(received.shape[1:])}")
    errors = (received - expected).abs() / expected.abs().clamp(min=1.0)
    # NaN and inf must fail every comparison: none is close to anything, except an equal infinity to itself
    errors = torch.where(received == expected, 0.0, errors).nan_to_num(nan=float("inf"), posinf=float("inf"))
    if event_dim:
        errors = errors.flatten(-event_dim).amax(-1)
    worst = tuple(int(i) for i in torch.unravel_index(errors.argmax(), errors.shape))
    element = torch.tensor([]) if elements is None else elements[worst[0]]
    return EquivarianceReport(errors[worst].item(), errors, element, worst[1:], expected[worst], received[worst])


def _check(report: EquivarianceReport, tol: float, message: str) -> None:
    if not report.error <= tol:
        raise AssertionError(f"{message}: {report} (tolerance {tol:.0e}, {report.expected.dtype})")


def _brief(value: Tensor) -> str:
    flat = value.flatten().tolist()
    shown = ", ".join(f"{entry:.10g}" for entry in flat[:6])
    return shown if len(flat) == 1 else f"[{shown}{', ...' if len(flat) > 6 else ''}]"
