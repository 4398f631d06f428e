"""Variational auto-encoders of turned digits: an equivariant posterior beside a plain and a Gaussian one.

    python -m benchmarks.vae --seeds 3

The digits are made binary and turned by quarter-turns. Encoder and decoder are the same equivariant networks in every
row; the posterior of the latent vector is Gaussian, an inverse autoregressive flow (IAF) without symmetry, or an
equivariant one (G-IAF), all with as many parameters in total (within 1.2 %), trained alike. Figures are nats an image
on test images in random poses: the evidence lower bound (ELBO), and the importance-weighted bound of 500 draws (IWAE).
Every finished run is one line of ``benchmarks/results/vae.jsonl`` and is not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO
from torch import Tensor, nn
from tqdm import tqdm

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

RESULTS = Path(__file__).parent / "results"
GROUP = "C4"
PIXELS = ImageAction(GROUP, size=8).as_vector()
FIELDS, FEATURES = 4, 8  # regular fields in a latent vector, and in what the encoder says of an image
LATENT = VectorAction.regular(GROUP, copies=FIELDS)
turned = random_elements(PIXELS)


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
        # fields (without symmetry: numbers) one after the other and in reverse; irreps join what is within a field
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


def run(kind: str, seed: int, *, steps: int, draws: int = 500) -> dict[str, Any]:
    """Train and measure one auto-encoder; its row."""
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
    start = time.process_time()
    for step in tqdm(range(steps), desc=f"{kind}, seed {seed}", leave=False):
        vae.kl_weight = min(1.0, 0.1 + step / (0.3 * steps))
        batch = train[torch.randint(len(train), (128,), generator=generator)]
        svi.step(turned(batch, generator))
        optimizer.step()
    seconds = time.process_time() - start
    vae.eval()
    vae.kl_weight = 1.0
    with torch.no_grad():
        elbo = -Trace_ELBO(num_particles=100, vectorize_particles=True, max_plate_nesting=1).loss(
            vae.model, vae.guide, test
        )
        bound = 0.0
        for batch in test.split(60):
            loss = RenyiELBO(alpha=0.0, num_particles=draws, vectorize_particles=True, max_plate_nesting=1)
            bound -= loss.loss(vae.model, vae.guide, batch)
    row = {"kind": kind, "seed": seed, "steps": steps, "elbo": elbo / len(test), "iwae": bound / len(test)}
    row |= {"parameters": sum(p.numel() for p in vae.parameters()), "cpu_seconds": seconds}
    if kind != "IAF":
        row["invariance_error"] = invariance_error(vae, test[:50])
    return row


def invariance_error(vae: VAE, x: Tensor) -> float:
    """The largest |log q(g z | g x) - log q(z | x)| over all elements, in float32, as trained."""
    with torch.no_grad():
        z = vae.flow.condition(vae.encoder(2 * x - 1)).sample()
        assert_conditionally_invariant(vae.log_posterior, LATENT, PIXELS, z, x, tol=1e-4)
        moved = [vae.log_posterior(LATENT.act(g, z), PIXELS.act(g, x)) for g in LATENT.elements()]
        return float((torch.stack(moved) - vae.log_posterior(z, x)).abs().max())


def table(rows: list[dict[str, Any]]) -> str:
    """Means and standard errors over seeds, and the paired differences to G-IAF."""
    by_kind: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        by_kind.setdefault(row["kind"], {})[row["seed"]] = row
    lines = [
        "| posterior | parameters | ELBO | IWAE, 500 draws | G-IAF is better by (IWAE) |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for kind, own in by_kind.items():
        seeds = sorted(set(own) & set(by_kind.get("G-IAF", {})))
        better = [by_kind["G-IAF"][seed]["iwae"] - own[seed]["iwae"] for seed in seeds]
        cells = [spread([own[seed][key] for seed in sorted(own)]) for key in ("elbo", "iwae")]
        cells.append("" if kind == "G-IAF" or not seeds else spread(better))
        lines.append(f"| {kind} | {next(iter(own.values()))['parameters']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Mean and standard error."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{statistics.mean(values):.3f} +- {error:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (default: 3)")
    parser.add_argument("--steps", type=int, default=3000, help="training steps (default: 3000)")
    parser.add_argument("--out", type=Path, default=RESULTS / "vae.jsonl", help="file of the rows")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    for seed in range(arguments.seeds):
        for kind in WIDTHS:
            if not any((row["kind"], row["seed"], row["steps"]) == (kind, seed, arguments.steps) for row in rows):
                rows.append(run(kind, seed, steps=arguments.steps))
                with arguments.out.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print(table([row for row in rows if row["steps"] == arguments.steps]))


if __name__ == "__main__":
    main()
