"""ImageAction: a group that acts on images, on their pixels and on their channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions.canonical_form import nearest_shift
from pyro_gflows.actions.image_decomposition import decompose_image
from pyro_gflows.actions.image_fields import grid_size, image_fields
from pyro_gflows.actions.linear import LinearAction
from pyro_gflows.actions.pixels import gather_pixels, pixel_sources, pixels_of
from pyro_gflows.actions.vector import VectorAction
from pyro_gflows.deprecation import renamed_arguments
from pyro_gflows.groups.base import EnumerableGroup, Group, require_enumerable
from pyro_gflows.groups.components import Decomposition
from pyro_gflows.groups.names import parse_group
from pyro_gflows.groups.permutation_representations import permutation_matrices
from pyro_gflows.groups.representations import MatrixRepresentation, Representation
from pyro_gflows.groups.wallpaper import TranslationGroup, WallpaperGroup, pixel_targets, point_group_of
from pyro_gflows.numerics.blocks import block_diagonal
from pyro_gflows.numerics.constants import as_constants, kept_in, made_once, rows_at
from pyro_gflows.serialization.registry import registered

__all__ = ["ImageAction"]


@renamed_arguments(channels="copies")
@registered
class ImageAction(LinearAction):
    r"""A group that acts exactly on images (C, H, W): on their pixels, and on the channels at each pixel.

    The group rotates and reflects images about the center of the grid, or shifts them on a periodic grid
    (:meth:`translations`): :math:`(g\,x)(p) = \rho(g)\,x(g^{-1} p)` at pixel p. A rotation by +90 degrees is
    counterclockwise in a picture whose row 0 is on top. The channels consist of fields, and rho is the direct sum of
    their representations. A grayscale or color image has trivial fields: the group acts on pixels alone, and leaves
    each channel as it is. Regular fields, whose channels are permuted as pixels are rotated, occur in squeezed images
    and within networks.

    Args:
        group: "C1", "C2", "D1", "D2"; on square grids also "C4", "D4"; or a :class:`WallpaperGroup`, as
            :meth:`translations` makes it.
        copies: The number of fields (1, or as many as ``fields`` lists). C is the sum of their sizes: it is ``copies``
            for scalar ("trivial") fields, and ``copies * |G|`` for ``fields="regular"``.
        size: H = W, or (H, W).
        fields: "trivial", "regular", one representation for every field, or a sequence with a representation for each
            field. On a periodic grid they are representations of the point group, since shifts leave channels as they
            are.

    Raises:
        TypeError: ``fields`` is none of these.
        ValueError: The group does not map the grid to itself, or the fields are of another group, or their number is
            not ``copies``.

    Example:
        >>> action = ImageAction("D4", copies=3, size=32)
        >>> action
        ImageAction(D4 on 3 x 32 x 32: 3 x trivial)
        >>> ImageAction("C4", size=2).act(torch.tensor(1), torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])).tolist()
        [[[2.0, 4.0], [1.0, 3.0]]]
    """

    group: EnumerableGroup

    def __init__(
        self,
        group: Group | str,
        copies: int | None = None,
        *,
        size: int | Sequence[int],
        fields: str | Representation | Sequence[Representation] = "trivial",
    ) -> None:
        parsed = parse_group(group)
        self.height, self.width = grid_size(size)
        pixels_of(parsed, parsed.generators(), (self.height, self.width))  # refuses another grid
        self.group = require_enumerable(parsed, "an image action")
        self.fields = image_fields(self.group, copies, fields)
        self.event_shape = torch.Size([sum(field.size for field in self.fields), self.height, self.width])

    @classmethod
    @renamed_arguments(channels="copies")
    def translations(
        cls,
        copies: int = 1,
        *,
        size: int | Sequence[int],
        step: int = 1,
        point_group: Group | str = "C1",
        fields: str | Representation | Sequence[Representation] = "trivial",
    ) -> ImageAction:
        """The shifts of a periodic grid by multiples of ``step`` pixels, together with a point group about its center.

        On a periodic grid, what is shifted out on one side comes in on the other. The point group consists of rotations
        and reflections.

        Args:
            copies: The number of fields.
            size: H = W, or (H, W).
            step: Shifts are by multiples of this number of pixels.
            point_group: C1 (no rotation or reflection), C2, D1 or D2; on square grids also C4 and D4.
            fields: Fields of the point group, as for :class:`ImageAction`; shifts leave channels as they are.

        Raises:
            ValueError: ``step`` does not divide the grid, or the point group does not map the grid to itself.

        Example:
            >>> ImageAction.translations(2, size=8, step=2)
            ImageAction(Z4xZ4 on 2 x 8 x 8: 2 x trivial)
            >>> ImageAction.translations(size=32, point_group="D4", fields="regular")
            ImageAction(Z32xZ32:D4 on 8 x 32 x 32: regular)
        """
        height, width = grid_size(size)
        point = parse_group(point_group)
        plain = isinstance(point, EnumerableGroup) and point.order == 1
        group = TranslationGroup(height, width, step) if plain else WallpaperGroup(height, width, step, point)
        return cls(group, copies, size=(height, width), fields=fields)

    # -- the grid and the channels ------------------------------------------------------------------------------------
    @property
    def channels(self) -> int:
        """The number C of channels, which is the sum of the sizes of the fields."""
        return self.event_shape[0]

    @property
    def point_group(self) -> EnumerableGroup:
        """The group that acts on channels and on the offsets of a kernel: the group without its shifts."""
        return require_enumerable(point_group_of(self.group))

    @property
    def padding(self) -> str:
        """The padding that makes a convolution equivariant: "circular" under translations, else "zero"."""
        return "circular" if isinstance(self.group, WallpaperGroup) else "zero"

    def _point(self, elements: Tensor) -> Tensor:
        """The element of the point group that is contained in each element."""
        return self.group.project(elements) if isinstance(self.group, WallpaperGroup) else elements

    def grid_permutations(
        self, height: int | None = None, width: int | None = None, *, elements: Tensor | None = None
    ) -> Tensor:
        """The pixel to which each element sends each pixel of a grid.

        Args:
            height: The height of the grid, by default that of the images. A periodic grid has no other height or width.
            width: The width of the grid, by default that of the images.
            elements: Group elements, by default all of them.

        Returns:
            Shape ``batch + (height * width,)``.

        Example:
            >>> ImageAction("C4", size=2).grid_permutations(elements=torch.tensor(1)).tolist()
            [2, 0, 3, 1]
        """
        elements = self.elements() if elements is None else elements
        return pixels_of(self.group, elements, (height or self.height, width or self.width))

    def kernel_permutations(self, size: int) -> Tensor:
        """The offset to which each element of the point group P sends each offset of a kernel.

        Args:
            size: The height and the width of the kernel.

        Returns:
            Shape ``(|P|, size * size)``.
        """
        return pixel_targets(self.point_group, size, size)

    def channel_permutations(self) -> Tensor:
        """The channel to which each element of the point group P sends each channel, shape ``(|P|, C)``.

        Raises:
            ValueError: The group does not permute channels.
        """
        if not self.is_permutation:
            raise ValueError(f"expected fields whose channels are permuted, got {self}")
        return self.channel_matrices(self.point_group.elements()).argmax(-2)

    def channel_matrices(self, elements: Tensor) -> Tensor:
        """The matrices rho(g) that act on the channels, float64, shape ``batch + (C, C)``.

        Args:
            elements: Group elements g.
        """
        point = self._point(elements)
        return block_diagonal([field.matrices(point) for field in self.fields])

    # -- acting on events ---------------------------------------------------------------------------------------------
    def _table(self, key: Any, device: torch.device) -> Tensor:
        """The table of what each element of the point group does to pixels or channels."""

        def make() -> Tensor:
            elements = self.point_group.elements()
            if key == "pixels":  # y[p] = x[g^-1 p]
                table = pixel_targets(self.point_group, self.height, self.width)[self.point_group.inverse(elements)]
            elif key == "channels":
                table = self.channel_permutations()[self.point_group.inverse(elements)]
            else:
                table = self.channel_matrices(elements).to(key)
            return table.to(device)

        return kept_in(self._tables, (key, device), make)

    def act_each(self, elements: Tensor, x: Tensor) -> Tensor:
        self.check_event(x)
        elements = elements.to(x.device)
        table = self._table("pixels", x.device)
        pixels = pixel_sources(self.group, elements, table, (self.height, self.width))
        point = self._point(elements)
        if self.is_permutation:
            images = gather_pixels(x.flatten(-2), rows_at(self._table("channels", x.device), point), pixels)
        else:
            gathered = gather_pixels(x.flatten(-2), torch.arange(self.channels, device=x.device), pixels)
            images = rows_at(self._table(x.dtype, x.device), point) @ gathered
        return images.unflatten(-1, (self.height, self.width))

    def _nearest(self, group: EnumerableGroup, x: Tensor) -> Tensor | None:
        if not isinstance(group, WallpaperGroup):
            return super()._nearest(group, x)
        device = x.device

        def make() -> Tensor:
            images = self._reference_images(self.point_group.elements().to(device))
            return torch.fft.rfft2(images.unflatten(-1, self.event_shape)).conj().resolve_conj()

        return nearest_shift(x, kept_in(self._tables, ("spectra", device), make), step=group.step)

    def matrix(self, elements: Tensor) -> Tensor:
        pixels = permutation_matrices(self.grid_permutations(elements=elements))
        channels = self.channel_matrices(elements)
        product = channels[..., :, None, :, None] * pixels[..., None, :, None, :]
        return product.flatten(-4, -3).flatten(-2, -1)

    # -- structure ----------------------------------------------------------------------------------------------------
    @made_once
    @as_constants()
    def decomposition(self) -> Decomposition:
        return decompose_image(self, self.grid_permutations)

    def with_fields(self, fields: Sequence[Representation]) -> ImageAction:
        return ImageAction(self.group, size=(self.height, self.width), fields=list(fields))

    def regular_fields(self, copies: int) -> ImageAction:
        """The action on ``copies`` regular fields of the point group (scalar fields under translations alone).

        Args:
            copies: The number of fields.
        """
        if isinstance(self.group, WallpaperGroup) and self.point_group.order == 1:
            return self.trivial_fields(copies)
        return super().regular_fields(copies)

    def as_vector(self) -> VectorAction:
        """The same action on flattened images ``x.flatten(-3)``, as encoders and decoders need it.

        Example:
            >>> ImageAction("C4", size=8).as_vector()
            VectorAction(C4 on R^64: 1 x 8 x 8)
        """
        height, width = self.event_shape[-2:]
        name = f"{self.channels} x {height} x {width}"
        return VectorAction(MatrixRepresentation(self.group, self.matrix(self.elements()), name=name))

    def without_symmetry(self) -> ImageAction:
        return ImageAction("C1", self.channels, size=(self.height, self.width))

    def _require(self, others: Sequence[LinearAction]) -> list[ImageAction]:
        images = super()._require(others)
        for other in images:
            if not self.shares_grid(other):
                raise ValueError(f"expected actions on one grid, got {self} and {other}")
        return images

    def shares_grid(self, other: LinearAction) -> bool:
        """Whether another action acts in the same way on the pixels of an equal grid.

        Args:
            other: Another action.
        """
        return isinstance(other, ImageAction) and self._pixels_key() == other._pixels_key()

    def _pixels_key(self) -> Any:
        # the group alone is not enough: C2 and D1 are one group that acts on pixels in two ways
        return (self.group, self.group.name, self.height, self.width)

    def _key(self) -> Any:
        return (self._pixels_key(), self.fields)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.event_shape))
        return f"ImageAction({self.group} on {shape}: {self._fields_in_words()})"
