"""A posterior with a symmetry, guides for it, and their weights computed by hand: what Pyro's machinery must agree
with, draw by draw."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.ops.indexing import Vindex

from pyro_gflows import EquivariantFlow, InvariantNormal, IrrepSplit, SitesAction, VectorAction
from pyro_gflows.guides import AutoGFlow
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import GActNorm, g_coupling

ROWS = VectorAction.rows("S3")
LABELS = SitesAction("S3", {"means": ROWS})
DATA = torch.tensor([-2.1, -1.9, 0.1, 0.3, 2.0, 2.4], dtype=torch.float64)


def components(means, scale):
    labels = dist.Categorical(torch.ones(3, dtype=torch.float64))
    return dist.MixtureSameFamily(labels, dist.Normal(means, scale[..., None]))


def globals_():
    zero = torch.zeros((), dtype=torch.float64)
    scale = pyro.sample("scale", dist.LogNormal(zero, 0.3))
    return pyro.sample("means", dist.Normal(zero.expand(3), 2.0).to_event(1)), scale


def mixture(x):
    """Three components that nothing tells apart, with one scale."""
    means, scale = globals_()
    with pyro.plate("data", len(x)):
        pyro.sample("x", components(means, scale), obs=x)


def labeled_mixture(x):
    """The same, with the labels as discrete sites."""
    means, scale = globals_()
    with pyro.plate("data", len(x)):
        uniform = dist.Categorical(torch.ones(3, dtype=torch.float64))
        label = pyro.sample("label", uniform, infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(Vindex(means)[..., label], scale), obs=x)


def log_joint(values, x=DATA):
    """log p(x, values), for a batch of values."""
    means, scale = values["means"], values["scale"]
    zero = torch.zeros((), dtype=torch.float64)
    prior = dist.LogNormal(zero, 0.3).log_prob(scale) + dist.Normal(zero, 2.0).log_prob(means).sum(-1)
    return prior + components(means[..., None, :], scale[..., None]).log_prob(x).sum(-1)


def small(action):
    """Few operations: a coupling of the invariants and the rest, and a scale."""
    return [g_coupling(action, split=IrrepSplit(action), width=1, depth=1), GActNorm(action)]


class AutoCase:
    """AutoGFlow over both sites."""

    def __init__(self, model):
        seen = poutine.block(model, hide=["label"])
        self.guide = AutoGFlow(seen, LABELS, args=(DATA,), transforms=small, joint=mixture)
        randomize_(self.guide.flow, scale=0.1)
        self.parameters = list(self.guide.parameters())

    def log_weights(self, count):
        """As the guide draws, but scored by a true inverse: a copied tensor is no remembered draw."""
        z = self.guide.flow.dist.rsample((count,))
        values = {"scale": z[:, 0].exp(), "means": z[:, 1:]}
        return log_joint(values) - (self.guide.flow(z.clone()) - z[:, 0])


class HandCase:
    """An EquivariantFlow for one site, and a point for the other."""

    def __init__(self, model):
        self.flow = randomize_(EquivariantFlow(InvariantNormal(ROWS), small(ROWS)).double(), scale=0.1)
        self.log_scale = torch.nn.Parameter(torch.tensor(-0.3, dtype=torch.float64))
        self.parameters = [*self.flow.parameters(), self.log_scale]

    def guide(self, x):
        pyro.module("flow", self.flow)
        pyro.sample("scale", dist.Delta(pyro.param("log_scale", self.log_scale).exp()))
        pyro.sample("means", self.flow.dist)

    def log_weights(self, count):
        z = self.flow.dist.rsample((count,))
        scale = self.log_scale.exp().expand(count)
        return log_joint({"scale": scale, "means": z}) - self.flow(z.clone())


CASES = {"AutoGFlow": AutoCase, "by hand": HandCase}


def loss_and_gradient(evaluate, parameters, seed):
    """The loss and its gradient, one vector; ``evaluate`` calls backward and returns the loss."""
    for parameter in parameters:
        parameter.grad = None
    torch.manual_seed(seed)
    loss = evaluate()
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    value = float(loss.detach()) if isinstance(loss, torch.Tensor) else loss
    return torch.tensor(value, dtype=torch.float64), torch.cat([part.flatten() for part in parts]).clone()


def backward(loss):
    loss.backward()
    return loss


def nudge(parameters):
    """What an optimizer step does to the weights, in a random direction."""
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.05 * torch.randn_like(parameter))
