"""ImageAction: a group moving pixels, and the channels of each field with them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions.base import LinearAction
from pyro_gflows.actions.components import Decomposition
from pyro_gflows.actions.constants import as_constants
from pyro_gflows.actions.fourier import FourierDecomposition
from pyro_gflows.actions.grid import TranslationGroup, offset_targets, pixel_targets
from pyro_gflows.actions.groups import FiniteGroup, Group
from pyro_gflows.actions.image_decomposition import image_isotypes
from pyro_gflows.actions.names import parse_group
from pyro_gflows.actions.representations import (
    MatrixRepresentation,
    RegularRepresentation,
    Representation,
    TrivialRepresentation,
    permutation_matrices,
)
from pyro_gflows.actions.vector import VectorAction
from pyro_gflows.registry import registered

__all__ = ["ImageAction"]

_LARGEST_DENSE = 512


@registered
class ImageAction(LinearAction):
    r"""A group moving the pixels of images (C, H, W), exactly, and the channels of each field with them.

    :math:`(g\,x)(p) = \rho(g)\,x(g^{-1} p)`, where g turns or mirrors the grid about its centre (a turn by +90 degrees
    is counter-clockwise in a picture whose row 0 is on top) or shifts a periodic grid, and rho, the direct sum of the
    fields' representations, moves the channels.

    Args:
        group: "C1", "C2", "D1", "D2"; on square grids also "C4", "D4"; or a :class:`TranslationGroup`.
        channels: the number of fields (1, or as many as ``fields`` lists): C is the sum of their sizes, so
            ``fields="regular"`` gives C = channels * |G|.
        size: H = W, or (H, W).
        fields: "trivial", "regular", a representation for every field, or a sequence of one representation a field.

    Raises:
        TypeError: ``fields`` is none of these.
        ValueError: the grid cannot carry the group, or the fields are of another group or not ``channels`` in number.

    Example:
        >>> action = ImageAction("D4", channels=3, size=32)
        >>> action
        ImageAction(D4 on 3 x 32 x 32: 3 x trivial)
        >>> ImageAction("C4", size=2).act(torch.tensor(1), torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])).tolist()
        [[[2.0, 4.0], [1.0, 3.0]]]
    """

    def __init__(
        self,
        group: Group | str,
        channels: int | None = None,
        *,
        size: int | Sequence[int],
        fields: str | Representation | Sequence[Representation] = "trivial",
    ) -> None:
        self.group = parse_group(group)
        self.height, self.width = _grid(size)
        pixel_targets(self.group, self.height, self.width)
        self.fields = _fields(self.group, channels, fields)
        if isinstance(self.group, TranslationGroup) and set(self.fields) != {TrivialRepresentation(self.group)}:
            raise ValueError(f"expected trivial fields for the translations {self.group}, got {set(self.fields)}")
        self.event_shape = torch.Size([sum(field.size for field in self.fields), self.height, self.width])

    @classmethod
    def translations(cls, channels: int = 1, *, size: int | Sequence[int], step: int = 1) -> ImageAction:
        """All shifts of a periodic grid by multiples of ``step`` pixels; trivial fields.

        Example:
            >>> ImageAction.translations(2, size=8, step=2)
            ImageAction(Z4xZ4 on 2 x 8 x 8: 2 x trivial)
        """
        return cls(TranslationGroup(*_grid(size), step), channels, size=_grid(size))

    # -- the grid and the channels ------------------------------------------------------------------------------------
    @property
    def channels(self) -> int:
        """C: the sum of the sizes of the fields."""
        return self.event_shape[0]

    @property
    def padding(self) -> str:
        """What a convolution pads with, to be equivariant: "circular" under translations, else "zero"."""
        return "circular" if isinstance(self.group, TranslationGroup) else "zero"

    def grid_permutations(self, height: int | None = None, width: int | None = None) -> Tensor:
        """Where each element sends each pixel (of another grid, if given), shape ``(|G|, height * width)``."""
        return pixel_targets(self.group, height or self.height, width or self.width)

    def kernel_permutations(self, size: int) -> Tensor:
        """Where each element sends each offset of a ``size x size`` kernel, shape ``(|G|, size * size)``."""
        return offset_targets(self.group, size)

    def channel_permutations(self) -> Tensor:
        """Where each element sends each channel, shape ``(|G|, C)``. Raises ValueError if it does not permute them."""
        if not self.is_permutation:
            raise ValueError(f"expected fields whose channels are permuted, got {self}")
        starts = itertools.accumulate((field.size for field in self.fields), initial=0)
        blocks = [field.matrices(self.elements()).argmax(-2) for field in self.fields]
        return torch.cat([block + start for block, start in zip(blocks, starts, strict=False)], dim=-1)

    def channel_matrices(self, elements: Tensor) -> Tensor:
        """rho(g) on the channels, float64, shape ``batch + (C, C)``."""
        out = torch.zeros(*elements.shape, self.channels, self.channels, dtype=torch.float64)
        start = 0
        for field in self.fields:
            stop = start + field.size
            out[..., start:stop, start:stop] = field.matrices(elements)
            start = stop
        return out

    # -- moving events ------------------------------------------------------------------------------------------------
    @functools.cached_property
    def _tables(self) -> dict[Any, Tensor]:
        return {}

    def _table(self, key: Any, device: torch.device) -> Tensor:
        if (key, device) not in self._tables:
            assert isinstance(self.group, FiniteGroup)
            with as_constants():
                if key == "pixels":  # y[p] = x[g^-1 p]
                    table = self.grid_permutations()[self.group.inverse]
                elif key == "channels":
                    table = self.channel_permutations()[self.group.inverse]
                else:
                    table = self.channel_matrices(self.elements()).to(key)
                self._tables[key, device] = table.to(device)
        return self._tables[key, device]

    def act_each(self, elements: Tensor, x: Tensor) -> Tensor:
        self.check_event(x)
        elements = elements.to(x.device)
        pixels = self._table("pixels", x.device)[elements]
        if self.is_permutation:
            moved = _gather(x.flatten(-2), self._table("channels", x.device)[elements], pixels)
        else:
            turned = _gather(x.flatten(-2), torch.arange(self.channels, device=x.device), pixels)
            moved = self._table(x.dtype, x.device)[elements] @ turned
        return moved.unflatten(-1, (self.height, self.width))

    def matrix(self, elements: Tensor) -> Tensor:
        pixels = permutation_matrices(self.grid_permutations()[elements])
        channels = self.channel_matrices(elements)
        product = channels[..., :, None, :, None] * pixels[..., None, :, None, :]
        return product.flatten(-4, -3).flatten(-2, -1)

    # -- structure ----------------------------------------------------------------------------------------------------
    @functools.cached_property
    @as_constants()
    def decomposition(self) -> Decomposition:
        too_large = None
        if self.numel > _LARGEST_DENSE:
            too_large = (
                f"the basis of an isotypic component of an image is given for at most {_LARGEST_DENSE} numbers, got "
                f"{self.numel} in {self}; use layers on fields, such as convolutions, or isotype.project(x), which "
                "needs no basis; isotype.dense_basis() computes it all the same"
            )
        if too_large is not None and isinstance(self.group, TranslationGroup):
            return FourierDecomposition(self, self.group.shifts, step=self.group.step, too_large=too_large)
        assert isinstance(self.group, FiniteGroup)
        return image_isotypes(self.group, self.fields, self.grid_permutations(), self.event_shape, too_large=too_large)

    def _entries_in(self, values: list[float]) -> bool:
        allowed = torch.tensor(values, dtype=torch.float64)
        nontrivial = [field for field in set(self.fields) if not isinstance(field, TrivialRepresentation)]
        return all(bool(torch.isin(field.matrices(self.elements()), allowed).all()) for field in nontrivial)

    @functools.cached_property
    def is_permutation(self) -> bool:  # type: ignore[override]
        return self._entries_in([0.0, 1.0])

    @functools.cached_property
    def is_signed_permutation(self) -> bool:  # type: ignore[override]
        return self._entries_in([-1.0, 0.0, 1.0])

    def with_fields(self, fields: Sequence[Representation]) -> ImageAction:
        """The same group on the same grid, with other fields."""
        return ImageAction(self.group, size=(self.height, self.width), fields=list(fields))

    def absolute(self) -> ImageAction:
        if self.is_permutation:
            return self
        if not self.is_signed_permutation or not isinstance(self.group, FiniteGroup):
            raise ValueError(f"expected a signed permutation action, got {self}")
        elements = self.elements()
        return self.with_fields(
            [
                MatrixRepresentation(self.group, field.matrices(elements).abs(), name=f"|{field.name}|")
                for field in self.fields
            ]
        )

    def regular_fields(self, copies: int) -> ImageAction:
        """``copies`` regular fields; under translations scalar fields, which are regular already."""
        if isinstance(self.group, TranslationGroup):
            return self.trivial_fields(copies)
        return self.with_fields([RegularRepresentation(self.group)] * copies)

    def trivial_fields(self, copies: int) -> ImageAction:
        return self.with_fields([TrivialRepresentation(self.group)] * copies)

    def as_vector(self) -> VectorAction:
        """The same events as vectors, ``x.flatten(-3)``: how encoders and decoders go from images to vectors and back.

        Example:
            >>> ImageAction("C4", size=8).as_vector()
            VectorAction(C4 on R^64: 1 x 8 x 8)
        """
        height, width = self.event_shape[-2:]
        assert isinstance(self.group, FiniteGroup)
        name = f"{self.channels} x {height} x {width}"
        return VectorAction(MatrixRepresentation(self.group, self.matrix(self.elements()), name=name))

    def without_symmetry(self) -> ImageAction:
        return ImageAction("C1", self.channels, size=(self.height, self.width))

    def direct_sum(self, *others: LinearAction) -> ImageAction:
        images = self._require(others)
        for other in images:
            if not self.shares_grid(other):
                raise ValueError(f"expected actions on one grid, got {self} and {other}")
        return self.with_fields([field for action in (self, *images) for field in action.fields])

    def shares_grid(self, other: LinearAction) -> bool:
        """Whether the other action moves the pixels of an equal grid in the same way."""
        return isinstance(other, ImageAction) and self._pixels_key() == other._pixels_key()

    def _pixels_key(self) -> Any:
        # the group alone is not enough: C2 and D1 are one group that moves pixels in two ways
        moves = (self.group.name, getattr(self.group, "step", None))
        return (self.group, moves, self.height, self.width)

    def _key(self) -> Any:
        return (self._pixels_key(), self.fields)

    def __repr__(self) -> str:
        runs = [(field.name, len(list(run))) for field, run in itertools.groupby(self.fields)]
        text = " + ".join(name if count == 1 else f"{count} x {name}" for name, count in runs)
        return f"ImageAction({self.group} on {' x '.join(map(str, self.event_shape))}: {text})"


def _gather(x: Tensor, channels: Tensor, pixels: Tensor) -> Tensor:
    """``y[..., c, p] = x[..., channels[c], pixels[p]]``; all batch shapes broadcast."""
    index = (channels[..., :, None] * x.shape[-1] + pixels[..., None, :]).flatten(-2)
    flat = x.flatten(-2)
    if index.ndim == 1:
        moved = flat[..., index]
    else:
        batch = torch.broadcast_shapes(index.shape[:-1], flat.shape[:-1])
        moved = flat.expand(*batch, -1).gather(-1, index.expand(*batch, -1))
    return moved.unflatten(-1, (channels.shape[-1], pixels.shape[-1]))


def _grid(size: int | Sequence[int]) -> tuple[int, int]:
    given = (size, size) if isinstance(size, int) else tuple(size)
    if len(given) != 2 or not all(isinstance(side, int) and side > 0 for side in given):
        raise ValueError(f"expected a size such as 32 or (28, 32), got {size!r}")
    return given


def _fields(
    group: Group, channels: int | None, fields: str | Representation | Sequence[Representation]
) -> tuple[Representation, ...]:
    if channels is not None and (not isinstance(channels, int) or channels < 1):
        raise ValueError(f"expected a positive number of channels, got {channels!r}")
    if isinstance(fields, str):
        kinds = {"trivial": TrivialRepresentation, "regular": RegularRepresentation}
        if fields not in kinds:
            raise ValueError(f"expected fields 'trivial', 'regular' or representations, got {fields!r}")
        fields = kinds[fields](group)
    listed = [fields] * (channels or 1) if isinstance(fields, Representation) else list(fields)
    for field in listed:
        if not isinstance(field, Representation):
            raise TypeError(f"expected representations as fields, got {type(field).__name__}")
        if field.group != group:
            raise ValueError(f"expected fields of {group}, got {field}")
    if not listed or len(listed) != (channels or len(listed)):
        raise ValueError(f"expected {channels or 'at least one'} fields, got {len(listed)}")
    return tuple(listed)
