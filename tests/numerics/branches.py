"""Branches with known Lipschitz constants and Jacobians, for the tests of this folder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Branch(nn.Module):
    """f(x) = V tanh(W x + b) on the flattened event, scaled to the Lipschitz bound; any batch shape."""

    def __init__(self, event_shape: tuple[int, ...], *, lipschitz: float = 0.8, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size = math.prod(event_shape)
        first, second = torch.randn(2, size + 3, size, generator=generator, dtype=torch.float64).unbind()
        self.w = nn.Parameter(first / torch.linalg.matrix_norm(first, 2))
        self.v = nn.Parameter(lipschitz * second.mT / torch.linalg.matrix_norm(second, 2))
        self.b = nn.Parameter(0.1 * torch.randn(size + 3, generator=generator, dtype=torch.float64))
        self.event_shape = event_shape

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(x.dim() - len(self.event_shape))
        return ((flat @ self.w.mT + self.b).tanh() @ self.v.mT).reshape(x.shape)


class AnalyticBranch(Branch):
    """The same with its Jacobian V diag(1 - tanh^2) W written out; counts how often that is asked for."""

    calls = 0

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        flat = x.flatten(x.dim() - len(self.event_shape))
        slope = 1 - (flat @ self.w.mT + self.b).tanh().square()
        return self(x), self.v @ (slope.unsqueeze(-1) * self.w)


def rotations_and_reflections() -> Tensor:
    """The 8 elements of D4 on the plane as matrices."""
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    turns = [torch.linalg.matrix_power(turn, k) for k in range(4)]
    flip = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    return torch.stack(turns + [flip @ g for g in turns])


class EquivariantBranch(nn.Module):
    """The mean over D4 of g^-1 f(g x), on ``copies`` planes."""

    def __init__(self, copies: int = 1, *, lipschitz: float = 0.8) -> None:
        super().__init__()
        self.branch = Branch((2 * copies,), lipschitz=lipschitz, seed=3)
        blocks = torch.stack([torch.block_diag(*[g] * copies) for g in rotations_and_reflections()])
        self.register_buffer("matrices", blocks)
        self.matrices: Tensor

    def orbit(self, x: Tensor) -> Tensor:
        return torch.stack([x @ g.mT for g in self.matrices])

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.branch(x @ g.mT) @ g for g in self.matrices]).mean(0)


def exact_log_det(f: nn.Module, x: Tensor, event_dim: int) -> Tensor:
    """An independent log-det: forward-mode free, row by row, by torch.func and slogdet."""
    rows = x.reshape(-1, *x.shape[x.dim() - event_dim :])
    size = rows[0].numel()
    identity = torch.eye(size, dtype=x.dtype)
    values = [
        torch.linalg.slogdet(identity + torch.func.jacrev(f)(row).reshape(size, size)).logabsdet  # type: ignore[arg-type]
        for row in rows
    ]
    return torch.stack(values).reshape(x.shape[: x.dim() - event_dim])
