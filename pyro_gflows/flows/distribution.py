"""FlowDistribution: the density of a flow, as a Pyro distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import TransformedDistribution
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_gflows.distributions.last_draw import LastDraw
from pyro_gflows.distributions.supports import ValidatesEvents
from pyro_gflows.numerics.precision import casting, guarded, refuse_low
from pyro_gflows.numerics.transforms_active import anywhere
from pyro_gflows.transforms import Compose, EquivariantTransform

__all__ = ["FlowDistribution"]


class FlowDistribution(ValidatesEvents, TransformedDistribution):
    r"""The density of a flow as a Pyro distribution; ``flow.dist`` and ``flow.condition(context)`` return it.

    .. math:: \log p(y) = \log p_{base}(T^{-1} y) + \log|\det J_{T^{-1}}(y)|

    New data are scored in one pass of the inverse, and nothing is kept of it. The last draw of this object is scored
    from the base point and the log-det with which it was drawn, as long as draw, weights and context are unchanged.
    Every expanded distribution has its own last draw.

    Args:
        base: A Pyro distribution of events on the side of the base.
        transform: The transform T from base to data.
        validate_args: As for every torch distribution. Events that no draw can equal (such as those outside the
            interval of a GSigmoid) raise where it is on, and have the log-density -inf where it is off.

    Raises:
        TypeError: (in a call) Events are not a tensor, or have another dtype than the weights.
        ValueError: (in a call) Events are outside the support.

    Example:
        >>> from pyro_gflows import InvariantNormal, VectorAction, g_residual
        >>> action = VectorAction.plane("D8")
        >>> density = FlowDistribution(InvariantNormal(action), g_residual(action))
        >>> draws = density.expand((5,)).rsample()
        >>> density.log_prob(draws).shape
        torch.Size([5])
    """

    def __init__(self, base: Any, transform: EquivariantTransform, *, validate_args: bool | None = None) -> None:
        if base.event_shape == transform.action_in.event_shape:
            self._set_shapes(base, transform, validate_args)
        else:
            TransformedDistribution.__init__(self, base, [transform], validate_args=validate_args)
        self._last_draw = LastDraw()

    def _set_shapes(self, base: Any, transform: EquivariantTransform, validate_args: bool | None) -> None:
        """The work of torch's constructor for one transform; the general one takes as long as a small layer."""
        before, after = base.event_shape, transform.action_out.event_shape
        shape = transform.forward_shape(base.batch_shape + before)
        batch_shape = shape[: len(shape) - len(after)]
        self.base_dist = base if base.batch_shape == batch_shape else base.expand(batch_shape)
        self.transforms = [transform]
        Distribution.__init__(self, batch_shape, after, validate_args=validate_args)

    @property
    def transform(self) -> EquivariantTransform:
        """The transform T, from base to data."""
        transform: EquivariantTransform = self.transforms[0]
        return transform

    def expand(self, batch_shape: Sequence[int], _instance: FlowDistribution | None = None) -> FlowDistribution:
        """The same density with another batch shape, which remembers its own last draw."""
        new: FlowDistribution = self._get_checked_instance(FlowDistribution, _instance)
        new._last_draw = LastDraw()
        super().expand(torch.Size(batch_shape), _instance=new)
        return new

    def clear_cache(self) -> None:
        """Forget the last draw."""
        self._last_draw.drop()

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        with torch.no_grad():
            return self._pushed(self.base_dist.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        return self._pushed(self.base_dist.rsample(torch.Size(sample_shape)))

    def log_prob(self, value: Any) -> Tensor:
        self._check_dtype(value)
        if self._validate_args:
            self._validate_sample(value)
        remembered = self._last_draw.take(self.transform, value)
        if remembered is not None:
            source, ladj = remembered
            return self.base_dist.log_prob(source) - ladj
        outside = None if self.transform.reaches_all else self._outside(value)
        with guarded():
            source, ladj = self.transform.inv_call_and_ladj(value if outside is None else self._inside(value, outside))
            log_prob: Tensor = self.base_dist.log_prob(source) + ladj
        return log_prob if outside is None else log_prob.masked_fill(outside, -math.inf)

    def _outside(self, value: Tensor) -> Tensor | None:
        """Which events no draw can equal, or None if there are none; ValueError where validation is on."""
        outside = ~self.transform.reaches(value)
        if not anywhere(outside):
            return None
        if self._validate_args:
            raise ValueError(
                f"expected values that the flow can draw, got {int(outside.sum())} of {outside.numel()} outside its "
                f"image, such as {value.expand(outside.shape + self.event_shape)[outside][0].flatten()[:4].tolist()}: "
                "one of its layers maps into an interval; with validate_args off, their log-density is -inf"
            )
        return outside

    def _inside(self, value: Tensor, outside: Tensor) -> Tensor:
        """The events, with those outside replaced by one that can be drawn: layers give NaN gradients there."""
        origin = torch.zeros(self.base_dist.batch_shape + self.base_dist.event_shape).to(value)
        with torch.no_grad():
            somewhere = self.transform.call_and_ladj(origin)[0]
        return torch.where(outside[(..., *[None] * len(self.event_shape))], somewhere, value)

    def _pushed(self, z: Tensor) -> Tensor:
        weight = _first_weight(self.transform)
        if weight is not None and (z.dtype, z.device) != (weight.dtype, weight.device):
            raise TypeError(
                f"expected a base that draws {weight.dtype} on {weight.device}, as the transforms' weights are, got "
                f"draws of {z.dtype} on {z.device}: flow.to(...) cannot move a distribution of plain tensors, such as "
                "one in Symmetrized; make its tensors of that dtype and device"
            )
        self.transform.action_in.check_event(z)
        refuse_low(weight, "weights")
        with guarded():
            y, ladj = self.transform.call_and_ladj(z)
        if not torch.compiler.is_compiling():
            self._last_draw.keep(self.transform, z, y, ladj)
        return y

    def _check_dtype(self, value: Any) -> None:
        weight = _first_weight(self.transform)
        if not isinstance(value, Tensor):
            expected = "" if weight is None else f" of {weight.dtype}"
            use = "; use torch.as_tensor, or pyro_gflows.evaluation.log_probs, which takes arrays"
            advice = use if hasattr(value, "__array__") else ""
            raise TypeError(f"expected events as a tensor{expected}, got {type(value).__name__}{advice}")
        if weight is None or casting():
            return
        refuse_low(value, "events and contexts")
        refuse_low(weight, "weights")
        if value.is_floating_point() and value.dtype != weight.dtype:
            name = str(weight.dtype).removeprefix("torch.")
            raise TypeError(
                f"expected events in the flow's dtype {weight.dtype}, got {value.dtype}; convert them by "
                f".to(torch.{name}), or the flow by .to({value.dtype}); pyro_gflows.evaluation.log_probs takes both"
            )

    def __repr__(self) -> str:
        batch = f", batch shape {tuple(self.batch_shape)}" if self.batch_shape else ""
        return f"FlowDistribution: {self.transform.action_out}{batch}\n{drawn_out(self.base_dist, self.transform)}"


def _first_weight(module: nn.Module) -> Tensor | None:
    """The first of ``module.parameters()``, found in less time."""
    for parameter in module._parameters.values():
        if parameter is not None:
            return parameter
    for child in module._modules.values():
        found = None if child is None else _first_weight(child)
        if found is not None:
            return found
    return None


def drawn_out(base: Any, transform: EquivariantTransform) -> str:
    """A text with a base and the layers of a transform, one below the other."""
    layers = transform.transforms if isinstance(transform, Compose) else [transform]
    lines = [f"  base: {base!r}", *(f"  {index}: {layer!r}" for index, layer in enumerate(layers))]
    return "\n".join(line.replace("\n", "\n  ") for line in lines)
