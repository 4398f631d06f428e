"""Probe vectors of trace estimators: entries are +1 or -1, so that the mean of eps eps^T is the identity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from pyro_gflows.numerics.tracing import records_graph
from pyro_gflows.numerics.transforms_active import transforming

__all__ = ["fixed_probes", "random_probes"]


def random_probes(x: Tensor) -> Tensor:
    """A random probe of the shape of x, from torch's default generator of the device of x.

    Args:
        x: Any floating point tensor.

    Example:
        >>> random_probes(torch.zeros(3, 2)).abs().unique()
        tensor([1.])
    """
    return torch.randint(0, 2, x.shape, dtype=x.dtype, device=x.device) * 2 - 1


def fixed_probes(count: int, event_shape: Sequence[int], *, seed: int, like: Tensor) -> Tensor:
    """Probes of shape ``(count,) + event_shape`` that depend on the seed only, not on the device or the dtype.

    Args:
        count: The number of probes.
        event_shape: The shape of a probe.
        seed: The seed.
        like: A tensor of the dtype and on the device of the result.

    Example:
        >>> fixed_probes(4, (2, 3), seed=0, like=torch.zeros(1)).shape
        torch.Size([4, 2, 3])
    """
    shape = (count, *event_shape)
    signs = _fixed_signs(shape, seed) if not transforming() else _FixedSigns.apply(like, shape, seed)
    return signs.to(device=like.device, dtype=like.dtype)


def _fixed_signs(shape: tuple[int, ...], seed: int) -> Tensor:
    if torch.compiler.is_compiling() or not records_graph():
        return _drawn_signs(shape, seed)
    with _disable_current_modes():  # else what is recorded would draw on from where the generator stopped
        return _drawn_signs(shape, seed)


def _drawn_signs(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


class _FixedSigns(torch.autograd.Function):
    """The fixed signs made outside of all transforms, since vmap would refuse a random operation."""

    @staticmethod
    def forward(like: Tensor, shape: tuple[int, ...], seed: int) -> Tensor:
        return _fixed_signs(shape, seed)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: Any, like: Tensor, shape: tuple[int, ...], seed: int) -> tuple[Tensor, None]:
        return _FixedSigns.apply(like, shape, seed), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> None:
        return None
