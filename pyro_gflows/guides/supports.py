"""How a group that acts on constrained values acts on the unconstrained coordinates, if it does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.distributions import biject_to, constraints

from pyro_gflows.actions import RowsAction, SitesAction, VectorAction
from pyro_gflows.groups import MatrixRepresentation, Representation
from pyro_gflows.groups.base import require_enumerable
from pyro_gflows.groups.restriction import restricted_matrices
from pyro_gflows.guides.free_rows import free_fields, log_ratio_fields
from pyro_gflows.guides.log_ratio import log_ratio_basis, log_ratio_simplex
from pyro_gflows.guides.whole_rows import blocks_of_rows, whole_rows

__all__ = ["packed_action", "unconstrained_action"]

_POINTS = 4
_TOLERANCE = 1e-5  # supports may hold float32 tensors


def packed_action(action: SitesAction, supports: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> VectorAction:
    """The action on the unconstrained vector that holds all latent sites of a model side by side.

    Args:
        action: How the group acts on the sites.
        supports: The constraint of each latent site.
        shapes: The shape of the unconstrained value of each latent site, in the order of the supports.

    Raises:
        ValueError: The action names a site that is not latent, or does not fit the support of a site.
    """
    if missing := sorted(set(action.sites) - set(supports)):
        raise ValueError(
            f"the action names {missing}, but the latent sites of the model are {list(supports)}; check the names"
        )
    free = {
        name: unconstrained_action(action, name, supports[name], shapes[name])
        for name in supports
        if name in action.sites
    }
    return SitesAction(action.group, free).packed({name: shapes[name].numel() for name in supports})


def unconstrained_action(action: SitesAction, site: str, support: Any, shape: Sequence[int]) -> VectorAction:
    r"""The action on the unconstrained coordinates of a site that matches the action on its constrained values.

    A guide draws unconstrained coordinates u and maps them to values x = T(u) by T = ``biject_to(support)``. For the
    values to have an invariant density, T must commute with the group: :math:`T(\rho'(g)\,u) = \rho(g)\,T(u)`. This
    function finds :math:`\rho'` and checks the equation at random points. There are three cases:

    - T works coordinate by coordinate: :math:`\rho'` is the site's own action.
    - The support is a simplex with a :class:`LogRatioReparam`: :math:`\rho'` is the site's action in the log-ratio
      basis.
    - A row of values has fewer free coordinates than values (the simplex, a Cholesky factor of correlations), and the
      group permutes whole rows: :math:`\rho'` is the same permutation of the rows of free coordinates.

    Args:
        action: How the group acts on the sites.
        site: The name of the site.
        support: The constraint that the site's values satisfy.
        shape: The shape of an unconstrained value.

    Raises:
        ValueError: The site's size differs from the size of its action, the site has no free coordinate, or no action
            commutes with T; the message says what to do.

    Example:
        >>> rows = SitesAction("S3", {"scales": VectorAction.rows("S3")})
        >>> unconstrained_action(rows, "scales", constraints.positive, (3,))
        VectorAction(S3 on R^3: rows)
    """
    transform, own = biject_to(support), action.sites[site]
    size = math.prod(transform.forward_shape(tuple(shape)))
    if size != own.numel:
        raise ValueError(
            f"site {site!r}: expected {own.numel} components, as in its action {own}, but the model's value has {size}"
            f"{_of_values(own, support)}"
        )
    if not math.prod(shape):
        raise ValueError(
            f"site {site!r} has no free coordinate under its support {support}; leave it out of the action"
        )
    free = _on_free_coordinates(own, site, support, shape)
    if free is None:
        raise ValueError(
            f"site {site!r}: {own} acts on {own.numel} components, but only {math.prod(shape)} of them are free under "
            f"the support {support}; {_advice(site, support)}"
        )
    u = torch.randn(_POINTS, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = transform(u)
    for element in torch.cat([own.generators(), action.sample((2,), torch.Generator().manual_seed(0))]):
        received = transform(free.act(element, u.reshape(_POINTS, -1)).reshape(u.shape))
        error = ((received - action.act_on_site(site, element, x)).abs() / x.abs().clamp_min(1.0)).max().item()
        if not error <= _TOLERANCE:
            raise ValueError(
                f"site {site!r}: {own} does not commute with the map from unconstrained space to its support "
                f"{support} (off by {error:.1e} at group element {element.tolist()}); {_advice(site, support)}"
            )
    return free


def _on_free_coordinates(own: VectorAction, site: str, support: Any, shape: Sequence[int]) -> VectorAction | None:
    """The only possible action on the free coordinates; None if the site's action does not restrict to them."""
    values, free = biject_to(support).forward_shape(tuple(shape)), math.prod(shape)
    row = math.prod(values[len(values) - _innermost(support).event_dim :])
    in_log_ratios = _innermost(support) is log_ratio_simplex
    if isinstance(own, RowsAction) and in_log_ratios:
        found = log_ratio_fields(own, row)
        return free_fields(own, row=row, free=row - 1) if found is None else found
    if isinstance(own, RowsAction) and own.numel != free:
        return free_fields(own, row=row, free=free * row // own.numel)
    if in_log_ratios and own.is_finite:
        return _in_log_ratios(site, own, row)
    if own.numel == free:
        return own
    return whole_rows(own, row=row, free=free * row // own.numel)


def _innermost(support: Any) -> Any:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def _of_values(own: VectorAction, support: Any) -> str:
    """What to do where the action is that of the log-ratios, and not of the weights on the simplex."""
    is_simplex = isinstance(_innermost(support), type(constraints.simplex))
    if not is_simplex or not isinstance(own, RowsAction) or not any(bool(part.any()) for part in own.layout.mean_free):
        return ""
    return (
        "; give the action on the values on the simplex, without mean_free=True, such as RowsAction(20) for 20 "
        "weights: the guide finds the action on their log-ratios"
    )


def _advice(site: str, support: Any) -> str:
    if _innermost(support) is log_ratio_simplex:
        return "give the site an action that permutes its categories, or whole rows of them"
    if isinstance(_innermost(support), type(constraints.simplex)):
        return (
            f"pass poutine.reparam(model, config={{{site!r}: LogRatioReparam()}}) as the model to the guide and to "
            "SVI: permutations of the categories act on log-ratios by orthogonal matrices"
        )
    return (
        "give the site an action that only permutes its components (whole rows of them, if the support constrains "
        "rows), or rewrite the site in the model as a function of a site whose support is real"
    )


def _in_log_ratios(site: str, action: VectorAction, categories: int) -> VectorAction:
    group = require_enumerable(action.group, f"a table of how permutations act on the log-ratios of site {site!r}")
    basis = log_ratio_basis(categories)
    fields: list[Representation] = []
    for block in blocks_of_rows(action, categories):
        rows = torch.block_diag(*[basis] * (block.numel // categories))
        try:
            table = restricted_matrices(block.matrix(group.elements()), rows)
            name = " + ".join(dict.fromkeys(field.name for field in block.fields))
            fields.append(MatrixRepresentation(group, table, name=f"log-ratios of {name}"))
        except ValueError as error:
            raise ValueError(f"site {site!r}: expected permutations of {categories} categories: {error}") from None
    return VectorAction(fields)
