r"""Two posteriors of sbibm with tractable likelihoods: two moons and SLCP, at its ten published observations.

Lueckmann et al., "Benchmarking simulation-based inference", arXiv 2101.04653, appendix T (SLCP: simple likelihood,
complex posterior, from Papamakarios et al., arXiv 1805.07226; two moons: Greenberg et al., arXiv 1905.07488).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_gflows import SitesAction, VectorAction
from pyro_gflows.groups import TrivialRepresentation

__all__ = ["SLCP", "TASKS", "TWO_MOONS", "Task", "slcp_log_likelihood", "two_moons_log_likelihood"]

MOONS_BOUND, SLCP_BOUND = 1.0, 3.0
RADIUS, THICKNESS, OFFSET, EDGE = 0.1, 0.01, 0.25, 0.002


@dataclass(frozen=True)
class Task:
    """A uniform prior on a box, a likelihood, and the symmetry of their product.

    Attributes:
        name: Of the task.
        dim: How many parameters.
        bound: The prior is uniform on [-bound, bound]^dim.
        observations: The ten data sets.
        log_likelihood: (theta, x) -> log p(x | theta), over the batch of theta.
        action: The symmetry that every posterior has.
        exact: (x, n, generator) -> n independent draws from the posterior: the reference.
        sloped: The log-likelihood with a steep slope where it is -inf, for guides that need a gradient everywhere.
    """

    name: str
    dim: int
    bound: float
    observations: Sequence[Sequence[float]]
    log_likelihood: Callable[[Tensor, Tensor], Tensor]
    action: SitesAction
    exact: Callable[[Tensor, int, torch.Generator], Tensor]
    sloped: Callable[[Tensor, Tensor], Tensor]

    @property
    def prior(self) -> dist.TorchDistribution:
        """Uniform on the box."""
        high = torch.full((self.dim,), self.bound)
        return dist.Uniform(-high, high).to_event(1)

    def observation(self, index: int) -> Tensor:
        """The data set of that number, 0 to 9, in float64."""
        return torch.tensor(self.observations[index], dtype=torch.float64)

    def model(self, x: Tensor) -> Tensor:
        """The Pyro model of one data set."""
        theta = pyro.sample("theta", self.prior)
        pyro.factor("x", self.log_likelihood(theta, x.to(theta)))
        return theta

    def sloped_model(self, x: Tensor) -> Tensor:
        """The same with ``sloped``."""
        theta = pyro.sample("theta", self.prior)
        pyro.factor("x", self.sloped(theta, x.to(theta)))
        return theta


def two_moons_log_likelihood(theta: Tensor, x: Tensor) -> Tensor:
    r"""The log-likelihood of two moons, x = (r cos a + 1/4 - |z0|, r sin a + z1).

    The angle a is uniform on (-pi/2, pi/2), and r is normal (0.1, 0.01); z is theta rotated by 45 degrees:
    z0 = (theta1 + theta2) / sqrt 2 and z1 = (theta2 - theta1) / sqrt 2. The density of the point (r cos a, r sin a) is
    N(r; 0.1, 0.01) / (pi r) in the half-plane u > 0, and 0 outside (the tail r < 0, of mass 1e-23, left out).
    """
    u, _, log_density = _ring(theta, x)
    return torch.where(u > 0, log_density, -math.inf)


def two_moons_sloped(theta: Tensor, x: Tensor) -> Tensor:
    """Where u < 0, the log-likelihood falls by 1 nat in 0.002 instead of to -inf."""
    u, _, log_density = _ring(theta, x)
    return log_density + u.clamp_max(0) / EDGE


def _ring(theta: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """u and v, and the log-density there of the whole ring."""
    z0 = (theta[..., 0] + theta[..., 1]) / math.sqrt(2)
    z1 = (theta[..., 1] - theta[..., 0]) / math.sqrt(2)
    u, v = x[0] - OFFSET + z0.abs(), x[1] - z1
    r = (u.square() + v.square()).clamp_min(1e-12).sqrt()
    normal = -0.5 * ((r - RADIUS) / THICKNESS).square() - math.log(THICKNESS * math.sqrt(2 * math.pi))
    return u, v, normal - (math.pi * r).log()


def slcp_log_likelihood(theta: Tensor, x: Tensor) -> Tensor:
    r"""The log-likelihood of four points from a normal distribution in the plane.

    It has mean (theta1, theta2), standard deviations theta3^2 and theta4^2, and correlation tanh theta5.
    """
    points = x.reshape(4, 2)
    # a floor, so that theta3 = 0, where a guide may start, is finite
    first, second = theta[..., 2].square().clamp_min(1e-9), theta[..., 3].square().clamp_min(1e-9)
    a = (points[:, 0] - theta[..., 0, None]) / first[..., None]
    b = (points[:, 1] - theta[..., 1, None]) / second[..., None]
    # log(1 - tanh^2), and a sum of squares that does not cancel
    log_rest = 2 * (math.log(2.0) - theta[..., 4] - torch.nn.functional.softplus(-2 * theta[..., 4]))
    across = (a - theta[..., 4, None].tanh() * b).square().sum(-1) * (-log_rest).exp()
    squares = across + b.square().sum(-1)
    return -0.5 * squares - 4 * (math.log(2 * math.pi) + first.log() + second.log() + 0.5 * log_rest)


def _two_moons_action() -> SitesAction:
    return SitesAction.from_generators([{"theta": [[0, -1], [-1, 0]]}], name="C2")


def _slcp_action() -> SitesAction:
    first, second = VectorAction.signs(2).fields
    still = TrivialRepresentation(first.group)
    return SitesAction(first.group, {"theta": VectorAction([still, still, first, second, still])})


def two_moons_exact(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Independent draws from a posterior of two moons, in closed form.

    The noise is drawn, and the point is found that this noise shifts to x. Points outside of the prior's box, and those
    that would need a negative |z0|, are dropped.
    """
    kept: list[Tensor] = []
    while sum(map(len, kept)) < count:
        angle = math.pi * (torch.rand(count, generator=generator, dtype=x.dtype) - 0.5)
        r = RADIUS + THICKNESS * torch.randn(count, generator=generator, dtype=x.dtype)
        z0, z1 = r * angle.cos() + OFFSET - x[0], x[1] - r * angle.sin()
        sign = 2.0 * torch.randint(2, (count,), generator=generator) - 1.0
        theta = torch.stack([sign * z0 - z1, sign * z0 + z1], -1) / math.sqrt(2)
        kept.append(theta[(z0 > 0) & (theta.abs() < MOONS_BOUND).all(-1)])
    return torch.cat(kept)[:count]


def slcp_exact(x: Tensor, count: int, generator: torch.Generator, *, batch: int = 1_000_000) -> Tensor:
    """Independent draws from a posterior of SLCP by rejection, ``batch`` proposals at a time.

    Given theta3, theta4 and theta5 the mean of the points is normal about (theta1, theta2), with a quarter of their
    covariance; without the box around it, it integrates out. So the three are drawn from a density that is known up to
    a constant, the two from a normal, and what falls out of the box is dropped. The constant is the highest density
    among ten batches of proposals, and a margin of 0.2 nats.
    """
    points = x.reshape(4, 2)
    mean = points.mean(0)

    def log_density(three: Tensor) -> Tensor:
        theta = torch.cat([mean.expand(len(three), 2), three], -1)
        # integrating a normal of covariance S / 4 over the plane gives sqrt|S| times a constant
        log_root = three[:, 0].square().log() + three[:, 1].square().log() - three[:, 2].cosh().log()
        return slcp_log_likelihood(theta, x) + log_root

    def proposals() -> Tensor:
        return SLCP_BOUND * (2 * torch.rand(batch, 3, generator=generator, dtype=x.dtype) - 1)

    bound = max(float(log_density(proposals()).max()) for _ in range(10)) + 0.2
    kept: list[Tensor] = []
    while sum(map(len, kept)) < count:
        three = proposals()
        three = three[torch.rand(len(three), generator=generator, dtype=x.dtype).log() < log_density(three) - bound]
        first, second, correlation = three[:, 0].square(), three[:, 1].square(), three[:, 2].tanh()
        noise = torch.randn(len(three), 2, generator=generator, dtype=x.dtype) / 2
        along = correlation * noise[:, 0] + (1 - correlation.square()).sqrt() * noise[:, 1]
        two = mean + torch.stack([first * noise[:, 0], second * along], -1)
        kept.append(torch.cat([two, three], -1)[(two.abs() < SLCP_BOUND).all(-1)])
    return torch.cat(kept)[:count]


TWO_MOONS = Task(
    "two_moons",
    2,
    MOONS_BOUND,
    [
        [-0.6396706, 0.16234657],
        [-0.5676688, -0.33194834],
        [0.0030109584, -0.6457662],
        [-0.25049388, 0.633055],
        [-0.66463584, -0.42604533],
        [-0.12940255, 0.3873573],
        [0.19458583, 1.0400153],
        [0.13603824, 0.9160449],
        [-0.17962828, -0.5452459],
        [0.14563406, -1.170141],
    ],
    two_moons_log_likelihood,
    _two_moons_action(),
    two_moons_exact,
    two_moons_sloped,
)

SLCP = Task(
    "slcp",
    5,
    SLCP_BOUND,
    [
        [2.3718784, 0.49947417, 9.931435, 1.7136912, -10.436423, -1.9067793, -1.2343777, -0.09735],
        [-0.66452104, -2.9279308, -16.49147, 4.06107, 4.232153, -4.652277, -4.9924355, -1.5655216],
        [3.5023372, 5.254722, 8.685451, 9.995327, 0.40782332, -5.7111573, 10.605566, 12.695774],
        [-1.6371447, -0.037302777, -1.5622597, 0.031204943, -3.683134, 0.09953671, -1.7389069, 0.0309663],
        [-8.801672, 8.726709, -10.484016, 6.857725, -6.769688, 7.574161, 3.804308, 2.7593615],
        [0.069512725, 4.0657325, -1.1986864, 0.94379723, -1.4434359, 0.02170819, -4.4811616, -4.26959],
        [-3.0776706, -1.2080946, 25.778881, -2.244017, -0.77473235, -1.5114331, 5.919487, -1.6953411],
        [1.2463324, -2.414371, -2.9786007, -2.3214335, -17.3002, -3.298883, -13.487199, -3.023044],
        [4.755368, -2.3791986, 3.5834174, -1.444761, 5.063205, -3.448882, 0.56577647, 1.3524654],
        [1.3710914, -2.39026, 1.8363019, -2.4391632, 2.013802, -3.2097385, 2.4036794, -3.0089793],
    ],
    slcp_log_likelihood,
    _slcp_action(),
    slcp_exact,
    slcp_log_likelihood,
)

TASKS = {task.name: task for task in (TWO_MOONS, SLCP)}
