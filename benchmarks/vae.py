"""Variational auto-encoders of rotated digits: an equivariant posterior beside a plain and a Gaussian one.

    python -m benchmarks.vae --seeds 3

The digits are made binary and rotated by multiples of 90 degrees. Encoder and decoder are the same equivariant networks
in every row; the posterior of the latent vector is Gaussian, an inverse autoregressive flow (IAF) without symmetry, or
an equivariant one (G-IAF), all with as many parameters in total (within 1.2 %), trained alike. Figures are nats an
image on test images in random poses: the evidence lower bound (ELBO), and the importance-weighted bound of 500 draws
(IWAE). Every finished run is one line of ``results/vae.jsonl`` and is not run again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.harness import Benchmark, Run, Seeds, Stopwatch, grouped, main, markdown, mean_and_error
from pyro_gflows import (
    CoordinateSplit,
    EquivariantFlow,
    EquivariantTransform,
    GAffine,
    GInverseAutoregressive,
    ImageAction,
    InvariantNormal,
    IrrepSplit,
    Split,
    VectorAction,
)
from pyro_gflows.datasets import DIGITS_SCALING, digits
from pyro_gflows.nn import EquivariantMLP
from pyro_gflows.testing import assert_conditionally_invariant
from pyro_gflows.training import random_elements

GROUP = "C4"
PIXELS = ImageAction(GROUP, size=8).as_vector()
FIELDS, FEATURES = 4, 8  # regular fields in a latent vector, and in what the encoder says of an image
LATENT = VectorAction.regular(GROUP, copies=FIELDS)
augment = random_elements(PIXELS)


def posterior(kind: str, width: int) -> EquivariantFlow:
    """q(z | features): Gaussian, or with three autoregressive layers in alternating order on top."""
    symmetric = kind != "IAF"
    latent, features = LATENT, VectorAction.regular(GROUP, copies=FEATURES)
    if not symmetric:
        latent, features = latent.without_symmetry(), features.without_symmetry()
    steps: list[EquivariantTransform] = [GAffine(latent, context_action=features, width=width)]
    if kind != "Gaussian":
        size = LATENT.numel // FIELDS if symmetric else 1
        blocks = [list(range(start, start + size)) for start in range(0, latent.numel, size)]
        # fields (without symmetry: components) one after the other and in reverse; irreps join what is within a field
        backward, forward = CoordinateSplit(latent, blocks[::-1]), CoordinateSplit(latent, blocks)
        splits: list[Split] = [backward, IrrepSplit(latent), forward] if symmetric else [backward, forward, backward]
        for split in splits:
            size: dict[str, Any] = {"width": WIDTHS[kind][1], "depth": 1, "context_action": features}
            steps.append(GInverseAutoregressive(latent, split=split, **size))
    return EquivariantFlow(InvariantNormal(latent), steps)


# hidden fields of the affine layer, and of each block's conditioner: as many parameters in total
WIDTHS = {"Gaussian": (135, 0), "IAF": (16, 2), "G-IAF": (24, 9)}


class VAE(nn.Module):
    """p(z) p(x | z) and q(z | x), for images x flattened to 64 zeros and ones."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        features = VectorAction.regular(GROUP, copies=FEATURES)
        self.encoder = EquivariantMLP(PIXELS, features, width=32, depth=1)
        self.decoder = EquivariantMLP(LATENT, PIXELS, width=32, depth=1)
        self.flow = posterior(kind, WIDTHS[kind][0])
        self.kl_weight = 1.0

    def model(self, x: Tensor) -> None:
        pyro.module("vae", self)
        with pyro.plate("images", len(x)):
            with pyro.poutine.scale(scale=self.kl_weight):
                z = pyro.sample("z", InvariantNormal(LATENT))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("vae", self)
        with pyro.plate("images", len(x)), pyro.poutine.scale(scale=self.kl_weight):
            pyro.sample("z", self.flow.condition(self.encoder(2 * x - 1)))

    def log_posterior(self, z: Tensor, x: Tensor) -> Tensor:
        """log q(z | x)."""
        return self.flow(z, self.encoder(2 * x - 1))


def binary_digits(seed: int) -> tuple[Tensor, Tensor]:
    """Training images as they are, and test images in random poses."""
    splits = digits(seed=seed)

    def binary(images: Tensor) -> Tensor:
        return (images.flatten(1) / DIGITS_SCALING.gain + DIGITS_SCALING.center > 0.5).to(images)

    return binary(torch.cat([splits.train, splits.validation])), binary(splits.test)


@dataclass(frozen=True)
class Row:
    """One kind of posterior, and the steps of its training."""

    name: str
    steps: int = 3000

    def labels(self) -> Mapping[str, Any]:
        """Kind and steps."""
        return {"kind": self.name, "steps": self.steps}


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Train and measure one auto-encoder."""
    kind, steps, draws, particles = row.name, row.steps, 500, 100
    if quick:
        steps, draws, particles = 30, 2, 2
    train, test = binary_digits(seed)
    torch.manual_seed(seed)
    pyro.clear_param_store()
    vae = VAE(kind)
    schedule = torch.optim.lr_scheduler.OneCycleLR
    settings = {"max_lr": 5e-3, "total_steps": steps, "pct_start": 0.1}
    optimizer = pyro.optim.PyroLRScheduler(
        schedule, {"optimizer": torch.optim.Adam, "optim_args": {"lr": 5e-3}, **settings}, clip_args={"clip_norm": 50.0}
    )
    svi = SVI(vae.model, vae.guide, optimizer, Trace_ELBO())
    generator = torch.Generator().manual_seed(seed)
    with Stopwatch() as watch:
        for step in tqdm(range(steps), desc=f"{kind}, seed {seed}", leave=False, disable=None):
            vae.kl_weight = min(1.0, 0.1 + step / (0.3 * steps))
            batch = train[torch.randint(len(train), (128,), generator=generator)]
            svi.step(augment(batch, generator))
            optimizer.step()
    vae.eval()
    vae.kl_weight = 1.0
    with torch.no_grad():
        elbo = -Trace_ELBO(num_particles=particles, vectorize_particles=True, max_plate_nesting=1).loss(
            vae.model, vae.guide, test
        )
        bound = 0.0
        for batch in test.split(60):
            loss = RenyiELBO(alpha=0.0, num_particles=draws, vectorize_particles=True, max_plate_nesting=1)
            bound -= loss.loss(vae.model, vae.guide, batch)
    figures = {"elbo": elbo / len(test), "iwae": bound / len(test)}
    figures |= {"parameters": sum(p.numel() for p in vae.parameters()), "cpu_seconds": watch.cpu_seconds}
    if kind != "IAF":
        figures["invariance_error"] = invariance_error(vae, test[:50])
    return figures


def invariance_error(vae: VAE, x: Tensor) -> float:
    """The largest |log q(g z | g x) - log q(z | x)| over all elements, in float32, as trained."""
    with torch.no_grad():
        z = vae.flow.condition(vae.encoder(2 * x - 1)).sample()
        assert_conditionally_invariant(vae.log_posterior, LATENT, PIXELS, z, x, tol=1e-4)
        images = [vae.log_posterior(LATENT.act(g, z), PIXELS.act(g, x)) for g in LATENT.elements()]
        return float((torch.stack(images) - vae.log_posterior(z, x)).abs().max())


def table(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """Means and standard errors over seeds, and the paired differences to G-IAF."""
    bounds = {
        found.row.name: {run["seed"]: run["iwae"] for run in sorted(found.runs, key=lambda run: run["seed"])}
        for found in grouped(rows, runs)
    }
    best = bounds.get("G-IAF", {})
    lines = []
    for found in grouped(rows, runs):
        own = bounds[found.row.name]
        better = [best[seed] - own[seed] for seed in own if seed in best]
        cells = [found.row.name, f"{found['parameters']}", _spread(found.values("elbo")), _spread(found.values("iwae"))]
        lines.append([*cells, "" if found.row.name == "G-IAF" or not better else _spread(better)])
    return markdown(["posterior", "parameters", "ELBO", "IWAE, 500 draws", "G-IAF is better by (IWAE)"], lines)


def _spread(values: Sequence[float]) -> str:
    mean, error = mean_and_error(values)
    return f"{mean:.3f} +- {error:.3f}"


BENCHMARK = Benchmark("vae", __doc__, [Row(kind) for kind in WIDTHS], run, table, seeds=Seeds(3))

if __name__ == "__main__":
    main(BENCHMARK)
