"""GPairPotential: particles that attract and repel each other, as a bijection of configurations."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from pyro_gflows.actions import ParticleAction
from pyro_gflows.nn import PairPotential
from pyro_gflows.numerics import Solver
from pyro_gflows.serialization.registry import registered
from pyro_gflows.spaces import Euclidean, MeanFree, Space
from pyro_gflows.transforms.gradient import GGradient
from pyro_gflows.transforms.one_way import Fast

__all__ = ["GPairPotential"]


@registered
class GPairPotential(GGradient):
    r"""A layer in which particles attract or repel each other along their differences: a gradient map of pairs.

    It serves densities of clusters, where the distances of pairs decide about the energy. A learnable radial function g
    for each pair of species says how far two particles at a distance r shift apart. By default each particle also
    shifts along its distance from the center of mass (h), and all together along the norm of the configuration (k).

    .. math:: y_i = x_i + \sum_{j \ne i} g_{s_i s_j}(r_{ij})\, \frac{x_i - x_j}{r_{ij}} + \dots
        = \big(x + \nabla V(x)\big)_i, \qquad \log|\det J| = \log\det(I + \nabla^2 V(x))

    Here :math:`r_{ij} = |x_i - x_j|`, and :math:`s_i` is the species of particle i. The map is the gradient of
    :math:`|x|^2/2 + V(x)` for a :class:`~pyro_gflows.nn.PairPotential` V, whose Hessian is above -c. So every
    eigenvalue of the Jacobian is above 1 - c, and the map is a bijection that may expand without limit: the slopes of g
    are above -c/n for n particles, and have no upper bound. Where they are below c/n too, :meth:`lipschitz_bound` is
    below 1, and the layer is also a residual layer with a contraction. It is equivariant since V depends on distances
    only, in every dimension d and under every group H of a :class:`~pyro_gflows.actions.ParticleAction`. The center of
    mass stays where it is.

    The Jacobian has a closed form and is symmetric; its log-det is exact, by a Cholesky factorization. V does not see
    translations, so the determinant on all of R^(n d) is the one on configurations of center of mass 0. Two particles
    at one place are no exception: g(0) = 0, and the derivative of the map there is the slope g'(0) in all directions.
    The log-det is continuous there, and has a kink unless g is linear near 0; its gradient is taken as 0.

    Newton's method with shortened steps finds the inverse. It converges from every start, because a Newton step shrinks
    the residual if it is short enough, and the Jacobian is continuous and nowhere singular. Its gradients come from
    the implicit function theorem. The layer starts as the identity.

    Args:
        action: How the group acts on the particles.
        knots: The number of knots of each radial function on [0, limit], between which its slope is linear.
        limit: The distance beyond which the slopes are constant.
        bound: The number c below 1 of the bound above.
        one_body: Whether there are the functions h and k, which take a learnable share of c.
        solver: How to invert; by default :class:`~pyro_gflows.numerics.DampedNewtonSolver`.
        fast: Which direction has a closed form: "score" (density estimation) or "sample" (guides, fits to energies).

    Raises:
        TypeError: ``action`` is not a ParticleAction, or the solver is no Solver.
        ValueError: There is one particle only, or an argument is out of its range.
        InverseDidNotConverge: (In a call) the inverse misses the tolerance of the solver.

    Example:
        >>> import torch
        >>> from pyro_gflows import ParticleAction
        >>> action = ParticleAction(4, 2)
        >>> layer = GPairPotential(action)
        >>> x = action.space.project(torch.randn(5, 4, 2))
        >>> bool((layer.inv(layer(x)) - x).abs().max() < 1e-5)
        True
    """

    spaces: ClassVar[tuple[type[Space], ...]] = (Euclidean, MeanFree)
    potential: PairPotential

    def __init__(
        self,
        action: ParticleAction,
        *,
        knots: int = 32,
        limit: float = 8.0,
        bound: float = 0.97,
        one_body: bool = True,
        solver: Solver | None = None,
        fast: Fast = "score",
    ) -> None:
        potential = PairPotential(action, knots=knots, limit=limit, bound=bound, one_body=one_body)
        super().__init__(action, potential, solver=solver, fast=fast)

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant of grad V, for the present weights; it may be above 1."""
        return self.potential.lipschitz_bound().detach()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, eigenvalues of the Jacobian above {1 - self.potential.bound:g}"
