"""Augmentation: what a flow without the symmetry needs in its place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_gflows.actions.base import Action

__all__ = ["Augmentation", "random_elements"]

#: Makes another batch of events from a batch and a random generator, such as images of the events under the group.
Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def random_elements(action: Action) -> Augmentation:
    """The augmentation that moves every event of a batch by its own random group element.

    Args:
        action: How the group moves one event; elements are drawn from the Haar measure.
    """

    def augment(x: Tensor, generator: torch.Generator) -> Tensor:
        return action.act_each(action.sample((len(x),), generator=generator), x)

    return augment
