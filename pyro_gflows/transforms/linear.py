"""GLinear: the exponential of an equivariant linear map; on images, an invertible 1x1 convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.actions import LinearAction, VectorAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.deprecation import renamed_arguments
from pyro_gflows.nn import EquivariantLinear
from pyro_gflows.nn.component_tables import ComponentMaps
from pyro_gflows.numerics import limit_norm, matrix_exp
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.exponential import ExponentialTransform

__all__ = ["GLinear"]


@renamed_arguments(cap="max_log_scale")
@registered
class GLinear(ExponentialTransform):
    r"""A linear map that mixes the fields of an event: the exponential of an equivariant linear map (intertwiner).

    It is the invertible 1x1 convolution of Glow with a symmetry: layers that transform one part of the event at a time
    mix all parts faster with it in between.

    .. math:: y = e^W x, \qquad \log|\det J| = n\,\mathrm{tr}\,W

    A field is a block of components that the group transforms together, such as one vector, or one channel of an image.
    The matrix W commutes with the group. On vectors it acts on all coordinates, and n = 1; on images it acts on the
    channels, in the same way at each of the n pixels. Events keep their shape. The weights parametrize all equivariant
    linear maps W (by Schur's lemma), so the layer reaches every equivariant linear map that has an equivariant
    logarithm; :class:`GLinearPLU` reaches every invertible one, and :class:`GConvExponential` mixes neighboring pixels
    too. On rows that are permuted (:class:`~pyro_gflows.RowsAction`) the cost grows linearly with the number of rows.
    The map is bijective because an exponential is; the inverse is the exponential of -W. It is equivariant because
    a power series in W commutes with every matrix that W commutes with.

    Args:
        action: How the group acts on events.
        max_log_scale: Smooth bound of the Frobenius norm of W divided by the square root of the number of channels; on
            rows, of each of the small matrices of which W consists, one for the means and one for the differences.

    Raises:
        TypeError: ``action`` is not a LinearAction.
        ValueError: ``max_log_scale`` is not positive and finite.

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649; Glow, arXiv:1807.03039 (1x1 convolutions); The
    Convolution Exponential, arXiv:2006.01910.

    Example:
        >>> from pyro_gflows import ImageAction
        >>> layer = GLinear(ImageAction("D4", copies=2, size=4, fields="regular"))
        >>> layer
        GLinear(
          ImageAction(D4 on 16 x 4 x 4: 2 x regular), exact log-det
          (generator): EquivariantLinear(D4: R^16 -> R^16, 32 weights)
        )
    """

    def __init__(self, action: LinearAction, *, max_log_scale: float = 3.0) -> None:
        super().__init__(action)
        require_linear(action)
        channels = action if isinstance(action, VectorAction) else VectorAction(action.fields)
        self.max_log_scale = max_log_scale * channels.numel**0.5
        self.generator: EquivariantLinear | ComponentMaps
        if channels.decomposition.in_closed_form:
            self.generator, self.max_log_scale = ComponentMaps(channels), max_log_scale
        else:
            self.generator = EquivariantLinear(channels, channels, bias=False)
        self._pixels = action.numel // channels.numel
        limit_norm(torch.zeros(1, 1), self.max_log_scale)  # raises where the bound is not positive and finite
        with torch.no_grad():  # the identity at the start
            for weight in self.generator.parameters():
                weight.zero_()

    def _apply_exponential(self, x: Tensor, sign: int) -> tuple[Tensor, Tensor]:
        if isinstance(self.generator, ComponentMaps):
            return self._by_components(self.generator, x, sign)
        matrix = sign * limit_norm(self.generator.matrix(), self.max_log_scale)
        mixed = matrix_exp(matrix)
        event_dim = self.action_in.event_dim
        batch = x.shape[: x.ndim - event_dim]
        # channels first, then all pixels in one dimension (a single one for vectors)
        columns = x.reshape(*batch, matrix.shape[-1], self._pixels)
        image = (mixed.to(x) @ columns).reshape(x.shape)
        return image, (self._pixels * matrix.trace()).to(x).expand(batch)

    def _by_components(self, generator: ComponentMaps, x: Tensor, sign: int) -> tuple[Tensor, Tensor]:
        logs = [
            sign * limit_norm(block, self.max_log_scale * table.width**0.5)
            for table, block in zip(generator.tables, generator.blocks(), strict=True)
        ]
        traces = [table.outer * log.trace() for table, log in zip(generator.tables, logs, strict=True)]
        image = generator.apply_blocks([matrix_exp(log) for log in logs], x)
        return image, torch.stack(traces).sum().to(x).expand(x.shape[:-1])
