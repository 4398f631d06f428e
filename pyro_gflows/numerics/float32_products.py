"""Products of float32 matrices in all their digits, where torch may round the factors to fewer."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import torch

__all__ = ["full_products", "products_are_reduced"]

# torch rounds the factors of float32 products to TF32 (10 bits) or bfloat16 (7 bits) where a setting says so. For
# convolutions on a CUDA device it is so by default. From torch 2.9 on, each kind of product has a setting of its own
# beside the two older ones, which set several of these; each has to be read, and the older ones set, by its own name.
_KINDS: list[Any] = [
    kind
    for backend, name in (("cudnn", "conv"), ("cuda", "matmul"), ("mkldnn", "conv"), ("mkldnn", "matmul"))
    if hasattr(kind := getattr(getattr(torch.backends, backend), name, None), "fp32_precision")
]
_FULL = ("ieee", "none")


class _Settings:
    """What torch's settings say now.

    Attributes:
        tf32: Whether cuDNN may use TF32.
        matmul: The older setting of matrix products.
        kinds: The setting of each kind of product.
    """

    def __init__(self) -> None:
        # torch raises where the user chose the kinds one by one, and then only these count
        self.tf32, self.matmul = False, "highest"
        with contextlib.suppress(RuntimeError):
            self.tf32 = torch.backends.cudnn.allow_tf32
        with contextlib.suppress(RuntimeError):
            self.matmul = torch.get_float32_matmul_precision()
        self.kinds = [kind.fp32_precision for kind in _KINDS]

    @property
    def reduced(self) -> bool:
        return self.tf32 or self.matmul != "highest" or any(value not in _FULL for value in self.kinds)

    def replace_by_full(self) -> None:
        if self.tf32:
            torch.backends.cudnn.allow_tf32 = False
        if self.matmul != "highest":
            torch.set_float32_matmul_precision("highest")
        for kind in _KINDS:
            if kind.fp32_precision not in _FULL:
                kind.fp32_precision = "ieee"

    def restore(self) -> None:
        if self.tf32:
            torch.backends.cudnn.allow_tf32 = True
        if self.matmul != "highest":
            torch.set_float32_matmul_precision(self.matmul)
        for kind, value in zip(_KINDS, self.kinds, strict=True):
            if kind.fp32_precision != value:
                kind.fp32_precision = value


def products_are_reduced() -> bool:
    """Whether torch may round the factors of float32 products, such as convolutions, to fewer digits.

    Example:
        >>> with full_products():
        ...     products_are_reduced()
        False
    """
    return _Settings().reduced


class full_products:
    """A context in which torch computes float32 products in full.

    Otherwise convolutions on a CUDA device, and matrix products after ``torch.set_float32_matmul_precision("high")``,
    have about three correct digits. The inverse of a residual layer then does not converge, Lipschitz bounds are
    exceeded, and a density is invariant to three digits only. The settings are those of the whole process; they are
    restored when the last thread leaves such a context. Inside ``torch.compile`` the context does nothing.

    Example:
        >>> torch.set_float32_matmul_precision("medium")
        >>> with full_products():
        ...     torch.get_float32_matmul_precision()
        'highest'
        >>> torch.get_float32_matmul_precision()
        'medium'
        >>> torch.set_float32_matmul_precision("highest")
    """

    __slots__ = ("_entered",)

    _lock = threading.Lock()
    _depth = 0
    _before: _Settings | None = None

    def __enter__(self) -> None:
        self._entered = not torch.compiler.is_compiling()
        if self._entered:
            with self._lock:
                if full_products._depth == 0:
                    found = _Settings()
                    full_products._before = found if found.reduced else None
                    if found.reduced:
                        found.replace_by_full()
                full_products._depth += 1

    def __exit__(self, *raised: object) -> None:
        if self._entered:
            with self._lock:
                full_products._depth -= 1
                if full_products._depth == 0 and full_products._before is not None:
                    full_products._before.restore()
