"""Masked: a transform for sets of different sizes in one batch; TakesMask: the layers that can be one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from pyro_gflows.actions.row_mask import check_mask, coordinates_there
from pyro_gflows.numerics.precision import refuse_low
from pyro_gflows.transforms.base import EquivariantTransform, Wrapper
from pyro_gflows.transforms.row_scale import RowScale
from pyro_gflows.transforms.spline import ElementwiseSpline
from pyro_gflows.transforms.transformers import ElementwiseAffine

__all__ = ["Masked", "TakesMask", "map_refusal", "require_mask_taken"]


class TakesMask:
    """The type of a layer on rows that computes the same map of the rows that are there, however many are missing.

    A mask is a boolean for each row of each event. It is an argument of every function on the way to the mean over the
    rows, as the context is, and no state of a layer: so threads, ``torch.func`` and recomputation in the backward pass
    each see the mask of their own call.
    """

    def mask_refusal(self) -> str:
        """Why this layer, with the parts that it has, takes no mask; an empty string if it does."""
        return ""

    def apply_masked(self, x: Tensor, mask: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """The value of the map or of its inverse, and its log|det|, from the rows that are there alone.

        Args:
            x: Events, with any finite values where a row is missing.
            mask: Which rows are there, boolean, shape ``batch_shape + (n,)``, with the batch shape of x.
            context: Contexts, as for ``call_and_ladj``.
            inverse: Whether to compute the inverse.
        """
        raise NotImplementedError

    @torch.no_grad()
    def initialize_masked(self, x: Tensor, mask: Tensor, context: Tensor | None, *, inverse: bool) -> Tensor:
        """Set the parameters that depend on data, if any, from the rows that are there; return the value.

        Args:
            x: Events, as for :meth:`apply_masked`.
            mask: Which rows are there.
            context: Contexts, or None.
            inverse: Whether x is on the side of the data.
        """
        return self.apply_masked(x, mask, context, inverse=inverse)[0]


def require_mask_taken(transform: EquivariantTransform) -> TakesMask:
    """The transform, if it takes a mask.

    Raises:
        ValueError: It takes none; the message says why.
    """
    refusal = transform.mask_refusal() if isinstance(transform, TakesMask) else "it reads all rows of an event"
    if not isinstance(transform, TakesMask) or refusal:
        raise ValueError(
            f"expected layers that take a mask (GCoupling, GAutoregressive and GAffine with their default networks, "
            f"GResidual with a PooledBranch, GActNorm), got {type(transform).__name__}: {refusal}"
        )
    return transform


def map_refusal(element_maps: Iterable[nn.Module]) -> str:
    """Why one of these element maps takes no mask of rows; an empty string if all do."""
    for element_map in element_maps:
        if not isinstance(element_map, ElementwiseAffine | ElementwiseSpline | RowScale):
            return f"its element map {type(element_map).__name__} has parameters that are not those of one row"
    return ""


class Masked(Wrapper):
    r"""T for events of which some rows are missing, by a mask: a light view that shares T's weights.

    Sets of different sizes then lie in one batch of events of n rows. Rows that are missing stay as they are (0, in
    draws), add 0 to the log-det and change nothing else; means run over the rows that are there. So the value in these
    rows, and the log-det, are those of the same layer for as many rows as are there.

    Its batch shape is the broadcast of the batch shapes of events, masks and contexts. For one fixed mask the map has
    only some of the symmetry left, so this view claims the trivial group, as :class:`Conditioned` does.

    Args:
        transform: T, a map of rows of one block.
        mask: Which rows are there, boolean, shape ``batch_shape + (n,)``.
        context: Contexts of shape ``batch_shape + context_action.event_shape``; None if T takes none.

    Raises:
        TypeError: Events do not consist of rows, or the mask is not boolean.
        ValueError: A layer of T takes no mask; T takes a context and there is none, or the reverse; the mask has
            another number of rows.

    Example:
        >>> from pyro_gflows import RowsAction, g_coupling
        >>> layer = g_coupling(RowsAction(3, 2))
        >>> Masked(layer, torch.tensor([True, True, False]))(torch.zeros(5, 6)).shape
        torch.Size([5, 6])
    """

    mask: Tensor
    there_in: Tensor
    there_out: Tensor
    context: Tensor | None

    def __init__(self, transform: EquivariantTransform, mask: Tensor, context: Tensor | None = None) -> None:
        require_mask_taken(transform)
        there_in, there_out = (
            coordinates_there(check_mask(action, mask), mask) for action in (transform.action_in, transform.action_out)
        )
        wanted = transform.context_action
        if (wanted is None) != (context is None):
            raise ValueError(f"expected {'no context' if wanted is None else f'a context, an event of {wanted}'}")
        if wanted is not None and context is not None:
            wanted.check_event(context, "context")
            refuse_low(context, "events and contexts")
        super().__init__(transform.action_in.without_symmetry(), transform.action_out.without_symmetry())
        self.transform = transform
        # buffers, so that a distribution notices when mask or context change after its last draw
        for name, value in (("mask", mask), ("there_in", there_in), ("there_out", there_out), ("context", context)):
            self.register_buffer(name, value, persistent=False)
        self.training = transform.training

    @property
    def _batch_shape(self) -> torch.Size:
        shape = self.mask.shape[:-1]
        return shape if self.context is None else torch.broadcast_shapes(shape, self.context.shape[:-1])

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        return self._joined(super().forward_shape(shape))

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        return self._joined(super().inverse_shape(shape))

    def _joined(self, shape: torch.Size) -> torch.Size:
        try:
            return torch.broadcast_shapes(shape[:-1], self._batch_shape) + shape[-1:]
        except RuntimeError:
            raise ValueError(
                f"the batch shapes of the events and of the masks and contexts do not broadcast: {tuple(shape[:-1])} "
                f"and {tuple(self._batch_shape)}"
            ) from None

    def _arguments(self, x: Tensor, there: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Events with 0 in missing rows, masks and contexts, of one batch shape."""
        shape = self._joined(x.shape)
        context = None if self.context is None else self.context.expand(*shape[:-1], -1)
        return torch.where(there, x.expand(shape), 0.0), self.mask.expand(*shape[:-1], -1), context

    def _map(self, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        first, last = (self.there_out, self.there_in) if inverse else (self.there_in, self.there_out)
        arguments = self._arguments(x, first)
        y, ladj = require_mask_taken(self.transform).apply_masked(*arguments, inverse=inverse)
        return torch.where(last, y, x), ladj

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._map(x, inverse=False)

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._map(y, inverse=True)

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        arguments = self._arguments(x, self.there_in)
        return require_mask_taken(self.transform).initialize_masked(*arguments, inverse=False)

    def initialize_inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        arguments = self._arguments(y, self.there_out)
        return require_mask_taken(self.transform).initialize_masked(*arguments, inverse=True)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, for masks of batch shape {tuple(self.mask.shape[:-1])}"
