"""The command ``check-data``: a test of whether data have a symmetry, before a flow is fitted to them."""

from __future__ import annotations

import argparse

import torch

from pyro_gflows.cli.recipes import read_data
from pyro_gflows.datasets import check_symmetry
from pyro_gflows.flows.families import build_action

__all__ = ["check_data"]


def check_data(arguments: argparse.Namespace) -> int:
    """Test whether data are invariant under a group, and return the exit code 1 if they contradict an element."""
    data = read_data(arguments)
    group = arguments.group or data.symmetry
    if group is None:
        raise ValueError(f"{data.name} has no known symmetry: give --group, for example C4 or D4")
    action = build_action(group, data.space)
    parts = [part for part in (data.train, data.validation, data.test) if isinstance(part, torch.Tensor)]
    if data.format is not None:
        print(f"{data.name} is read as {data.format.describe()}")
    report = check_symmetry(torch.cat(parts), action, level=arguments.level, rows=arguments.rows, seed=arguments.seed)
    print(report)
    return 0 if report.is_consistent else 1
