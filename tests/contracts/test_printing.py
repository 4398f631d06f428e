"""Printing a flow, a layer or a distribution computes nothing from the weights."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_gflows.actions import VectorAction
from pyro_gflows.transforms import GMonotone, GResidual
from tests.constructors import CONDITIONAL, make, make_conditional, make_flow


class Operations(TorchDispatchMode):
    """A context that remembers which operations on tensors ran."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.names.add(str(function))
        return function(*arguments, **(keywords or {}))


def operations_of_printing(*things):
    with Operations() as seen:
        for thing in things:
            assert repr(thing) and str(thing)
    return seen.names - {"aten.detach.default"}


def test_printing_a_flow_computes_nothing(name):
    flow = make_flow(name)
    assert operations_of_printing(flow, flow.base, flow.dist, flow.action) == set()


def test_printing_a_layer_computes_nothing(name):
    transform = make(name)
    assert operations_of_printing(transform, transform.inv, *transform.modules()) == set()


@pytest.mark.parametrize("conditional", CONDITIONAL)
def test_printing_a_conditional_layer_computes_nothing(conditional):
    transform = make_conditional(conditional)
    assert operations_of_printing(transform, *transform.modules()) == set()


class OwnBranch(nn.Module):
    """A contraction whose bound is computed from its weights."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.25))
        self.computed = 0

    def lipschitz_bound(self):
        self.computed += 1
        return self.factor.abs()

    def forward(self, x):
        return self.factor * x


@pytest.mark.parametrize("layer", [GResidual, GMonotone])
def test_a_branch_of_ones_own_is_not_asked_for_its_bound_again(layer):
    branch = OwnBranch()
    built = layer(VectorAction.plane("O(2)"), branch)
    before = branch.computed
    assert "Lipschitz bound 0.25 as built" in repr(built)
    assert branch.computed == before


def test_a_flow_says_how_many_parameters_it_has(name):
    flow = make_flow(name)
    count = sum(parameter.numel() for parameter in flow.parameters())
    assert f"{count:,} parameters" in repr(flow).splitlines()[0]
