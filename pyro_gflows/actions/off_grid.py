"""OffGridAction: rotations of pixel images by any angle, most of them by interpolation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions.base import Action
from pyro_gflows.actions.image import ImageAction
from pyro_gflows.deprecation import renamed_arguments
from pyro_gflows.groups.continuous import O2, SO2
from pyro_gflows.groups.finite import CyclicGroup, DihedralGroup, Group, PlanarGroup
from pyro_gflows.groups.names import parse_group
from pyro_gflows.groups.representations import Representation, TrivialRepresentation
from pyro_gflows.numerics.constants import made_once
from pyro_gflows.serialization.registry import registered

__all__ = ["OffGridAction"]

_ROUNDING = 1e-9


@renamed_arguments(channels="copies")
@registered
class OffGridAction(Action):
    r"""C_n, D_n, SO(2) or O(2) acts on images (C, H, W) about the center of the grid, by bilinear interpolation.

    :math:`(g\,x)(p) = x(g^{-1} p)`, with x = 0 outside the grid, and the conventions of :class:`ImageAction`. Elements
    that map the grid to itself (those of :attr:`exact_subgroup`) permute pixels exactly. All others interpolate and
    lose detail, so that :math:`g\,(h\,x) = (g h)\,x` holds only approximately.

    No density on pixels is exactly invariant under such a group. This action serves to measure how nearly invariant a
    density is, to augment data, and to name the group of the networks of a soft flow
    (``g_soft_coupling_image_flow``). Layers and bases refuse this action, which is no LinearAction, and take its
    :attr:`exact_subgroup`.

    Args:
        group: "C8", "D12", "SO(2)", "O(2)", ... or the group itself.
        copies: The number of scalar fields, which are the channels.
        size: H = W, or (H, W).
        fields: "trivial", the only kind: the group leaves channels as they are.

    Raises:
        ValueError: The group is not a group of rotations of the plane, or the fields are not trivial.

    Example:
        >>> action = OffGridAction("C8", size=8)
        >>> action.is_exact(torch.tensor(1)), action.is_exact(torch.tensor(2))
        (False, True)
        >>> action.exact_subgroup
        ImageAction(C4 on 1 x 8 x 8: trivial)
    """

    def __init__(
        self,
        group: Group | str,
        copies: int = 1,
        *,
        size: int | Sequence[int],
        fields: str | Representation | Sequence[Representation] = "trivial",
    ) -> None:
        self.group = parse_group(group)
        if not isinstance(self.group, CyclicGroup | DihedralGroup | SO2):
            raise ValueError(f"expected a group of rotations of the plane, C_n, D_n, SO(2) or O(2), got {self.group}")
        plain = ImageAction("C1", copies, size=size)
        self.height, self.width = plain.height, plain.width
        trivial = TrivialRepresentation(self.group)
        listed = [fields] * copies if isinstance(fields, str | Representation) else list(fields)
        if any(field not in ("trivial", trivial) for field in listed) or len(listed) != copies:
            raise ValueError(
                f"expected {copies} trivial fields, got {fields!r}: only scalars are interpolated; "
                "regular fields of such a group live in the networks of a flow, g_soft_coupling_image_flow(...)"
            )
        self.event_shape = plain.event_shape

    @property
    def channels(self) -> int:
        """The number C of channels."""
        return self.event_shape[0]

    @property
    def field_sizes(self) -> list[int]:
        return [1] * self.channels

    @made_once
    def exact_subgroup(self) -> ImageAction:
        """The action of the elements that map the grid to itself, which is exact.

        These are the rotations of the group by multiples of 90 degrees (of 180 degrees if H differs from W) and, with
        D_n and O(2), the reflections that map the grid to itself.
        """
        most = 4 if self.height == self.width else 2
        rotations = math.gcd(self.group.n, most) if isinstance(self.group, PlanarGroup) else most
        kind = "D" if isinstance(self.group, DihedralGroup | O2) else "C"
        return ImageAction(f"{kind}{rotations}", self.channels, size=(self.height, self.width))

    # -- acting on events ----------------------------------------------------------------------------------------------
    def _matrices(self, elements: Tensor) -> Tensor:
        """The 2 x 2 matrices of the elements, where entries that are integers up to rounding are rounded."""
        matrices = (
            self.group.plane()[elements.cpu()] if isinstance(self.group, PlanarGroup) else elements.cpu().double()
        )
        whole = matrices.round()
        near = (matrices - whole).abs().amax((-2, -1), keepdim=True) < _ROUNDING
        return torch.where(near, whole, matrices)

    def is_exact(self, element: Tensor) -> bool:
        matrix = self._matrices(element)
        off_diagonal = bool((matrix[..., 0, 1] != 0).any())
        return bool((matrix % 1 == 0).all()) and not (off_diagonal and self.height != self.width)

    def act_each(self, elements: Tensor, x: Tensor) -> Tensor:
        self.check_event(x)
        index, weight = self._corners(self._matrices(elements))
        index, weight = index.to(x.device), weight.to(x)
        batch = torch.broadcast_shapes(index.shape[:-2], x.shape[:-3])
        flat = x.flatten(-2).expand(*batch, self.channels, -1)
        shape = (*batch, self.channels, index.shape[-1])
        images = x.new_zeros(())
        for corner in range(4):
            place = index[..., None, corner, :].expand(shape)
            images = images + weight[..., None, corner, :] * flat.gather(-1, place)
        return images.unflatten(-1, (self.height, self.width))

    def _corners(self, matrices: Tensor) -> tuple[Tensor, Tensor]:
        """The four pixels around the source of each pixel, and their weights, shape ``batch + (4, H * W)``."""
        x = (torch.arange(self.width) - (self.width - 1) / 2).double().repeat(self.height)
        y = ((self.height - 1) / 2 - torch.arange(self.height)).double().repeat_interleave(self.width)
        source = matrices.mT @ torch.stack([x, y])  # g^-1 p
        column = source[..., 0, :] + (self.width - 1) / 2
        row = (self.height - 1) / 2 - source[..., 1, :]
        left, top = column.floor(), row.floor()
        places, weights = [], []
        for down in (0, 1):
            for right in (0, 1):
                i, j = top + down, left + right
                inside = (i >= 0) & (i < self.height) & (j >= 0) & (j < self.width)
                share = (1 - (row - i).abs()) * (1 - (column - j).abs())
                weights.append(torch.where(inside, share, 0.0))
                places.append(torch.where(inside, i * self.width + j, 0.0).long())
        return torch.stack(places, -2), torch.stack(weights, -2)

    def matrix(self, elements: Tensor) -> Tensor:
        """The matrices of the linear maps x -> g x of images, float64, which are orthogonal for exact elements.

        Args:
            elements: Group elements g.

        Returns:
            Shape ``batch + (numel, numel)``.
        """
        events = torch.eye(self.numel, dtype=torch.float64, device=elements.device).unflatten(-1, self.event_shape)
        spread = elements.reshape(*self.group.batch_shape(elements), 1, *self.group.element_shape)
        return self.act_each(spread, events).flatten(-3).mT

    # -- related actions ----------------------------------------------------------------------------------------------
    def trivial_fields(self, copies: int) -> OffGridAction:
        """The action on ``copies`` scalar fields on the same grid.

        Args:
            copies: The number of fields.
        """
        return OffGridAction(self.group, copies, size=(self.height, self.width))

    def direct_sum(self, *others: OffGridAction) -> OffGridAction:
        """The action on images whose channels are put side by side.

        Args:
            others: Actions of the same group on the same grid.

        Raises:
            ValueError: An action is of another kind, group or grid.
        """
        for other in others:
            if not isinstance(other, OffGridAction) or other.group != self.group:
                raise ValueError(f"expected actions of one kind and group, got {self} and {other}")
            if other.event_shape[1:] != self.event_shape[1:]:
                raise ValueError(f"expected actions on one grid, got {self} and {other}")
        return self.trivial_fields(sum(action.channels for action in (self, *others)))

    def without_symmetry(self) -> ImageAction:
        return self.exact_subgroup.without_symmetry()

    def _key(self) -> Any:
        return (self.group, self.group.name, self.event_shape)

    def __repr__(self) -> str:
        text = f"{self.group} on {' x '.join(map(str, self.event_shape))}"
        return f"OffGridAction({text}, exact under {self.exact_subgroup.group})"
