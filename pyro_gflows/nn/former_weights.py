"""Weights in the layouts of earlier formats, as weights of the present layers that compute the same."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["entries_of_components", "swish_of_lipswish"]


def entries_of_components(tensors: Mapping[str, Tensor], prefix: str) -> tuple[Tensor, Tensor | None]:
    """The matrix and the bias that weights for the isotypic components mean, in the bases that are stored with them.

    Up to format 3 all equivariant linear maps were stored in this way; now only those are for which the group does more
    than permute coordinates up to signs.

    Args:
        tensors: The stored tensors by name.
        prefix: The beginning of the names of those of one map.
    """
    basis_in, basis_out, bias = (
        tensors.get(f"{prefix}{name}") for name in ("basis_in.value", "basis_out.value", "bias")
    )
    if basis_in is None or basis_out is None:
        raise ValueError(f"expected weights with the bases of their components, got no {prefix}basis_in.value")
    blocks = []
    for number in itertools.count():
        weight = tensors.get(f"{prefix}weights.{number}")
        if weight is None:
            break
        commutant = tensors[f"{prefix}commutants.{number}.value"].double()
        blocks.append(torch.einsum("abk,kij->aibj", weight.double(), commutant).flatten(2).flatten(0, 1))
    inner = torch.block_diag(*blocks) if blocks else basis_in.new_zeros(0, 0).double()
    matrix = basis_out.double().T @ inner @ basis_in.double()
    return matrix, None if bias is None else bias.double() @ tensors[f"{prefix}invariants.value"].double()


def swish_of_lipswish(tensors: dict[str, Tensor], prefix: str, position: int) -> None:
    r"""Replace the slope of a LipSwish, which up to format 3 stood where now is a Swish, by factors of weights.

    A network with :math:`x\,\sigma(\beta x)/1.1` computes the same with :math:`x\,\sigma(x)` if the linear layer before
    it is multiplied by :math:`\beta`, and the matrix of the layer after it by :math:`1/(1.1 \beta)`.

    Args:
        tensors: The stored tensors by name, which are changed; without a stored slope they stay as they are.
        prefix: The beginning of the names of those of the network.
        position: The index of the activation.
    """
    raw = tensors.pop(f"{prefix}activations.{position}.raw_beta", None)
    if raw is None:
        return
    beta = functional.softplus(raw.double())
    for layer, matrix_alone, factor in ((position, False, beta), (position + 1, True, 1 / (1.1 * beta))):
        start = f"{prefix}layers.{layer}."
        for name in [name for name in tensors if name.startswith(start)]:
            first = name.removeprefix(start).split(".")[0]
            if first in ("weights", "entries") or (first in ("bias", "shift") and not matrix_alone):
                tensors[name] = (tensors[name].double() * factor).to(tensors[name].dtype)
