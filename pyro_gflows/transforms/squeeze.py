"""GSqueeze: blocks of pixels become channels of a coarser grid."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.actions import ImageAction
from pyro_gflows.actions.requirements import require_image
from pyro_gflows.groups import MatrixRepresentation, Representation, WallpaperGroup
from pyro_gflows.groups.orbits import orbit_fields
from pyro_gflows.groups.permutation_representations import permutation_matrices
from pyro_gflows.groups.wallpaper import pixel_targets
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.base import EquivariantTransform

__all__ = ["GSqueeze"]


@registered
class GSqueeze(EquivariantTransform):
    r"""A map of every ``factor x factor`` block of pixels to the channels of one pixel: (C, H, W) to (f^2 C, H/f, W/f).

    By this layer multi-scale flows go to coarser grids; f is the ``factor``. The map only reorders the entries of an
    image, so it is bijective and its log-det is 0. It is equivariant: a rotation or reflection of the picture permutes
    the blocks, and the pixels within all blocks in the same way, which is a permutation of the new channels. The new
    channels are ordered by their orbits, and ``action_out`` lists each orbit as a trivial, regular or quotient field.
    (A field that the group does not permute becomes its product with the permutation of the pixels in a block.)

    Args:
        action: How the group acts on images of shape (C, H, W).
        factor: The side f of a block.

    Raises:
        TypeError: Not an ImageAction.
        ValueError: The factor does not divide the sides of the grid or, under translations, the step of the shifts.

    Example:
        >>> squeeze = GSqueeze(ImageAction("D4", size=8))
        >>> squeeze.action_out
        ImageAction(D4 on 4 x 4 x 4: quotient by [0, 7])
        >>> GSqueeze(squeeze.action_out).action_out
        ImageAction(D4 on 16 x 2 x 2: quotient by [0, 7] + regular + quotient by [0, 7])
    """

    _order: Tensor

    def __init__(self, action: ImageAction, factor: int = 2) -> None:
        require_image(action)
        if not isinstance(factor, int) or factor < 1 or action.height % factor or action.width % factor:
            raise ValueError(
                f"expected a factor that divides {action.height} and {action.width}, got {factor!r}; "
                "pad the images, or choose another factor"
            )
        order, squeezed = _squeezed(action, factor)
        super().__init__(action, squeezed)
        self.factor = factor
        self.register_buffer("_order", order, persistent=False)

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        f = self.factor
        blocks = x.unflatten(-1, (x.shape[-1] // f, f)).unflatten(-3, (x.shape[-2] // f, f))
        channels = blocks.movedim((-3, -1), (-4, -3)).flatten(-5, -3)  # torch's pixel_unshuffle fails on empty batches
        return channels.index_select(-3, self._order), x.new_zeros(x.shape[:-3])

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        f = self.factor
        blocks = y.index_select(-3, self._order.argsort()).unflatten(-3, (self.action_in.event_shape[0], f, f))
        x = blocks.movedim((-4, -3), (-3, -1)).flatten(-4, -3).flatten(-2)
        return x, y.new_zeros(y.shape[:-3])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, exact log-det 0"


def _squeezed(action: ImageAction, factor: int) -> tuple[Tensor, ImageAction]:
    """The order of the new channels (c, a, b), and the action on them."""
    size, group = (action.height // factor, action.width // factor), action.group
    if isinstance(group, WallpaperGroup):
        if group.step % factor:
            raise ValueError(
                f"expected translations by multiples of {factor} pixels, which shift whole blocks, got step "
                f"{group.step}; use ImageAction.translations(..., step={factor})"
            )
        coarse = ImageAction.translations(size=size, step=group.step // factor, point_group=group.point_group)
    else:
        coarse = ImageAction(group, size=size)
    point = action.point_group
    pixels = permutation_matrices(pixel_targets(point, factor, factor))
    order: list[Tensor] = []
    fields: list[Representation] = []
    start = 0
    for field in action.fields:
        product = torch.einsum("gcd,gpq->gcpdq", field.matrices(point.elements()), pixels).flatten(1, 2).flatten(2)
        if bool(((product == 0.0) | (product == 1.0)).all()):
            own, found = orbit_fields(point, product.argmax(-2))
        else:
            own = torch.arange(product.shape[-1])
            found = [MatrixRepresentation(point, product, name=f"{field.name} on {factor}x{factor} pixels")]
        order.append(own + start)
        fields += found
        start += product.shape[-1]
    return torch.cat(order), coarse.with_fields(fields)
