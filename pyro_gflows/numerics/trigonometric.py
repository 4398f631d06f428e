"""Trigonometric polynomials on a torus: their coefficients, their derivatives at any points, and Poisson's equation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["fourier_coefficients", "periodic_grid", "solve_poisson", "trigonometric_derivatives"]

_CHUNK_ELEMENTS = 2**22


def periodic_grid(size: int, dimension: int) -> Tensor:
    """The points 2 pi j / N of a periodic grid, in float64 on the CPU, of shape ``(N, ..., N, d)``.

    Args:
        size: N, the number of points along each axis.
        dimension: d, the dimension of the torus.

    Example:
        >>> periodic_grid(4, 2).shape, periodic_grid(2, 1).flatten().tolist()
        (torch.Size([4, 4, 2]), [0.0, 3.141592653589793])
    """
    angles = torch.arange(size, dtype=torch.float64, device="cpu") * (2 * math.pi / size)
    return torch.stack(torch.meshgrid(*[angles] * dimension, indexing="ij"), -1)


def fourier_coefficients(values: Tensor) -> Tensor:
    r"""The coefficients of the trigonometric polynomial that takes given real values on a periodic grid.

    .. math:: f(x) = \mathrm{Re} \sum_{k_1 = 0}^{K} \sum_{k_2 = -K}^{K} \dots \; c_k \, e^{i \langle k, x \rangle}

    Since f is real, the first frequency is never negative. K is the largest integer below N/2: on an even grid the
    waves at the Nyquist frequency N/2 are left out, since their derivatives vanish at all points of the grid.

    Args:
        values: The values at the points of :func:`periodic_grid`, of shape ``(N, ..., N)`` with d axes.

    Returns:
        Complex coefficients of shape ``(K + 1, 2 K + 1, ..., 2 K + 1)``, with the frequencies in ascending order.

    Raises:
        ValueError: If the axes differ in length.

    Example:
        >>> values = 3 + (2 * periodic_grid(8, 1)).cos().squeeze(-1)
        >>> fourier_coefficients(values).real.round(decimals=6).abs().tolist()
        [3.0, 0.0, 1.0, 0.0]
    """
    if values.dim() < 1 or len(set(values.shape)) > 1:
        raise ValueError(f"expected values on a grid with equal sides, got {tuple(values.shape)}")
    size = values.shape[0]
    largest = (size - 1) // 2
    coefficients = torch.fft.fftn(values) / values.numel()
    centered = torch.arange(-largest, largest + 1, device=values.device)
    for axis in range(values.dim()):
        kept = centered[largest:] if axis == 0 else centered
        coefficients = coefficients.index_select(axis, kept % size)
    weights = torch.full((largest + 1, *[1] * (values.dim() - 1)), 2.0, dtype=values.dtype, device=values.device)
    weights[0] = 1.0
    return coefficients * weights


def solve_poisson(values: Tensor) -> Tensor:
    r"""The coefficients of the function :math:`\phi` with :math:`\Delta\phi = f` and mean zero, for f on a grid.

    The mean of f is ignored, since Poisson's equation on a torus has a solution only for functions with mean zero.
    Frequencies so high that all their coefficients are rounding errors of the Fourier transform are left out of the
    result, which makes it cheaper to evaluate.

    Args:
        values: The values of f on a periodic grid, of shape ``(N, ..., N)``.

    Returns:
        Coefficients as :func:`fourier_coefficients` gives them.

    Example:
        >>> phi = solve_poisson((2 * periodic_grid(8, 1)).cos().squeeze(-1))
        >>> phi.real.round(decimals=6).abs().tolist()  # -cos(2 x) / 4
        [0.0, 0.0, 0.25]
    """
    coefficients = fourier_coefficients(values)
    squares = sum(k.square() for k in _frequencies(coefficients))
    assert isinstance(squares, Tensor)
    largest = coefficients.shape[0] - 1
    kept = _significant(coefficients, rounding=4 * torch.finfo(values.dtype).eps * math.sqrt(values.numel()))
    solution = -coefficients / torch.where(squares > 0, squares, math.inf)
    for axis in range(values.dim()):
        solution = solution.narrow(axis, 0 if axis == 0 else largest - kept, kept + 1 if axis == 0 else 2 * kept + 1)
    return solution.contiguous()


def trigonometric_derivatives(coefficients: Tensor, x: Tensor, order: int) -> list[Tensor]:
    """The value and the derivatives of a trigonometric polynomial at arbitrary points.

    The sum over frequencies is taken one axis after the other (separable products), so that a point costs about as many
    operations as there are coefficients. Points are worked on in groups, which bounds the memory.

    Args:
        coefficients: As :func:`fourier_coefficients` gives them.
        x: Points, of shape ``(n, d)``.
        order: The order of the highest derivative: 0, 1 or 2.

    Returns:
        A list of the value, of shape ``(n,)``, then the gradient, of shape ``(n, d)``, and then the Hessian matrix, of
        shape ``(n, d, d)``, up to the order.

    Raises:
        ValueError: If the points are of another dimension than the coefficients, or the order is not 0, 1 or 2.

    Example:
        >>> wave = fourier_coefficients(periodic_grid(8, 1).sin().squeeze(-1))
        >>> value, slope = trigonometric_derivatives(wave, torch.zeros(1, 1, dtype=torch.float64), 1)
        >>> round(slope.item(), 6)
        1.0
    """
    if x.dim() != 2 or x.shape[1] != coefficients.dim():
        raise ValueError(f"expected points of shape (n, {coefficients.dim()}), got {tuple(x.shape)}")
    if order not in (0, 1, 2):
        raise ValueError(f"expected the order 0, 1 or 2 of the highest derivative, got {order}")
    coefficients = coefficients.to(torch.complex(x[:0, 0], x[:0, 0]))
    rows = max(1, _CHUNK_ELEMENTS // max(1, (order + 1) * coefficients.shape[:-1].numel()))
    parts = [_derivatives(coefficients, points, order) for points in x.split(rows)]
    return [torch.cat(same) for same in zip(*parts, strict=True)]


def _derivatives(coefficients: Tensor, x: Tensor, order: int) -> list[Tensor]:
    """The value and derivatives at so few points that the sums over all axes but one fit into memory."""
    dimension = x.shape[1]
    sums: dict[tuple[int, ...], Tensor] = {(): coefficients}  # by the order of the derivative along the last axes
    frequencies = _frequencies(coefficients, like=x)
    for axis in reversed(range(dimension)):
        k = frequencies[axis].flatten()
        phase = x[:, axis, None] * k
        waves = [torch.complex(phase.cos(), phase.sin())]
        for _ in range(order):
            waves.append(waves[-1] * (1j * k))
        # the coefficients are the same for all points; sums over the last axes are not
        formula = "...k,nk->n..." if axis == dimension - 1 else "n...k,nk->n..."
        sums = {
            (new, *orders): torch.einsum(formula, part, waves[new])
            for orders, part in sums.items()
            for new in range(order + 1 - sum(orders))
        }

    def partial(*axes: int) -> Tensor:
        return sums[tuple(axes.count(axis) for axis in range(dimension))].real

    each = range(dimension)
    found = [partial()]
    if order > 0:
        found.append(torch.stack([partial(i) for i in each], -1))
    if order > 1:
        found.append(torch.stack([torch.stack([partial(i, j) for j in each], -1) for i in each], -2))
    return found


def _frequencies(coefficients: Tensor, like: Tensor | None = None) -> Sequence[Tensor]:
    """The frequencies along each axis, each of a shape that broadcasts with the coefficients."""
    kind = coefficients.real if like is None else like
    largest = coefficients.shape[0] - 1
    dimension = coefficients.dim()
    centered = torch.arange(-largest, largest + 1, dtype=kind.dtype, device=kind.device)
    along = [centered[largest:] if axis == 0 else centered for axis in range(dimension)]
    return [k.reshape([-1 if other == axis else 1 for other in range(dimension)]) for axis, k in enumerate(along)]


def _significant(coefficients: Tensor, *, rounding: float) -> int:
    """The smallest frequency beyond which all coefficients together are no more than a part of them all."""
    highest = torch.stack(torch.broadcast_tensors(*[k.abs() for k in _frequencies(coefficients)])).amax(0)
    sizes = coefficients.new_zeros(coefficients.shape[0], dtype=coefficients.real.dtype)
    sizes.index_add_(0, highest.flatten().to(torch.int64), coefficients.abs().flatten())
    beyond = sizes.flip(0).cumsum(0).flip(0)  # at frequencies of at least 0, 1, 2, ...
    return max(1, int((beyond > rounding * beyond[0]).sum()) - 1) if len(sizes) > 1 else 0
