"""A small real flow for the tests of fitting, saving and scoring."""

import torch

from pyro_gflows.actions import VectorAction
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.nn.branch import LipschitzSum
from pyro_gflows.nn.ridge import Ridges
from pyro_gflows.numerics import LogDet
from pyro_gflows.transforms.actnorm import GActNorm
from pyro_gflows.transforms.residual import GResidual


def small_flow(group: str = "D4", *, seed: int = 0, log_det: LogDet | None = None) -> EquivariantFlow:
    action = VectorAction.plane(group)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [GResidual(action, LipschitzSum([Ridges(action, 2)]), log_det=log_det) for _ in range(2)]
    return EquivariantFlow(InvariantNormal(action), [layers[0], GActNorm(action), layers[1], GActNorm(action)]).double()


def points(n: int = 600, *, seed: int = 0) -> torch.Tensor:
    """Points of a density with the symmetry of the square, float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return x.sign() * 2 + 0.5 * torch.randn(n, 2, generator=generator, dtype=torch.float64)
