"""Only a few calls of the package lie between a score and the first multiplication of tensors."""

import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import pyro_gflows
from pyro_gflows import (
    EquivariantFlow,
    GCoupling,
    GResidual,
    InvariantNormal,
    VectorAction,
    g_coupling,
    g_residual,
)
from pyro_gflows.nn import LipschitzSum, Ridges

PACKAGE = str(Path(pyro_gflows.__file__).parent)
MULTIPLICATIONS = {"mul", "mm", "mv", "dot", "addmm", "addmv", "bmm", "baddbmm", "convolution"}


class FirstMultiplication(TorchDispatchMode):
    """A context that keeps the functions of the package on Python's stack at the first multiplication."""

    frames: list[str] | None = None

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.frames is None and func.overloadpacket.__name__ in MULTIPLICATIONS:
            self.frames, frame = [], sys._getframe(1)
            while frame is not None:
                if frame.f_code.co_filename.startswith(PACKAGE):
                    self.frames.insert(0, f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}")
                frame = frame.f_back
        return func(*args, **(kwargs or {}))


def residual_with_ridges():
    action = VectorAction.plane("D8")
    return EquivariantFlow(InvariantNormal(action), [GResidual(action, LipschitzSum([Ridges(action)]))])


def default_residual():
    action = VectorAction.regular("C4")
    return EquivariantFlow(InvariantNormal(action), [g_residual(action)])


def coupling():
    action = VectorAction.regular("C4", copies=2)
    return EquivariantFlow(InvariantNormal(action), [GCoupling(action)])


def coupling_step():
    """A flow of a composition within a composition."""
    action = VectorAction.regular("C4", copies=2)
    return EquivariantFlow(InvariantNormal(action), [g_coupling(action)])


CASES = {residual_with_ridges: 10, default_residual: 10, coupling: 6, coupling_step: 6}


@pytest.mark.parametrize(("make", "most"), CASES.items(), ids=[make.__name__ for make in CASES])
@pytest.mark.parametrize("gradients", [True, False])
def test_a_score_reaches_its_first_multiplication_in_few_calls(make, most, gradients):
    density = make().dist
    x = torch.randn(5, *density.event_shape)
    with torch.set_grad_enabled(gradients), FirstMultiplication() as first:
        density.log_prob(x)
    assert first.frames is not None
    assert first.frames[0] == "distribution.log_prob"
    assert len(first.frames) <= most, first.frames
