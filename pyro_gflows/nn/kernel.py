"""Layers that compute their kernel from unconstrained weights, and contexts in which each kernel is computed once."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows.numerics.precision import full_precision

__all__ = ["KernelLayer", "LipschitzLayer", "each_kernel_once", "kernels_once", "kernels_together"]


class KernelLayer(nn.Module):
    """A linear layer with a kernel (or matrix) that it computes from its weights.

    This is the base class of the equivariant linear layers and convolutions, such as :class:`EquivariantLinear` for
    vectors and :class:`EquivariantConv` for images. A subclass writes ``_make_kernel``, and
    applies ``kernel()`` in ``forward``.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> from pyro_gflows.nn import EquivariantLinear
        >>> layer = EquivariantLinear(VectorAction.plane("D4"), VectorAction.regular("D4"))
        >>> isinstance(layer, KernelLayer), layer.kernel().shape
        (True, torch.Size([8, 2]))
    """

    _kept: Tensor | None = None
    _keeps = False

    def _make_kernel(self) -> Tensor:
        raise NotImplementedError

    def _alike(self) -> Hashable:
        """What the layers share whose kernels :meth:`_make_kernels` makes at once; None where it makes none."""
        return None

    @classmethod
    def _make_kernels(cls, layers: Sequence[Any]) -> Sequence[Tensor]:
        """The kernel of each layer, for layers that are alike."""
        raise NotImplementedError

    @full_precision  # a norm that was rounded up is no bound
    def kernel(self) -> Tensor:
        """The kernel, computed anew in every call, except inside :func:`kernels_once`."""
        if not self._keeps:
            return self._make_kernel()
        kept = self._kept
        if kept is None or (torch.is_grad_enabled() and not kept.requires_grad):
            # past torch's __setattr__, which would register a kernel that is a parameter itself
            kept = self.__dict__["_kept"] = self._make_kernel()
        return kept


class LipschitzLayer(KernelLayer):
    """A linear layer whose Lipschitz constant is at most ``bound`` for all values of its weights.

    Attributes:
        bound: The Lipschitz bound.
    """

    bound: float

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant for the present weights."""
        raise NotImplementedError


@contextlib.contextmanager
def kernels_once(module: nn.Module) -> Iterator[None]:
    """A context in which every KernelLayer of a module computes its kernel at most once.

    It serves several evaluations of one branch with the same weights, such as a value and its Jacobian, or the steps of
    a solver: a kernel with a certified norm costs more to compute than to apply. Nothing is kept afterwards, so that a
    kernel is never out of date. In inference mode nothing is kept at all, since autograd refuses the tensors of that
    mode.

    Args:
        module: The module that holds the layers.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> from pyro_gflows.nn import LipschitzLinear
        >>> action = VectorAction.regular("C4")
        >>> layer = LipschitzLinear(action, action)
        >>> with kernels_once(layer):
        ...     print(layer.kernel() is layer.kernel())
        True
    """
    with each_kernel_once(_kernel_layers(module)):
        yield


@contextlib.contextmanager
def each_kernel_once(layers: Sequence[KernelLayer]) -> Iterator[None]:
    """The context :func:`kernels_once` for layers that are known, which saves the search for them.

    Args:
        layers: The layers.

    Example:
        >>> from pyro_gflows.nn import SlopeSplines
        >>> layer = SlopeSplines(2)
        >>> with each_kernel_once([layer]):
        ...     print(layer.kernel() is layer.kernel())
        True
    """
    layers = [layer for layer in layers if not layer._keeps]
    if not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():  # dynamo cannot trace the question
        layers = []
    try:
        for layer in layers:  # past torch's __setattr__, which takes longer than a small operation
            layer.__dict__["_keeps"] = True
        yield
    finally:
        for layer in layers:
            layer.__dict__["_keeps"], layer.__dict__["_kept"] = False, None


def _kernel_layers(module: nn.Module) -> list[KernelLayer]:
    """The KernelLayers of a module, for which ``module.modules()`` takes several times as long."""
    found: list[KernelLayer] = []
    waiting = [module]
    while waiting:
        each = waiting.pop()
        if isinstance(each, KernelLayer):
            found.append(each)
        waiting += [part for part in each._modules.values() if part is not None]
    return found


@contextlib.contextmanager
def kernels_together(layers: Sequence[KernelLayer]) -> Iterator[None]:
    """A context in which layers that are alike have kernels that were made at once.

    It serves a flow of many small layers of one kind: where a kernel is a small matrix, the operations that make it
    cost more than their arithmetic, and the kernels of ten layers take as many operations as that of one. As after
    :func:`kernels_once`, nothing is kept afterwards.

    Args:
        layers: The layers of one pass through a flow.

    Example:
        >>> from pyro_gflows.nn import SlopeSplines
        >>> first, second = SlopeSplines(2), SlopeSplines(2)
        >>> with kernels_together([first, second]):
        ...     together = second.kernel()
        >>> torch.equal(together, second.kernel()), together is second.kernel()
        (True, False)
    """
    groups: dict[Hashable, list[KernelLayer]] = {}
    if not torch.is_inference_mode_enabled():
        for layer in layers:
            if not layer._keeps and (shared := layer._alike()) is not None:
                groups.setdefault((type(layer), shared), []).append(layer)
    keeping: list[KernelLayer] = []
    try:
        for alike in groups.values():
            for layer, kernel in zip(alike, _kernels(alike), strict=True):
                layer._keeps, layer._kept = True, kernel
                keeping.append(layer)
        yield
    finally:
        for layer in keeping:
            layer._keeps, layer._kept = False, None


@full_precision
def _kernels(layers: Sequence[KernelLayer]) -> Sequence[Tensor]:
    return type(layers[0])._make_kernels(layers)
