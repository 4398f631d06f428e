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
# # 4. NeuTra: a flow that straightens the space for NUTS
#
# **The question.** *NUTS reports divergences on my hierarchical model. Can a flow fix its geometry without breaking its
# symmetry?*
#
# In a hierarchical model one scalar, the log-scale $v$, says how far the effects $x_i$ are from zero. Where $v$ is
# large they fill a wide room, where it is small a narrow neck. No step size suits both, so that NUTS diverges at the
# neck and never visits what lies in it. *Neural transport* (NeuTra, [arXiv:1903.03704](https://arxiv.org/abs/1903.03704))
# fits a flow to the posterior, and lets NUTS walk in the flow's base space, where the posterior is nearly a standard
# normal one. The flow need not be exact: NUTS corrects the rest.

# %%
import functools
import math
import os

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoIAFNormal
from pyro.infer.reparam import NeuTraReparam
from pyro.ops.stats import effective_sample_size, split_gelman_rubin

from pyro_gflows import CoordinateSplit, GActNorm, GCoupling, IrrepScale, SitesAction, VectorAction
from pyro_gflows.guides import AutoGFlow
from pyro_gflows.training import Adam, FitSettings, OneCycle, fit_energy

SMOKE = os.environ.get("PYRO_GFLOWS_SMOKE") == "1"  # a short run that only shows that the code works
CHAINS, WARMUP, DRAWS, STEPS = (2, 10, 20, 5) if SMOKE else (4, 300, 600, 600)
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## The model
#
# Four effects with a common scale: Neal's funnel. There are no data, so that we know the truth to compare with. Nothing
# in it tells $x_i$ from $-x_i$: its symmetry group has the $2^4 = 16$ sign flips.


# %%
def model():
    v = pyro.sample("v", dist.Normal(0.0, 3.0))
    pyro.sample("x", dist.Normal(0.0, (v / 2).exp()[..., None].expand(*v.shape, 4)).to_event(1))


def run_nuts(target):
    """Draws of each site, shape (chains, draws, ...), and which of them ended a divergent trajectory."""
    chains, divergent = [], torch.zeros(CHAINS, DRAWS, dtype=torch.bool)
    for chain in range(CHAINS):
        pyro.set_rng_seed(chain)
        kernel = NUTS(target, jit_compile=True, ignore_jit_warnings=True)
        mcmc = MCMC(kernel, num_samples=DRAWS, warmup_steps=WARMUP, disable_progbar=True)
        mcmc.run()
        chains.append(mcmc.get_samples())
        divergent[chain, mcmc.diagnostics()["divergences"]["chain 0"]] = True
    return {name: torch.stack([draws[name] for draws in chains]) for name in chains[0]}, divergent


plain, divergent = run_nuts(model)
print(f"{int(divergent.sum())} divergences in {divergent.numel()} draws")

# %% [markdown]
# ## What NUTS saw
#
# Left, exact draws; middle, those of NUTS, the divergent ones in orange. It stops where the neck gets narrow, and the
# histogram of $v$ shows what that costs: this is no matter of a few bad draws, a part of the posterior is missing.

# %%
torch.manual_seed(0)
v = 3 * torch.randn(CHAINS, DRAWS)
truth = {"v": v, "x": (v / 2).exp()[..., None] * torch.randn(CHAINS, DRAWS, 4)}


def scatter(panel, draws, title, divergent=None):
    x, v = draws["x"][..., 0].flatten(), draws["v"].flatten()
    panel.plot(x, v, ".", markersize=2)
    if divergent is not None:
        bad = divergent.flatten()
        panel.plot(x[bad], v[bad], ".", color="C1", markersize=5)
    panel.set(title=title, xlim=(-15, 15), ylim=(-10, 10), xlabel="$x_1$", ylabel="$v$")


def histogram(panel, named):
    grid = torch.linspace(-10, 10, 200)
    panel.plot(grid, dist.Normal(0.0, 3.0).log_prob(grid).exp(), "k", label="the truth")
    for name, draws in named.items():
        panel.hist(draws["v"].flatten(), bins=40, range=(-10, 10), density=True, alpha=0.5, label=name)
    panel.set(xlabel="$v$", title="the log-scale")
    panel.legend(fontsize=8)


figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
scatter(axes[0], truth, "exact draws")
scatter(axes[1], plain, "NUTS, divergent draws in orange", divergent)
histogram(axes[2], {"NUTS": plain})
plt.show()

# %% [markdown]
# ## A guide with the symmetry
#
# `AutoGFlow` is an `AutoContinuous` guide, which Pyro's `NeuTraReparam` requires. We say which group acts on which site,
# and of which layers the flow is made. One layer will do here. A coupling holds $v$, which every sign flip leaves as it is,
# and scales the effects by a function of $v$; `IrrepScale` is a scale that commutes with the group. (`AutoGFlow` has default
# layers if you name none. If you know which site determines the scale of the others, say so: the flow is then smaller and
# better.)


# %%
def effects_given_scale(action):
    v_and_effects = CoordinateSplit(action, [[0], [1, 2, 3, 4]])
    scale = functools.partial(IrrepScale, max_log_scale=30.0)  # the usual bound of 3 would bend v / 2
    return [GCoupling(action, split=v_and_effects, transformer=scale, width=8), GActNorm(action)]


signs = SitesAction(VectorAction.signs(4).group, {"x": VectorAction.signs(4)})
pyro.set_rng_seed(0)
guide = AutoGFlow(model, signs, transforms=effects_given_scale, check="raise")
print(guide.vector_action, "-", sum(p.numel() for p in guide.parameters()), "parameters")

# %% [markdown]
# `check="raise"` would have raised an error if the *model* did not have the symmetry. Now train it. `SVI` would do, as for any
# guide; `fit_energy` follows path gradients instead, which have no noise where the guide is right, and reports how well
# the guide fits. There are no data, so "reverse KL" is the divergence from the truth.

# %%
settings = FitSettings(steps=STEPS, batch_size=256, optimizer=Adam(lr=1e-2), schedule=OneCycle(warmup=0.05, end=0.0))
print(fit_energy(guide.flow, guide.log_density(), settings=settings, progress=False))

# %% [markdown]
# ## NUTS in the flow's coordinates
#
# `eval()` makes every log-det exact, and the same at every visit of a point. NUTS needs that.

# %%
neutra = NeuTraReparam(guide.eval().requires_grad_(False))
warped_model = neutra.reparam(model)
latent, warped_divergent = run_nuts(warped_model)
warped = latent["v_shared_latent"]  # Pyro names it after the first site
with torch.no_grad():
    straight = neutra.transform_sample(warped)
print(f"{int(warped_divergent.sum())} divergences in {warped_divergent.numel()} draws")

# %% [markdown]
# ## The geometry
#
# What NUTS walked on: the density of $(v, x_1)$ before, and after, that of the two base coordinates that become them
# (the others at 0), with the draws of one chain. Black circles: a standard normal density.

# %%
line = torch.linspace(-4, 4, 201)
grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)  # (201, 201, 2): horizontal, vertical


def funnel_log_density(x, v):
    return dist.Normal(0.0, 3.0).log_prob(v) + dist.Normal(0.0, (v / 2).exp()).log_prob(x)


u = torch.zeros(*grid.shape[:2], 5)
u[..., 0], u[..., 1] = grid[..., 1], grid[..., 0]
with torch.no_grad():
    y, ladj = guide.flow.transform.call_and_ladj(u)
    each = dist.Normal(0.0, (y[..., :1] / 2).exp()).log_prob(y[..., 1:]).sum(-1)
    warped_log_density = dist.Normal(0.0, 3.0).log_prob(y[..., 0]) + each + ladj

levels = [-12, -8, -4.5, -2, -0.5]
figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained")
before = funnel_log_density(4 * grid[..., 0], 2.5 * grid[..., 1])
axes[0].contourf(4 * line, 2.5 * line, before - before.max(), levels=[*levels, 0], cmap="Blues", extend="min")
axes[0].plot(plain["x"][0, :, 0], plain["v"][0], ".", color="C1", markersize=2)
axes[0].set(title="the model's own coordinates", xlabel="$x_1$", ylabel="$v$", xlim=(-16, 16), ylim=(-10, 10))
after = warped_log_density - warped_log_density.max()
axes[1].contourf(line, line, after, levels=[*levels, 0], cmap="Blues", extend="min")
axes[1].contour(line, line, -grid.square().sum(-1) / 2, levels=levels, colors="k", linewidths=0.6)
axes[1].plot(warped[0, :, 1], warped[0, :, 0], ".", color="C1", markersize=2)
axes[1].set(title="the flow's coordinates", xlabel="$u_1$", ylabel="$u_v$", aspect="equal")
plt.show()

# %%
figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
scatter(axes[0], truth, "exact draws")
scatter(axes[1], straight, "NUTS through the flow", warped_divergent)
histogram(axes[2], {"NUTS": plain, "NUTS through the flow": straight})
plt.show()

# %% [markdown]
# ## The figures
#
# Means that are known exactly, with their effective sample sizes, R-hat, and the distance to the truth in standard
# errors (standard deviation / $\sqrt{ESS}$). We take $v$ and $\log|x|$, and not $x^2$: the standard deviation of
# $x_1^2$ is $\sqrt{3 e^9} \approx 156$ times its mean, so that no run of this length would see it, with any sampler.

# %%
log_chi = 0.5 * (math.log(2.0) + float(torch.digamma(torch.tensor(2.0))))  # E log of the norm of 4 standard normals
known = {
    "v": (lambda d: d["v"], 0.0),
    "v^2": (lambda d: d["v"].square(), 9.0),
    "v < -3": (lambda d: (d["v"] < -3).double(), 0.5 * math.erfc(1 / math.sqrt(2))),
    "log norm x": (lambda d: d["x"].norm(dim=-1).log(), log_chi),
    "x_1 > 0": (lambda d: (d["x"][..., 0] > 0).double(), 0.5),
}
print(f"{'':12s} {'truth':>7s} | {'NUTS':>7s} {'ESS':>6s} {'R-hat':>6s} {'off':>5s} | NeuTra    ESS  R-hat   off")
for name, (function, expected) in known.items():
    cells = []
    for draws in (plain, straight):
        values = function(draws)
        ess = effective_sample_size(values, chain_dim=0, sample_dim=1)
        r_hat = split_gelman_rubin(values, chain_dim=0, sample_dim=1)
        off = (values.mean() - expected) / (values.std() / ess.sqrt())
        cells.append(f"{values.mean():7.3f} {ess:6.0f} {r_hat:6.3f} {off:5.1f}")
    print(f"{name:12s} {expected:7.3f} | {cells[0]} | {cells[1]}")
print(f"{'divergences':12s} {'':7s} | {int(divergent.sum()):7d} {'':19s} | {int(warped_divergent.sum()):6d}")

# %% [markdown]
# ## And the symmetry?
#
# Base and model are invariant and the flow commutes with the group, so the density that NUTS walks on in base space has
# the same 16 sign flips, to rounding. A flow without the symmetry, here Pyro's `AutoIAFNormal`, trained by SVI for as
# many steps, bends space differently at $x$ and at $-x$.

# %%
pyro.set_rng_seed(0)
iaf = AutoIAFNormal(model, hidden_dim=[20], num_transforms=2)
elbo = Trace_ELBO(num_particles=256, vectorize_particles=True, max_plate_nesting=0)
svi = SVI(model, iaf, pyro.optim.Adam({"lr": 1e-2}), elbo)
losses = [svi.step() for _ in range(STEPS)]
iaf.eval().requires_grad_(False)
print(f"KL of AutoIAFNormal at last: {sum(losses[-50:]) / len(losses[-50:]):.3f}")


def log_joint(warped, u):
    return poutine.trace(poutine.condition(warped, {"v_shared_latent": u})).get_trace().log_prob_sum()


u = torch.randn(5, generator=torch.Generator().manual_seed(1))
images = guide.vector_action.act_all(u)  # the 16 images: v stays, x changes signs
figure, panel = plt.subplots(figsize=(8, 3), layout="constrained")
for name, target in {"AutoIAFNormal": NeuTraReparam(iaf).reparam(model), "AutoGFlow": warped_model}.items():
    with torch.no_grad():
        values = torch.stack([log_joint(target, image) for image in images])
    print(f"{name:14s} log-density of the 16 images in base space differs by {values.max() - values.min():.1e}")
    panel.plot(values - values.mean(), "o-", markersize=4, label=name)
panel.set(xlabel="sign flip g", ylabel="log p(g u) - mean")
panel.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## What to take home
#
# - Divergences are a matter of geometry, and a flow can straighten it: fit an `AutoGFlow`, wrap it in
#   `NeuTraReparam`, and run NUTS as before. `neutra.transform_sample` maps the draws back.
# - `jit_compile=True` works for layers that draw in one pass (couplings, and autoregressive and residual layers with
#   `fast="sample"`) and makes NUTS several times faster.
# - The guide only has to be near. Check R-hat, ESS and divergences afterwards all the same: a flow that has missed a
#   part of the posterior leaves NUTS the same neck in another place.
# - With the symmetry built in, what the flow learns in one place holds at all images of it, and no image is favored.
