"""Term: the type of what a LipschitzSum adds up."""

from __future__ import annotations

from torch import Tensor, nn

from pyro_gflows.actions import LinearAction

__all__ = ["Term"]


class Term(nn.Module):
    """Some equivariant functions of events that are vectors, each 1-Lipschitz, with their Jacobians in closed form.

    A subclass sets ``action`` and ``terms`` and writes ``call_and_jacobian``.

    Attributes:
        action: how the group acts on events.
        terms: how many functions there are.
    """

    action: LinearAction
    terms: int

    def call_and_jacobian(self, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """``sum_k weights_k f_k(x)`` and its Jacobian, shapes ``batch + (d,)`` and ``batch + (d, d)``.

        Args:
            x: events, shape ``batch + (d,)``.
            weights: one for each function, shape ``(terms,)``.
        """
        raise NotImplementedError
