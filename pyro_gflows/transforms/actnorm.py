"""GActNorm: a learned scale for each field, and a learned shift along each invariant direction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction, RowsAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.actions.row_mask import coordinates_there, require_maskable, without_gaps
from pyro_gflows.groups.row_fields import RowField
from pyro_gflows.nn.coefficients import register_coefficients
from pyro_gflows.nn.isotypic import ChangeOfBasis, IsotypicBasis, isotypic_basis
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.data_dependent import DataDependentTransform
from pyro_gflows.transforms.masked import TakesMask

__all__ = ["GActNorm"]


@registered
class GActNorm(TakesMask, DataDependentTransform):
    r"""An activation normalization: it scales each field, and shifts along the directions that the group leaves alone.

    It keeps the events between layers at unit scale, which makes flows train faster; put one between any two layers.

    .. math:: y_i = e^{a_i}\,(x_i + b_i), \qquad \log|\det J| = \sum_i n_i a_i

    A field is a block of components that the group transforms together, such as one vector, or one channel of an image.
    Field i has n_i components, one log-scale a_i, and a shift b_i, a vector that no group element changes (0 if there
    is no other). On images both are the same at all pixels. On rows that are permuted
    (:class:`~pyro_gflows.RowsAction`) each feature has a scale of its own, and the shifts are the same for all rows;
    features that change their sign with their row, and features of sum 0, are not shifted. The map is bijective because
    no scale is 0. It is equivariant because scaling a whole field, or one feature of all rows, commutes with the
    matrices of the group, which leave b_i unchanged.

    ``initialize(x)``, with x of shape ``(n,) + event_shape``, sets both so that the data come out with root mean square
    1 and, along the directions that the group leaves alone, with mean 0; it returns the transformed data. See
    :class:`DataDependentTransform` for when that happens.

    Args:
        action: How the group acts on events.
        trainable: Whether training and data change the scales and shifts. Otherwise the layer stays the identity.

    Raises:
        TypeError: ``action`` is not a LinearAction.

    Source: Glow, arXiv:1807.03039 (activation normalization).

    Example:
        >>> from pyro_gflows import VectorAction
        >>> layer = GActNorm(VectorAction.plane("D4"))
        >>> layer.initialize(10 * torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))).std().round().item()
        1.0
    """

    field: Tensor
    shift: Tensor

    def __init__(self, action: LinearAction, *, trainable: bool = True) -> None:
        super().__init__(action)
        require_linear(action)
        field = _scaled_together(action)
        self.invariants = _invariant_directions(action)
        self.log_scale = nn.Parameter(torch.zeros(int(field.max()) + 1))
        register_coefficients(self, "shift", sum(self.invariants.sizes))
        self.register_buffer("field", field, persistent=False)
        self._pixels = action.numel // len(field)
        if not trainable:  # buffers under the same names: Pyro warns about every frozen parameter
            for name, value in list(self.named_parameters(recurse=False)):
                delattr(self, name)
                self.register_buffer(name, value.detach())

    def _columns(self, vector: Tensor) -> Tensor:
        """A vector of one field, shaped so that it broadcasts over the pixels of the event."""
        return vector.reshape(-1, *[1] * (self.action_in.event_dim - 1))

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scale, shift = self._scale(), self._shift()
        shifted = x if shift is None else x + shift
        return shifted * self._columns(scale.exp()), self._ladj(scale, x, self._pixels)

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scale, shift = self._scale(), self._shift()
        scaled = y * self._columns((-scale).exp())
        return scaled if shift is None else scaled - shift, self._ladj(scale, y, -self._pixels)

    def _scale(self) -> Tensor:
        """The log-scale of each coordinate of a field."""
        if len(self.log_scale) == 1:
            return self.log_scale.expand(len(self.field))
        return self.log_scale.index_select(0, self.field)

    def _shift(self) -> Tensor | None:
        """The shift, where there are invariant directions."""
        return self._columns(self.invariants.event(self.shift)) if sum(self.invariants.sizes) else None

    def _ladj(self, scale: Tensor, x: Tensor, times: int) -> Tensor:
        total = scale.sum()
        return (total if times == 1 else total * times).expand(x.shape[: x.ndim - self.action_in.event_dim])

    def apply_masked(self, x: Tensor, mask: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        image, _ = self.inv_call_and_ladj(x) if inverse else self.call_and_ladj(x)
        scale = self._scale().where(coordinates_there(require_maskable(self.action_in), mask), 0.0).sum(-1)
        return image, -scale if inverse else scale

    def initialize_masked(self, x: Tensor, mask: Tensor, context: Tensor | None, *, inverse: bool) -> Tensor:
        filled = without_gaps(require_maskable(self.action_in), x, mask)
        if inverse:
            self.initialize_inverse(filled)
        else:
            self.initialize(filled)
        return super().initialize_masked(x, mask, context, inverse=inverse)

    def standardize(self, x: Tensor) -> None:
        shift, scale = self._moments(x)
        self.shift.copy_(-shift)
        self.log_scale.copy_(-scale.log())

    def standardize_inverse(self, y: Tensor) -> None:
        # the inverse is x = y / s - b: x is standardized when s is the scale of the data, and b their mean divided by s
        shift, scale = self._moments(y)
        self.shift.copy_(self.invariants.coordinates(self.invariants.event(shift) / scale[self.field]))
        self.log_scale.copy_(scale.log())

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates of the mean along the invariants, and the scale of each field about it."""
        flat = x.detach().reshape(-1, len(self.field), self._pixels)
        shift = self.invariants.coordinates(flat.mean((0, 2)))
        centered = flat - self.invariants.event(shift)[:, None]
        power = centered.square().mean((0, 2))
        count = len(self.log_scale)
        total = torch.zeros(count, dtype=x.dtype, device=x.device).index_add_(0, self.field, power)
        size = torch.bincount(self.field, minlength=count)
        return shift, (total / size).sqrt().clamp_min(1e-6)


def _scaled_together(action: LinearAction) -> Tensor:
    """For each coordinate of a field, the index of its scale: one for each field, and for each feature of rows."""
    scales, count = torch.zeros(sum(action.field_sizes), dtype=torch.int64), 0
    for field, place in zip(action.fields, scales.split(action.field_sizes), strict=True):
        sets = field.invariant_sets() if isinstance(field, RowField) else [range(field.size)]
        for index, one in enumerate(sets):
            place[list(one)] = count + index
        count += len(sets)
    return scales


def _invariant_directions(action: LinearAction) -> ChangeOfBasis:
    """The directions that the group leaves alone: as a matrix, and of rows by their means."""
    if isinstance(action, RowsAction) and not action.has_matrix_fields:
        return isotypic_basis(action, int(action.decomposition[0].is_trivial))
    rows = action.invariants()
    return IsotypicBasis(rows, [len(rows)])
