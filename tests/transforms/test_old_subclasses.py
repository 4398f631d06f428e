"""Classes that users derived from those of version 0.1: served with a warning at their line, never passed over."""

import warnings

import pytest
import torch

from pyro_gflows import GResidual, VectorAction, g_coupling, g_residual
from pyro_gflows.nn import ConditionalBranch, Contraction, lipschitz_branch
from pyro_gflows.transforms import ElementwiseAffine, OneWayTransform, Transformer
from tests.transforms.old_branch import Shifted

ACTION = VectorAction.regular("C4")
X = torch.linspace(-1.0, 1.0, 12).reshape(3, 4)


@pytest.fixture
def caught():
    """The warnings of a test, all of which point at this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
    assert {(warning.category, warning.filename) for warning in caught} == {(FutureWarning, __file__)}


def test_a_one_way_layer_with_the_old_methods(caught):
    class Twice(OneWayTransform):
        def cheap(self, x, context):
            return 2 * x, x.new_full(x.shape[:-1], 4 * torch.tensor(2.0).log())

        def costly(self, y, context):
            return y / 2, -self.cheap(y, context)[1]

    assert torch.equal(Twice(ACTION, fast="sample")(X), 2 * X)
    assert torch.equal(Twice(ACTION).inv(X), 2 * X)
    assert [str(warning.message).split(";")[0] for warning in caught] == [
        "Twice.cheap is Twice.one_pass now",
        "Twice.costly is Twice.many_passes now",
    ]


def test_an_old_method_in_a_subclass_of_a_layer_is_used_and_can_call_the_layer_s(caught):
    class Noted(GResidual):
        calls = 0

        def cheap(self, x, context):
            self.calls += 1
            return super().cheap(x, context)

    class Again(Noted):
        def one_pass(self, x, context):
            return super().one_pass(x, context)

    branch = lipschitz_branch(ACTION)
    for kind in (Noted, Again):
        layer = kind(ACTION, branch)
        assert torch.equal(layer.inv(X), GResidual(ACTION, branch).inv(X))
        assert layer.calls == 1


def test_the_old_methods_of_a_layer_can_be_called(caught):
    layer = g_residual(ACTION)
    assert torch.equal(layer.cheap(X, None)[0], layer.one_pass(X, None)[0])
    assert torch.equal(layer.costly(X, None)[0], layer.many_passes(X, None)[0])


def test_the_old_method_for_contexts_may_come_from_another_base_class_and_call_that_of_the_branch(caught):
    class Takes:
        def given(self, context):
            return lambda x: 0.25 * (x + context)

    class Branch(Takes, Contraction):
        action = context_action = ACTION
        bound = 0.5

        def forward(self, x):
            return 0.5 * x

    class Doubled(ConditionalBranch):
        def given(self, context):
            return super().given(2 * context)

    assert torch.equal(Branch().condition(X)(X), 0.5 * X)
    branch = Doubled(ACTION, ACTION)
    assert torch.equal(branch.condition(X)(X), ConditionalBranch.condition(branch, 2 * X)(X))


def test_a_module_with_the_old_method_for_contexts_warns_where_the_layer_is_made(caught):
    assert GResidual(ACTION, Shifted(ACTION)).condition(X)(torch.zeros(3, 4)).shape == X.shape


def test_an_old_keyword_of_a_module_s_call_warns_where_it_is_written(caught):
    assert ElementwiseAffine(ACTION)(X, torch.ones(3, 8), belongs=torch.zeros(4))[1].tolist() == [0.0] * 3


def test_a_transformer_with_the_old_name_of_the_bound(caught):
    class Scaled(Transformer):
        def __init__(self, action, *, cap=2.0):
            super().__init__(action, cap=cap)
            self.params_action = action

        def forward(self, x, params, belongs=None):
            return x + self.cap * params, x.new_zeros(x.shape[:-1])

    layer = g_coupling(VectorAction.regular("C4", copies=2), transformer=Scaled)
    assert layer.parts[0].transformer.max_log_scale == 2.0
    assert layer(torch.zeros(3, 8)).shape == (3, 8)
    scaled = Scaled(ACTION)
    scaled.cap = 1.0
    assert scaled.max_log_scale == 1.0
