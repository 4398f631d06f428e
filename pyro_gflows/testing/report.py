"""Comparison of tensors in the checks, and the report of the largest error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_gflows.spaces import Euclidean, Space

__all__ = ["SCALARS", "EquivarianceReport", "compare", "require", "tolerance"]

SCALARS = Euclidean(())
"""The space of log-dets and log-densities."""

_TOLERANCES = {"symmetry": 1e-10, "round trip": 1e-8, "log-det": 1e-8}


@dataclass(frozen=True)
class EquivarianceReport:
    """The result of :func:`equivariance_error`: the largest error, and where it is.

    Errors are absolute where the expected value is smaller than 1, and relative to this value elsewhere.

    Attributes:
        error: The largest error of all group elements and samples.
        errors: The error of each group element and sample, shape ``(elements, *batch_shape)``.
        element: The group element with the largest error; an empty tensor where no group acts, as for an inverse.
        index: The index, into the batch shape, of the sample with the largest error.
        expected: The expected value of this sample.
        received: The value that this sample had.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> from pyro_gflows.testing import equivariance_error
        >>> action = VectorAction.signs(1)  # x + 1 does not commute with the sign flip
        >>> print(equivariance_error(lambda x: x + 1, action, action, torch.tensor([[2.0]])))
        error 6.67e-01 at group element 1, sample [0]: expected -3, received -1
    """

    error: float
    errors: Tensor
    element: Tensor
    index: tuple[int, ...]
    expected: Tensor
    received: Tensor

    def __str__(self) -> str:
        element = f"group element {self.element.tolist()}, " if self.element.numel() else ""
        return (
            f"error {self.error:.2e} at {element}sample {list(self.index)}: "
            f"expected {_brief(self.expected)}, received {_brief(self.received)}"
        )


def compare(expected: Tensor, received: Tensor, elements: Tensor | None, space: Space) -> EquivarianceReport:
    """Compare events of a space (angles modulo 2 pi), and report the largest difference.

    Both tensors have the shape ``(elements, *batch_shape, *space.event_shape)``.
    """
    if expected.shape != received.shape:
        raise AssertionError(f"expected shape {tuple(expected.shape[1:])}, got {tuple(received.shape[1:])}")
    errors = space.difference(received, expected).abs() / expected.abs().clamp(min=1.0)
    # NaN and inf must fail every comparison; only equal infinities agree
    errors = torch.where(received == expected, 0.0, errors).nan_to_num(nan=float("inf"), posinf=float("inf"))
    if space.event_dim:
        errors = errors.flatten(-space.event_dim).amax(-1)
    worst = tuple(int(i) for i in torch.unravel_index(errors.argmax(), errors.shape))
    element = torch.tensor([]) if elements is None else elements[worst[0]]
    return EquivarianceReport(errors[worst].item(), errors, element, worst[1:], expected[worst], received[worst])


def require(report: EquivarianceReport, tol: float, message: str) -> None:
    """Raise an AssertionError with the report if its error is larger than a tolerance."""
    if not report.error <= tol:
        raise AssertionError(f"{message}: {report} (tolerance {tol:.0e}, {report.expected.dtype})")


def tolerance(kind: str, x: Tensor) -> float:
    """Return the default tolerance of a kind of check in the dtype of x."""
    return _TOLERANCES[kind] if x.dtype == torch.float64 else 1e-4


def _brief(value: Tensor) -> str:
    flat = value.flatten().tolist()
    shown = ", ".join(f"{entry:.10g}" for entry in flat[:6])
    return shown if len(flat) == 1 else f"[{shown}{', ...' if len(flat) > 6 else ''}]"
