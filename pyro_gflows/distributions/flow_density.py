"""FlowDensity: the density of a flow, as a Pyro distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import TransformedDistribution
from torch import Tensor

from pyro_gflows.distributions.supports import ValidatesEvents
from pyro_gflows.numerics.transforms_active import anywhere
from pyro_gflows.precision import casting, refuse_low

__all__ = ["FlowDensity"]


class FlowDensity(ValidatesEvents, TransformedDistribution):
    """A base pushed through one equivariant transform, which says what it expects where layers would fail.

    Events that no draw can be, such as those outside the interval of a GSigmoid that other layers follow, raise
    ValueError as outside any support, or have the log-density -inf where validation is off.
    """

    @property
    def _transform(self) -> Any:
        return self.transforms[0]

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        with torch.no_grad():
            return self._pushed(self.base_dist.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        return self._pushed(self.base_dist.rsample(torch.Size(sample_shape)))

    def log_prob(self, value: Any) -> Tensor:
        self._check_dtype(value)
        if self._transform.reaches_all:
            return self._score(value)
        if self._validate_args:
            self._validate_sample(value)
        outside = ~self._transform.reaches(value)
        if not anywhere(outside):
            return self._score(value)
        if self._validate_args:
            raise ValueError(
                f"expected values that the flow can draw, got {int(outside.sum())} of {outside.numel()} outside its "
                f"image, such as {value.expand(outside.shape + self.event_shape)[outside][0].flatten()[:4].tolist()}: "
                "one of its layers maps into an interval; with validate_args off, their log-density is -inf"
            )
        # layers before the interval would give NaN gradients outside: score an event inside in their place
        origin = torch.zeros(self.base_dist.batch_shape + self.base_dist.event_shape).to(value)
        with torch.no_grad():
            somewhere = self._transform.call_and_ladj(origin)[0]
        event = (..., *[None] * len(self.event_shape))
        return self._score(torch.where(outside[event], somewhere, value)).masked_fill(outside, -math.inf)

    def _score(self, value: Tensor) -> Tensor:
        """One pass for fresh data, of which nothing is copied or compared; none for what was drawn last."""
        if self._validate_args:
            self._validate_sample(value)
        source = self._transform.drawn_from(value)
        if source is None:
            source, ladj = self._transform.inv_call_and_ladj(value)
        else:
            ladj = -self._transform.log_abs_det_jacobian(source, value)
        log_prob: Tensor = self.base_dist.log_prob(source) + ladj
        return log_prob

    def _pushed(self, z: Tensor) -> Tensor:
        weight = next(self._transform.parameters(), None)
        if weight is not None and (z.dtype, z.device) != (weight.dtype, weight.device):
            raise TypeError(
                f"expected a base that draws {weight.dtype} on {weight.device}, as the transforms' weights are, got "
                f"draws of {z.dtype} on {z.device}: flow.to(...) cannot move a distribution of plain tensors, such as "
                "one in Symmetrized; make its tensors of that dtype and device"
            )
        y: Tensor = self._transform(z)
        return y

    def _check_dtype(self, value: Any) -> None:
        weight = next(self._transform.parameters(), None)
        if not isinstance(value, Tensor):
            expected = "" if weight is None else f" of {weight.dtype}"
            raise TypeError(
                f"expected events as a tensor{expected}, got {type(value).__name__}; use torch.as_tensor, or "
                "pyro_gflows.infer.log_probs, which takes arrays"
            )
        if weight is None or casting():
            return
        refuse_low(value, "events and contexts")
        refuse_low(weight, "weights")
        if value.is_floating_point() and value.dtype != weight.dtype:
            name = str(weight.dtype).removeprefix("torch.")
            raise TypeError(
                f"expected events in the flow's dtype {weight.dtype}, got {value.dtype}; convert them by "
                f".to(torch.{name}), or the flow by .to({value.dtype}); pyro_gflows.infer.log_probs takes both"
            )
