"""Transforms of the table with random weights, flows with them, and events for them."""

from __future__ import annotations

import copy
import functools

import torch
from torch import Tensor

from pyro_gflows.actions import Action, TorusAction
from pyro_gflows.actions.requirements import require_flat
from pyro_gflows.distributions import InvariantNormal, InvariantUniform
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import EquivariantTransform
from tests.constructors.table import CONDITIONAL, CONSTRUCTORS

__all__ = [
    "base_for",
    "conditional_flow",
    "events",
    "in_space",
    "make",
    "make_conditional",
    "make_flow",
    "plain_base_for",
    "training_steps",
]


def make(name: str, *, dtype: torch.dtype = torch.float64, scale: float = 0.3) -> EquivariantTransform:
    """Return the transform with a name, with random weights and in ``eval()`` mode."""
    torch.manual_seed(0)
    transform = CONSTRUCTORS[name].build().to(dtype)
    randomize_(transform, scale=scale, generator=torch.Generator().manual_seed(1))
    return transform.eval()


def make_conditional(name: str) -> EquivariantTransform:
    """Return the conditional transform with a name, with random weights and in ``eval()`` mode."""
    torch.manual_seed(0)
    transform = CONDITIONAL[name].build().double()
    randomize_(transform, generator=torch.Generator().manual_seed(1))
    return transform.eval()


def conditional_flow(name: str) -> EquivariantFlow:
    """Return a flow of one conditional transform on an isotropic base, in ``eval()`` mode."""
    transform = make_conditional(name)
    return EquivariantFlow(plain_base_for(transform.action_in), [transform]).double().eval()


def make_flow(name: str, *, dtype: torch.dtype = torch.float64, trained: bool = False) -> EquivariantFlow:
    """Return a flow of one transform on a learnable base, in ``eval()`` mode; after 20 training steps on request."""
    transform = make(name, dtype=dtype)
    flow = EquivariantFlow(base_for(transform.action_in), [transform]).to(dtype)
    randomize_(flow.base.module, generator=torch.Generator().manual_seed(2))
    if trained:
        flow.load_state_dict(_trained_state(name))
    return flow.to(dtype).eval()


def plain_base_for(action: Action) -> InvariantNormal | InvariantUniform:
    """Return the simplest base of an action: an isotropic normal distribution, or the uniform one of angles."""
    return InvariantUniform(action) if isinstance(action, TorusAction) else InvariantNormal(require_flat(action))


def base_for(action: Action) -> InvariantNormal | InvariantUniform:
    """Return the usual base of an action: a learnable normal distribution, or the uniform distribution of angles."""
    if isinstance(action, TorusAction):
        return InvariantUniform(action)
    return InvariantNormal(require_flat(action), covariance="isotypic")


@functools.cache
def _trained_state(name: str) -> dict[str, Tensor]:
    flow = make_flow(name)
    training_steps(flow, 20)
    return copy.deepcopy(flow.state_dict())


def training_steps(flow: EquivariantFlow, steps: int, *, lr: float = 1e-2) -> None:
    """Train a flow by maximum likelihood on fixed data that are not symmetric."""
    flow.train()
    parameter = next(flow.parameters())
    x = in_space(flow.action, events(flow, 32, dtype=parameter.dtype) + 0.3).to(parameter.device)
    optimizer = torch.optim.Adam(flow.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        (-flow(x).mean()).backward()
        optimizer.step()
    flow.eval()


def events(
    source: EquivariantFlow | EquivariantTransform, *batch: int, dtype: torch.dtype = torch.float64, seed: int = 3
) -> Tensor:
    """Return random events of the data of a flow, or of the domain of a transform, of a batch shape."""
    action = source.action if isinstance(source, EquivariantFlow) else source.action_in
    generator = torch.Generator().manual_seed(seed)
    x = 1.3 * torch.randn(*batch, *action.event_shape, generator=generator, dtype=torch.float64)
    return in_space(action, x).to(dtype)


def in_space(action: Action, x: Tensor) -> Tensor:
    """Return the events nearest to some tensors; angles stay as they are, so that tests see all real numbers."""
    return x if isinstance(action, TorusAction) else action.space.project(x)
