"""InvariantVonMises: mixtures of products of von Mises densities that are invariant under an action on angles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import VonMises

from pyro_gflows.actions import TorusAction
from pyro_gflows.distributions.invariant_base import InvariantBase
from pyro_gflows.distributions.torus_uniform import require_torus
from pyro_gflows.groups import IsometryTable
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.numerics.angles import wrap_angle
from pyro_gflows.numerics.integer_lattices import divided_form, inverse_of
from pyro_gflows.numerics.precision import full_precision, refuse_low
from pyro_gflows.serialization.registry import registered

__all__ = ["InvariantVonMises", "log_von_mises"]


def log_von_mises(angle: Tensor, location: Tensor, concentration: Tensor) -> Tensor:
    r"""The log-density of a von Mises distribution, :math:`\kappa \cos(x - \mu) - \log(2 \pi I_0(\kappa))`.

    It keeps its precision for large concentrations, where a normal density of variance 1/kappa is the limit.

    Args:
        angle: x, in radians.
        location: The mean direction mu.
        concentration: kappa, positive.

    Example:
        >>> log_von_mises(torch.zeros(()), torch.zeros(()), torch.tensor(1e6))
        tensor(5.9888)
    """
    # cos - 1 without cancellation; the largest terms, kappa and log I0(kappa), cancel in closed form
    deviation = -2.0 * (0.5 * (angle - location)).sin().square()
    return concentration * deviation - torch.special.i0e(concentration).log() - math.log(2 * math.pi)


class _Parameters(nn.Module):
    """Means, concentrations and weights of the components, and the coordinates in which they are products."""

    reference: Tensor

    def __init__(self, action: TorusAction, components: int) -> None:
        super().__init__()
        self.register_buffer("reference", torch.zeros(()), persistent=False)
        fixed = action.fixed_combinations
        divisors, coordinates = divided_form(fixed, action.numel)
        self.divisors = tuple(divisors)
        scaled = [[n * entry for entry in row] for n, row in zip(divisors, coordinates, strict=False)]
        self.combinations = FixedBasis(torch.tensor(scaled, dtype=torch.float64))
        self.to_angles = FixedBasis(torch.tensor(inverse_of(coordinates), dtype=torch.float64))
        self.locations = nn.Parameter(2 * math.pi * torch.rand(components, len(fixed)))
        self.log_concentrations = nn.Parameter(torch.zeros(components, len(fixed)))
        self.logits = nn.Parameter(torch.zeros(components))


@registered
class InvariantVonMises(InvariantBase):
    r"""A mixture of products of von Mises densities and all its images under a group: a base with modes on a torus.

    A von Mises density on a circle, :math:`\exp(\kappa \cos(x - \mu)) / 2 \pi I_0(\kappa)`, is the counterpart of a
    normal density. A component of the mixture is a product of them. It is made invariant in two steps:

    - Translations of the group: the factors are densities of integer combinations of angles, :math:`c_i \cdot x`, that
      all translations fix. Without translations these are the angles themselves. Under infinitely many translations
      there are fewer of them than angles, and the component is uniform in all other directions.
    - Reflections and exchanges of the group: the density is the average of the images under one element for each matrix
      M, so that a score costs as many evaluations as there are matrices.

    .. math:: p(x) = \frac{1}{n} \sum_M \sum_j w_j \frac{1}{(2\pi)^{d-r}}
        \prod_{i \le r} \frac{\exp(\kappa_{ji} \cos(c_i \cdot g_M^{-1} x - \mu_{ji}))}{2 \pi I_0(\kappa_{ji})}

    Locations :math:`\mu` start at random, concentrations :math:`\kappa` at 1, and weights w equal; all are learnable.
    Draws are not reparametrized, as those of Pyro's VonMises are not, so fits to an energy that need gradients through
    draws take :class:`InvariantUniform`. Draws lie in [0, 2 pi).

    Args:
        action: How the group acts on the angles.
        components: The number of components of the mixture, before the images under the group.
        validate_args: Whether arguments and values are checked, as for every torch distribution.

    Raises:
        TypeError: ``action`` is not a TorusAction.
        ValueError: ``components`` is not positive.

    Example:
        >>> from pyro_gflows.actions import TorusAction
        >>> base = InvariantVonMises(TorusAction.point_group("D4"), components=2)
        >>> base.sample((5,)).shape, base.log_prob(torch.zeros(3, 2)).shape
        (torch.Size([5, 2]), torch.Size([3]))
        >>> base.log_prob(torch.tensor([[0.5, 1.0], [1.0, -0.5]])).diff().abs().item() < 1e-5
        True
    """

    has_rsample = False
    action: TorusAction

    def __init__(self, action: TorusAction, *, components: int = 1, validate_args: bool | None = None) -> None:
        if components < 1:
            raise ValueError(f"expected a positive number of components, got {components}")
        self.action = require_torus(action)
        self.components = components
        self.module = _Parameters(action, components)
        self._representatives = _one_of_each_matrix(action)
        super().__init__(torch.Size(), action.event_shape, validate_args=validate_args)

    @torch.no_grad()
    @full_precision
    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        module, shape = self.module, self._extended_shape(torch.Size(sample_shape))
        refuse_low(module.reference, "a base")
        batch = shape[:-1]
        weights = module.logits.double().softmax(0)
        which = torch.multinomial(weights, max(1, batch.numel()), replacement=True)[: batch.numel()].reshape(batch)
        drawn = VonMises(module.locations[which], module.log_concentrations[which].exp(), validate_args=False).sample()
        # a combination d b is drawn: b is one of the d angles with that multiple, or any angle where nothing is said
        parts = torch.rand(shape, dtype=drawn.dtype, device=drawn.device)
        coordinates = 2 * math.pi * parts
        rank = len(module.divisors)
        if rank:
            divisors = torch.tensor(module.divisors, dtype=drawn.dtype, device=drawn.device)
            whole = (parts[..., :rank] * divisors).floor()
            coordinates = torch.cat([(drawn + 2 * math.pi * whole) / divisors, coordinates[..., rank:]], -1)
        x = wrap_angle(coordinates @ module.to_angles(drawn).T)
        if self._representatives is None:
            return x
        index = torch.randint(len(self._representatives), batch, device="cpu")
        return self.action.act_each(self._representatives[index], x)

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        if self._representatives is None:
            log_prob = self._of_components(value)
        else:
            # the inverses of one element for each matrix are one for each matrix, too
            elements = self._representatives.reshape(-1, *[1] * (value.ndim - 1))
            images = self.action.act_each(elements, value)
            log_prob = self._of_components(images).logsumexp(0) - math.log(len(self._representatives))
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def _of_components(self, x: Tensor) -> Tensor:
        """The log-density of the mixture before the images."""
        module = self.module
        angles = (x @ module.combinations(x).T)[..., None, :]
        terms = log_von_mises(angles, module.locations, module.log_concentrations.exp()).sum(-1)
        free = self.action.numel - len(module.divisors)
        return (terms + module.logits.log_softmax(0)).logsumexp(-1) - free * math.log(2 * math.pi)

    def __repr__(self) -> str:
        return f"InvariantVonMises({self.action}, components={self.components})"


def _one_of_each_matrix(action: TorusAction) -> Tensor | None:
    """The first element with each matrix M; None where M is always the identity."""
    if not isinstance(action.maps, IsometryTable):
        return None
    matrices = [str(matrix) for matrix in action.maps.matrices.tolist()]
    first = torch.tensor([matrices.index(matrix) for matrix in dict.fromkeys(matrices)])
    return first if len(first) > 1 else None
