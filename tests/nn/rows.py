"""Layouts of rows, and the dense matrices of the groups that act on them."""

from __future__ import annotations

import math
from itertools import accumulate

import torch

from pyro_gflows.actions import VectorAction
from pyro_gflows.nn.rows_types import Rows, RowsLayout


def layout(sizes, even=None, odd=None, rest=None, mean_free=None):
    """A layout with the same even and odd features in every block."""
    s, none = len(sizes), torch.zeros(0, dtype=torch.bool)
    free = none if even is None else torch.zeros(even.numel, dtype=torch.bool)
    if mean_free is not None:
        free = torch.tensor(mean_free)
    return RowsLayout(
        sizes=tuple(sizes),
        even=(even,) * s,
        odd=(odd,) * s,
        rest=rest,
        mean_free_even=(free,) * s,
        mean_free_odd=(none,) * s,
    )


def scalars(count, group="C1"):
    return VectorAction.trivial(group, copies=count)


def size(action):
    return 0 if action is None else action.numel


def shapes(layout):
    n = layout.sizes
    even = [(k, size(a)) for k, a in zip(n, layout.even, strict=True)]
    odd = [(k, size(a)) for k, a in zip(n, layout.odd, strict=True)]
    return [*even, *odd, (size(layout.rest),)]


def flat(rows):
    """All coordinates side by side: even blocks, odd blocks, rest."""
    return torch.cat([*(x.flatten(-2) for x in (*rows.even, *rows.odd)), rows.rest], -1)


def unflat(x, layout):
    parts = [
        p.unflatten(-1, s) if len(s) > 1 else p
        for p, s in zip(x.split([math.prod(s) for s in shapes(layout)], -1), shapes(layout), strict=True)
    ]
    s = len(layout.sizes)
    return Rows(tuple(parts[:s]), tuple(parts[s : 2 * s]), parts[-1])


def numel(layout):
    return sum(math.prod(shape) for shape in shapes(layout))


def generators(layout, signed):
    """Dense matrices that generate the group: swaps and cycles of rows, a sign, and the generators of H."""
    found = []
    for block, n in enumerate(layout.sizes):
        eye = torch.eye(n, dtype=torch.float64)
        made = []
        if n > 1:
            made += [eye[[1, 0, *range(2, n)]], eye.roll(1, 0)]
        for matrix in made:
            found.append(_matrix(layout, {block: (matrix, matrix)}))
        if signed:
            flip = eye.clone()
            flip[0, 0] = -1
            found.append(_matrix(layout, {block: (eye, flip)}))
    action = next(a for a in (*layout.even, *layout.odd, layout.rest) if a is not None)
    for element in action.group.generators():
        found.append(_matrix(layout, {}, element))
    return found


def _matrix(layout, acts, element=None):
    blocks = []
    for kind, features in enumerate((layout.even, layout.odd)):
        for block, (n, action) in enumerate(zip(layout.sizes, features, strict=True)):
            outer = acts[block][kind] if block in acts else torch.eye(n, dtype=torch.float64)
            inner = torch.eye(size(action), dtype=torch.float64)
            if element is not None and action is not None:
                inner = action.matrix(element)
            blocks.append(torch.kron(outer, inner))
    rest = torch.eye(size(layout.rest), dtype=torch.float64)
    if element is not None and layout.rest is not None:
        rest = layout.rest.matrix(element)
    return torch.block_diag(*[b for b in (*blocks, rest) if b.numel()])
