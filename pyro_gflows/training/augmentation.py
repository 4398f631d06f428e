"""Data augmentation by random group elements, for flows without the symmetry."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from pyro_gflows.actions.base import Action

__all__ = ["Augmentation", "random_elements"]

#: A function from a batch of events and a random generator to a new batch, such as images of the events under a group.
Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def random_elements(action: Action) -> Augmentation:
    """Returns an augmentation that replaces each event of a batch by its image under a random group element.

    It teaches a flow without the symmetry that all images of an event are equally likely. An equivariant flow does not
    need it.

    Args:
        action: How the group acts on an event. The elements are drawn uniformly (from the Haar measure).

    Example:
        >>> from pyro_gflows import VectorAction
        >>> augment = random_elements(VectorAction.plane("C4"))
        >>> x = torch.tensor([[1.0, 0.0]]).repeat(100, 1)
        >>> images = augment(x, torch.Generator().manual_seed(0)).round().abs()
        >>> images.unique(dim=0).tolist()  # rotations by multiples of 90 degrees, without the signs
        [[0.0, 1.0], [1.0, 0.0]]
    """
    return partial(_random_images, action)  # which, unlike a function in here, can be sent to another process


def _random_images(action: Action, x: Tensor, generator: torch.Generator) -> Tensor:
    return action.act_each(action.sample((len(x),), generator=generator), x)
