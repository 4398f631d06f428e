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
# # 6. Choosing a layer: when coupling cannot work, and residual can
#
# **The question.** *Coupling flows are fast both ways and exact. Why does `g_coupling` refuse my data, and what do I
# take instead?*
#
# A coupling layer leaves one part of the event as it is and changes the other part. For the layer to commute with the
# group, **the group must map each part to itself**. Whether there are such parts depends on the action alone, so this
# can be known, and is checked, before anything is trained. We go through four kinds of data.

# %%
import math
import os
import time

import matplotlib.pyplot as plt
import torch

from pyro_gflows import (
    ChannelSplit,
    CoordinateSplit,
    ElementwiseAffine,
    EquivariantFlow,
    GActNorm,
    GResidual,
    GSqueeze,
    ImageAction,
    InvariantNormal,
    IrrepSplit,
    MaskSplit,
    MatrixScale,
    VectorAction,
    checkerboard_split,
    g_autoregressive,
    g_coupling,
    g_residual,
)
from pyro_gflows.datasets import digits
from pyro_gflows.evaluation import log_probs, nll
from pyro_gflows.nn import LipschitzSum, Ridges
from pyro_gflows.plots import draw_density
from pyro_gflows.testing import assert_equivariant, randomize_
from pyro_gflows.training import Adam, FitSettings, OneCycle, fit

SMOKE = os.environ.get("PYRO_GFLOWS_SMOKE") == "1"  # a short run that only shows that the code works

# %% [markdown]
# ## One irreducible vector: coupling cannot work
#
# Points of the plane under $C_5$, rotations by 72 degrees. A usual coupling layer would hold $x_1$ and change $x_2$: but
# the rotations do not map the axes to themselves. No line is mapped to itself (left picture). The vector is
# *irreducible*, and the error says so.

# %%
action = VectorAction.plane("C5")
try:
    g_coupling(action)
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
# A residual layer, $y = x + f(x)$, splits nothing. It only needs an equivariant contraction $f$. Here is one with
# random weights: an equivariant vector field (middle), and the density of six such layers (right).

# %%
torch.manual_seed(1)
branches = [LipschitzSum([Ridges(action, 4, knots=16)]) for _ in range(6)]
layers = [randomize_(GResidual(action, branch), scale=0.8) for branch in branches]
line = torch.linspace(-3, 3, 17)
grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
with torch.no_grad():
    field = layers[0].branch(grid)
assert_equivariant(layers[0].double(), action, action, torch.randn(20, 2, dtype=torch.float64))
flow = EquivariantFlow(InvariantNormal(action), layers).float()

figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
for index, image in enumerate(action.act_all(torch.tensor([3.0, 0.0]))):
    axes[0].plot([-image[0], image[0]], [-image[1], image[1]], color="C1" if index == 0 else "C0", linewidth=2)
axes[0].set_title("a line (orange) and its images")
axes[1].quiver(grid[..., 0], grid[..., 1], field[..., 0], field[..., 1], angles="xy")
axes[1].set_title("an equivariant field f")
draw_density(axes[2], lambda x: log_probs(flow, x), reach=3.6, title="a density of six such layers", points=100)
for panel in axes:
    panel.set(xlim=(-3.6, 3.6), ylim=(-3.6, 3.6), aspect="equal", xticks=[], yticks=[])
plt.show()

# %% [markdown]
# (Under SO(2) or O(2), and SO(3) or O(3) in space, an invariant density is a function of the radius alone. There
# `g_radial`, a spline of the radius with a closed-form inverse, does all that can be done.)
#
# ## Several vectors that rotate together: coupling works, with the right scale
#
# Two vectors of the plane, rotated together by any angle: the second one is shorter, and 90 degrees ahead of the
# first. Now each vector is a part of its own. But an element-wise scale does not commute with rotations, so it is
# refused:

# %%
pair = VectorAction.plane("SO(2)", copies=2)
try:
    g_coupling(pair, transformer=ElementwiseAffine)
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
# What commutes: one invariant scale for each vector (`IrrepScale`, the default), or $\exp(S)$ of an equivariant
# matrix (`MatrixScale`). The shift is an equivariant vector, made from the other part. We fit these, an
# autoregressive flow, and a residual one, and time them.


# %%
def pairs(n, seed):
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.rand(n, generator=generator)
    first = torch.stack([angle.cos(), angle.sin()], -1)
    ahead = torch.stack([-angle.sin(), angle.cos()], -1)
    return torch.cat([2 * first, ahead], -1) + 0.2 * torch.randn(n, 4, generator=generator)


def exact_log_prob(x):
    """The mean over the hidden angle, by a sum that is exact to rounding."""
    angle = torch.arange(360) * (2 * math.pi / 360)
    centers = torch.stack([2 * angle.cos(), 2 * angle.sin(), -angle.sin(), angle.cos()], -1)
    squares = torch.cdist(x, centers).square()
    return torch.logsumexp(-squares / (2 * 0.2**2), -1) - math.log(360 * (2 * math.pi * 0.2**2) ** 2)


def milliseconds(function, argument):
    """The fastest of five runs."""
    times = []
    with torch.no_grad():
        for _ in range(5):
            start = time.perf_counter()
            function(argument)
            times.append(time.perf_counter() - start)
    return 1e3 * min(times)


first, second = CoordinateSplit(pair), CoordinateSplit(pair, [[2, 3], [0, 1]])
families = {
    "coupling, IrrepScale": lambda index: g_coupling(pair, width=4),
    "coupling, MatrixScale": lambda index: g_coupling(pair, width=4, transformer=MatrixScale),
    # the first block never moves as the other says, so the order alternates
    "autoregressive": lambda index: g_autoregressive(pair, width=4, split=[first, second][index % 2]),
    "residual": lambda index: g_residual(pair),
}
train, test = pairs(5000, seed=0), pairs(5000, seed=1)
settings = FitSettings(
    steps=5 if SMOKE else 300, batch_size=250, optimizer=Adam(lr=1.5e-2), schedule=OneCycle(warmup=0.1)
)
flows = {}
print(f"{'':28s} parameters  test NLL  ms to score / draw 1000")
for name, make in families.items():
    torch.manual_seed(0)
    depth = 6 if name == "residual" else 4  # a contraction is a small step, so it takes more of them
    layers = [layer for index in range(depth) for layer in (GActNorm(pair), make(index))]
    flow = flows[name] = EquivariantFlow(InvariantNormal(pair), [*layers, GActNorm(pair)])
    fit(flow, train, settings=settings, progress=False)
    count = sum(p.numel() for p in flow.parameters())
    score, draw = milliseconds(flow, test[:1000]), milliseconds(flow.dist.sample, (1000,))
    print(f"{name:28s} {count:10d}  {nll(flow, test):8.3f}  {score:8.0f} / {draw:.0f}")
print(f"{'the truth':28s} {'':10s}  {-float(exact_log_prob(test).mean()):8.3f}")

# %%
torch.manual_seed(0)
with torch.no_grad():
    draws = {"data": test[:400]} | {name: flow.dist.sample((400,)) for name, flow in flows.items()}
figure, axes = plt.subplots(1, 5, figsize=(15, 3.3), layout="constrained")
for panel, (name, x) in zip(axes, draws.items(), strict=True):
    panel.plot(x[:, 0], x[:, 1], ".", markersize=2, label="first vector")
    panel.plot(x[:, 2], x[:, 3], ".", markersize=2, label="second vector")
    panel.quiver(x[:8, 0], x[:8, 1], x[:8, 2], x[:8, 3], angles="xy", scale_units="xy", scale=1, width=0.008)
    panel.set(title=name, xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal", xticks=[], yticks=[])
axes[0].legend(fontsize=7, loc="upper right")
plt.show()

# %% [markdown]
# Blue and orange are the two vectors; the arrows show, for eight events, the second vector drawn at the tip of the
# first. All of them find that it points ahead, counter-clockwise. (Had we said O(2), they could not: a reflection maps ahead
# to behind, so both would come out equally often. The group is an assumption.) Where the event can be split, coupling is
# the first choice: fast both ways. The residual flow works as well, with fewer parameters, but draws more slowly, since
# each of its layers is inverted by an iteration.
#
# ## Permuted coordinates: coupling, element by element
#
# The regular representation of $C_4$ permutes four coordinates in a ring. Permutations do commute with an element-wise
# scale (if the scales are permuted as well), so the coupling is as rich as a usual one. Two rings split into ring |
# ring. The four coordinates of *one* ring are a single orbit, so no coordinate may be held alone; but its Fourier
# parts may.

# %%
rings = VectorAction.regular("C4", copies=2)
print(CoordinateSplit(rings))
try:
    CoordinateSplit(VectorAction.regular("C4"))
except ValueError as error:
    print("ValueError:", error)
print(IrrepSplit(VectorAction.regular("C4")))

layer = randomize_(g_coupling(rings).double(), generator=torch.Generator().manual_seed(0))
assert_equivariant(layer, rings, rings, torch.randn(20, 8, dtype=torch.float64))

# %% [markdown]
# ## Images: which checkerboard?
#
# Coupling flows on images hold the black pixels of a checkerboard. On a grid of even size a rotation by 90 degrees exchanges
# black and white, so the usual checkerboard is not allowed:

# %%
image = ImageAction("D4", size=8)
plain = (torch.arange(8)[:, None] + torch.arange(8)) % 2 == 0
try:
    MaskSplit(image, plain)
except ValueError as error:
    print("ValueError:", error)
print(checkerboard_split(image))

# %% [markdown]
# A checkerboard in one quadrant, mirrored at both axes, is invariant. Another way is to *squeeze*: four pixels become
# four channels. They are one orbit, so they cannot be shared out channel by channel; but their mean and their three
# differences (the irreps) can. After a second squeeze there are several orbits, and channels can be split.

# %%
squeeze = GSqueeze(image)
again = GSqueeze(squeeze.action_out)
mean_and_details = IrrepSplit(squeeze.action_out)
print("one squeeze:", mean_and_details)
print("two squeezes:", ChannelSplit(again.action_out))

x = digits().train[4]
board = checkerboard_split(image)
held, moving = board.split(x)
mean, details = mean_and_details.split(squeeze(x))
figure, axes = plt.subplots(2, 4, figsize=(10, 5), layout="constrained")
quarter = image.act(torch.tensor(1), plain[None].float())[0]
top = {"usual board": plain, "rotated: black is white": quarter, "mirrored board": board.mask, "a digit": x[0]}
absent = torch.tensor(float("nan"))  # drawn in blue
bottom = {
    "held": torch.where(board.mask, held[0], absent),
    "changed": torch.where(board.mask, absent, moving[0]),
    "squeezed: the mean": mean[0],
    "squeezed: a detail": details[0],
}
for panel, (title, picture) in zip(axes.flat, (top | bottom).items(), strict=True):
    panel.imshow(picture, cmap=plt.get_cmap("gray").with_extremes(bad="lightsteelblue"))
    panel.set(title=title, xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## What to take home
#
# | your event | take | because |
# | --- | --- | --- |
# | one irreducible vector | `g_residual`; radial: `g_radial` | no part of it is invariant |
# | several vectors | `g_coupling` with `IrrepScale` or `MatrixScale`, or `g_residual` | each vector is a part; element-wise scales do not commute with rotations |
# | permuted coordinates, regular fields | `g_coupling`, element-wise | scales can be permuted along |
# | images | the mirrored checkerboard; squeeze, then irreps or channels; residual CNN | orbits of pixels must stay together |
#
# Whichever you take, `assert_equivariant` tests whether it is equivariant.
