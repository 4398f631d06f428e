"""RowFeatures: which features the rows of one layer of a network have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_gflows.actions import RowsLayout, VectorAction

__all__ = ["RowFeatures"]


@dataclass(frozen=True, eq=False)
class RowFeatures:
    """Which features the rows of each block have in one layer of a network, and how the group H acts on them.

    An event has them (:meth:`of`), and so has a hidden layer. None stands for no feature.

    Args:
        sizes: The number of rows of each block.
        even: For each block, how H acts on the features of a row that no sign changes.
        odd: For each block, how H acts on the features that change their sign with the row.
        rest: How H acts on the features that belong to no row.
        mean_free: For each block, which coordinates of the even features sum to 0 over the rows.

    Example:
        >>> from pyro_gflows import RowsAction
        >>> features = RowFeatures.of(RowsAction(50, 3, signed=[0]).layout)
        >>> features.sizes, features.even[0].numel, features.odd[0].numel
        ((50,), 2, 1)
    """

    sizes: tuple[int, ...]
    even: tuple[VectorAction | None, ...]
    odd: tuple[VectorAction | None, ...]
    rest: VectorAction | None
    mean_free: tuple[Tensor, ...]

    @classmethod
    def of(cls, layout: RowsLayout) -> RowFeatures:
        """The features of events.

        Args:
            layout: The layout of a RowsAction.
        """
        return cls(layout.sizes, layout.even, layout.odd, layout.rest, layout.mean_free)

    def hidden(self, other: RowFeatures, features: VectorAction) -> RowFeatures:
        """The features of a hidden layer: even ones in every row, odd ones and a rest where they are of use.

        Args:
            other: The features of the output of the network whose input has these features.
            features: How H acts on the hidden features of one row.
        """
        has_rest = self.rest is not None or other.rest is not None
        none = torch.zeros(features.numel, dtype=torch.bool)
        return RowFeatures(
            sizes=self.sizes,
            even=(features,) * len(self.sizes),
            odd=tuple(None if action is None else features for action in self.odd),
            rest=features if has_rest else None,
            mean_free=(none,) * len(self.sizes),
        )
