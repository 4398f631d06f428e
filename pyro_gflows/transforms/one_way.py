"""Transforms that are fast in one direction only."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from pyro_gflows.actions import Action
from pyro_gflows.deprecation import renamed_methods
from pyro_gflows.transforms.conditional import ConditionalTransform

__all__ = ["Fast", "OneWayTransform"]

#: Which direction takes one pass: "score", data to base (density estimation); "sample", base to data (guides).
Fast = Literal["score", "sample"]


@renamed_methods(cheap="one_pass", costly="many_passes")
class OneWayTransform(ConditionalTransform):
    """The base class of layers with one direction in a single pass, and the other direction in many passes.

    The ready-made ones are :class:`GResidual` and :class:`GAutoregressive`. A layer of your own is a subclass that
    writes ``one_pass(x, context)`` and its inverse ``many_passes(y, context)``. Each takes events of shape
    ``batch_shape + event_shape``, and returns the value, of the same shape, and the log|det| of the map that it
    computes, of shape ``batch_shape``.

    Args:
        action: How the group acts on events, on both sides.
        fast: Which direction takes one pass. "score": from data to base (density estimation); "sample": from base to
            data (variational guides).
        context_action: How the group acts on the context; None: there is none.

    Raises:
        ValueError: ``fast`` is neither "score" nor "sample".

    Example:
        >>> import torch
        >>> from pyro_gflows import VectorAction
        >>> class Cubes(OneWayTransform):
        ...     def one_pass(self, x, context):
        ...         return x + x**3, (1 + 3 * x**2).log().sum(-1)
        ...     def many_passes(self, y, context):
        ...         x = y
        ...         for _ in range(50):  # Newton's method
        ...             x = x - (x + x**3 - y) / (1 + 3 * x**2)
        ...         return x, -self.one_pass(x, context)[1]
        >>> layer = Cubes(VectorAction.signs(2), fast="sample")
        >>> layer(torch.ones(2)), layer.inv(torch.full((2,), 2.0))
        (tensor([2., 2.]), tensor([1., 1.]))
    """

    def __init__(self, action: Action, *, fast: Fast = "score", context_action: Action | None = None) -> None:
        super().__init__(action, context_action=context_action)
        if fast not in ("score", "sample"):
            raise ValueError(f"expected fast='score' (density estimation) or fast='sample' (guides), got {fast!r}")
        self.fast = fast

    def one_pass(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The map that takes one pass, and its log|det|."""
        raise NotImplementedError

    def many_passes(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The inverse of :meth:`one_pass`, and its log|det|."""
        raise NotImplementedError

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.one_pass(x, context) if self.fast == "sample" else self.many_passes(x, context)

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.many_passes(y, context) if self.fast == "sample" else self.one_pass(y, context)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        # computed at the end that takes one pass, unless the gradient is wanted at the other end
        if self.fast == "sample" or (x.requires_grad and not y.requires_grad):
            return super().log_abs_det_jacobian(x, y)
        return -self.inv_call_and_ladj(y)[1]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, fast={self.fast!r}"
