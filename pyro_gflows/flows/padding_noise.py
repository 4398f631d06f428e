"""Fixed noise behind the padding of events, which follows the group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions import LinearAction
from pyro_gflows.groups import EnumerableGroup
from pyro_gflows.numerics.constants import as_constants
from pyro_gflows.numerics.random_state import random_state_kept

__all__ = ["PaddingNoise"]

_AVERAGED_UP_TO = 64  # elements; the number of draws grows with the number of images
_AT_ONCE = 2**16  # events that are scored in one block


class PaddingNoise:
    """Fixed draws of the base of a conditional flow q(a | x), for estimates that are invariant functions of x.

    For a group of at most 64 elements they are all images of a few draws; for a larger finite group the image of each
    draw under the inverse of the element that takes x to its canonical form; else the draws themselves.

    Args:
        action: How the group acts on x.
        padding: How the group acts on a.
        draws: The number of draws, images included; it is rounded to a multiple of the number of images.
        seed: The seed of the draws.

    Raises:
        ValueError: ``draws`` is below 1.

    Attributes:
        total: The number of draws, images included.

    Example:
        >>> from pyro_gflows import InvariantNormal, VectorAction
        >>> plane = VectorAction.plane("C4")
        >>> noise = PaddingNoise(plane, plane, draws=8, seed=0)
        >>> [block.shape for block in noise.blocks(InvariantNormal(plane), torch.zeros(5, 2))]
        [torch.Size([8, 1, 2])]
    """

    def __init__(self, action: LinearAction, padding: LinearAction, *, draws: int, seed: int) -> None:
        if draws < 1:
            raise ValueError(f"expected draws >= 1, got {draws}")
        self._action, self._padding, self._seed = action, padding, seed
        group = action.group
        listed = isinstance(group, EnumerableGroup) and group.order <= _AVERAGED_UP_TO
        self._images = int(group.order) if listed else 1
        origin = torch.zeros(action.event_shape, device="cpu")
        self._follows = not listed and action.canonical(origin) is not None
        self._count = max(1, round(draws / self._images))
        self.total = self._count * self._images

    def blocks(self, base: Any, x: Tensor) -> Iterator[Tensor]:
        """The noise in blocks of shape ``(draws,) + batch_shape + padding.event_shape``.

        Sizes of the batch may be 1 in a block.

        Args:
            base: The base of the conditional flow.
            x: Events of shape ``batch_shape + action.event_shape``.
        """
        batch = x.shape[: x.ndim - self._action.event_dim]
        # constants, so that torch.func sees no random draws; the caller's random state stays as it is
        with random_state_kept(x.device, seed=self._seed), as_constants():
            noise: Tensor = base.sample((self._count,))
            if self._images > 1:
                noise = self._padding.act_all(noise).flatten(0, 1)
        back = None
        if self._follows:
            elements = self._action.canonical(x.detach())
            assert elements is not None
            back = self._action.group.inverse(elements)
        for block in noise.split(max(1, _AT_ONCE // max(1, batch.numel()))):
            wide = block.reshape(len(block), *[1] * len(batch), *block.shape[1:])
            yield wide if back is None else self._padding.act_each(back, wide)

    def in_words(self) -> str:
        """What a ``repr`` says of the draws."""
        if self._images > 1:
            return f"{self.total} draws ({self._count} and their {self._images} images)"
        return f"{self.total} draws" + (" that follow x" if self._follows else "")
