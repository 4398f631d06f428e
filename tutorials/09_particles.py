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
# # 9. From an energy to exact samples of a cluster
#
# **The question.** *I have an energy function of some particles. How do I get a density that I can draw from, exactly
# symmetric, and how do I know that what I compute with it is right?*
#
# The energy of a cluster does not change if all particles are shifted, rotated or reflected together, or if two of them
# are exchanged. A flow with this symmetry learns one arrangement and knows all of its images. Its density is exact, so
# that its draws can be weighted: expectations are then those of the energy, and not those of the flow.
#
# We take four particles in the plane from their energy to expectations, with a check at each step. At the end stands
# what changes for thirteen particles in space.

# %%
import os

import matplotlib.pyplot as plt
import torch

from pyro_gflows import ParticleAction
from pyro_gflows.evaluation import energy_report, importance_report
from pyro_gflows.flows import g_placement_flow, to_train
from pyro_gflows.plots import draw_configurations, draw_energies, draw_pair_distances
from pyro_gflows.targets import DoubleWell, LennardJones, ParticleEnergy, Pool, SequentialMonteCarlo
from pyro_gflows.training import Adam, FitSettings, OneCycle, Ramp, Validation, fit, fit_energy

SMOKE = os.environ.get("PYRO_GFLOWS_SMOKE") == "1"  # a short run that only shows that the code works


def exact_draws(size, smoke_size=1000):
    return Pool(size=smoke_size if SMOKE else size, progress=False)


# %% [markdown]
# ## 1. The energy, the symmetry, and exact draws
#
# The energy is a function of configurations, of shape `(..., n, d)`: a row for each particle. Here each pair prefers one
# of two distances, about 2.5 and 5.5.


# %%
def energy(x):
    first, second = torch.triu_indices(4, 4, 1)
    away = (x[..., first, :] - x[..., second, :]).norm(dim=-1) - 4
    return (0.9 * away**4 - 4 * away**2).sum(-1)


action = ParticleAction(4, 2)  # four like particles in the plane
sampler = SequentialMonteCarlo(steps=40 if SMOKE else 400, final_sweeps=40 if SMOKE else 400, scale=2.0)
target = ParticleEnergy(action, energy, sampler=sampler, pool=exact_draws(10_000))
print(action)
print("dimension:", action.space.dimension)

# %% [markdown]
# The energy says nothing about where the cluster is, so there is no density on all of $R^8$. There is one on the
# configurations whose center of mass is 0, a space of dimension $(n - 1)\,d = 6$.
#
# To train, and above all to test, we want draws of the target that no flow has touched. Sequential Monte Carlo takes
# many chains from a Gaussian to the target and weights them on the way; a product of mean weights is an estimate of $Z$.
# The report has a check that needs no other program: under the exact density the *virial*, the mean of $x \cdot \nabla
# U(x)$, is the dimension of the space.

# %%
draws = target.pooled()
print(draws.report)
target.log_z, target.floor = draws.report.log_z.value, draws.report.entropy.value
test, train = draws.x.split([len(draws.x) // 5, len(draws.x) - len(draws.x) // 5])
print(f"the same density with known constants: {DoubleWell()}")

# %% [markdown]
# The estimates agree with the constants that `DoubleWell` has from long runs. The entropy is the floor of all NLLs: a
# lower one would be a mistake, not a success.
#
# ## 2. A flow, by likelihood
#
# `g_placement_flow` places one particle after another around one of them as the center, nearest first. The distance and
# the direction of each have densities that depend on all particles that are there already. The density of a
# configuration is the product of these, summed over the particles that could have been the center, so that
# permutations, rotations and reflections leave it as it is, exactly.
#
# The sum takes an evaluation for each center. Training takes fewer: `to_train(flow)` has the same weights and sums over
# the most central particles only, a lower bound of the likelihood.


# %%
def make_flow():
    torch.manual_seed(0)
    return g_placement_flow(action, shortest=1.0, longest=9.0)  # distances that hardly any pair is beyond


settings = FitSettings(
    steps=5 if SMOKE else 400,
    batch_size=32 if SMOKE else 200,
    optimizer=Adam(lr=1e-2),
    schedule=OneCycle(warmup=0.1),
    validation=Validation(patience=None),
)
flow = make_flow()
fit(to_train(flow, centers=2), train, settings=settings, progress=False)
print(energy_report(flow, target, samples=test, draws=500 if SMOKE else 10_000))

# %% [markdown]
# - The *gap* is the mean of (exact log p - log q) over exact draws: KL(p, q) in nats.
# - *ESS*, from draws of the flow, says which share of them counts, and *forward ESS*, from exact draws, shows whether
#   the flow has lost a part of the target.
# - The *log mean weight* is an estimate of $\log Z$ by the flow, beside that of the sampler.
#
# Is it exactly symmetric? Compare a draw with its images.

# %%
x = flow.dist.sample((1,)).expand(1000, -1, -1).double()
images = action.act_each(action.sample((1000,)), x)
with torch.no_grad():
    values = flow.double().dist.log_prob(action.space.project(images))
print(f"log q at 1,000 images of one draw: from {float(values.min()):.12f} to {float(values.max()):.12f}")
flow = flow.float()

# %% [markdown]
# ## 3. The same, from the energy alone
#
# Draws of the target are often what one does not have. `fit_energy` needs none: it takes draws of the flow, and lowers
# the reverse divergence KL(q, p). It needs the density of these draws, for which `to_train(flow)` takes one particle as
# the center of all. A high temperature at the start keeps the flow from settling in one arrangement. The exact draws are
# for the report only.

# %%
by_energy = make_flow()
fit_energy(to_train(by_energy), target, settings=settings, annealing=Ramp(start=0.25, until=0.3), progress=False)
print(energy_report(by_energy, target, samples=test, draws=500 if SMOKE else 10_000))

# %% [markdown]
# A step by energy learns less than one by draws, and a real fit takes more of them. The weights are right all the same.
#
# ## 4. Pictures
#
# Distances and energies are the same for all images of a configuration, so their histograms compare what matters. In the
# strips each configuration is rotated to its principal axes.

# %%
samples = flow.dist.sample((500 if SMOKE else 10_000,))
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
draw_pair_distances(axes[0], samples, test)
draw_energies(axes[1], samples, test, energy=energy)
plt.show()
figure, axes = plt.subplots(2, 1, figsize=(9, 3.2), layout="constrained")
draw_configurations(axes[0], samples[:10], columns=10, title="draws of the flow")
draw_configurations(axes[1], test[:10], columns=10, title="exact draws")
plt.show()

# %% [markdown]
# ## 5. Exact expectations
#
# The flow is not the target, but a proposal with a known density. Each draw gets the weight $w = e^{-U(x)} / q(x)$, and
# weighted means converge to those of the target, whatever is left of the gap. We estimate the mean energy, and how often
# a pair is at the closer of its two distances.

# %%
with torch.no_grad():
    log_weights = (target.log_density(samples) - flow.dist.log_prob(samples)).double()
print(importance_report(log_weights, known=target.log_z))
weights = log_weights.softmax(0)


def close_pairs(x):
    first, second = torch.triu_indices(4, 4, 1)
    return ((x[:, first] - x[:, second]).norm(dim=-1) < 4).double().mean(-1)


for name, quantity in {"energy": lambda x: energy(x).double(), "close pairs": close_pairs}.items():
    plain, exact = quantity(samples), quantity(test)
    mean = weights @ plain
    error = (weights.square() @ (plain - mean).square()).sqrt()
    print(
        f"{name:12s} flow {float(plain.mean()):8.4f}, weighted {float(mean):8.4f} +- {float(error):.4f}, "
        f"exact draws {float(exact.mean()):8.4f} +- {float(exact.std()) / len(exact) ** 0.5:.4f}"
    )

# %% [markdown]
# ## 6. What changes for thirteen particles in space
#
# The cluster of 13 Lennard-Jones particles is the next step up, and four things change.
#
# **The convention.** Published data follow a sum over *ordered* pairs, each pair twice. Some code has each pair once,
# which is another density. The target says which one it is.

# %%
cluster = LennardJones(pool=exact_draws(2000))
print(cluster)
print(cluster.action, "of dimension", cluster.action.space.dimension)

# %% [markdown]
# **Draws take longer.** The energy rises steeply where particles meet, so the first inverse temperatures have to be
# small: `curve=4`. This run has fewer steps than the default, whose draws take minutes.

# %%
cluster.sampler = SequentialMonteCarlo(steps=30 if SMOKE else 300, curve=4.0, final_sweeps=30 if SMOKE else 200)
print(cluster.pooled().report)
configurations = cluster.pooled().x

# %% [markdown]
# **An untrained flow lets particles overlap**, where the energy is $10^{12}$ and more. To train on the energy, soften it
# where it is huge: `fit_energy(flow, cluster.softened(above=100), annealing=...)`. Weights and reports are still those
# of the exact energy.
#
# **There are more arrangements.** The same design takes more evaluations and longer training; the page on particles of
# the documentation compares the designs, with their figures. Here it trains for a minute only.

# %%
larger = g_placement_flow(cluster.action, shortest=0.65, longest=4.0)
quick = FitSettings(
    steps=2 if SMOKE else 50,
    batch_size=16 if SMOKE else 64,
    optimizer=Adam(lr=1e-2),
    schedule=OneCycle(warmup=0.1),
    check_symmetry=False,  # chains rotate slowly, which makes no difference to a flow with the symmetry
)
fit(to_train(larger, centers=2), configurations[200:], settings=quick, progress=False)
drawn = larger.dist.sample((200,))
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
draw_pair_distances(axes[0], drawn, configurations)
draw_energies(axes[1], drawn, configurations, energy=cluster.energy)
plt.show()
figure, axes = plt.subplots(2, 1, figsize=(9, 3.2), layout="constrained")
draw_configurations(axes[0], drawn[:10], columns=10, title="draws of the flow, after a minute of training")
draw_configurations(axes[1], configurations[:10], columns=10, title="exact draws")
plt.show()
