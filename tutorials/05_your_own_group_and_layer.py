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
# # 5. Your own group, your own layer
#
# **The question.** *My data's symmetry has no name in the list, and I know something about my data that no ready-made
# layer expresses. Can I bring both, and how do I know that I made no mistake?*
#
# A group comes in as a few matrices or permutations. A layer comes in as two functions. And
# `pyro_gflows.testing` certifies a layer: that it commutes with the group, that its inverse is one, and that its
# log-determinant is right, each to rounding. We make the mistakes first.

# %%
import os
import tempfile

import matplotlib.pyplot as plt
import torch
from torch import nn

from pyro_gflows import EquivariantFlow, EquivariantTransform, GActNorm, InvariantNormal, VectorAction, registered
from pyro_gflows.evaluation import nll
from pyro_gflows.serialization import load, save
from pyro_gflows.testing import assert_bijective, assert_equivariant, assert_invariant, assert_log_det, randomize_
from pyro_gflows.training import Adam, FitSettings, fit

SMOKE = os.environ.get("PYRO_GFLOWS_SMOKE") == "1"  # a short run that only shows that the code works

# %% [markdown]
# ## The data: a plate with a sensor at each corner
#
# Four thermometers sit at the corners of a rectangular plate. Nobody wrote down in which orientation the plate was
# mounted, so a reading and its mirror images are equally likely: left-right, top-bottom, and both.
#
# ```
#   0 --- 1        left-right exchanges 0 with 1 and 2 with 3
#   |     |        top-bottom exchanges 0 with 2 and 1 with 3
#   2 --- 3
# ```
#
# And one more thing is known: *the hotter the plate, the more the corners differ.*

# %%
PATTERNS = torch.tensor([[1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2  # left-right, top-bottom, diagonal
SIZES = torch.tensor([0.8, 0.4, 0.2])


def log_spread(level):
    return 0.9 * torch.tanh(1.5 * level)


def plates(n, seed):
    """Readings (n, 4), and their exact mean negative log-density."""
    generator = torch.Generator().manual_seed(seed)
    level = torch.randn(n, 1, generator=generator)
    noise = torch.randn(n, 3, generator=generator)
    x = level + log_spread(level).exp() * (noise * SIZES) @ PATTERNS
    normal = torch.distributions.Normal(0.0, 1.0)
    # the level enters along (1, 1, 1, 1), of length 2; each pattern is stretched by its size and the spread
    log_p = normal.log_prob(level) + normal.log_prob(noise).sum(-1, keepdim=True)
    log_p = log_p - torch.log(torch.tensor(2.0)) - SIZES.log().sum() - 3 * log_spread(level)
    return x, -float(log_p.mean())


train, _ = plates(2000, seed=0)
test, floor = plates(20_000, seed=1)

# %% [markdown]
# ## The group
#
# A permutation `p` takes entry `j` to place `p[j]`. The group is whatever the generators generate; it is closed under
# products, checked to be orthogonal and finite, and decomposed into irreducible parts, numerically, from the matrices
# alone.

# %%
action = VectorAction.from_generators([[1, 0, 3, 2], [2, 3, 0, 1]], name="plate")
print(action)
print(len(action.elements()), "elements; irreducible parts:")
for part in action.decomposition:
    direction = part.basis.flatten(0, 1)[0].round(decimals=3).tolist()
    print(f"  {part.multiplicity} x dimension {part.dim}, along {direction}")

# %%
reading = torch.tensor([20.0, 21.0, 22.0, 23.0])
figure, axes = plt.subplots(1, 4, figsize=(9, 1.9), layout="constrained")
for panel, element, image in zip(axes, action.elements(), action.act_all(reading), strict=True):
    panel.imshow(image.reshape(2, 2), cmap="inferno", vmin=19, vmax=24)
    for corner, value in enumerate(image.tolist()):
        panel.text(corner % 2, corner // 2, f"{value:.0f}", ha="center", va="center", color="white")
    panel.set_title(f"element {int(element)}", fontsize=9)
    panel.set_axis_off()
plt.show()

# %% [markdown]
# Matrices come in the same way. One that is not orthogonal is refused, with its defect:

# %%
try:
    VectorAction.from_generators([[[1.0, 0.1], [0.0, 1.0]]])
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
# ## A layer, with two mistakes
#
# We want to say: *the deviations from the level are stretched by a factor that depends on the level.* With the level
# $m$,
#
# $$ y = m + (x - m)\,e^{s(m)}, \qquad s(m) = a \tanh(b\,m + c). $$
#
# A layer is an `EquivariantTransform` with `call_and_ladj` and `inv_call_and_ladj`: the image, and the log of the
# absolute Jacobian determinant of that very map. Here is a first try. It takes corner 0 for the level, and counts
# four stretched directions.


# %%
class FirstTry(EquivariantTransform):
    def __init__(self, action):
        super().__init__(action)
        self.a = nn.Parameter(torch.zeros(()))
        self.b = nn.Parameter(torch.ones(()))
        self.c = nn.Parameter(torch.zeros(()))

    def level(self, x):
        return x[..., :1]

    def log_stretch(self, level):
        return self.a * torch.tanh(self.b * level + self.c)

    def log_det(self, level):
        return 4 * self.log_stretch(level).squeeze(-1)

    def call_and_ladj(self, x):
        m = self.level(x)
        return m + (x - m) * self.log_stretch(m).exp(), self.log_det(m)

    def inv_call_and_ladj(self, y):
        m = self.level(y)  # the layer leaves the level alone
        return m + (y - m) * (-self.log_stretch(m)).exp(), -self.log_det(m)


# %% [markdown]
# It runs, trains and samples. Would you see the mistakes in a loss curve? The checks find them at once, and name the
# element and the sample. Two habits: float64, so that an error is structure and not rounding; and random weights,
# because a fresh layer is the identity, which passes every check.

# %%
x = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def try_check(check, *arguments):
    try:
        check(*arguments)
    except AssertionError as error:
        print(f"{check.__name__}: FAILED\n   {error}")
    else:
        print(f"{check.__name__}: passed")


def certify(layer):
    randomize_(layer.double(), generator=torch.Generator().manual_seed(0))
    try_check(assert_equivariant, layer, action, action, x)
    try_check(assert_bijective, layer, x)
    try_check(assert_log_det, layer, x)


certify(FirstTry(action))

# %% [markdown]
# The inverse is right, the other two are not. The level must be *invariant*: the mean of the corners is. Once more:


# %%
class SecondTry(FirstTry):
    def level(self, x):
        return x.mean(-1, keepdim=True)


certify(SecondTry(action))

# %% [markdown]
# Now it commutes with the group; and the message shows that the log-det is too large by a third. The direction of the
# level itself is not stretched: three directions are, not four.
#
# `@registered` lets a saved model be described as JSON and rebuilt from it, with no pickle.


# %%
@registered
class SpreadByLevel(SecondTry):
    """Stretches the deviations from the mean by a factor that depends on the mean."""

    def log_det(self, level):
        return 3 * self.log_stretch(level).squeeze(-1)


certify(SpreadByLevel(action))

# %% [markdown]
# ## The layer in a flow
#
# The base is the general invariant Gaussian: its covariance is any that commutes with the group, which for the plate
# is one variance for each of the four patterns; and a mean along the level. The flow's density is invariant before
# training, and after it.


# %%
def make(*transforms):
    base = InvariantNormal(action, covariance="full", mean=True)
    return EquivariantFlow(base, [GActNorm(action), *transforms])


settings = FitSettings(steps=5 if SMOKE else 1000, batch_size=500, optimizer=Adam(lr=2e-2))
gaussian, flow = make(), make(SpreadByLevel(action))
for name, candidate in [("invariant Gaussian", gaussian), ("with SpreadByLevel", flow)]:
    fit(candidate, train, settings=settings, progress=False)
    count = sum(p.numel() for p in candidate.parameters())
    print(f"{name}: {count} parameters, test NLL {nll(candidate, test):.3f} (the truth: {floor:.3f})")
assert_invariant(flow, action, test[:100])

# %%
torch.manual_seed(0)
with torch.no_grad():
    draws = {"invariant Gaussian": gaussian.dist.sample((3000,)), "with SpreadByLevel": flow.dist.sample((3000,))}
figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), sharex=True, sharey=True, layout="constrained")
for panel, (name, readings) in zip(axes, ({"data": test[:3000]} | draws).items(), strict=True):
    panel.plot(readings.mean(-1), readings.std(-1), ".", markersize=2)
    panel.set(title=name, xlabel="level: mean of the corners")
axes[0].set_ylabel("spread: sd of the corners")
plt.show()

# %% [markdown]
# ## Saved and loaded
#
# Weights as safetensors, structure as JSON; your class is found by its registered name.

# %%
with tempfile.TemporaryDirectory() as folder:
    save(flow, folder)
    print(sorted(os.listdir(folder)))
    again = load(folder)
print("same log-probs:", torch.equal(again(test), flow(test)))

# %% [markdown]
# ## What to take home
#
# - A group is a list of generators. What is not a finite orthogonal group is refused before anything is built.
# - A layer is two functions. What makes it equivariant is nearly always the same: coefficients computed from
#   *invariants*, and vectors that transform *as the data do*.
# - Certify it with random weights, in float64, with the four checks of `pyro_gflows.testing`. They fit in a
#   unit test of your own.
