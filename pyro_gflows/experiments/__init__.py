"""Families of runs with their presets: what the command line and the benchmarks run."""

from pyro_gflows.experiments.presets import PRESETS

__all__ = [
    "PRESETS",
]
