"""Features of rows as flat vectors, and dense matrices that generate the groups that act on them."""

from __future__ import annotations

import math

import torch

from pyro_gflows.actions import RowTables, VectorAction
from pyro_gflows.nn import RowFeatures


def scalars(count, group="C1"):
    return VectorAction.trivial(group, copies=count)


def features(sizes, even=None, odd=None, *, rest=None, mean_free=None):
    """The same even and odd features in every block; mean_free says which coordinates of the even ones have sum 0."""
    count = len(sizes)
    free = torch.zeros(size(even), dtype=torch.bool) if mean_free is None else torch.tensor(mean_free)
    return RowFeatures(tuple(sizes), (even,) * count, (odd,) * count, rest, (free,) * count)


def size(action):
    return 0 if action is None else action.numel


def shapes(layer):
    tables = [
        (n, size(action)) for kind in (layer.even, layer.odd) for n, action in zip(layer.sizes, kind, strict=True)
    ]
    return [*tables, (size(layer.rest),)]


def numel(layer):
    return sum(math.prod(shape) for shape in shapes(layer))


def flat(rows):
    """All coordinates side by side: the even features of every block, the odd ones, the rest."""
    return torch.cat([*(x.flatten(-2) for x in (*rows.even, *rows.odd)), rows.rest], -1)


def unflat(x, layer):
    parts = x.split([math.prod(shape) for shape in shapes(layer)], -1)
    parts = [part.unflatten(-1, shape) for part, shape in zip(parts, shapes(layer), strict=True)]
    count = len(layer.sizes)
    return RowTables(tuple(parts[:count]), tuple(parts[count : 2 * count]), parts[-1])


def generators(layer, *, signed):
    """Matrices that generate the group: a swap and a cycle of the rows of a block, one sign change, and those of H."""
    found = []
    for block, n in enumerate(layer.sizes):
        eye = torch.eye(n, dtype=torch.float64)
        if n > 1:
            found += [matrix(layer, {block: (p, p)}) for p in (eye[[1, 0, *range(2, n)]], eye.roll(1, 0))]
        if signed:
            change = eye.clone()
            change[0, 0] = -1
            found.append(matrix(layer, {block: (eye, change)}))
    action = next(action for action in (*layer.even, *layer.odd, layer.rest) if action is not None)
    return [*found, *(matrix(layer, {}, element) for element in action.group.generators())]


def matrix(layer, on_rows, element=None):
    """A dense matrix, from what acts on the even and on the odd rows of some blocks, and an element of H."""

    def of_features(action):
        eye = torch.eye(size(action), dtype=torch.float64)
        return eye if element is None or action is None else action.matrix(element)

    blocks = []
    for odd, kind in enumerate((layer.even, layer.odd)):
        for block, (n, action) in enumerate(zip(layer.sizes, kind, strict=True)):
            outer = on_rows[block][odd] if block in on_rows else torch.eye(n, dtype=torch.float64)
            blocks.append(torch.kron(outer.contiguous(), of_features(action)))
    return torch.block_diag(*[block for block in (*blocks, of_features(layer.rest)) if block.numel()])
