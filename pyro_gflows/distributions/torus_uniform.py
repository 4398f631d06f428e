"""InvariantUniform: the uniform distribution of angles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_gflows.actions import TorusAction
from pyro_gflows.distributions.invariant_base import InvariantBase
from pyro_gflows.numerics.angles import wrap_angle
from pyro_gflows.numerics.precision import full_precision, refuse_low
from pyro_gflows.serialization.registry import registered

__all__ = ["InvariantUniform", "require_torus"]


def require_torus(action: object) -> TorusAction:
    """The action itself if it acts on angles.

    Args:
        action: Any object.

    Raises:
        TypeError: The object is not a TorusAction.
    """
    if not isinstance(action, TorusAction):
        raise TypeError(
            f"expected a TorusAction such as TorusAction.point_group('D4'), got {type(action).__name__}; on R^n take "
            "InvariantNormal"
        )
    return action


class _Reference(nn.Module):
    """The dtype and device of the draws."""

    reference: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("reference", torch.zeros(()), persistent=False)


@registered
class InvariantUniform(InvariantBase):
    r"""The uniform distribution on a torus, :math:`p(x) = (2\pi)^{-d}` for d angles.

    It is invariant under every action on angles, and the usual base of a flow on a torus. Draws lie in [0, 2 pi); every
    real number has a score, as angles count modulo 2 pi. It has no parameters.

    Args:
        action: How the group acts on the angles.
        validate_args: Whether arguments and values are checked, as for every torch distribution.

    Raises:
        TypeError: ``action`` is not a TorusAction.

    Example:
        >>> from pyro_gflows.actions import TorusAction
        >>> base = InvariantUniform(TorusAction.point_group("D4"))
        >>> base.rsample((5,)).shape, base.log_prob(torch.zeros(3, 2))
        (torch.Size([5, 2]), tensor([-3.6758, -3.6758, -3.6758]))
    """

    has_rsample = True
    action: TorusAction

    def __init__(self, action: TorusAction, *, validate_args: bool | None = None) -> None:
        self.action = require_torus(action)
        self.module = _Reference()
        super().__init__(torch.Size(), action.event_shape, validate_args=validate_args)

    @full_precision
    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        shape, reference = self._extended_shape(torch.Size(sample_shape)), self.module.reference
        refuse_low(reference, "a base")
        return wrap_angle(2 * math.pi * torch.rand(shape, dtype=reference.dtype, device=reference.device))

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        batch_shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return value.new_full(batch_shape, -math.log(self.action.space.volume))

    def entropy(self) -> Tensor:
        return self.module.reference.new_full(self.batch_shape, math.log(self.action.space.volume))

    def __repr__(self) -> str:
        return f"InvariantUniform({self.action})"
