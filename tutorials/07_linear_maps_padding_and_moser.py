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
# # 7. What equivariant linear maps look like, why padding makes residual flows universal, and how an invariant density gets its map
#
# **The question.** *Which maps can an equivariant flow represent, and which ones can it not?*
#
# Three answers, each with a picture. Linear layers: all linear maps that commute with the group are known, and their
# exponentials, triangular factors and Fourier symbols make them invertible. Residual layers: some maps are out of reach
# of every residual flow, and a few more dimensions (padding) are the remedy. Densities: on a torus, every smooth
# invariant density has an equivariant map that makes it from the uniform one, and Moser's construction computes it.

# %%
import math
import os

import matplotlib.pyplot as plt
import torch

from pyro_gflows import (
    Compose,
    EquivariantFlow,
    GActNorm,
    GLinear,
    GResidual,
    ImageAction,
    InvariantNormal,
    VectorAction,
    augment,
    fit,
    g_coupling,
    residual_realization,
)
from pyro_gflows.actions import TorusAction
from pyro_gflows.evaluation import log_probs
from pyro_gflows.flows import g_padding
from pyro_gflows.nn import LipschitzSum, Ridges
from pyro_gflows.plots import draw_density
from pyro_gflows.targets import density
from pyro_gflows.testing import assert_equivariant, randomize_
from pyro_gflows.training import Adam, FitSettings, OneCycle
from pyro_gflows.transforms import GConvExponential, GLinearPLU, GSpectralConv, moser

SMOKE = os.environ.get("PYRO_GFLOWS_SMOKE") == "1"  # a short run that only shows that the code works

# %% [markdown]
# ## 1. Equivariant linear maps
#
# ### On vectors: one pattern of equal entries
#
# The eight elements of $D_4$ permute eight coordinates (the regular representation). A matrix that commutes with these
# permutations has 8 free entries out of 64: one for each group element, and each of them appears 8 times. `GLinear` is
# the exponential of such a matrix, and has the same pattern. Its eigenvalues are exponentials, so none is 0 or
# negative. Some invertible maps are thus out of its reach; `GLinearPLU`, in triangular factors, represents every one:

# %%
regular = VectorAction.regular("D4")
layer = randomize_(GLinear(regular).double(), scale=0.5, generator=torch.Generator().manual_seed(2))
matrix = layer(torch.eye(8, dtype=torch.float64)).T.detach()
shuffled = randomize_(GLinear(regular).double(), scale=0.7, generator=torch.Generator().manual_seed(5))
product = -matrix @ shuffled(torch.eye(8, dtype=torch.float64)).T.detach()
triangular = GLinearPLU.from_matrix(regular, product)
error = float((triangular(torch.eye(8, dtype=torch.float64)).T - product).detach().abs().max())
print(f"a matrix of determinant {float(torch.linalg.det(product)):.3g} in triangular factors: error {error:.0e}")

figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
for panel, picture, title in zip(
    axes[:2], (matrix, product), ("an exponential (GLinear)", "in triangular factors (GLinearPLU)"), strict=True
):
    limit = float(picture.abs().max())
    panel.imshow(picture, cmap="RdBu", vmin=-limit, vmax=limit)
    panel.set(title=title, xticks=[], yticks=[])
for picture, marker, name in ((matrix, "o", "GLinear"), (product, "x", "GLinearPLU")):
    values = torch.linalg.eigvals(picture)
    axes[2].plot(values.real, values.imag, marker, label=name)
axes[2].axvline(0, color="gray", linewidth=0.5)
axes[2].axhline(0, color="gray", linewidth=0.5)
axes[2].set_title("eigenvalues")
axes[2].legend()
plt.show()

# %% [markdown]
# ### On images: convolutions
#
# On images, equivariant linear maps are convolutions. Under the rotations and reflections of the square the kernel
# takes one value on each orbit of offsets: a 3 x 3 kernel of one channel has 3 free weights. `GConvExponential` is
# the exponential $e^K$ of such a convolution: its response to a single pixel reaches much further than the kernel.
# Its inverse is $e^{-K}$. `GSpectralConv` is defined by its Fourier coefficients, $e^{A(k)}$ at each frequency $k$; no
# frequency is erased, which is exactly what makes a convolution invertible.

# %%
images = ImageAction.translations(1, size=17, point_group="D4")
exponential = randomize_(
    GConvExponential(images, bias=False).double(), scale=0.6, generator=torch.Generator().manual_seed(3)
)
spectral = randomize_(GSpectralConv(images, support=9).double(), scale=0.15, generator=torch.Generator().manual_seed(0))
pixel = torch.zeros(1, 17, 17, dtype=torch.float64)
pixel[0, 8, 8] = 1.0
figure, axes = plt.subplots(2, 3, figsize=(10, 6.4), layout="constrained")
for row, (name, convolution) in zip(
    axes, {"GConvExponential": exponential, "GSpectralConv": spectral}.items(), strict=True
):
    assert_equivariant(convolution, images, images, torch.randn(2, 1, 17, 17, dtype=torch.float64))
    with torch.no_grad():
        forward, backward = convolution(pixel)[0], convolution.inv(pixel)[0]
        log_det = float(convolution.call_and_ladj(pixel)[1])
    spectrum = torch.fft.fftshift(torch.fft.fft2(forward).abs().log())
    pictures = {"response to a pixel": forward, "of the inverse": backward, "log of the spectrum": spectrum}
    for panel, (title, picture) in zip(row, pictures.items(), strict=True):
        limit = float(picture.abs().max())
        panel.imshow(picture, cmap="RdBu", vmin=-limit, vmax=limit)
        panel.set(title=f"{name}: {title}", xticks=[], yticks=[])
        panel.title.set_fontsize(9)
    print(f"{name}: log-det {log_det:.6f}, sum of the log-spectrum {float(spectrum.sum()):.6f}")
plt.show()

# %% [markdown]
# The log-det is the sum of the logarithms of all Fourier coefficients, yet neither layer computes it that way: it is
# the number of pixels times the value of the kernel at offset 0.
#
# ## 2. Padding makes residual flows universal
#
# ### A map that no residual flow reaches
#
# Take the map $x \mapsto -x$ of the plane under $D_4$, the symmetries of the square. It commutes with the group, it is
# linear, it keeps volume: nothing is simpler. But every reflection of $D_4$ leaves the points of its mirror line as
# they are, so an equivariant map sends each mirror line to itself. On this line a residual layer $t + f(t)$ with a
# contraction $f$ is *increasing*, and so is every chain of such layers. The map $-x$ is decreasing there. The four
# mirror lines cut the plane into eight chambers, and an equivariant residual flow maps each chamber to itself.

# %%
plane = VectorAction.plane("D4")


def chain(action, layers=8, seed=0):
    """Residual layers of ridge functions."""
    torch.manual_seed(seed)
    branches = [LipschitzSum([Ridges(action, 4, knots=8)], bound=0.99) for _ in range(layers)]
    return Compose([GResidual(action, branch, fast="sample") for branch in branches])


t = torch.linspace(-3, 3, 301)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for angle, name in ((0.0, "horizontal mirror line"), (math.pi / 4, "diagonal mirror line")):
    direction = torch.tensor([math.cos(angle), math.sin(angle)])
    for seed in range(5):
        flow = randomize_(chain(plane, seed=seed), scale=2.0, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            axes[int(angle > 0)].plot(t, flow(t[:, None] * direction) @ direction, color="C0", alpha=0.7)
    axes[int(angle > 0)].plot(t, -t, "--", color="C1", label="x to -x")
    axes[int(angle > 0)].set_title(f"five random flows on the {name}")
    axes[int(angle > 0)].legend()
plt.show()

# %% [markdown]
# Without the mirrors there is no such obstruction. Under the rotations $C_4$ alone, the rotation by 45 degrees is a
# residual layer ($f(x) = Rx - x$ has the Lipschitz constant $2 \sin 22.5° = 0.77$), and four of them are $-x$.
#
# ### The remedy
#
# Give every point a second vector $z$, the *padding*, that starts at 0 and that the group rotates and reflects as it
# does $x$. On the padded space the lines are no longer separated: the path can go around the origin. For any
# equivariant bijection $F$ that is Lipschitz with its inverse, `residual_realization` makes a chain of residual layers
# that maps $(x, 0)$ to $(F(x), 0)$ *exactly*: write $\delta F(x)$ into the padding, erase $x$ by means of it, write
# $F(x)$ in its place, and erase the padding.

# %%
realized = residual_realization(torch.neg, torch.neg, action=plane, lipschitz=(1.0, 1.0))
print(realized)
x = torch.randn(1000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
error = (realized(realized.pad(x)) + realized.pad(x)).abs().max()
print(f"largest error of x to -x at 1,000 points: {float(error):.0e}")
assert_equivariant(realized, realized.action_in, realized.action_in, torch.randn(20, 4, dtype=torch.float64))

# %% [markdown]
# The padding has to carry the same representation as $x$: with a padding that the group leaves as it is, already the
# first step, $z + \delta F(x)$, is not equivariant. The same works for maps that are not linear, here the twist
# $x \mapsto R(\theta(|x|))\,x$ by an angle of up to 180 degrees, under all rotations. Left: the path of one point on
# a mirror line, in its coordinate and that of its padding. Right: a grid before and after the twist.


# %%
def twist(sign):
    def function(x):
        angle = sign * math.pi / (1 + x.square().sum(-1))  # r |theta'(r)| is at most pi / 2
        cos, sin = angle.cos(), angle.sin()
        return torch.stack([cos * x[..., 0] - sin * x[..., 1], sin * x[..., 0] + cos * x[..., 1]], -1)

    return function


def path(transform, x):
    """The points after each layer."""
    points = [x]
    for layer in transform.steps:
        points.append(layer(points[-1]))
    return torch.stack(points).detach()


constant = 1 + math.pi / 2
twisted = residual_realization(twist(1), twist(-1), action=VectorAction.plane("SO(2)"), lipschitz=(constant, constant))
print(twisted)
figure, axes = plt.subplots(1, 3, figsize=(13, 4.1), layout="constrained")
for start, color in ((1.0, "C0"), (0.5, "C1"), (-0.75, "C2")):
    points = path(realized, realized.pad(torch.tensor([start, 0.0])))
    axes[0].plot(points[:, 0], points[:, 2], "-o", color=color, markersize=4)
    axes[0].plot(points[0, 0], points[0, 2], "s", color=color, markersize=9)
axes[0].axhline(0, color="gray", linewidth=0.5)
axes[0].axvline(0, color="gray", linewidth=0.5)
axes[0].set(xlabel="x on the mirror line", ylabel="padding", title="x to -x goes around the origin")
axes[0].set_aspect("equal")
line = torch.linspace(-2, 2, 200, dtype=torch.float64)
for value in torch.linspace(-2, 2, 9, dtype=torch.float64):
    for curve in (torch.stack([line, value.expand(200)], -1), torch.stack([value.expand(200), line], -1)):
        image = twisted(twisted.pad(curve))
        axes[1].plot(curve[:, 0], curve[:, 1], color="C0", linewidth=0.7)
        axes[2].plot(image[:, 0], image[:, 1], color="C0", linewidth=0.7)
axes[1].set_title("a grid")
axes[2].set_title(f"its image by {sum(twisted.counts)} residual layers")
for panel in axes[1:]:
    panel.set(aspect="equal", xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ### Learned
#
# That a map can be represented does not mean that training finds it. Here it does: eight residual layers of ridge
# functions, trained from random weights by least squares to map $(x, 0)$ to $(-x, 0)$. Without padding the same
# layers, trained in the same way, do what is best in their power and shrink everything towards 0: in the chamber of
# $x$ no point is nearer to $-x$ than 0 is, so the squared error is at least $|x|^2$, at every single point. (Longer
# training brings the error with padding to about 3e-5, see `python -m benchmarks.padding`.)


# %%
def errors(flow, x):
    padded = torch.nn.functional.pad(x, (0, flow.action_in.numel - 2))
    y = padded
    for layer in flow.transforms:
        y = y + layer.branch(y)  # the value of the layer, without its log-det
    return (y + padded).square().sum(-1)


steps = 5 if SMOKE else 600
learned = {}
for name, action in {"with padding": VectorAction.plane("D4", copies=2), "without padding": plane}.items():
    flow = chain(action)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(steps):
        loss = errors(flow, torch.randn(256, 2)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    learned[name] = flow
x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(1))
figure, panel = plt.subplots(figsize=(6, 4), layout="constrained")
for name, flow in learned.items():
    with torch.no_grad():
        found = errors(flow, x)
    print(f"{name}: mean squared error {float(found.mean()):.4g}, mean of |x|^2 {float(x.square().sum(-1).mean()):.4g}")
    panel.loglog(x.square().sum(-1), found, ".", markersize=3, label=name)
    if name == "without padding":
        assert (found > 0.999 * x.square().sum(-1)).all()  # rounding in float32
panel.loglog(x.square().sum(-1).sort().values, x.square().sum(-1).sort().values, color="black", linewidth=0.8)
panel.set(xlabel="squared length of x", ylabel="squared error", title="x to -x, learned")
panel.legend()
plt.show()

# %% [markdown]
# ### Densities with a padding
#
# All layers of `residual_realization` are shears, with log-det 0 on the padded space: that says nothing of the density
# of $F(x)$. `augment` makes a density of $x$ from a flow of $(x, a)$. The padding $a$ is integrated out: in training
# by a lower bound, with an equivariant density $q(a \mid x)$ that is trained together with the flow; in evaluation by
# importance weights. More layers apply on the padded space. Under $D_4$ a coupling cannot split a single vector of
# the plane, but it can split $x$ from $a$. The density is exactly invariant, and so is its estimate under a finite
# group.
#
# Padding is no cure-all. These couplings scale a vector of the plane as a whole, so six of them find the ring sooner
# than the eight bumps, and residual layers, which need no split, fit this target far better without any padding
# (`benchmarks/results/densities.md`). Where couplings are possible with and without padding, these ones gain by it on
# this target, and not on the rings (`benchmarks/results/augmented.md`).

# %%
target = density("8gaussians")
padded = plane.direct_sum(plane)
torch.manual_seed(0)
layers = [layer for _ in range(6) for layer in (GActNorm(padded), g_coupling(padded, width=6, depth=1))]
flow = EquivariantFlow(InvariantNormal(padded), [*layers, GActNorm(padded)])
model = augment(flow, padding=g_padding(plane, plane, layers=1, width=8))
print(repr(model).splitlines()[0])
settings = FitSettings(
    steps=40 if SMOKE else 300, batch_size=256, optimizer=Adam(lr=1e-2, clip_norm=10.0), schedule=OneCycle(warmup=0.1)
)
fit(model, target, settings=settings, progress=False)
x = target.sample(500, torch.Generator().manual_seed(2))
torch.manual_seed(0)
for draws in (1, 8, 64):
    nats = -float(model.importance_bound(x, draws=draws, batch_size=16384).mean())
    print(f"{draws:3d} draws of the padding: mean of -log p(x) at most {nats:.3f} nats (entropy {target.floor:.3f})")
score = log_probs(model, x[:100])
image = log_probs(model, plane.act(5, x[:100]))
print(f"invariance error of the estimate: {float((score - image).abs().max()):.0e} in float32")
figure, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
draw_density(axes[0], target.log_prob, reach=4.2, title="the target", points=60)
draw_density(axes[1], lambda x: log_probs(model, x), reach=4.2, title="couplings on a padded space", points=60)
for panel in axes:
    panel.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## 3. How an invariant density gets its map
#
# A flow pushes an invariant base forward by an equivariant map, and so its density is invariant. Conversely, has every
# invariant density such a map? On a torus the answer is constructive (Moser). To carry a density $p$ to a density $q$,
# solve Poisson's equation $\Delta \phi = p - q$ on the torus. Its solution $\phi$ is invariant if $p$ and $q$ are, so
# the vector field
# $$v_t = \frac{\nabla \phi}{(1 - t)\,p + t\,q}, \qquad t \in [0, 1],$$
# is equivariant, and so is the map that follows it from time 0 to time 1. Here two angles have a density with the
# symmetries of the square and with translations by half a period, and points start uniformly.

# %%
symmetry = TorusAction.point_group("D4").with_translations([[math.pi, math.pi]])
print(symmetry)


def uniform(x):
    return -2 * math.log(2 * math.pi) + 0 * x[..., 0]


def bumps(x):
    waves = 0.4 * (x[..., 0].cos() * x[..., 1].cos()) + 0.25 * (2 * x).cos().sum(-1)
    return (1 + waves).log() - 2 * math.log(2 * math.pi)


flow = moser(uniform, bumps, symmetry, grid=16 if SMOKE else 64, steps=8 if SMOKE else 24)
print(flow.report(points=8 if SMOKE else 32))

# %%
line = torch.linspace(0, 2 * math.pi, 65, dtype=torch.float64)[:-1]
grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
coarse = grid[::4, ::4].reshape(-1, 2)
with torch.no_grad():
    field = flow.velocity(0.5, coarse)
    points = 2 * math.pi * torch.rand(3000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    arrived = flow(points)
figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
extent = (0, 2 * math.pi, 0, 2 * math.pi)
axes[0].imshow(bumps(grid).exp(), origin="lower", extent=extent, cmap="viridis")
axes[0].set_title("the density q")
axes[1].imshow(bumps(grid).exp(), origin="lower", extent=extent, cmap="Greys", alpha=0.4)
axes[1].quiver(coarse[:, 0], coarse[:, 1], field[:, 0], field[:, 1], angles="xy", color="C0")
axes[1].set_title("Moser's vector field at t = 1/2")
axes[2].plot(arrived[:, 0], arrived[:, 1], ".", markersize=2)
axes[2].set_title("uniform points after the flow")
for panel in axes:
    panel.set(xlim=extent[:2], ylim=extent[2:], aspect="equal", xticks=[], yticks=[])
plt.show()

# %% [markdown]
# No weight was trained: the map comes from the two densities alone, and `report` says how exactly it carries one to the
# other. It is a reference for trained flows on up to three angles, and the reason why equivariant flows can represent
# every smooth invariant density.
#
# ## What to take home
#
# | you need | take | because |
# | --- | --- | --- |
# | a linear layer on vectors | `GLinear`, `GLinearPLU` | all equivariant matrices are known; the second one reaches every invertible one |
# | a linear layer on images | `GConvExponential`, `GSpectralConv` | exact log-det; the second one at any support for the price of a Fourier transform |
# | a map that residual layers cannot represent | padding: `residual_realization` | in the padded space the path goes around |
# | a density, by layers that need a larger space | `augment` | a bound in training, importance weights in evaluation |
# | the exact map between two invariant densities of angles | `moser` | Poisson's equation |
