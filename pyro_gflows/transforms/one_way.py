"""Transforms with one cheap direction."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from pyro_gflows.actions import Action
from pyro_gflows.transforms.conditional import ConditionalTransform

__all__ = ["Fast", "OneWayTransform"]

#: Which direction costs one evaluation: "score" for density estimation, "sample" for guides.
Fast = Literal["score", "sample"]


class OneWayTransform(ConditionalTransform):
    """A bijection given by a map that is cheap to evaluate and costly to invert.

    A subclass writes ``cheap(x, context)`` and ``costly(y, context)``, each with the log-det of that very map.

    Args:
        action: How the group acts on events, on both sides.
        fast: "score": data to base is the cheap direction (density estimation); "sample": base to data (guides).
        context_action: How the group acts on the context; None: there is none.
    """

    def __init__(self, action: Action, *, fast: Fast = "score", context_action: Action | None = None) -> None:
        super().__init__(action, context_action=context_action)
        if fast not in ("score", "sample"):
            raise ValueError(f"expected fast='score' (density estimation) or fast='sample' (guides), got {fast!r}")
        self.fast = fast

    def one_pass(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The cheap map and its log|det|."""
        raise NotImplementedError

    def many_passes(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The inverse of the cheap map and its log|det|."""
        raise NotImplementedError

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.one_pass(x, context) if self.fast == "sample" else self.many_passes(x, context)

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.many_passes(y, context) if self.fast == "sample" else self.one_pass(y, context)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        # either end gives it; the cheap way, unless the gradient is asked for at the other end
        if self.fast == "sample" or (x.requires_grad and not y.requires_grad):
            return super().log_abs_det_jacobian(x, y)
        return -self.inv_call_and_ladj(y)[1]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, fast={self.fast!r}"
