"""What moving a latent image by the group does to the image that a flow makes of it."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_gflows.actions import Action
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.groups import ContinuousGroup
from pyro_gflows.numerics.random_state import random_state_kept
from pyro_gflows.plots.figures import new_figure, save_figure
from pyro_gflows.plots.samples import draw_images

if TYPE_CHECKING:
    from pyro_gflows.datasets import GrayLevels

__all__ = ["plot_latent_rotations"]

_COLUMNS = 12


def plot_latent_rotations(
    flow: EquivariantFlow,
    path: str | Path,
    *,
    action: Action | None = None,
    elements: Tensor | None = None,
    latents: int = 4,
    scaling: GrayLevels | None = None,
    seed: int = 0,
) -> float:
    """Write the images T(g z) of a few latents z (rows) under elements g of a group (columns).

    Below each column stands the largest difference of any pixel between T(g z) and g T(z), in float64: rounding (and
    the tolerance of a solver, where a layer is inverted by one) for a flow with the symmetry. A star marks elements
    that interpolate between pixels.

    Args:
        flow: Of images.
        path: The picture's file.
        action: Whose elements move latents and images, by default the flow's own group.
        elements: Which ones; by default up to 12, equally spaced, of a finite group, or angles of SO(2) and O(2).
        latents: How many.
        scaling: Turns images back into gray values; None stretches them to their range.
        seed: Of the latents; the caller's random state is left as it was.

    Returns:
        The largest error of any column.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: events that are no images, an action that does not move both latents and images, or an infinite
            group that does not turn the plane, without elements.
    """
    action = flow.action if action is None else action
    of_latents = flow.base.action if action == flow.action else action
    shapes = {tuple(moves.event_shape) for moves in (action, of_latents, flow.action, flow.base.action)}
    if len(shapes) > 1 or flow.action.event_dim != 3:
        raise ValueError(f"expected images and latents of one shape (C, H, W), moved by {action}, got shapes {shapes}")
    elements = _spaced(action) if elements is None else elements
    precise = copy.deepcopy(flow).double().eval()
    with random_state_kept(precise, seed=seed), torch.no_grad():
        z = precise.base.sample((latents,)).double()
        images = precise.transform(z)
        moved = torch.stack([precise.transform(of_latents.act(element, z)) for element in elements])
        expected = torch.stack([action.act(element, images) for element in elements])
    errors = (moved - expected).abs().flatten(1).amax(1)
    rows = moved.transpose(0, 1).flatten(0, 1)
    unit = (rows - rows.min()) / (rows.max() - rows.min()) if scaling is None else scaling.to_unit(rows)
    figure, axes = new_figure(1, size=max(4, len(elements), latents))
    draw_images(axes[0, 0], unit, title="T(g z): one latent a row, one element g a column", columns=len(elements))
    height, width = moved.shape[-2:]
    for column, (element, error) in enumerate(zip(elements, errors.tolist(), strict=True)):
        note = f"{error:.1g}" + ("" if action.is_exact(element) else " *")
        place = (column * (width + 1) + width / 2 - 0.5, latents * (height + 1) - 0.5)
        axes[0, 0].annotate(note, place, ha="center", va="top", annotation_clip=False, fontsize=9)
    axes[0, 0].annotate(
        "largest |T(g z) - g T(z)|" + ("" if all(map(action.is_exact, elements)) else "; * interpolates"),
        (0.5, 0.0),
        xycoords="axes fraction",
        xytext=(0, -18),
        textcoords="offset points",
        ha="center",
        va="top",
        annotation_clip=False,
    )
    save_figure(figure, path)
    return float(errors.max())


def _spaced(action: Action) -> Tensor:
    """At most 12 elements, in the group's order."""
    if action.is_finite:
        elements = action.elements()
        return elements[:: math.ceil(len(elements) / _COLUMNS)]
    if not isinstance(action.group, ContinuousGroup) or action.group.dimension != 2:
        raise ValueError(f"expected elements= of {action.group}, of which there are infinitely many")
    angles = 2 * math.pi / _COLUMNS * torch.arange(_COLUMNS, dtype=torch.float64)
    rows = [torch.stack([angles.cos(), -angles.sin()], -1), torch.stack([angles.sin(), angles.cos()], -1)]
    return torch.stack(rows, -2)
