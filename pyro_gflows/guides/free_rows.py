"""How a row action on constrained values acts on the free coordinates of their rows."""

from __future__ import annotations

from pyro_gflows.actions import RowsAction, VectorAction
from pyro_gflows.groups import MatrixField, Representation, RowField, TrivialRepresentation

__all__ = ["free_fields", "log_ratio_fields"]


def free_fields(action: RowsAction, *, row: int, free: int) -> VectorAction | None:
    """The action on rows of free coordinates, where the support maps each row of values by itself.

    The features of one row of the table hold one or more rows of values, for example a Cholesky factor of correlations
    for each component of a mixture.

    Args:
        action: How the group permutes rows of values.
        row: The number of values that the support constrains together.
        free: The number of free coordinates of these.

    Returns:
        The action on the free coordinates, or None where the support cuts a row of the table, or features change sign.

    Example:
        >>> free_fields(RowsAction(20, 4), row=4, free=3)
        RowsAction(S20 on R^60: rows of 3)
    """
    fields: list[Representation] = []
    for field in action.fields:
        if not isinstance(field, RowField) or any(field.odd) or field.width % row or not _has_plain_features(field):
            return None
        features = [TrivialRepresentation(field.structure.inner)] * (field.width // row * free)
        fields.append(RowField(field.structure, features, blocks=field.blocks))
    return action.with_fields(fields)


def log_ratio_fields(action: RowsAction, categories: int) -> VectorAction | None:
    """The action on the log-ratios of points of the simplex whose categories are the rows.

    Args:
        action: How the group permutes the categories: of one point or several, or of the rows of a transition matrix.
        categories: The number of categories.

    Returns:
        The action on the log-ratios, or None where the rows are not the categories.

    Example:
        >>> log_ratio_fields(RowsAction(20), 20)
        RowsAction(S20 on R^19: mean-free rows)
        >>> log_ratio_fields(RowsAction.of_matrix(5), 5)
        RowsAction(S5 on R^20: mean-free 5 x 5 matrix in blocks 0 and 0)
    """
    fields: list[Representation] = []
    for field in action.fields:
        if isinstance(field, RowField) and not any(field.odd) and field.width == 1 and len(field.blocks) == 1:
            whole = field.rows == categories and not field.mean_free
            made: Representation = RowField(field.structure, field.features, mean_free=True, blocks=field.blocks)
        elif isinstance(field, MatrixField) and not any(field.odd):
            whole = field.shape[1] == categories and not field.mean_free
            made = MatrixField(field.structure, (field.blocks[0], field.blocks[1]), mean_free=True)
        else:
            return None
        if not whole:
            return None
        fields.append(made)
    return action.with_fields(fields)


def _has_plain_features(field: RowField) -> bool:
    return not field.mean_free and all(isinstance(feature, TrivialRepresentation) for feature in field.features)
