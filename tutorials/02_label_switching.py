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
# # 2. Label switching: my posterior has K! identical modes
#
# **The question.** *I fit a Gaussian mixture. Nothing in my model says which component is the first, so its posterior
# has $K!$ identical modes. What does my guide report, and what should I read off it?*
#
# A permutation of the components changes neither prior nor likelihood: $p(\pi z \mid x) = p(z \mid x)$, where $\pi$
# acts on weights, means and scales together. Mean-field guides and inverse autoregressive flows do not have this symmetry. We compare
# both with `AutoGFlow`, which has the symmetry by construction, and all of them with long runs of NUTS.

# %%
import os

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoIAFNormal, AutoNormal

from pyro_gflows import SitesAction, VectorAction
from pyro_gflows.flows import OrbitFlow
from pyro_gflows.guides import AutoGFlow, LogRatioReparam
from pyro_gflows.training import Adam, FitSettings, OneCycle, fit_energy

SMOKE = os.environ.get("PYRO_GFLOWS_SMOKE") == "1"  # a short run that only shows that the code works
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## The data and the model
#
# 120 points of three overlapping normals. The discrete assignments are summed out, by `MixtureSameFamily`.

# %%
true_weights, true_means, true_scales = torch.tensor([[0.3, 0.45, 0.25], [-3.0, 0.0, 2.6], [0.7, 0.9, 0.6]])
generator = torch.Generator().manual_seed(1)
label = torch.multinomial(true_weights, 120, replacement=True, generator=generator)
data = true_means[label] + true_scales[label] * torch.randn(120, generator=generator)


def plain_model(x):
    weights = pyro.sample("weights", dist.Dirichlet(2 * torch.ones(3)))
    means = pyro.sample("means", dist.Normal(torch.zeros(3), 5.0).to_event(1))
    scales = pyro.sample("scales", dist.LogNormal(-0.3 * torch.ones(3), 0.5).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(means, scales)), obs=x)


# %% [markdown]
# Two lines say what the symmetry is. First, *which* sites a permutation acts on: the same permutation on all three. Second,
# a detail about the weights: guides work on an unconstrained vector, and Pyro takes a simplex apart by stick breaking, which
# is not symmetric in the components. `LogRatioReparam` takes isometric log-ratios instead, on which permutations act as
# orthogonal matrices. (Without it, `AutoGFlow` raises an error that says so.)

# %%
rows = VectorAction.rows("S3")
action = SitesAction("S3", {"means": rows, "weights": rows, "scales": rows})
model = poutine.reparam(plain_model, config={"weights": LogRatioReparam()})

# %% [markdown]
# ## The guide
#
# `OrbitFlow` is a mixture of all $3! = 6$ images of one flow. `AutoGFlow` checks that the model has the symmetry, looks
# for a good mode from draws of the prior, and puts the flow there. `fit_energy` trains it: the reverse divergence of SVI,
# with gradients that have much less noise.

# %%
pyro.set_rng_seed(0)
guide = AutoGFlow(model, action, args=(data,), base=OrbitFlow, check="raise")
settings = FitSettings(
    steps=5 if SMOKE else 500, batch_size=128, optimizer=Adam(lr=5e-3), schedule=OneCycle(warmup=0.1)
)
report = fit_energy(guide.flow, guide.log_density(data), settings=settings, progress=False)
print(report)

# %% [markdown]
# ESS is the effective sample size of the importance weights $p/q$, as a fraction of the draws: 1 where $q$ is the
# posterior. It can fall by a single draw from a tail that $q$ makes too thin; the trimmed ESS leaves the few largest
# weights out of account, and Pareto's $k$ says how heavy their tail is (below 0.7 the estimates can be trusted). All
# of this speaks only of places where $q$ has draws. But it cannot have lost five of six modes, since it is invariant.
# The others, by SVI:


# %%
def train(other):
    optimizer = pyro.optim.ClippedAdam({"lr": 1e-2})
    elbo = Trace_ELBO(num_particles=16, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(model, other, optimizer, elbo)
    for _ in range(5 if SMOKE else 1500):
        svi.step(data)
    return other


mean_field, iaf = train(AutoNormal(model)), train(AutoIAFNormal(model, num_transforms=2))

# %% [markdown]
# And two chains of NUTS, from two starts.

# %%
starts = [torch.tensor([-3.0, 0.0, 3.0]), torch.tensor([3.0, -3.0, 0.0])]
chains = []
for means in starts:
    start = {"weights": torch.ones(3) / 3, "means": means, "scales": torch.ones(3)}
    kernel = NUTS(model, full_mass=True, init_strategy=pyro.infer.autoguide.init_to_value(values=start))
    mcmc = MCMC(kernel, 10 if SMOKE else 500, warmup_steps=10 if SMOKE else 200, disable_progbar=True)
    mcmc.run(data)
    chains.append(mcmc.get_samples())

# %% [markdown]
# ## What each of them reports
#
# Draws of the means of the first two components. The exact posterior has six modes: any two of the three clusters, in
# either order.

# %%
sites = ["weights", "means", "scales"]


def draws_of(other, count=200 if SMOKE else 1000):
    with torch.no_grad(), pyro.plate("draws", count, dim=-2):  # outside of the model's own plate, which is at -1
        return {name: value.reshape(count, 3) for name, value in other(data).items()}


nuts = {name: torch.cat([chain[name] for chain in chains]) for name in sites}
relabeling = action.sample((len(nuts["means"]),))  # the exact posterior is that of NUTS in every order
exact = {name: action.act_on_site(name, relabeling, value) for name, value in nuts.items()}
found = {"AutoGFlow": draws_of(guide), "mean-field": draws_of(mean_field), "IAF": draws_of(iaf)}

figure, axes = plt.subplots(1, 5, figsize=(15, 3.4), layout="constrained", sharex=True, sharey=True)
for chain, color in zip(chains, ["C0", "C1"], strict=True):
    axes[0].plot(*chain["means"][:, :2].T, ".", color=color, markersize=3)
axes[0].set_title("two chains of NUTS")
panels = {"NUTS, in all orders": exact} | found
for panel, (name, draws) in zip(axes[1:], panels.items(), strict=True):
    panel.plot(*draws["means"][:, :2].T, ".", markersize=3)
    panel.set_title(name)
for panel in axes:
    panel.set(xlim=(-5, 5), ylim=(-5, 5), xlabel="mean of component 1", aspect="equal")
axes[0].set_ylabel("mean of component 2")
plt.show()

# %% [markdown]
# Each chain of NUTS stays in the mode it starts in, so by itself it would not even tell you that there are six; a chain
# that jumps now and then would be worse, since no average over it means anything. Mean-field and IAF settle in one mode:
# they report that component 1 *is* this cluster. Nothing in model or data says so. `AutoGFlow` reports all six modes.
# The marginal of one mean, for each of them:

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 3), layout="constrained", sharey=True)
bins = torch.linspace(-4.5, 4.5, 61).numpy()
for panel, (name, draws) in zip(axes, found.items(), strict=True):
    panel.hist(exact["means"][:, 0].numpy(), bins=bins, density=True, color="lightgray", label="NUTS, in all orders")
    panel.hist(draws["means"][:, 0].numpy(), bins=bins, density=True, histtype="step", color="C0", label=name)
    panel.set(xlabel="mean of component 1", ylim=(0, 2.2))
    panel.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## log q of one draw under all relabelings
#
# The six values should be equal.

# %%
z = guide.flow.dist.sample((1,)).clone()
images = guide.vector_action.act_all(z)[:, 0]  # the draw in all six orders, unconstrained
with torch.no_grad():
    for name, values in {"AutoGFlow": guide.flow(images), "IAF": iaf.get_posterior().log_prob(images)}.items():
        print(f"{name:10s}", " ".join(f"{value:10.4f}" for value in values.tolist()))
        print(f"{'':10s} largest difference {float(values.max() - values.min()):.1e}")

# %% [markdown]
# ## The evidence
#
# A guide that sits in one of $K!$ equal modes finds at most the mass of that one: its bound on $\log p(x)$ is too low by
# $\log K!$ (here 1.79 nats, at $K = 5$ already 4.79), besides what its shape costs. Who compares models with different
# $K$ by their bounds compares this too.

# %%
with torch.no_grad():
    count = 200 if SMOKE else 4000
    elbo = Trace_ELBO(num_particles=count, vectorize_particles=True, max_plate_nesting=1)
    bounds = {name: -elbo.loss(model, other, data) for name, other in [("mean-field", mean_field), ("IAF", iaf)]}
bounds = {"AutoGFlow": report.log_normalizer - report.reverse_kl} | bounds
for name, bound in bounds.items():
    print(f"{name:10s} bound {bound:9.3f}, {report.log_normalizer - bound:6.3f} below the evidence")
print(f"evidence, by the importance weights of AutoGFlow's draws: {report.log_normalizer:.3f}")

# %% [markdown]
# ## Reading a posterior with K! modes
#
# Means and quantiles of "component 1" say nothing now, since they are equal for all components. Two things can be read.
#
# *What does not depend on the labels*, such as the predictive density: it is the same function of all $K!$ images of a
# draw. Here even one mode gives nearly the right answer.

# %%
line = torch.linspace(-6, 6, 200)
figure, axes = plt.subplots(1, 4, figsize=(14, 3), layout="constrained", sharey=True)
for panel, (name, draws) in zip(axes, ({"NUTS": nuts} | found).items(), strict=True):
    curves = dist.MixtureSameFamily(
        dist.Categorical(draws["weights"][:, None]), dist.Normal(draws["means"][:, None], draws["scales"][:, None])
    )
    density = curves.log_prob(line.expand(len(draws["means"]), -1)).exp()
    low, high = density.quantile(torch.tensor([0.05, 0.95]), dim=0)
    panel.hist(data.numpy(), bins=30, density=True, color="lightgray")
    panel.fill_between(line, low, high, alpha=0.4)
    panel.plot(line, density.mean(0))
    panel.set(title=name, xlabel="x")
plt.show()

# %% [markdown]
# *The components after relabeling.* `orbit_representative` takes each draw (weights, means and scales together) to the
# image that is nearest to the other draws; the site that the action names first (here the means) puts them in order.
# This is for reading only: it takes place after inference, on draws, and loses nothing.

# %%
print(f"{'':12s}" + "".join(f"{site:^42s}" for site in sites))
for name, draws in ({"NUTS": exact} | found).items():
    read = guide.orbit_representative(draws)
    cells = [f"{read[site][:, k].mean():6.2f} +- {read[site][:, k].std():.2f}" for site in sites for k in range(3)]
    print(f"{name:12s}" + " ".join(cells))
print("the truth   " + " ".join(f"{value:6.2f}        " for value in [*true_weights, *true_means, *true_scales]))

# %% [markdown]
# ## What to take home
#
# - Say how permutations act on the sites (`SitesAction`), and the guide cannot get it wrong: every relabeling of a draw has the same
#   density, to rounding, before training and after it.
# - A guide without the symmetry is in one of $K!$ modes. Its predictive density may still be good, but its marginals,
#   its evidence and its certainty about which component is which are wrong.
# - Read what is invariant, or relabel the draws with `orbit_representative`.
# - How near is it? `python -m benchmarks.label_switching` trains a classifier to distinguish the draws of each guide from
#   draws of NUTS, for three and for five components: the table is in `benchmarks/README.md`.
