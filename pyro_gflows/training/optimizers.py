"""Which optimizer a run uses: its class and its settings, from which the run makes it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch.nn import Parameter

__all__ = ["Adam", "OptimizerSettings", "TorchOptimizer", "optimizer_settings"]


class OptimizerSettings(Protocol):
    """Makes the one optimizer of a run; gradients are clipped to ``clip_norm`` over all parameters together."""

    @property
    def lr(self) -> float: ...

    @property
    def clip_norm(self) -> float | None: ...

    def make(self, parameters: Iterable[Parameter]) -> torch.optim.Optimizer: ...


@dataclass(frozen=True)
class Adam:
    """Adam with global gradient clipping.

    Args:
        lr: Peak learning rate; the schedule multiplies it.
        betas: Decay rates of the two moment estimates.
        weight_decay: L2 penalty added to the gradient.
        clip_norm: Largest norm of the whole gradient, or None for no clipping.
    """

    lr: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip_norm: float | None = 10.0

    def __post_init__(self) -> None:
        _check(self.lr, self.clip_norm)

    def make(self, parameters: Iterable[Parameter]) -> torch.optim.Optimizer:
        """One ``torch.optim.Adam`` over all parameters."""
        return torch.optim.Adam(parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class TorchOptimizer:
    """Any optimizer class of torch, or one that follows its interface, with global gradient clipping.

    Args:
        kind: The class, such as ``torch.optim.AdamW``; its ``step`` must not need a closure.
        lr: Peak learning rate; the schedule multiplies it.
        clip_norm: Largest norm of the whole gradient, or None for no clipping.
        options: Further keywords of the class.

    Raises:
        TypeError: An optimizer object, which holds parameters already, or something else.
        ValueError: A class whose ``step`` needs a closure (``LBFGS``), or a rate or norm that is not positive.

    Example:
        >>> optimizer = TorchOptimizer(torch.optim.SGD, lr=0.1, options={"momentum": 0.9})
        >>> optimizer.make([Parameter(torch.zeros(2))]).defaults["lr"]
        0.1
    """

    kind: type[torch.optim.Optimizer]
    lr: float = 1e-2
    clip_norm: float | None = 10.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (isinstance(self.kind, type) and issubclass(self.kind, torch.optim.Optimizer)):
            raise TypeError(_advice(self.kind))
        closure = inspect.signature(self.kind.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise ValueError(
                f"expected an optimizer that takes one gradient a step, got {self.kind.__name__}, whose step needs a "
                "closure; use torch.optim.AdamW or another one"
            )
        _check(self.lr, self.clip_norm)

    def make(self, parameters: Iterable[Parameter]) -> torch.optim.Optimizer:
        """One optimizer of that class over all parameters that have entries (some classes divide by their number)."""
        parameters = [parameter for parameter in parameters if parameter.numel()]
        return self.kind(parameters, lr=self.lr, **self.options)  # type: ignore[call-arg]


def optimizer_settings(given: Any) -> OptimizerSettings:
    """The settings that were given, or those of an optimizer class (or a ``functools.partial`` of one).

    Raises:
        TypeError: An optimizer object, or something else.

    Example:
        >>> optimizer_settings(torch.optim.AdamW).lr
        0.01
    """
    if isinstance(given, type) and issubclass(given, torch.optim.Optimizer):
        return TorchOptimizer(given)
    if isinstance(given, functools.partial) and isinstance(given.func, type) and not given.args:
        options = dict(given.keywords)
        lr = {"lr": options.pop("lr")} if "lr" in options else {}
        return TorchOptimizer(given.func, options=options, **lr)
    if not all(hasattr(given, name) for name in ("make", "lr", "clip_norm")) or isinstance(given, type):
        raise TypeError(_advice(given))
    return given  # type: ignore[no-any-return]


def _advice(given: Any) -> str:
    what = given.__name__ if isinstance(given, type) else type(given).__name__
    why = " object, which holds parameters already" if isinstance(given, torch.optim.Optimizer) else ""
    return (
        f"expected optimizer=Adam(lr=...), TorchOptimizer(torch.optim.AdamW, lr=...) or a class of torch.optim, got "
        f"{what}{why}; the optimizer is made when the run starts"
    )


def _check(lr: float, clip_norm: float | None) -> None:
    if not lr > 0:
        raise ValueError(f"expected a positive learning rate, got lr={lr}")
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"expected a positive clip_norm or None, got {clip_norm}")
