"""The elements of a direct product that take every image of a vector to one canonical form, factor by factor."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from pyro_gflows.actions.linear import LinearAction
from pyro_gflows.groups.lifted import LiftedRepresentation
from pyro_gflows.groups.products import ProductGroup
from pyro_gflows.groups.representations import Representation, TrivialRepresentation

__all__ = ["canonical_by_factors"]


def canonical_by_factors(action: LinearAction, product: ProductGroup, x: Tensor) -> Tensor | None:
    """Elements that take x to a canonical form, where every field belongs to one factor that has such elements itself.

    Args:
        action: How the product acts.
        product: The direct product.
        x: Events, shape ``batch_shape + event_shape``.

    Returns:
        Elements of that batch shape, or None where a factor has no known canonical form.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> from pyro_gflows.groups import parse_group
        >>> product = parse_group("C2^12 x C4")
        >>> action = VectorAction.signs(12).lift(product, 0).direct_sum(VectorAction.plane("C4").lift(product, 1))
        >>> canonical_by_factors(action, product, torch.randn(5, 14)).shape
        torch.Size([5, 13])
    """
    own: list[list[Representation]] = [[] for _ in product.factors]
    columns: list[list[int]] = [[] for _ in product.factors]
    for field, start in zip(action.fields, itertools.accumulate(action.field_sizes, initial=0), strict=False):
        if isinstance(field, LiftedRepresentation):
            own[field.index].append(field.representation)
            columns[field.index] += range(start, start + field.size)
        elif not isinstance(field, TrivialRepresentation):
            return None
    components = []
    for factor, fields, index in zip(product.factors, own, columns, strict=True):
        found: Tensor | None = factor.identity().to(x.device)
        if fields:
            found = action.with_fields(fields).canonical(x[..., torch.tensor(index, device=x.device)])
        if found is None:
            return None
        components.append(found.expand((*x.shape[:-1], *factor.element_shape)))
    return product.join(components)
