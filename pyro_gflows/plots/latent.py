"""Pictures of the images that a flow draws from latent images on which a group acts."""

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
    """Write a picture of the images T(g z), with a few latents z in the rows and group elements g in the columns.

    For a flow with the symmetry, T(g z) equals g T(z): the columns show one image in all its rotations. The number
    below each column is the largest difference of any pixel between T(g z) and g T(z), in float64; it is as small as
    rounding (and the tolerance of a solver, where a solver inverts a layer) if the flow has the symmetry. A star marks
    elements whose images are interpolated between pixels.

    Args:
        flow: A flow of images.
        path: The file of the picture.
        action: How a group acts on latents and images; by default the action of the flow.
        elements: The group elements of the columns; by default up to 12 equally spaced elements of a finite group, or
            12 rotations of SO(2) and O(2).
        latents: The number of latents.
        scaling: The scaling of the gray levels of the images, which maps them back to [0, 1]; None stretches their
            range to [0, 1].
        seed: The seed of the latents; the caller's random state is left as it was.

    Returns:
        The largest difference of all columns.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the events are no images, if the action does not act on both latents and images, or if
            ``elements`` is missing for an infinite group other than SO(2) and O(2).

    Example:
        >>> import tempfile
        >>> from pyro_gflows import ImageAction, g_coupling_image_flow
        >>> flow = g_coupling_image_flow(ImageAction("C4", size=8), scales=1, blocks=1, width=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_latent_rotations(flow, Path(folder) / "latent.png") < 1e-10
        True
    """
    action = flow.action if action is None else action
    of_latents = flow.base.action if action == flow.action else action
    shapes = {tuple(other.event_shape) for other in (action, of_latents, flow.action, flow.base.action)}
    if len(shapes) > 1 or flow.action.event_dim != 3:
        raise ValueError(
            f"expected images and latents of one shape (C, H, W) on which {action} acts, got the shapes {shapes}"
        )
    elements = _spaced(action) if elements is None else elements
    precise = copy.deepcopy(flow).double().eval()
    with random_state_kept(precise, seed=seed), torch.no_grad():
        z = precise.base.sample((latents,)).double()
        images = precise.transform(z)
        received = torch.stack([precise.transform(of_latents.act(element, z)) for element in elements])
        expected = torch.stack([action.act(element, images) for element in elements])
    errors = (received - expected).abs().flatten(1).amax(1)
    rows = received.transpose(0, 1).flatten(0, 1)
    unit = (rows - rows.min()) / (rows.max() - rows.min()) if scaling is None else scaling.to_unit(rows)
    figure, axes = new_figure(1, size=max(4, len(elements), latents))
    draw_images(axes[0, 0], unit, title="T(g z): one latent a row, one element g a column", columns=len(elements))
    height, width = received.shape[-2:]
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
    """Return at most 12 elements, in the order of the group."""
    if action.is_finite:
        elements = action.elements()
        return elements[:: math.ceil(len(elements) / _COLUMNS)]
    if not isinstance(action.group, ContinuousGroup) or action.group.dimension != 2:
        raise ValueError(f"expected elements= for {action.group}, which is infinite; give a few of its elements")
    angles = 2 * math.pi / _COLUMNS * torch.arange(_COLUMNS, dtype=torch.float64)
    rows = [torch.stack([angles.cos(), -angles.sin()], -1), torch.stack([angles.sin(), angles.cos()], -1)]
    return torch.stack(rows, -2)
