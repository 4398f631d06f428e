# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 1. A first flow, and what invariance buys
#
# **The question.** *I have 500 points. I know that my data look the same after a rotation by 45 degrees or a
# reflection. What do I gain if the flow has this symmetry too?*
#
# A density $p$ has a symmetry if $p(g\,x) = p(x)$ for every element $g$ of a group. A flow $x = T(z)$ has the symmetry
# if its base has it and $T(g\,z) = g\,T(z)$. Both hold here by construction, for any weights: nothing about the symmetry
# is learned, so nothing about it can be learned wrong.

# %%
import os

import matplotlib.pyplot as plt
import pyro
import torch

from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, Symmetrized, VectorAction, g_residual
from pyro_gflows.evaluation import log_probs
from pyro_gflows.nn import LipschitzSum, Ridges
from pyro_gflows.plots import draw_density
from pyro_gflows.targets import density
from pyro_gflows.training import Adam, FitSettings, OneCycle, fit, random_elements

SMOKE = os.environ.get("PYRO_GFLOWS_SMOKE") == "1"  # a short run that only shows that the code works

# %% [markdown]
# ## The data
#
# Eight Gaussians on a circle. The exact density is known, so that we can measure how far a fit is from the truth; the
# flows see 500 points of it.

# %%
target = density("8gaussians")
data = target.sample(500, torch.Generator().manual_seed(0))

# %% [markdown]
# ## Ten lines
#
# The group is $D_8$: eight rotations and eight reflections. A residual layer is $y = x + f(x)$, where $f$ commutes with the
# group and is a contraction, so that the layer can be inverted. `g_residual(action)` brings a branch $f$ of its own;
# with so few points we name a smoother one, made of *ridge terms* $\sum_g g v\,s(\langle g u, x\rangle)$ alone.
# `GActNorm` scales between the layers. The result, `flow.dist`, is a Pyro distribution like any other.


# %%
def make_flow(action, terms):
    torch.manual_seed(0)
    layers = []
    for _ in range(6):
        layers += [GActNorm(action), g_residual(action, branch=lambda a: LipschitzSum([Ridges(a, terms, knots=16)]))]
    return EquivariantFlow(InvariantNormal(action), [*layers, GActNorm(action)])


action = VectorAction.plane("D8")
flow = make_flow(action, terms=4)


def model(x):
    pyro.module("flow", flow)
    with pyro.plate("data", len(x)):
        pyro.sample("x", flow.dist, obs=x)


trace = pyro.poutine.trace(model).get_trace(data)
print(flow.action, "-", sum(p.numel() for p in flow.parameters()), "parameters")
print(f"mean log p(x) of the untrained model: {trace.log_prob_sum().item() / len(data):.3f}")

# %% [markdown]
# You may train it by `SVI`, as any Pyro model. For maximum likelihood there is `fit`.

# %%
settings = FitSettings(
    steps=5 if SMOKE else 300,
    batch_size=500,
    optimizer=Adam(lr=2e-2),
    schedule=OneCycle(warmup=0.1),
    ema_decay=0.95,
)
result = fit(flow, data, settings=settings, progress=False)
print(f"{result.steps} steps")

# %% [markdown]
# ## The same code without the symmetry
#
# Under the trivial group $C_1$ the same layers have no symmetry. A ridge term is then one ridge and not sixteen, so we
# give these flows twice the terms. The usual remedy is *augmentation*: rotate and reflect every training point at
# random. We train one flow without it and one with it, from the same points with the same settings.

# %%
nothing = VectorAction.plane("C1")
plain, augmented = make_flow(nothing, terms=8), make_flow(nothing, terms=8)
fit(plain, data, settings=settings, progress=False)
fit(augmented, data, settings=settings, augment=random_elements(action), progress=False)
print(sum(p.numel() for p in plain.parameters()), "parameters each")

# %% [markdown]
# ## Pictures
#
# Log-densities, each down to 12 nats below its maximum; the white dots are the training points.

# %%
scores = {
    "the truth": target.log_prob,
    "no symmetry": lambda x: log_probs(plain, x),
    "augmentation": lambda x: log_probs(augmented, x),
    "D8 by construction": lambda x: log_probs(flow, x),
}
figure, axes = plt.subplots(1, 4, figsize=(14, 3.9), layout="constrained")
for panel, (name, log_p) in zip(axes, scores.items(), strict=True):
    draw_density(panel, log_p, reach=4.5, title=name, points=120)
    panel.set_axis_off()
    panel.plot(*data.T, ".", color="white", markersize=1)
plt.show()

# %% [markdown]
# ## log p at x and at g x
#
# One point and its 16 images. The equivariant flow gives all of them the same log-density; each of the others gives
# 16 different values for the same thing.

# %%
x = torch.tensor([2.7, 0.5])
images = action.act_all(x)  # shape (16, 2)
figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
for name, log_p in scores.items():
    values = log_p(images)
    print(f"{name:20s} log p(g x) from {float(values.min()):8.4f} to {float(values.max()):8.4f}")
    axes.plot(values.numpy(), "o--" if name == "the truth" else "o-", markersize=4, label=name)
axes.set(xlabel="group element g", ylabel="log p(g x)")
axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# ## How far from the truth?
#
# $KL(p \,\|\, q) = E_p[\log p(x) - \log q(x)]$ over fresh points; both terms are exact. One more candidate: any flow
# can be made invariant *after* training by averaging its density over the group, $q(x) = \frac{1}{|G|}\sum_g
# q_0(g^{-1}x)$. That is `Symmetrized`; it costs 16 evaluations for every point.

# %%
averaged = Symmetrized(augmented.dist, action)
fresh = target.sample(500 if SMOKE else 20_000, torch.Generator().manual_seed(1))
with torch.no_grad():
    candidates = scores | {"augmentation, averaged": lambda x: averaged.log_prob(x)}
    for name, log_p in list(candidates.items())[1:]:
        difference = target.log_prob(fresh) - log_p(fresh)
        print(f"{name:24s} KL {difference.mean():.4f} +- {difference.std() / len(fresh) ** 0.5:.4f} nats")

# %% [markdown]
# ## What to take home
#
# - A flow without the symmetry has to find eight blobs in 500 points, and finds a different one in each place. An
#   equivariant one has to find one blob, from all of them.
# - Augmentation teaches the symmetry approximately: the average score comes near, single scores still disagree. Averaging
#   afterwards makes them agree, at $|G|$ times the cost for every score; trained for longer, such a flow can come as near
#   to the truth. By construction the symmetry is exact from the first step, with a third of the parameters, at the cost of
#   one flow.
# - The price: the symmetry must be true. If it is not, an invariant flow cannot say so. Check the data first.
