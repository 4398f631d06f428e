"""G-coupling flows: one part of the event is transformed, with parameters that depend on the other parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from pyro_gflows.actions import LinearAction, Split
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.actions.splits.default import split_of
from pyro_gflows.deprecation import renamed_arguments, renamed_attributes, split_first
from pyro_gflows.nn import Conditioner, takes_factories
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.by_network import ByNetwork
from pyro_gflows.transforms.compose import Compose
from pyro_gflows.transforms.split_basis import SplitBasis
from pyro_gflows.transforms.transformers import TransformerFactory

__all__ = ["GCoupling", "g_coupling"]

_T = TypeVar("_T")


@renamed_attributes(belongs="mask", moved="transformed")
@renamed_arguments(moved="transformed")
@split_first(Split)
@takes_factories("transformer", "network")
@registered
class GCoupling(ByNetwork):
    r"""A bijection that transforms one invariant part of the event, with parameters from the other parts.

    It is the RealNVP layer with a symmetry: one pass in both directions, for sampling and for density estimation. The
    event must fall into parts that the group maps to themselves; a single irreducible vector does not (take GResidual
    there).

    .. math:: y_1 = x_1, \qquad y_2 = A(x_1)\,x_2 + t(x_1), \qquad \log|\det J| = \log|\det A(x_1)|

    Here x_2 is the part that is transformed and x_1 holds all other parts. A network computes the matrix A and the
    shift t (with the default transformers; others replace the affine map). The map is bijective because A is invertible
    by construction. It is equivariant because the network is: :math:`A(g\,x_1) = g\,A(x_1)\,g^{-1}` and
    :math:`t(g\,x_1) = g\,t(x_1)` for every group element g. Both directions cost one evaluation of the network. Events
    keep their shape.

    Args:
        action: How the group acts on events.
        split: How the event falls into invariant parts (CoordinateSplit, IrrepSplit, ChannelSplit, MaskSplit); by
            default the first kind that the action allows (:func:`~pyro_gflows.actions.default_split`).
        transformed: Which part is transformed; its parameters depend on all others.
        transformer: Makes the map of that part from the action on it, such as ``IrrepScale``; by default
            ElementwiseAffine where possible, else IrrepScale.
        network: Makes the conditioner from the action on its input, which is the other parts and the context side by
            side, and from ``transformer.params_action``: for example ``functools.partial(EquivariantMLP, width=8)``. By
            default an equivariant network that starts at zero.
        width: Hidden fields of the default network.
        depth: Hidden layers of the default network.
        context_action: How the group acts on the context; None: there is none.

    Raises:
        TypeError: ``split`` is not a split, or a factory is none.
        ValueError: There is no such part, the split is of another action, or the context does not go with the event.

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649; RealNVP, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> from pyro_gflows import VectorAction
        >>> layer = GCoupling(VectorAction.regular("C4", copies=2))
        >>> layer(torch.zeros(3, 8)).shape
        torch.Size([3, 8])
    """

    mask: Tensor | None

    def __init__(
        self,
        action: LinearAction,
        *,
        split: Split | None = None,
        transformed: int = 1,
        transformer: TransformerFactory | None = None,
        network: Conditioner | None = None,
        width: int = 16,
        depth: int = 2,
        context_action: LinearAction | None = None,
    ) -> None:
        super().__init__(require_linear(action), context_action=context_action)
        split = split_of(action, split)
        if not 0 <= transformed < len(split.parts):
            raise ValueError(f"expected transformed in 0..{len(split.parts) - 1} for {split}, got {transformed}")
        self.split, self.transformed = split, transformed
        self.split_basis = SplitBasis.of(split)
        part = split.parts[transformed]
        mask = None if split.is_slicing else split.restrict(transformed, torch.ones(part.event_shape))
        self.register_buffer("mask", mask, persistent=False)
        inputs = self.inputs_action(*self._others(split.parts))
        self._set_up(part, inputs, transformer=transformer, network=network, width=width, depth=depth)

    def computed_arguments(self) -> dict[str, Any]:
        """The split, for which the weights are trained, and the modules that factories made."""
        return {"split": self.split, **super().computed_arguments()}

    def _others(self, parts: Sequence[_T]) -> list[_T]:
        return [part for index, part in enumerate(parts) if index != self.transformed]

    def _apply_map(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        parts = list(self.split.split(x))
        params = self.network(self.inputs(self._others(parts), context))
        element_map = self.transformer.inverse if inverse else self.transformer
        parts[self.transformed], ladj = element_map(parts[self.transformed], params, self.mask)
        return self.split.merge(parts), ladj

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_map(x, context, inverse=False)

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_map(y, context, inverse=True)

    def extra_repr(self) -> str:
        return f"{self.split}, part {self.transformed} is transformed"


@takes_factories("transformer", "network")
def g_coupling(
    action: LinearAction,
    *,
    split: Split | None = None,
    transformer: TransformerFactory | None = None,
    network: Conditioner | None = None,
    width: int = 16,
    depth: int = 2,
    context_action: LinearAction | None = None,
) -> Compose:
    """One coupling step, in which every part of the split is transformed once, with parameters from the others.

    The step is a :class:`Compose` of one :class:`GCoupling` for each part of the event. Events keep their shape.

    Args:
        action: How the group acts on events.
        split: How the event falls into parts; by default the first kind that the action allows (``default_split``).
        transformer: Makes the element map from the action on a part (ElementwiseAffine, IrrepScale, MatrixScale); by
            default ElementwiseAffine where possible, else IrrepScale.
        network: Makes each conditioner from the action on its input and from the transformer's ``params_action``, such
            as ``functools.partial(conditioner, activation="splines")``; by default an equivariant network that starts
            at zero.
        width: Hidden fields of the default networks.
        depth: Hidden layers of the default networks.
        context_action: How the group acts on the context that all networks read; None: there is none.

    Raises:
        ValueError: The event cannot be split (one irreducible vector): use g_residual or GRadial there.

    Example:
        >>> import functools
        >>> from pyro_gflows import ElementwiseSpline, VectorAction
        >>> from pyro_gflows.nn import EquivariantMLP
        >>> action = VectorAction.regular("C4", copies=2)
        >>> network = functools.partial(EquivariantMLP, width=2)
        >>> g_coupling(action, transformer=ElementwiseSpline, network=network)(torch.zeros(8)).shape
        torch.Size([8])
    """
    chosen = split_of(action, split)
    return Compose(
        [
            GCoupling(
                action,
                split=chosen,
                transformed=index,
                transformer=transformer,
                network=network,
                width=width,
                depth=depth,
                context_action=context_action,
            )
            for index in reversed(range(len(chosen.parts)))
        ]
    )
