"""Whether torch.func or forward-mode differentiation is active, and reading values of a batch under vmap."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["anywhere", "forward_levels", "graph_if", "largest", "transforming"]


def transforming() -> bool:
    """Whether a transform of ``torch.func`` (jvp, grad, vmap, ...) or a level of ``forward_ad`` is active.

    Hooks of reverse-mode differentiation, ``requires_grad_``, and Python branches on values of tensors do not work
    there, so that code which relies on them needs another path of plain operations.

    Example:
        >>> transforming(), torch.func.vmap(lambda x: x * transforming())(torch.ones(2))
        (False, tensor([1., 1.]))
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def forward_levels() -> int:
    """The number of nested levels of forward mode of ``torch.func`` around this call.

    Example:
        >>> torch.func.jvp(lambda x: x * forward_levels(), (torch.ones(1),), (torch.ones(1),))[0]
        tensor([1.])
    """
    stack = torch._C._functorch.get_interpreter_stack() or []
    return sum(level.key() == torch._C._functorch.TransformType.Jvp for level in stack)


def graph_if(create_graph: bool) -> contextlib.AbstractContextManager[None]:
    """The context in which a product with a Jacobian in closed form is computed: differentiable only on request.

    Args:
        create_graph: Whether the product has to be differentiable; under ``torch.func`` and forward mode it always is.

    Example:
        >>> with graph_if(False):
        ...     (2 * torch.ones(1, requires_grad=True)).requires_grad
        False
    """
    return contextlib.nullcontext() if create_graph or transforming() else torch.no_grad()


def anywhere(condition: Tensor) -> bool:
    """Whether a condition holds in any entry, over all batches of ``vmap`` as well.

    An iteration that runs until all rows have converged may ask this inside ``vmap``, where ``bool(condition.any())``
    is an error, since it would have a value for each entry of the batch.

    Args:
        condition: A boolean tensor.

    Example:
        >>> torch.func.vmap(lambda x: x * anywhere(x > 1))(torch.tensor([1.0, 2.0]))
        tensor([1., 2.])
    """
    if not torch._C._are_functorch_transforms_active():
        return bool(condition.any())
    return condition.numel() > 0 and bool(_Largest.apply(condition.detach().to(torch.uint8)))


def largest(values: Tensor) -> float:
    """The largest entry, over all batches of ``vmap`` as well; NaN if an entry is NaN.

    Args:
        values: Any tensor.

    Example:
        >>> torch.func.vmap(lambda x: x / largest(x))(torch.tensor([1.0, 2.0]))
        tensor([0.5000, 1.0000])
    """
    if not torch._C._are_functorch_transforms_active():
        return float(values.detach().max())
    return float(_Largest.apply(values.detach()))


class _Largest(torch.autograd.Function):
    @staticmethod
    def forward(values: Tensor) -> Tensor:
        return values.max()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.mark_non_differentiable(output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def vmap(info: Any, in_dims: Any, values: Tensor) -> tuple[Tensor, None]:
        return _Largest.apply(values), None  # one answer for the whole batch

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> None:
        return None
