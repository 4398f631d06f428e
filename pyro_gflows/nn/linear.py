"""Equivariant linear maps between vectors, by one weight for each orbit of entries or by Schur's lemma."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.groups import Isotype
from pyro_gflows.groups.decomposition import intertwiner
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.nn.coefficients import register_coefficients
from pyro_gflows.nn.entry_orbits import entry_orbits
from pyro_gflows.nn.former_weights import entries_of_components
from pyro_gflows.nn.isotypic import IsotypicBasis
from pyro_gflows.nn.kernel import KernelLayer
from pyro_gflows.nn.tied_tensor import TiedTensor
from pyro_gflows.nn.tying import coordinate_images, signed_orbits
from pyro_gflows.serialization.registry import registered

__all__ = ["EquivariantLinear"]


@registered
class EquivariantLinear(KernelLayer):
    r"""The most general linear map W with :math:`W \rho_{in}(g) = \rho_{out}(g) W`, plus an invariant bias.

    It takes the place of ``nn.Linear`` in an equivariant network. Such a map W is called an intertwiner. The number of
    weights is the dimension of the space of all such maps, so that none is left out. A call maps ``batch_shape +
    (n_in,)`` to ``batch_shape + (n_out,)``.

    Where the group permutes the coordinates of input and output up to signs, it also permutes the entries of W. Then W
    is an intertwiner if and only if entries that the group takes to each other (an orbit) are equal up to these signs.
    There is one weight for each orbit, and equivariance is exact. Under the trivial group the weights are W itself.

    For any other action, W is determined by one small real, complex or quaternionic matrix for each irrep (smallest
    building block) that occurs in both actions (Schur's lemma). If an action holds several copies of an irrep, for
    example several vectors, the matrix combines the copies in the input. These matrices are the weights, and
    equivariance holds to float64 precision.

    Args:
        action_in: How the group acts on the input, of shape ``batch + (n_in,)``.
        action_out: How the group acts on the output, of shape ``batch + (n_out,)``.
        bias: Whether to learn a shift along the invariant directions of the output.
        autoregressive: None, or two lists ``(labels_in, labels_out)`` with one integer for each field of the two
            actions. A field of the output then reads only fields of the input with a smaller or equal label.

    Raises:
        ValueError: If the actions are not on vectors, or not of one group.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> EquivariantLinear(VectorAction.plane("D4"), VectorAction.regular("D4", copies=3))
        EquivariantLinear(D4: R^2 -> R^24, 9 weights)
    """

    bias: Tensor | None

    def __new__(cls, *actions: LinearAction, **arguments: Any) -> EquivariantLinear:
        named = [arguments[name] for name in ("action_in", "action_out") if name in arguments]
        both = [*actions, *named]
        permutes = len(both) == 2 and all(getattr(action, "is_signed_permutation", False) for action in both)
        return super().__new__(_TiedLinear if cls is EquivariantLinear and permutes else cls)

    def __init__(
        self,
        action_in: LinearAction,
        action_out: LinearAction,
        *,
        bias: bool = True,
        autoregressive: tuple[list[int], list[int]] | None = None,
    ) -> None:
        super().__init__()
        if action_in.event_dim != 1 or action_out.event_dim != 1 or action_in.group != action_out.group:
            raise ValueError(f"expected two actions of one group on vectors, got {action_in} and {action_out}")
        self.action_in, self.action_out = action_in, action_out
        self._make_weights(bias, autoregressive)

    def _make_weights(self, bias: bool, autoregressive: tuple[list[int], list[int]] | None) -> None:
        """Make the weights of the components (Schur's lemma)."""
        action_in, action_out = self.action_in, self.action_out
        parts_in, parts_out, self.weights, self.commutants = [], [], nn.ParameterList(), nn.ModuleList()
        self.masks = nn.ModuleList()
        for source, target in _common_components(action_in, action_out):
            mask = _order(autoregressive, source.labels, target.labels)
            if mask is not None and not mask.any():
                continue
            shape = (target.multiplicity, source.multiplicity, len(target.commutant))
            self.weights.append(nn.Parameter(torch.randn(shape) / (shape[1] * shape[2]) ** 0.5))
            self.commutants.append(FixedBasis(target.commutant))
            parts_in.append(source)
            parts_out.append(target)
            self.masks.append(nn.Identity() if mask is None else _Mask(mask))
        self.basis_in = IsotypicBasis.of(parts_in, action_in.numel)
        self.basis_out = IsotypicBasis.of(parts_out, action_out.numel)
        self.invariants = FixedBasis(action_out.invariants())
        if bias:
            register_coefficients(self, "bias", len(self.invariants.value))
        else:
            self.register_parameter("bias", None)

    def blocks(self) -> list[Tensor]:
        """The map on each isotypic component (m copies of an irrep of size d): real matrices ``(m_out d, m_in d)``."""
        out = []
        for weight, commutant, mask in zip(self.weights, self.commutants, self.masks, strict=True):
            kept = mask(weight)
            matrices = commutant(kept)
            (rows, columns, _), (count, size, _) = kept.shape, matrices.shape
            if count == size == 1:
                out.append((kept * matrices).squeeze(-1))
                continue
            entries = kept.flatten(0, 1) @ matrices.flatten(1)
            entries = entries.unflatten(-1, (size, size)).unflatten(0, (rows, columns))
            out.append(entries.transpose(1, 2).reshape(rows * size, columns * size))
        return out

    def matrix(self) -> Tensor:
        """The whole map as a dense matrix ``(n_out, n_in)``."""
        blocks = self.blocks()
        like = self.bias if not blocks and self.bias is not None else (blocks[0] if blocks else torch.zeros(()))
        if len(blocks) == 1:
            inner = blocks[0]
        else:
            inner = torch.block_diag(*blocks) if blocks else like.new_zeros(0, 0)
        if not self.basis_out.is_identity:
            inner = self.basis_out(like).T @ inner
        return inner if self.basis_in.is_identity else inner @ self.basis_in(like)

    def _make_kernel(self) -> Tensor:
        return self.matrix()

    def constant(self) -> Tensor | None:
        """The bias as a vector of the output, or None."""
        return None if self.bias is None else self.bias @ self.invariants(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel()
        return nn.functional.linear(x, kernel if kernel.dtype == x.dtype else kernel.to(x), self.constant())

    def rows(self, x: Tensor, places: Tensor) -> Tensor:
        """Some coordinates of the output, in any order.

        Args:
            x: Vectors, shape ``batch_shape + (n_in,)``.
            places: The indices of the coordinates.
        """
        kernel, constant = self.kernel(), self.constant()
        chosen = (kernel if kernel.dtype == x.dtype else kernel.to(x)).index_select(0, places)
        return nn.functional.linear(x, chosen, None if constant is None else constant.index_select(0, places))

    def extra_repr(self) -> str:
        count = sum(parameter.numel() for parameter in self.parameters())
        return f"{self.action_in.group}: R^{self.action_in.numel} -> R^{self.action_out.numel}, {count} weights"

    def __repr__(self) -> str:
        return f"{getattr(type(self), 'described_as', type(self)).__name__}({self.extra_repr()})"


class _Mask(nn.Module):
    """Sets to zero the weights of shape (m_out, m_in, k) for pairs of copies that a mask does not allow."""

    allowed: Tensor

    def __init__(self, allowed: Tensor) -> None:
        super().__init__()
        self.register_buffer("allowed", allowed[..., None], persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.allowed


class _TiedLinear(EquivariantLinear):
    """An EquivariantLinear between actions that permute coordinates up to signs, with one weight for each orbit."""

    described_as = EquivariantLinear

    def _make_weights(self, bias: bool, autoregressive: tuple[list[int], list[int]] | None) -> None:
        index, sign, count = entry_orbits(self.action_in, self.action_out, autoregressive)
        alive = sign != 0
        # white inputs of unit variance give outputs of unit variance
        fan_in = alive.sum(1, keepdim=True).clamp(min=1).expand(alive.shape)
        scale = torch.ones(count)
        scale[index[alive]] = fan_in[alive].rsqrt()
        self.entries = TiedTensor(index, sign, torch.randn(count) * scale)
        self.shift: TiedTensor | None = None
        if bias:
            index, sign = signed_orbits(*coordinate_images(self.action_out))
            self.shift = TiedTensor(index, sign, torch.zeros(int(index.max()) + 1 if bool(sign.any()) else 0))

    def blocks(self) -> list[Tensor]:
        matrix = self.matrix()
        pairs = _common_components(self.action_in, self.action_out)
        return [_rows(target).to(matrix) @ matrix @ _rows(source).to(matrix).T for source, target in pairs]

    def matrix(self) -> Tensor:
        # by the dictionary of submodules, since torch's search for an attribute takes as long as a small gather
        parts: Any = self._modules
        return parts["entries"].tensor()  # type: ignore[no-any-return]

    _make_kernel = matrix

    def kernel(self) -> Tensor:
        # a gather is exact in any precision, and needs no guard
        return super().kernel() if self._keeps else self._make_kernel()

    def constant(self) -> Tensor | None:
        shift: Any = self._modules.get("shift")
        return None if shift is None else shift.tensor()

    def rows(self, x: Tensor, places: Tensor) -> Tensor:
        entries, shift = self.entries, self.shift
        if not entries.has_order:  # which is that of all calls
            return super().rows(x, places)
        return nn.functional.linear(x, entries.in_order().to(x.dtype), None if shift is None else shift.in_order())

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        """Load weights, also those of formats up to 3, which are for isotypic components: the matrix is the same."""
        if f"{prefix}basis_in.value" in state_dict:
            matrix, shift = entries_of_components(state_dict, prefix)
            found = {"entries": (self.entries, matrix), "shift": (self.shift, shift)}
            for name in [name for name in state_dict if name.startswith(prefix)]:
                del state_dict[name]
            for name, (own, entries) in found.items():
                if own is None or entries is None:
                    continue
                if entries.shape != own.sign.shape:
                    lists[-1].append(
                        f"{prefix}{name}: expected weights of {self}, got those of a map whose {name} have shape "
                        f"{tuple(entries.shape)} in place of {tuple(own.sign.shape)}"
                    )
                elif own.weights.numel():
                    state_dict[f"{prefix}{name}.weights"] = own.weights_for(entries)
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *lists)


def _order(
    labels: tuple[list[int], list[int]] | None, source: tuple[int, ...], target: tuple[int, ...]
) -> Tensor | None:
    if labels is None:
        return None
    into = torch.tensor([labels[1][summand] for summand in target])
    out_of = torch.tensor([labels[0][summand] for summand in source])
    return into[:, None] >= out_of


def _common_components(action_in: LinearAction, action_out: LinearAction) -> Iterator[tuple[Isotype, Isotype]]:
    """The pairs of components of one irrep, of the input and of the output, in bases that fit."""
    for target in action_out.decomposition:
        for source in action_in.decomposition:
            change = intertwiner(source, target)
            if change is not None:
                yield source.in_basis(change), target


def _rows(component: Isotype) -> Tensor:
    return component.basis.flatten(0, 1)
