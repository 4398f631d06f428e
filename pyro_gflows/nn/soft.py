"""SoftNetwork: exactly equivariant under a small group, approximately under a larger one in its hidden layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_gflows.actions import ImageAction, LinearAction
from pyro_gflows.groups import RegularRepresentation
from pyro_gflows.groups.finite import Group
from pyro_gflows.groups.names import parse_group
from pyro_gflows.groups.restriction import restricted_to_subgroup
from pyro_gflows.nn.conv import EquivariantConv
from pyro_gflows.nn.networks import EquivariantNetwork
from pyro_gflows.nn.steerable import SteerableConv, sampled_group
from pyro_gflows.nn.waves import Waves
from pyro_gflows.serialization.registry import registered

__all__ = ["SoftNetwork"]


@registered
class SoftNetwork(EquivariantNetwork):
    r"""A network between images that is exactly equivariant under H, with hidden fields of a larger group G.

    Rotations by 45 degrees, say, do not take a pixel grid to itself, so no network on pixels is exactly equivariant
    under them. This network keeps :math:`\varphi(\rho_{in}(h)\,x) = \rho_{out}(h)\,\varphi(x)` to float precision for
    the elements h of H, which take the grid to itself. Its hidden layers are approximately equivariant under G as well,
    as far as smooth images on pixels allow; :meth:`equivariance_error` measures how far. Scalar fields of the input and
    the output are connected to the hidden fields of G by :class:`SteerableConv`. The action of G on other fields of H
    is not defined, so these are connected by an :class:`EquivariantConv` under H.

    Args:
        action_in: How H acts on the input.
        action_out: How H acts on the output, on the same grid.
        group: The group G, one of C_n, D_n, SO(2), O(2), which contains H.
        width: The number of hidden regular fields of G. Each has as many channels as G has elements (SO(2): 16, O(2):
            32).
        depth: The number of hidden layers, at least 1.
        kernel_size: The side of the kernels between fields of G. The default is 3 if G takes the grid to itself, else
            5.
        activation: The name of an activation for fields that the group permutes, as in EquivariantNetwork; the default
            is "lipswish".
        start: A factor on the weights of the last layer; with 0 the output starts at zero.

    Shape:
        input ``(..., C_in, H, W)``, output ``(..., C_out, H, W)``.

    Raises:
        TypeError: If an action is not an ImageAction.
        ValueError: If G does not contain H, or there is no hidden layer.

    Source: The "soft" flows of Equivariant Finite Normalizing Flows, arXiv:2110.08649.

    Example:
        >>> from pyro_gflows import OffGridAction
        >>> action = OffGridAction("C8", size=8).exact_subgroup
        >>> network = SoftNetwork(action, action.copies(2), group="C8", width=2)
        >>> network(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 2, 8, 8])
    """

    def __init__(
        self,
        action_in: ImageAction,
        action_out: ImageAction,
        *,
        group: Group | str,
        width: int = 4,
        depth: int = 2,
        kernel_size: int | None = None,
        activation: str | None = None,
        start: float = 1.0,
    ) -> None:
        for action in (action_in, action_out):
            if not isinstance(action, ImageAction):
                raise TypeError(f"expected an ImageAction, such as action.exact_subgroup, got {action}")
        if depth < 1:
            raise ValueError(f"expected depth >= 1, as {group} acts on the hidden layers alone, got {depth}")
        self.group, (self._sampled, _) = parse_group(group), sampled_group(group)
        self._carried = bool((self._sampled.plane() % 1 == 0).all())
        self.kernel_size = kernel_size if kernel_size is not None else 3 if self._carried else 5
        super().__init__(action_in, action_out, width=width, depth=depth, activation=activation)
        self.scale_last_(start)

    def hidden(self, action: LinearAction, width: int) -> ImageAction:
        """How H acts on the hidden layers: by permuting the channels of the regular fields of G."""
        assert isinstance(action, ImageAction)
        return action.with_fields([restricted_to_subgroup(RegularRepresentation(self._sampled), action.group)] * width)

    def layer(self, action_in: LinearAction, action_out: LinearAction) -> nn.Module:
        assert isinstance(action_in, ImageAction) and isinstance(action_out, ImageAction)
        if not self._is_hidden(action_in):
            return _Entrance(action_in, action_out, self.group, self.kernel_size)
        if not self._is_hidden(action_out):
            return _Exit(action_in, action_out, self.group, self.kernel_size)
        widths = len(action_in.fields), len(action_out.fields)
        return SteerableConv(self.group, *widths, kernel_size=self.kernel_size)

    def _is_hidden(self, action: ImageAction) -> bool:
        return set(action.fields) == set(self.hidden(action, 1).fields)

    @torch.no_grad()
    def equivariance_error(self, *, blur: float = 1.5, samples: int = 64, seed: int = 0) -> float:
        r"""The relative error of the hidden layers under the smallest rotation g of G; nan if no input is scalar.

        The error is :math:`|g\,\varphi(x) - \varphi(g\,x)| / |\varphi(x)|`, with root mean squares over smooth images x
        in the scalar channels, at the pixel that the rotation fixes. The images are sums of plane waves, which are
        rotated before they are sampled. So nothing is interpolated, and the error is due to the layers alone.

        Args:
            blur: The standard deviation, in pixels, of the Gaussian blur that would make such images from white noise.
            samples: The number of images.
            seed: The seed of the images.
        """
        entrance = self.layers[0]
        assert isinstance(entrance, _Entrance)
        if entrance.steerable is None:
            return float("nan")
        reference = next(self.parameters())
        rotation = 1 if self._sampled.n > 1 else 0
        reach = self.kernel_size // 2 * len(self.activations)  # the last layer is not part of it
        waves = Waves((samples, len(entrance.scalars)), blur=blur, seed=seed)
        fields = []
        for matrix in self._sampled.plane()[[0, rotation]]:
            x = entrance.steerable(waves.sampled(matrix, 2 * reach + 1).to(reference))
            for layer, activation in zip(self.layers[1:], self.activations, strict=True):
                x = activation(x)
                if layer is not self.layers[-1]:
                    x = layer(x)
            fields.append(x[..., reach, reach].unflatten(-1, (-1, self._sampled.order)))
        back = self._sampled.inverse(torch.tensor(rotation))
        image = fields[0][..., self._sampled.compose(back, self._sampled.elements())]  # (g y)_k = y_(g^-1 k)
        return float((image - fields[1]).norm() / image.norm())

    def extra_repr(self) -> str:
        exact = f"{self.group} in the hidden layers, exact under {self.action_in.group}"
        entrance = self.layers[0]
        assert isinstance(entrance, _Entrance)
        if entrance.steerable is None:
            return f"{exact}; no scalar input, so the error under {self.group} cannot be measured"
        between = "" if self._carried else f", never exact under {self.group}"
        return f"{exact}{between}; equivariance_error() measures the error under the smallest rotation of {self.group}"


class _Entrance(nn.Module):
    """The layer from fields of H to fields of G: steerable for scalar fields, equivariant under H for others."""

    scalars: Tensor
    others: Tensor

    def __init__(self, action_in: ImageAction, hidden: ImageAction, group: Group, kernel_size: int) -> None:
        super().__init__()
        scalars, others = _scalars_and_others(action_in)
        self.register_buffer("scalars", torch.tensor(scalars, dtype=torch.int64), persistent=False)
        self.register_buffer("others", torch.tensor(others, dtype=torch.int64), persistent=False)
        self.steerable: SteerableConv | None = None
        if scalars:
            counts = len(scalars), len(hidden.fields)
            self.steerable = SteerableConv(group, *counts, fields_in="trivial", kernel_size=kernel_size)
        self.exact = EquivariantConv(_without_scalars(action_in), hidden) if others else None

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        if self.steerable is not None:
            parts.append(self.steerable(x.index_select(-3, self.scalars)))
        if self.exact is not None:
            parts.append(self.exact(x.index_select(-3, self.others)))
        return torch.stack(parts).sum(0)


class _Exit(nn.Module):
    """The layer from fields of G to fields of H: steerable for scalar fields, equivariant under H for others."""

    order: Tensor

    def __init__(self, hidden: ImageAction, action_out: ImageAction, group: Group, kernel_size: int) -> None:
        super().__init__()
        scalars, others = _scalars_and_others(action_out)
        self.steerable: SteerableConv | None = None
        if scalars:
            counts = len(hidden.fields), len(scalars)
            self.steerable = SteerableConv(group, *counts, fields_out="trivial", kernel_size=kernel_size)
        self.exact = EquivariantConv(hidden, _without_scalars(action_out)) if others else None
        self.register_buffer("order", torch.tensor(scalars + others).argsort(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = [layer(x) for layer in (self.steerable, self.exact) if layer is not None]
        return torch.cat(parts, -3).index_select(-3, self.order)


def _is_scalar(action: ImageAction) -> list[bool]:
    """For each field, whether it has one channel on which the group acts trivially."""
    elements = action.point_group.elements()
    known = {field: field.size == 1 and bool((field.matrices(elements) == 1).all()) for field in set(action.fields)}
    return [known[field] for field in action.fields]


def _scalars_and_others(action: ImageAction) -> tuple[list[int], list[int]]:
    """The channels that are scalar fields, and all others."""
    flags = [flag for flag, size in zip(_is_scalar(action), action.field_sizes, strict=True) for _ in range(size)]
    channels = range(action.channels)
    return [c for c in channels if flags[c]], [c for c in channels if not flags[c]]


def _without_scalars(action: ImageAction) -> ImageAction:
    """The fields that are not scalars."""
    flags = _is_scalar(action)
    return action.with_fields([field for field, flag in zip(action.fields, flags, strict=True) if not flag])
