"""G-coupling flows: one part of the event is transformed, with parameters that depend on the other parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from pyro_gflows.actions import Action, CoordinateSplit, LinearAction, Split
from pyro_gflows.actions.requirements import require_splittable
from pyro_gflows.actions.row_mask import coordinates_there, require_maskable
from pyro_gflows.actions.splits.default import split_of
from pyro_gflows.deprecation import renamed_arguments, renamed_attributes, split_first
from pyro_gflows.nn import Conditioner, takes_factories
from pyro_gflows.serialization.registry import registered
from pyro_gflows.spaces import Euclidean, Torus
from pyro_gflows.transforms.by_network import ByNetwork
from pyro_gflows.transforms.compose import Compose
from pyro_gflows.transforms.masked import TakesMask
from pyro_gflows.transforms.part_reading import can_be_transformed, frame_of, reading_of
from pyro_gflows.transforms.split_basis import SplitBasis
from pyro_gflows.transforms.transformers import Transformer, TransformerFactory

__all__ = ["GCoupling", "g_coupling"]

_T = TypeVar("_T")


@renamed_attributes(belongs="mask", moved="transformed")
@renamed_arguments(moved="transformed")
@split_first(Split)
@takes_factories("transformer", "network")
@registered
class GCoupling(TakesMask, ByNetwork):
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

    On a torus (a :class:`TorusAction`) the map is a spline of the circle for every angle. The network reads cosines and
    sines of integer combinations of the other angles, on which the group acts linearly. The spline S acts on
    coordinates :math:`u = m\,x_2 - n\,x_1 - 2 \pi\,o` with small integers m and n (:meth:`TorusSplit.frame`), which the
    group does not shift, or by few amounts, and :math:`y_2 = x_2 + (S(u \mid x_1) - u) / m` modulo :math:`2 \pi`, with
    :math:`\log|\det J| = \log|\det S'(u)|`. A group element acts on the pieces of S as it acts on u: it reverses,
    exchanges or shifts them, so that a translation by a shifts y_2 as it shifts x_2.

    Args:
        action: How the group acts on events.
        split: How the event falls into invariant parts (CoordinateSplit, IrrepSplit, ChannelSplit, MaskSplit,
            TorusSplit); by default the first kind that the action allows (:func:`~pyro_gflows.actions.default_split`).
        transformed: Which part is transformed; its parameters depend on all others.
        transformer: Makes the map of that part from the action on it, such as ``IrrepScale``; by default
            ElementwiseAffine where possible, else IrrepScale (of rows RowScale), and of angles
            ElementwiseCircularSpline.
        network: Makes the conditioner from the action on its input, which is the other parts and the context side by
            side, and from ``transformer.params_action``: for example ``functools.partial(EquivariantMLP, width=8)``. By
            default an equivariant network that starts at zero.
        width: Hidden fields of the default network.
        depth: Hidden layers of the default network.
        context_action: How the group acts on the context; None: there is none.

    Raises:
        TypeError: ``split`` is not a split, or a factory is none.
        ValueError: There is no such part, the split is of another action, the context does not go with the event, or
            the transformer or the part is none that angles allow.

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649; RealNVP, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> from pyro_gflows import VectorAction
        >>> layer = GCoupling(VectorAction.regular("C4", copies=2))
        >>> layer(torch.zeros(3, 8)).shape
        torch.Size([3, 8])
    """

    spaces = (Euclidean, Torus)
    mask: Tensor | None

    def __init__(
        self,
        action: Action,
        *,
        split: Split | None = None,
        transformed: int = 1,
        transformer: TransformerFactory | None = None,
        network: Conditioner | None = None,
        width: int = 16,
        depth: int = 2,
        context_action: LinearAction | None = None,
    ) -> None:
        super().__init__(require_splittable(action), context_action=context_action)
        split = split_of(action, split)
        if not 0 <= transformed < len(split.parts):
            raise ValueError(f"expected transformed in 0..{len(split.parts) - 1} for {split}, got {transformed}")
        self.split, self.transformed = split, transformed
        self.split_basis = SplitBasis.of(split)
        part = split.parts[transformed]
        mask = None if split.is_slicing else split.restrict(transformed, torch.ones(part.event_shape))
        self.register_buffer("mask", mask, persistent=False)
        others = self._others(range(len(split.parts)))
        self.reading, self.frame = reading_of(split, others), frame_of(split, transformed, others)
        if self.frame.mask is not None and not bool(self.frame.mask.any()):
            raise ValueError(
                f"expected a part that the other parts can transform, got part {transformed} of {split}: the group "
                "shifts its angles by every amount, and no combination of the other angles by as much, so that an "
                "invariant density does not depend on them; transform the other parts"
            )
        inputs = self.inputs_action(*self.reading.actions)
        self._set_up(self.frame.action, inputs, transformer=transformer, network=network, width=width, depth=depth)
        self.frame.require(self.transformer)

    def _usual_transformer(self, action: Action) -> Transformer:
        return self.frame.default_transformer(action)

    def computed_arguments(self) -> dict[str, Any]:
        """The split, for which the weights are trained, and the modules that factories made."""
        return {"split": self.split, **super().computed_arguments()}

    def _others(self, parts: Sequence[_T]) -> list[_T]:
        return [part for index, part in enumerate(parts) if index != self.transformed]

    def _apply_map(
        self, x: Tensor, context: Tensor | None, *, inverse: bool, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        parts = list(self.split.split(x))
        inputs = self.inputs(self.reading(parts), context)
        params = self.network(inputs) if mask is None else self._params_of(inputs, mask)
        element_map = self.transformer.inverse if inverse else self.transformer
        before = self.frame.into(parts)
        entries = self.frame.mask if self.mask is None else self.mask
        if mask is not None:
            there = coordinates_there(require_maskable(self.action_in), mask).to(x.dtype)
            entries = self.split.split(there)[self.transformed]
        after, ladj = element_map(before, params, entries)
        parts[self.transformed] = self.frame.out(parts, before, after)
        return self.split.merge(parts), ladj

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_map(x, context, inverse=False)

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_map(y, context, inverse=True)

    def mask_refusal(self) -> str:
        if not isinstance(self.split, CoordinateSplit):
            return f"its {type(self.split).__name__} does not split the features of single rows"
        return self._network_refusal()

    def apply_masked(self, x: Tensor, mask: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        return self._apply_map(x, context, inverse=inverse, mask=mask)

    def extra_repr(self) -> str:
        return f"{self.split}, part {self.transformed} is transformed"


@takes_factories("transformer", "network")
def g_coupling(
    action: Action,
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
            default ElementwiseAffine where possible, else IrrepScale (of rows RowScale), and of angles
            ElementwiseCircularSpline.
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
    chosen = split_of(require_splittable(action), split)
    every = range(len(chosen.parts))
    # under infinitely many translations some angles may have no coordinates to transform
    parts = [index for index in every if can_be_transformed(chosen, index)] or every
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
            for index in reversed(parts)
        ]
    )
