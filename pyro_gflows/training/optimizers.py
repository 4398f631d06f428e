"""Descriptions of an optimizer, its class and its settings, from which a run makes the optimizer."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch.nn import Parameter

__all__ = ["Adam", "OptimizerSettings", "TorchOptimizer", "optimizer_settings"]


class OptimizerSettings(Protocol):
    """The description of an optimizer in :class:`FitSettings`; :class:`Adam` and :class:`TorchOptimizer` are such.

    A run needs a description rather than an optimizer, since an optimizer holds parameters already.

    Example:
        >>> def halved(optimizer: OptimizerSettings) -> float:
        ...     return optimizer.lr / 2
        >>> halved(Adam(lr=0.5))
        0.25
    """

    @property
    def lr(self) -> float:
        """The peak learning rate, which the schedule multiplies."""
        ...

    @property
    def clip_norm(self) -> float | None:
        """The largest norm of the gradient over all parameters together, or None for no clipping."""
        ...

    def make(self, parameters: Iterable[Parameter]) -> torch.optim.Optimizer:
        """Returns the optimizer of a run.

        Args:
            parameters: The parameters to train.
        """
        ...


@dataclass(frozen=True)
class Adam:
    """Adam with gradient clipping over all parameters together; the default optimizer.

    Args:
        lr: The peak learning rate, which the schedule multiplies.
        betas: The decay rates of the two moment estimates.
        weight_decay: The factor of the L2 penalty, whose gradient is added.
        clip_norm: The largest norm of the gradient over all parameters together, or None for no clipping.

    Raises:
        ValueError: ``lr`` or ``clip_norm`` is not positive.

    Example:
        >>> from pyro_gflows.training import FitSettings
        >>> FitSettings(optimizer=Adam(lr=3e-3, clip_norm=None)).optimizer.lr
        0.003
    """

    lr: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip_norm: float | None = 10.0

    def __post_init__(self) -> None:
        _check(self.lr, self.clip_norm)

    def make(self, parameters: Iterable[Parameter]) -> torch.optim.Optimizer:
        """Returns a ``torch.optim.Adam`` over all parameters, fused into one operation where torch has it.

        Args:
            parameters: The parameters to train.
        """
        parameters = list(parameters)
        fused = {"fused": True} if _can_be_fused(parameters) else {}
        return torch.optim.Adam(parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, **fused)


@dataclass(frozen=True)
class TorchOptimizer:
    """Any optimizer class with torch's interface, with gradient clipping over all parameters together.

    Args:
        kind: The class, such as ``torch.optim.AdamW``; its ``step`` must not need a closure.
        lr: The peak learning rate, which the schedule multiplies.
        clip_norm: The largest norm of the gradient over all parameters together, or None for no clipping.
        options: Further keyword arguments of the class.

    Raises:
        TypeError: ``kind`` is not an optimizer class, for example an optimizer object, which holds parameters already.
        ValueError: The class has a ``step`` that needs a closure (``LBFGS``), or ``lr`` or ``clip_norm`` is not
            positive.

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
        """Returns an optimizer of this class over all parameters with entries; some classes fail for empty ones.

        Args:
            parameters: The parameters to train.
        """
        parameters = [parameter for parameter in parameters if parameter.numel()]
        return self.kind(parameters, lr=self.lr, **self.options)  # type: ignore[call-arg]


def optimizer_settings(optimizer: Any) -> OptimizerSettings:
    """The description of an optimizer, also for an optimizer class or a ``functools.partial`` of one.

    Args:
        optimizer: A description, which is returned unchanged, an optimizer class or a partial of one.

    Raises:
        TypeError: The argument is something else, for example an optimizer object.

    Example:
        >>> optimizer_settings(torch.optim.AdamW).lr
        0.01
    """
    if isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer):
        return TorchOptimizer(optimizer)
    if isinstance(optimizer, functools.partial) and isinstance(optimizer.func, type) and not optimizer.args:
        options = dict(optimizer.keywords)
        lr = {"lr": options.pop("lr")} if "lr" in options else {}
        return TorchOptimizer(optimizer.func, options=options, **lr)
    if not all(hasattr(optimizer, name) for name in ("make", "lr", "clip_norm")) or isinstance(optimizer, type):
        raise TypeError(_advice(optimizer))
    return optimizer  # type: ignore[no-any-return]


def _can_be_fused(parameters: Sequence[Parameter]) -> bool:
    """Whether this version of torch has a fused Adam for such parameters."""
    since = {"cuda": (2, 0), "cpu": (2, 4)}
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    return all(
        parameter.is_floating_point() and since.get(parameter.device.type, (math.inf,)) <= version
        for parameter in parameters
    )


def _advice(received: Any) -> str:
    name = received.__name__ if isinstance(received, type) else type(received).__name__
    why = " object, which holds parameters already" if isinstance(received, torch.optim.Optimizer) else ""
    return (
        f"expected optimizer=Adam(lr=...), TorchOptimizer(torch.optim.AdamW, lr=...) or a class of torch.optim, got "
        f"{name}{why}; the run makes the optimizer itself when it starts"
    )


def _check(lr: float, clip_norm: float | None) -> None:
    if not lr > 0:
        raise ValueError(f"expected a positive learning rate, got lr={lr}")
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"expected a positive clip_norm or None, got {clip_norm}")
