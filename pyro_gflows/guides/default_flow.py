"""The transforms that a guide uses by default."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from torch import nn

from pyro_gflows.actions import CoordinateSplit, IrrepSplit, LinearAction, RowsAction, Split, VectorAction
from pyro_gflows.groups.finite import EnumerableGroup
from pyro_gflows.nn import (
    Contraction,
    HiddenFields,
    LipschitzNetwork,
    LipschitzSum,
    RadialTerm,
    conditioner,
    lipschitz_branch,
)
from pyro_gflows.nn.hidden_fields import maps_between
from pyro_gflows.nn.networks import has_regular_fields, hidden_action
from pyro_gflows.transforms import EquivariantTransform, GActNorm, g_coupling, g_residual
from pyro_gflows.transforms.data_dependent import mark_as_set

__all__ = ["guide_transforms", "identity_transforms"]

_TIMES = 8  # at most this many times the weights of the networks for a plain vector of the same size
_RIDGES_UP_TO = 2**22  # entries in the matrices of all elements, which ridge terms hold
_BRANCH_WIDTH = 8
_BOUND = 0.99


def guide_transforms(action: VectorAction, *, steps: int = 4, width: int = 16) -> list[EquivariantTransform]:
    """The default layers of :class:`AutoGFlow`: couplings, and residual layers where couplings are not flexible enough.

    A coupling layer transforms one part of the vector by a function of the other parts. A step splits the vector either
    by coordinates or by irreducible parts (irreps), the smallest pieces that the group maps to themselves; where both
    kinds of split are possible, they alternate. An irrep that occurs only once, such as the differences of one permuted
    triple, can only be scaled as a whole by a coupling, since no other part transforms in the same way; therefore every
    step then also has a residual layer. The last layer (GActNorm) scales each field, a block of coordinates that the
    group transforms together, and shifts along the directions that the group leaves alone. All layers are fast to
    sample.

    The number of weights grows with the size of the vector, not with the order of the group: a network is made narrower
    if it would have more than eight times the weights of a network for a plain vector of the same size.

    Args:
        action: How the group acts on the unconstrained vector.
        steps: The number of steps.
        width: The number of hidden fields in the coupling layers' networks.

    Example:
        >>> rows = VectorAction.rows("S3")
        >>> [type(layer).__name__ for layer in guide_transforms(rows, steps=1)]
        ['Compose', 'GResidual', 'GActNorm']
        >>> [type(layer).__name__ for layer in guide_transforms(rows.copies(2), steps=1)]
        ['Compose', 'GActNorm']
    """
    if isinstance(action, RowsAction):
        return _on_rows(action, steps=steps, width=width)
    if action.is_finite and not isinstance(action.group, EnumerableGroup):
        # networks between any fields average over all elements; radial terms need none
        layers: list[EquivariantTransform] = [g_residual(action, branch=_radial, fast="sample") for _ in range(steps)]
        return [*layers, GActNorm(action)]

    def network(action_in: LinearAction, action_out: LinearAction) -> nn.Module:
        return conditioner(action_in, action_out, **_size(action_in, action_out, width))

    splits = _splits(action)
    alone = any(isotype.multiplicity == 1 and not isotype.is_trivial for isotype in action.decomposition)
    layers = []
    for step in range(steps):
        if splits:
            layers.append(g_coupling(action, split=splits[step % len(splits)], network=network))
        if alone or not splits:
            layers.append(g_residual(action, branch=functools.partial(_branch, width=width), fast="sample"))
    return [*layers, GActNorm(action)]


def _on_rows(action: RowsAction, *, steps: int, width: int) -> list[EquivariantTransform]:
    """Couplings by features and pooled residual layers, whose cost grows linearly with the number of rows."""
    layers: list[EquivariantTransform] = []
    for _ in range(0 if action.has_matrix_fields else steps):  # networks on rows read no matrices
        with contextlib.suppress(ValueError):  # a single feature a row leaves nothing to split
            layers.append(g_coupling(action, width=width))
        layers.append(g_residual(action, bound=_BOUND, fast="sample"))
    return [*layers, GActNorm(action)]


def identity_transforms(action: VectorAction) -> list[EquivariantTransform]:
    """A single layer that stays the identity, even if a fit initializes layers from data; a flow needs a transform."""
    identity = GActNorm(action, trainable=False)
    mark_as_set(identity)  # also where it is built again from the guide's saved flow
    return [identity]


def _splits(action: VectorAction) -> list[Split]:
    found: list[Split] = []
    for kind in (CoordinateSplit, IrrepSplit):
        try:
            found.append(kind(action))
        except ValueError:  # a single orbit of coordinates, or a single irrep, cannot be split
            continue
    return found


def _size(action_in: LinearAction, action_out: LinearAction, width: int) -> dict[str, Any]:
    """The keywords of a conditioner with at most ``_TIMES`` the weights of a conditioner between plain vectors."""
    assert isinstance(action_in, VectorAction) and isinstance(action_out, VectorAction)
    allowed = _TIMES * (width * (action_in.numel + action_out.numel) + width**2)
    for keywords, hidden in _sizes(action_in, width):
        chosen = keywords
        if _is_within(allowed, action_in, hidden, action_out):
            break
    return chosen


def _sizes(action_in: VectorAction, width: int) -> Iterator[tuple[dict[str, Any], LinearAction]]:
    """The default network and then narrower ones, as keywords and as the action on the hidden layers."""
    yield {"width": width}, hidden_action(action_in, width)
    if has_regular_fields(action_in):
        yield from (({"width": count}, action_in.regular_fields(count)) for count in range(width - 1, 0, -1))
        return
    kinds = len(set(HiddenFields(1, 1)(action_in).fields)) - 1
    for count in range(width, 0, -1):
        fields = HiddenFields(count, max(1, count // max(1, kinds)))
        yield {"width": count, "hidden_fields": fields}, fields(action_in)


def _is_within(allowed: int, action_in: VectorAction, hidden: LinearAction, action_out: VectorAction) -> bool:
    """Whether three linear layers and the gates between them have at most the allowed number of weights."""
    assert isinstance(hidden, VectorAction)
    linear = sum(maps_between(a, b) for a, b in [(action_in, hidden), (hidden, hidden), (hidden, action_out)])
    if linear > allowed or hidden.is_permutation:
        return linear <= allowed
    copies = sum(isotype.multiplicity for isotype in hidden.decomposition)
    return linear + 2 * copies * (copies + len(hidden.invariants())) <= allowed


def _branch(action: LinearAction, width: int) -> Contraction:
    """The default residual branch if it is no larger than one coupling step; otherwise radial terms alone."""
    if isinstance(action.group, EnumerableGroup):
        small = action.group.order * action.numel**2 <= _RIDGES_UP_TO
        return lipschitz_branch(action, bound=_BOUND) if small else _radial(action)
    if len(action.decomposition) == 1:
        return lipschitz_branch(action, bound=_BOUND)
    assert isinstance(action, VectorAction)
    allowed = 2 * (3 * width * action.numel + width**2)
    count = min(_BRANCH_WIDTH, allowed // (2 * maps_between(action, action)))
    return LipschitzNetwork(action, width=count, bound=_BOUND) if count else _radial(action)


def _radial(action: LinearAction) -> LipschitzSum:
    return LipschitzSum([RadialTerm(action)], bound=_BOUND)
