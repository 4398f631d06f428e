"""Transforms with one cheap direction."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from pyro_gflows.actions import GroupAction
from pyro_gflows.transforms.base import EquivariantTransform

__all__ = ["Fast", "OneWayTransform"]

Fast = Literal["score", "sample"]


class OneWayTransform(EquivariantTransform):
    """A bijection given by a map that is cheap to evaluate and costly to invert.

    A subclass writes ``cheap(x)`` and ``costly(y)``, each with the log-det of that very map.

    Args:
        action: how the group moves events, on both sides.
        fast: "score": data to base is the cheap direction (density estimation); "sample": base to data (guides).
    """

    def __init__(self, action: GroupAction, *, fast: Fast = "score") -> None:
        super().__init__(action)
        if fast not in ("score", "sample"):
            raise ValueError(f"expected fast='score' (density estimation) or fast='sample' (guides), got {fast!r}")
        self.fast = fast

    def cheap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The cheap map and its log|det|."""
        raise NotImplementedError

    def costly(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of the cheap map and its log|det|."""
        raise NotImplementedError

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cheap(x) if self.fast == "sample" else self.costly(x)

    def inv_call_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.costly(y) if self.fast == "sample" else self.cheap(y)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, fast={self.fast!r}"
