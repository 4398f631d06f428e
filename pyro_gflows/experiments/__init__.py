"""Presets of flows and their training for the known data, which the command line and the benchmarks run."""

from pyro_gflows.experiments.presets import PRESETS

__all__ = [
    "PRESETS",
]
