"""InvariantBase: the common part of the bases whose parameters live in a module that all expanded copies share."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_gflows.actions import Action
from pyro_gflows.distributions.supports import ValidatesEvents
from pyro_gflows.numerics.precision import refuse_low

__all__ = ["InvariantBase"]

_Base = TypeVar("_Base", bound="InvariantBase")


class InvariantBase(ValidatesEvents, TorchDistribution):
    """A distribution that is invariant under an action, with its parameters in ``module``.

    The support is the space of the events, and an expanded distribution shares the module.

    Attributes:
        action: How the group acts on an event.
        module: The parameters, which a flow registers; its buffer ``reference`` has the dtype and device of draws.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  (torch declares it as an instance attribute)

    action: Action

    @property
    def support(self) -> constraints.Constraint:
        return self.action.space.constraint

    def _check_value(self, value: Tensor) -> None:
        """Raise unless the density is defined at these values, in their dtype and shape."""
        self.action.check_event(value, "value")
        refuse_low(value, "values")
        if self._validate_args:
            self._validate_sample(value)

    def expand(self: _Base, batch_shape: Sequence[int], _instance: _Base | None = None) -> _Base:
        """The same distribution, with the same module, of another batch shape.

        Args:
            batch_shape: The new batch shape.

        Raises:
            ValueError: The batch shape does not expand to the new one.
        """
        batch_shape = torch.Size(batch_shape)
        try:
            torch.empty(self.batch_shape, device="meta").expand(batch_shape)
        except RuntimeError as error:
            raise ValueError(
                f"expected a batch shape that {tuple(self.batch_shape)} expands to, got {tuple(batch_shape)}"
            ) from error
        new = copy.copy(self) if _instance is None else _instance
        new._batch_shape = batch_shape
        return new
