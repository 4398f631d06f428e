"""Checks of the action with which a layer or a base is built."""

from __future__ import annotations

from typing import Any

from pyro_gflows.actions.base import Action
from pyro_gflows.actions.image import ImageAction
from pyro_gflows.actions.linear import LinearAction
from pyro_gflows.actions.particles import ParticleAction
from pyro_gflows.actions.sites import SitesAction
from pyro_gflows.actions.torus import TorusAction
from pyro_gflows.actions.vector import VectorAction

__all__ = ["require_exact", "require_flat", "require_image", "require_linear", "require_splittable", "require_vector"]


def require_exact(action: Any) -> None:
    """Raise an error if the action interpolates, since no density is exactly invariant under such an action.

    Args:
        action: Any object.

    Raises:
        ValueError: The object is an action that is exact for a part of its group only.

    Example:
        >>> from pyro_gflows.actions.vector import VectorAction
        >>> require_exact(VectorAction.plane("D4"))
    """
    if isinstance(action, Action) and action.exact_subgroup is not action:
        raise ValueError(
            f"{action} interpolates between pixels, so no density is exactly invariant under it: either take "
            "g_soft_coupling_image_flow(action), whose networks are equivariant up to interpolation, or the "
            f"exact part of the action, action.exact_subgroup = {action.exact_subgroup}"
        )


def require_linear(action: Any) -> LinearAction:
    """The action itself if its whole group acts by orthogonal matrices, else an error.

    Args:
        action: Any object.

    Raises:
        TypeError: The object is not a LinearAction.
        ValueError: The action interpolates.

    Example:
        >>> from pyro_gflows.actions.vector import VectorAction
        >>> require_linear(VectorAction.plane("D4"))
        VectorAction(D4 on R^2: defining)
    """
    require_exact(action)
    return _of_kind(action, LinearAction, "a LinearAction such as VectorAction.plane('D4')")


def require_flat(action: Any) -> LinearAction | ParticleAction:
    """The action itself if its whole group acts by orthogonal matrices on coordinates of the events, else an error.

    Args:
        action: Any object.

    Raises:
        TypeError: The object is neither a LinearAction nor a ParticleAction.
        ValueError: The action interpolates.

    Example:
        >>> require_flat(ParticleAction(4, 2)).coordinates
        RowsAction(S4 x O(2) on R^6: mean-free rows of 2)
    """
    return action if isinstance(action, ParticleAction) else require_linear(action)


def require_vector(action: Any) -> VectorAction:
    """The action itself if it acts on vectors, else an error.

    Args:
        action: Any object.

    Raises:
        TypeError: The object is not a VectorAction.

    Example:
        >>> require_vector(VectorAction.rows("S3"))
        VectorAction(S3 on R^3: rows)
    """
    return _of_kind(action, VectorAction, "a VectorAction such as VectorAction.rows('S3')")


def _of_kind(action: Any, kind: type, expected: str) -> Any:
    """The action itself if it is of a kind, else a TypeError that says what to take in its place."""
    if isinstance(action, kind):
        return action
    instead = "; take its vector_action" if isinstance(action, SitesAction) else ""
    if isinstance(action, TorusAction | ParticleAction):
        instead = f"; {action.space.advice}"
    raise TypeError(f"expected {expected}, got {type(action).__name__}{instead}")


def require_splittable(action: Any) -> Action:
    """The action itself if its events have splits: if it acts by orthogonal matrices, or on angles.

    Args:
        action: Any object.

    Raises:
        TypeError: The object is neither a LinearAction nor a TorusAction.
        ValueError: The action interpolates.

    Example:
        >>> require_splittable(TorusAction.trivial(2))
        TorusAction(C1 on T^2)
    """
    return action if isinstance(action, TorusAction) else require_linear(action)


def require_image(action: Any) -> ImageAction:
    """The action itself if it acts exactly on the pixels of images, else an error.

    Args:
        action: Any object.

    Raises:
        TypeError: The object is not an ImageAction.

    Example:
        >>> require_image(ImageAction("D4", size=8))
        ImageAction(D4 on 1 x 8 x 8: trivial)
    """
    return _of_kind(action, ImageAction, "an ImageAction such as ImageAction('D4', size=32)")
