"""default_transformer: the element map of a coupling or autoregressive layer if the user names none."""

from __future__ import annotations

from pyro_gflows.actions import Action, RowsAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.transforms.row_scale import RowScale
from pyro_gflows.transforms.transformers import ElementwiseAffine, IrrepScale, Transformer

__all__ = ["default_transformer"]


def default_transformer(action: Action) -> Transformer:
    """The default: ElementwiseAffine where the group permutes coordinates up to signs, else IrrepScale.

    For rows that are permuted it is RowScale in place of IrrepScale, so that every row has scales of its own.

    Args:
        action: How the group acts on the part.

    Raises:
        TypeError: The action is not a LinearAction.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> type(default_transformer(RowsAction(5, VectorAction.plane("O(2)")))).__name__
        'RowScale'
    """
    action = require_linear(action)
    if action.is_signed_permutation:
        return ElementwiseAffine(action)
    return RowScale(action) if isinstance(action, RowsAction) else IrrepScale(action)
