"""What the checks find, and how it is said."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["EquivarianceReport", "compare", "require", "tolerance"]

_TOLERANCES = {"symmetry": 1e-10, "round trip": 1e-8, "log-det": 1e-8}


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


def compare(expected: Tensor, received: Tensor, elements: Tensor | None, event_dim: int) -> EquivarianceReport:
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


def require(report: EquivarianceReport, tol: float, message: str) -> None:
    if not report.error <= tol:
        raise AssertionError(f"{message}: {report} (tolerance {tol:.0e}, {report.expected.dtype})")


def tolerance(kind: str, x: Tensor) -> float:
    return _TOLERANCES[kind] if x.dtype == torch.float64 else 1e-4


def _brief(value: Tensor) -> str:
    flat = value.flatten().tolist()
    shown = ", ".join(f"{entry:.10g}" for entry in flat[:6])
    return shown if len(flat) == 1 else f"[{shown}{', ...' if len(flat) > 6 else ''}]"
