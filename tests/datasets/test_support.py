"""A fit warns of data that do not fill the space, and ordinary data raise no alarm."""

import math
import warnings

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from pyro_gflows import (
    EquivariantFlow,
    GActNorm,
    ImageAction,
    InvariantNormal,
    InvariantUniform,
    TorusAction,
    VectorAction,
    g_residual,
)
from pyro_gflows.datasets import GrayLevels
from pyro_gflows.datasets.support import full_circles, off_support
from pyro_gflows.flows import g_dequantizer
from pyro_gflows.targets import density
from pyro_gflows.training import FitSettings, fit

ROWS = 800


def normal(*shape, dtype, seed=0):
    return torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


PARTICLES = VectorAction.rows("S4", features=3)
SPACE = VectorAction.space("SO(3)")
SCALARS = VectorAction.trivial("C1", copies=4)


def centered(x):
    return x - x.mean(1, keepdim=True)


def rotated(x, dtype):
    """Return x in a random basis, which mixes all entries."""
    q = torch.linalg.qr(torch.randn(x.shape[1], x.shape[1], generator=torch.Generator().manual_seed(3)).double())[0]
    return x @ q.to(dtype)


DEGENERATE = {
    "centered particles": (
        lambda d: centered(normal(4, 3, dtype=d)).flatten(1),
        PARTICLES,
        "subspace of dimension 9 .*sums",
    ),
    "centered at 7": (lambda d: 7 + centered(normal(4, 3, dtype=d)).flatten(1), PARTICLES, "subspace of dimension 9"),
    "centered, tiny": (lambda d: 1e-9 * centered(normal(4, 3, dtype=d)).flatten(1), PARTICLES, "dimension 9"),
    "centered, many scales": (
        lambda d: centered(normal(4, 3, dtype=d)).flatten(1) * torch.logspace(-3, 3, 12, dtype=d),
        PARTICLES,
        "dimension 9",
    ),
    "a plane in a hidden basis": (
        lambda d: rotated(normal(4, dtype=d) * torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=d), d),
        SCALARS,
        "subspace of dimension 3",
    ),
    "a simplex": (lambda d: normal(3, dtype=d).softmax(-1), VectorAction.rows("S3"), "dimension 2 .*sums"),
    "a sphere": (lambda d: 50 * unit(normal(3, dtype=d)), SPACE, "the norm 50: they lie on a sphere"),
    "a circle": (lambda d: unit(normal(2, dtype=d)), VectorAction.plane("D8"), "norm 1: they lie on a sphere"),
    "unit quaternions": (lambda d: unit(normal(4, dtype=d)), SCALARS, "norm 1"),
    "each particle on a sphere": (
        lambda d: (torch.arange(1, 5, dtype=d)[:, None] * unit(normal(4, 3, dtype=d))).flatten(1),
        PARTICLES,
        r"groups of 3 have constant norms \(1, 2, 3, 4\)",
    ),
    "columns on spheres": (
        lambda d: unit(normal(4, 3, dtype=d)).transpose(1, 2).flatten(1),
        VectorAction.trivial("C1", copies=12),
        "every 4th entry, in groups of 3 have constant norms",
    ),
    "one of several fields": (
        lambda d: torch.cat([unit(normal(3, dtype=d)), normal(1, dtype=d, seed=1)], 1),
        SPACE.direct_sum(VectorAction.trivial("SO(3)")),
        "field 0 .* constant norm 1",
    ),
    "a pair of cos and sin beside other entries": (
        lambda d: torch.cat([unit(normal(2, dtype=d)), normal(2, dtype=d, seed=1)], 1),
        VectorAction.trivial("C1", copies=4),
        "combination of entries and their squares",
    ),
    "a sphere about another point": (
        lambda d: 2 * unit(normal(3, dtype=d)) + torch.tensor([1.0, -2.0, 0.5], dtype=d),
        SPACE,
        "a sphere about another point",
    ),
    "a constant entry": (
        lambda d: torch.cat([normal(3, dtype=d), torch.full((ROWS, 1), 0.3, dtype=d)], 1),
        SCALARS,
        "entry 3 is the same in all events",
    ),
    "one event": (lambda d: torch.full((ROWS, 2), 0.3, dtype=d), VectorAction.plane("D4"), "all events are the same"),
    "images of one contrast": (
        lambda d: unit(normal(36, dtype=d)).reshape(-1, 1, 6, 6),
        ImageAction("C4", size=6),
        "norm",
    ),
    "images with a black border": (
        lambda d: torch.nn.functional.pad(normal(1, 4, 4, dtype=d), (1, 1, 1, 1)),
        ImageAction("C4", size=6),
        "entries 0, 1, 2, .* the same",
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DEGENERATE)
def test_what_does_not_fill_the_space_is_described(name, dtype):
    make, action, message = DEGENERATE[name]
    with pytest.warns(UserWarning, match=f"do not fill the space.*{message}.*NLL falls without end"):
        short_fit(make(dtype), action)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("low", [-math.pi, 0.0, -180.0])
def test_angles_are_recognized(low, dtype):
    circle = 360.0 if low == -180.0 else 2 * math.pi
    share = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0), dtype=dtype)
    straddling = (0.15 * torch.randn(2000, 2, generator=torch.Generator().manual_seed(0), dtype=dtype)) % 1
    action = VectorAction.trivial("C1", copies=2)
    for x in (share, straddling):
        with pytest.warns(UserWarning, match="seem to be angles: entries 0, 1 are spread over"):
            short_fit(low + circle * x, action)
    # angles that stay away from the cut may be described on a line
    short_fit(low + circle * (0.5 + 0.05 * (straddling - 0.5)), action)


def test_angles_on_a_torus_raise_no_alarm():
    x = 2 * math.pi * torch.rand(2000, 2, generator=torch.Generator().manual_seed(0))
    flow = EquivariantFlow(InvariantUniform(TorusAction.trivial(2)), [g_residual(TorusAction.trivial(2))])
    settings = FitSettings(steps=1, batch_size=256)
    fit(flow, x, settings=settings, progress=False)
    with pytest.warns(UserWarning, match="do not fill the space.*entry 1 is the same"):
        fit(flow, x * torch.tensor([1.0, 0.0]) + 1, settings=settings, progress=False)


def short_fit(x, action):
    """Run a fit that stops after its first step."""
    flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)]).to(x.dtype)
    settings = FitSettings(steps=1, batch_size=256, check_symmetry=False)  # these data have no symmetry
    return fit(flow, x, settings=settings, callbacks=lambda *_: True, progress=False)


ORDINARY = {
    "normal": lambda n, d, g: torch.randn(n, d, generator=g),
    "very different scales": lambda n, d, g: torch.randn(n, d, generator=g) * torch.logspace(-5, 5, d),
    "far from the origin": lambda n, d, g: 1000 + torch.randn(n, d, generator=g),
    "uniform": lambda n, d, g: torch.rand(n, d, generator=g),
    "positive": lambda n, d, g: torch.randn(n, d, generator=g).exp(),
    "heavy tails": lambda n, d, g: torch.randn(n, d, generator=g).pow(3),
    "strongly correlated": lambda n, d, g: torch.randn(n, 1, generator=g) + 1e-3 * torch.randn(n, d, generator=g),
    "nearly a sphere": lambda n, d, g: (
        unit(torch.randn(n, d, generator=g)) * (1 + 1e-3 * torch.randn(n, 1, generator=g))
    ),
    "half precision": lambda n, d, g: torch.randn(n, d, generator=g).half().float(),
    "few decimals": lambda n, d, g: (100 * torch.randn(n, d, generator=g)).round() / 100,
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_data_raise_no_alarm(name):
    generator = torch.Generator().manual_seed(0)
    for size in (1, 2, 3, 8, 30):
        action = VectorAction.trivial("C1", copies=size)
        for rows in (4, 16, 17, 40, 200, 2000):
            x = ORDINARY[name](rows, size, generator)
            assert off_support(x, action) == [], (size, rows)
            assert full_circles(x, action) is None, (size, rows)


@pytest.mark.parametrize("name", ["8gaussians", "rings", "checkerboard"])
def test_the_known_densities_raise_no_alarm(name):
    generator = torch.Generator().manual_seed(0)
    for rows in [512] * 40 + [2000] * 10:
        x = density(name).sample(rows, generator)
        assert off_support(x, VectorAction.plane("C1")) == [] and full_circles(x, VectorAction.plane("C1")) is None


# -- images ------------------------------------------------------------------------------------------------------------
SCALING = GrayLevels(17)
IMAGE = ImageAction("C4", size=6)


def levels(n=300):
    """A black border and a few dark pixels about random ones."""
    inner = torch.randint(0, 17, (n, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.pad(inner, (1, 1, 1, 1))


def fit_images(x, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow = EquivariantFlow(InvariantNormal(IMAGE), [GActNorm(IMAGE)])
        fit(flow, x, settings=FitSettings(steps=1, batch_size=128), progress=False, **options)


def test_a_black_border_with_dequantization_noise_raises_no_alarm():
    fit_images(SCALING.dequantize(levels(), torch.Generator().manual_seed(1)))


def test_noise_that_augmentation_or_a_dequantizer_adds_counts():
    raw = SCALING.to_real(levels().float()) + SCALING.step / 2
    with pytest.raises(UserWarning, match="the same in all events"):
        fit_images(raw)
    fit_images(raw, augment=SCALING.redequantize)
    fit_images(raw, dequantize=g_dequantizer(IMAGE, SCALING, blocks=0, width=1))


# -- wherever the events come from -------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["array", "data set", "loader", "sampler", "augmented", "float32 data"])
def test_every_source_is_checked(kind):
    action = VectorAction.plane("D4")
    x = unit(normal(2, dtype=torch.float64))
    source, options = {
        "array": (x.numpy(), {}),
        "data set": (TensorDataset(x), {}),
        "loader": (DataLoader(TensorDataset(x), batch_size=100), {}),
        "sampler": (lambda n, generator: unit(torch.randn(n, 2, generator=generator)), {}),
        "augmented": (normal(2, dtype=torch.float64), {"augment": lambda y, generator: unit(y)}),
        "float32 data": (x.float(), {}),
    }[kind]
    flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)]).double()
    with pytest.warns(UserWarning, match="lie on a sphere"):
        fit(flow, source, settings=FitSettings(steps=1), progress=False, **options)


def test_the_check_changes_nothing():
    """A fit is the same with and without a warning, since the check draws nothing."""
    # two copies: of one, all |x| are equal, so the gradient is zero to rounding, whose signs Adam would follow
    x, found, action = unit(normal(4, dtype=torch.float64)), [], VectorAction.plane("D4", copies=2)
    for noise in (0.0, 1e-9):
        flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)]).double()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit(flow, x * (1 + noise), settings=FitSettings(steps=3, batch_size=50), progress=False)
        found.append(flow(torch.ones(4, dtype=torch.float64)))
    torch.testing.assert_close(*found, atol=1e-6, rtol=0)
