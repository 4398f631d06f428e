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
# # 8. Hidden units and sets: symmetries with more elements than anybody can list
#
# **The question.** *My network's hidden units can be permuted, and my data are sets of points. The groups are too large
# to list. How do I get a posterior, or a density, that has such a symmetry exactly?*
#
# Two answers. For a posterior with one mode for each order of the units, `AutoGFlow` sorts the units first and scores
# afterwards: one evaluation, whatever the size of the group. For data that are sets, equivariant layers whose cost is
# linear in the number of points make a density of sets, also of sets of different sizes.

# %%
import functools
import math
import os

import arviz
import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from sklearn.datasets import load_diabetes, load_digits

from pyro_gflows import ElementwiseSpline, EquivariantFlow, InvariantNormal, RowsAction, SitesAction, g_coupling
from pyro_gflows.datasets import point_clouds
from pyro_gflows.guides import AutoGFlow, random_images
from pyro_gflows.training import Adam, FitSettings, OneCycle, fit_energy

SMOKE = os.environ.get("PYRO_GFLOWS_SMOKE") == "1"  # a short run that only shows that the code works
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## 1. A Bayesian neural network
#
# The diabetes data of scikit-learn: 442 patients, and how far the disease has progressed after a year. Five of the
# features, standardized; 342 patients to learn from, 100 to test on. The network has one hidden layer of 8 tanh units.

# %%
columns = ("sex", "bmi", "bp", "s3", "s5")
table = load_diabetes(scaled=False)
x = torch.as_tensor(table.data[:, [table.feature_names.index(name) for name in columns]])
y = torch.as_tensor(table.target)
shuffled = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
test, train = shuffled[:100], shuffled[100:]
x, y = (x - x[train].mean(0)) / x[train].std(0), (y - y[train].mean()) / y[train].std()
units, inputs = 8, len(columns)


def network(w, b, v, x):
    """The output for each row of x, for one draw of the weights or for many."""
    return (torch.tanh(x @ w.mT + b[..., None, :]) @ v[..., None]).squeeze(-1)


def model(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(units, inputs), 1.0).to_event(2))  # a row for each unit
    b = pyro.sample("b", dist.Normal(torch.zeros(units), 1.0).to_event(1))
    v = pyro.sample("v", dist.Normal(torch.zeros(units), units**-0.5).to_event(1))
    noise = pyro.sample("noise", dist.LogNormal(-0.5, 0.5))
    pyro.sample("y", dist.Normal(network(w, b, v, x), noise[..., None]).to_event(1), obs=y)


data = (x[train], y[train])

# %% [markdown]
# ### The symmetry
#
# The order of the units means nothing. And since tanh is odd, $v \tanh(w x + b) = -v \tanh(-w x - b)$: each unit may
# change the sign of its in-weights, its bias and its out-weight together. These are the *signed permutations* of the
# units. Neither the prior nor the likelihood changes, so the posterior is the same at all images of a point. With 20
# units there would be $20!\,2^{20}$ of them. A `RowsAction` says how they act on each site: a row for each unit, with
# odd features, which change their sign with the unit. (A prior scale for each unit would be one more site, an even one:
# `RowsAction(units, signed=[])`.)

# %%
one = RowsAction(units, signed=True)  # one odd feature for each unit
action = SitesAction(f"signed S{units}", {"w": RowsAction(units, inputs, signed=True), "b": one, "v": one})
print(action)
print(f"{units} units: {action.group.order_in_words} elements, the log of this is {math.log(action.group.order):.2f}")
print("20 units:", RowsAction(20, signed=True).group.order_in_words, "elements")

# %% [markdown]
# ### Two guides without the symmetry
#
# A normal distribution, with independent coordinates (mean-field) and with all correlations.


# %%
def train_by_svi(make, steps=5 if SMOKE else 1500):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    other = make(model)
    elbo = Trace_ELBO(num_particles=16, vectorize_particles=True, max_plate_nesting=0)
    svi = SVI(model, other, pyro.optim.ClippedAdam({"lr": 1e-2, "lrd": 0.02 ** (1 / steps)}), elbo)
    for _ in range(steps):
        svi.step(*data)
    return other


mean_field, full_normal = train_by_svi(AutoNormal), train_by_svi(AutoMultivariateNormal)

# %% [markdown]
# ### The guide with the symmetry
#
# `AutoGFlow` looks for a mode of the posterior and measures how far its nearest other image is. If the images were one
# mode, a flow on an invariant normal would do; if they were few and far apart, a sum over all images. Here there are
# too many for a sum, so it takes `Canonicalized`: the units of every event are brought into an order, by a *key* (a
# combination of the weights of a unit, made positive by the sign) and a plain flow scores the result.

# %%
pyro.clear_param_store()
pyro.set_rng_seed(0)
guide = AutoGFlow(model, action, args=data, check="raise")
print(guide.flow.base)
print(guide.base_choice)
settings = FitSettings(steps=5 if SMOKE else 700, batch_size=64, optimizer=Adam(lr=1e-2), schedule=OneCycle(warmup=0.1))
report = fit_energy(guide.flow, guide.log_density(*data), settings=settings, progress=False)
print(report)

# %% [markdown]
# The importance weights vary too much for an estimate of the evidence, and the report says so. The bounds below do not
# depend on them.
#
# Is the density the same at all images? Take one draw, a thousand random signed permutations of it, and compare.

# %%
z = guide.flow.dist.sample((1,)).clone()
some = guide.vector_action.sample((1000,))
images = guide.vector_action.act_each(some, z.expand(1000, -1))
with torch.no_grad():
    for name, values in {
        "AutoGFlow": guide.flow(images),
        "full normal": full_normal.get_posterior().log_prob(images),
    }.items():
        print(f"{name:12s} log q at 1,000 images: from {float(values.min()):.4f} to {float(values.max()):.4f}")

# %% [markdown]
# ### What each of them reports
#
# Two weights of the first unit: the in-weight of the body mass index, and the out-weight. The unit has no meaning of
# its own, so its posterior is that of any unit, with either sign. The guides without the symmetry give the first unit a
# role that nothing in the data gives it.

# %%
count = 200 if SMOKE else 4000


def draws_of(other):
    with torch.no_grad(), pyro.plate("draws", count, dim=-1):
        return {name: value.reshape(count, *value.shape[1:]) for name, value in other(*data).items()}


found = {"mean-field": draws_of(mean_field), "full normal": draws_of(full_normal), "AutoGFlow": guide.draw(count)}
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained", sharex=True, sharey=True)
for panel, (name, draws) in zip(axes, found.items(), strict=True):
    panel.plot(draws["w"][:, 0, 1], draws["v"][:, 0], ".", markersize=2)
    panel.set(title=name, xlabel="in-weight of bmi, unit 1", xlim=(-3, 3), ylim=(-1, 1))
axes[0].set_ylabel("out-weight, unit 1")
plt.show()

# %% [markdown]
# ### What it buys: the evidence
#
# The evidence lower bound (ELBO) of a guide is the log-evidence minus its divergence from the posterior. The
# canonicalized guide is $q(c(z)) / |G|$, where $q$ covers one image only: the bound of $q$ alone would be lower by
# exactly $\log |G|$. This is the most that the symmetry can bring. A guide without it may recover a part of this, where
# it covers several images that overlap.

# %%
elbo = Trace_ELBO(num_particles=count, vectorize_particles=True, max_plate_nesting=0)
with torch.no_grad():
    guides = {"mean-field": mean_field, "full normal": full_normal}
    bounds = {name: -elbo.loss(model, other, *data) for name, other in guides.items()}
bounds["AutoGFlow"] = report.log_normalizer - report.reverse_kl
for name, bound in bounds.items():
    print(f"{name:12s} bound on the log-evidence {bound:8.2f}")
print(f"{'':12s} log |G| {math.log(action.group.order):.2f}")

# %% [markdown]
# The canonicalized guide is 19.2 nats above mean-field and 9.9 above the full normal. The first figure is more than
# $\log |G|$, so a part of it comes from the more flexible shape of $q$, and how the rest is divided these bounds do not
# say. The benchmark `python -m benchmarks.hidden_units` compares with the same flow without the symmetry.
#
# ### What it buys: predictions
#
# The predictive density of the test patients does not depend on the order of the units, and one mode is enough for it.
# So nothing is to be gained from the symmetry itself here, only from a better shape of the posterior.

# %%
predictive = {}
for name, draws in found.items():
    with torch.no_grad():
        means = network(draws["w"], draws["b"], draws["v"], x[test])
        scores = dist.Normal(means, draws["noise"].reshape(-1, 1)).log_prob(y[test])
    predictive[name] = scores.logsumexp(0) - math.log(count)
for name, scores in predictive.items():
    gain = scores - predictive["mean-field"]
    print(
        f"{name:12s} log predictive density a patient {float(scores.mean()):.3f}, beside mean-field "
        f"{float(gain.mean()):+.3f} +- {float(gain.std()) / len(gain) ** 0.5:.3f}"
    )

bmi = torch.linspace(-2.5, 3.0, 60)
grid = torch.zeros(60, inputs)
grid[:, 1] = bmi
figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained", sharey=True)
for panel, (name, draws) in zip(axes, found.items(), strict=True):
    with torch.no_grad():
        curves = network(draws["w"], draws["b"], draws["v"], grid)
    low, high = curves.quantile(torch.tensor([0.05, 0.95]), dim=0)
    panel.plot(x[train][:, 1], y[train], ".", color="lightgray", markersize=3)
    panel.fill_between(bmi, low, high, alpha=0.4)
    panel.plot(bmi, curves.mean(0))
    panel.set(title=name, xlabel="bmi (all else average)")
axes[0].set_ylabel("progression")
plt.show()

# %% [markdown]
# Indeed: the guides differ by 0.022 nats a patient at most. The canonicalized guide is ahead of mean-field by less than
# the standard error of the difference, and not ahead of the full normal. Symmetry matters for the evidence and for
# statements about units, not for these predictions.
#
# ### Reading the draws
#
# `guide.draw(n)` is a dict of draws, as ArviZ takes them. Quantities that do not depend on the order of the units, such
# as the noise, can be read at once. For the others, `orbit_representative` puts every draw into the order and signs
# that best match the other draws (by an assignment of rows, not by a search through all elements). What remains in
# common is a summary of single units.

# %%
draws = guide.draw(count)
ordered = guide.orbit_representative(draws)
summary = {"noise": draws["noise"], "v": draws["v"], "v, in order": ordered["v"]}
posterior = arviz.from_dict(posterior={name: value[None].numpy() for name, value in summary.items()})
print(arviz.summary(posterior, kind="stats").to_string())

# %% [markdown]
# The opposite is `random_images`: draws of an algorithm that stays in one mode, such as NUTS, become draws of all of
# them. Here it undoes the ordering.

# %%
images = random_images(ordered, action)
print("standard deviation of the first out-weight, in order, under random images, and as drawn:")
print(" ".join(f"{float(each['v'][:, 0].std()):.3f}" for each in (ordered, images, draws)))

# %% [markdown]
# ## 2. Sets of points
#
# The digits of scikit-learn, 8 x 8 pixels, as sets of points: each point is a pixel drawn by its intensity, and a
# uniform place within it. The order of the points means nothing. The more ink a digit has, the more points it gets,
# from 18 to 40: sets of different sizes lie in one batch, filled up to 40 rows, with a mask of the rows that are there.

# %%
torch.set_default_dtype(torch.float32)
found_digits = load_digits()
pictures, labels = torch.as_tensor(found_digits.images).float(), torch.as_tensor(found_digits.target)
shuffled = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))
test, train = shuffled[:300], shuffled[300:]
most = 40
sizes = (pictures.sum((1, 2)) / 10).round().long().clamp(max=most)
print(f"{len(train)} digits to learn from, of {int(sizes.min())} to {int(sizes.max())} points")


def batch(digits, seed):
    """Sets of points in the square [-2, 2]^2, which rows are there, and the class as ten zeros and ones."""
    points = (point_clouds(pictures[digits], points=most, seed=seed) - 4) / 2
    mask = torch.arange(most) < sizes[digits, None]
    return points.flatten(1), mask, torch.nn.functional.one_hot(labels[digits], 10).float()


# %% [markdown]
# ### A flow of sets
#
# `RowsAction(40, 2)` is the group of all orders of 40 points. A coupling transforms one coordinate of every point by a
# spline; its network, a *deep set*, reads the other coordinate of the point, the means over all points, and here the
# class of the digit as a context of the whole set. The log-determinant is exact. Density and draws take one pass.

# %%
torch.manual_seed(0)
points = RowsAction(most, 2)
classes = points.trivial_fields(10)  # ten features of the set, which no permutation changes
spline = functools.partial(ElementwiseSpline, bins=16, limit=2.5)
layers = [g_coupling(points, transformer=spline, width=48, context_action=classes) for _ in range(2)]
flow = EquivariantFlow(InvariantNormal(points), layers)
steps, peak = 5 if SMOKE else 700, 5e-3
optimizer = torch.optim.Adam(flow.parameters())
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps)
generator = torch.Generator().manual_seed(0)
for _ in range(steps):
    events, mask, context = batch(train[torch.randint(len(train), (64,), generator=generator)], generator)
    loss = -(flow(events, context, mask=mask) / mask.sum(-1)).mean()  # new points at each step
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
    optimizer.step()
    schedule.step()

# %% [markdown]
# The order of the points has no effect, and neither has what fills the missing rows:

# %%
events, mask, context = batch(test[:1], 0)
rows = events.unflatten(-1, (most, 2))
order = torch.randperm(most)
filled = torch.where(mask[..., None], rows, 99.0)
with torch.no_grad():
    scores = {
        "as it is": flow(events, context, mask=mask),
        "in another order": flow(rows[:, order].flatten(1), context, mask=mask[:, order]),
        "other padding": flow(filled.flatten(1), context, mask=mask),
    }
for name, score in scores.items():
    print(f"{name:17s} log p of a set of {int(mask.sum())} points: {float(score):.4f}")

# %% [markdown]
# ### Samples beside data
#
# For each class: an image, its set of points, two draws of the flow of the same size, and the points of 300 draws one
# upon the other.

# %%
shown = torch.stack([test[labels[test] == digit][0] for digit in range(10)])
events, mask, context = batch(shown, 1)
density = flow.condition(context, mask=mask)
with torch.no_grad():
    drawn = density.sample((20 if SMOKE else 300,)).unflatten(-1, (most, 2))
figure, axes = plt.subplots(5, 10, figsize=(12, 6.4), layout="constrained")
for digit in range(10):
    there = mask[digit]
    axes[0, digit].imshow(pictures[shown[digit]], cmap="gray_r", extent=(-2, 2, 2, -2))
    tables = [events[digit].unflatten(-1, (most, 2)), drawn[0, digit], drawn[1, digit]]
    for panel, table, color in zip(axes[1:4, digit], tables, ("C0", "C1", "C1"), strict=True):
        panel.plot(*table[there].T, ".", color=color, markersize=4)
    axes[4, digit].hist2d(
        *drawn[:, digit][:, there].flatten(0, 1).T.numpy(), bins=40, range=[[-2, 2]] * 2, cmap="gray_r"
    )
for panel in axes.flat:
    panel.set(xlim=(-2, 2), ylim=(2, -2), xticks=[], yticks=[], aspect="equal")
for panel, name in zip(axes[:, 0], ("image", "its points", "a draw", "a draw", "300 draws"), strict=True):
    panel.set_ylabel(name)
plt.show()

# %% [markdown]
# How good is the density? In nats a point, with pixels as units of length: the uniform density on the square; points
# that are independent of each other, from the mean image of the class; the flow; and what a model would score that
# knows the image itself, from which the points were drawn.

# %%
ink = pictures.flatten(1) / pictures.sum((1, 2))[:, None]
means = torch.stack([ink[train][labels[train] == digit].mean(0) for digit in range(10)])
events, mask, context = batch(test, 0)
with torch.no_grad():
    flow_score = (flow(events, context, mask=mask) / mask.sum(-1)).mean() - 2 * math.log(2)
for name, score in {
    "uniform": torch.tensor(-math.log(64)),
    "independent points, mean image of the class": torch.xlogy(ink[test], means[labels[test]] + 1e-6).sum(1).mean(),
    "the flow": flow_score,
    "with the image known": torch.xlogy(ink[test], ink[test]).sum(1).mean(),
}.items():
    print(f"{name:44s} {float(score):.3f}")

# %% [markdown]
# After this short training the flow is about as good as independent points from the mean image of the class, which is
# what its draws show as well: it knows the class, and hardly the handwriting of a single digit. That needs more
# training, or a latent vector of the set that all points read.
#
# ## What to take home
#
# - Say how the rows are permuted, `RowsAction(n, features)`, with `signed=` where they also change sign. Nothing of the
#   size of the group is ever built.
# - For a posterior, `AutoGFlow` chooses the base by the distance of the mode to its nearest other image. With
#   `Canonicalized` the density is exactly the same at all images, at one evaluation.
# - The symmetry can raise the bound on the evidence by up to $\log |G|$, and it makes statements about single units
#   right. Predictive densities do not depend on the order of the units.
# - For sets, layers on rows cost a time that is linear in the number of rows, with exact log-determinants; a mask makes
#   one flow serve all sizes. `python -m benchmarks.point_clouds` fits MNIST, with a latent vector of each set.
