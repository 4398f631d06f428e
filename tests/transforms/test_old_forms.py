"""The forms in which layers were told of their parts before: accepted with a warning, and with the same result."""

import copy
import functools
import json
import pickle
import re
import warnings

import pytest
import torch

from pyro_gflows import (
    CoordinateSplit,
    EquivariantFlow,
    GActNorm,
    GAffine,
    GAutoregressive,
    GCoupling,
    GInverseAutoregressive,
    GMonotone,
    GResidual,
    GSplit,
    ImageAction,
    InvariantNormal,
    OffGridAction,
    SitesAction,
    VectorAction,
    checkerboard_split,
    g_coupling,
    g_coupling_image_flow,
    g_residual,
    g_residual_image_flow,
)
from pyro_gflows.datasets import IMAGE_SETS, ImageSet
from pyro_gflows.flows import g_soft_coupling_image_flow
from pyro_gflows.nn import (
    Contraction,
    CustomContraction,
    EquivariantMLP,
    LipschitzNetwork,
    Made,
    MadeInTurn,
    SoftNetwork,
    conditioner,
    lipschitz_branch,
)
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.transforms import ElementwiseAffine, ElementwiseSpline, IrrepScale, MatrixScale
from tests.transforms.old_branch import Shifted

ACTION = VectorAction.regular("C4", copies=2)
PAIR = VectorAction.space("SO(3)", copies=2)
SPLIT = CoordinateSplit(ACTION)
PART = SPLIT.parts[1]
IMAGE = ImageAction("C4", 1, size=4)
PARAMS = PART.direct_sum(PART)


def mlp():
    return EquivariantMLP(PART, PARAMS, width=2, depth=1)


# The old form, the new one, and what the warning calls them.
FORMS = {
    "coupling of a split": (
        lambda: GCoupling(SPLIT, moved=0, width=2),
        lambda: GCoupling(ACTION, split=SPLIT, transformed=0, width=2),
        [
            r"GCoupling\(moved=...\) is GCoupling\(transformed=...\) now",
            r"is GCoupling\(action, ..., split=split\) now",
        ],
    ),
    "coupling of a split by name": (
        lambda: GCoupling(split=SPLIT, width=2),
        lambda: GCoupling(ACTION, split=SPLIT, width=2),
        [r"GCoupling\(split, ...\) is GCoupling\(action"],
    ),
    "autoregressive layer of a split": (
        lambda: GAutoregressive(SPLIT, width=2),
        lambda: GAutoregressive(ACTION, width=2),
        [r"GAutoregressive\(split, ...\) is GAutoregressive\(action, ..., split=split\) now"],
    ),
    "inverse autoregressive layer of a split": (
        lambda: GInverseAutoregressive(SPLIT, width=2),
        lambda: GInverseAutoregressive(ACTION, width=2),
        [r"GInverseAutoregressive\(split, ...\) is GInverseAutoregressive\(action"],
    ),
    "split": (
        lambda: GSplit(SPLIT, GActNorm(PART), width=2),
        lambda: GSplit(ACTION, GActNorm(PART), split=SPLIT, width=2),
        [r"GSplit\(split, ...\) is GSplit\(action, ..., split=split\) now"],
    ),
    "transformer": (
        lambda: GCoupling(ACTION, transformer=ElementwiseSpline(PART, bins=4), width=2),
        lambda: GCoupling(ACTION, transformer=functools.partial(ElementwiseSpline, bins=4), width=2),
        [r"GCoupling\(transformer=module\) is GCoupling\(transformer=factory\), a function or class that makes .* now"],
    ),
    "network": (
        lambda: GCoupling(ACTION, network=mlp()),
        lambda: GCoupling(ACTION, network=functools.partial(EquivariantMLP, width=2, depth=1)),
        [r"GCoupling\(network=module\) is GCoupling\(network=factory\)"],
    ),
    "network and transformer of an affine map": (
        lambda: GAffine(PART, context_action=PART, transformer=IrrepScale(PART), network=affine_network()),
        lambda: GAffine(PART, context_action=PART, transformer=IrrepScale, network=affine_factory),
        [r"GAffine\(transformer=module\) is", r"GAffine\(network=module\) is"],
    ),
    "keywords of networks": (
        lambda: g_coupling(PAIR, transformer=MatrixScale, network={"depth": 1}, width=2),
        lambda: g_coupling(
            PAIR, transformer=MatrixScale, network=functools.partial(conditioner, width=2, depth=1, start=0.3)
        ),
        [r"g_coupling\(network=\{...\}\) is g_coupling\(network=functools.partial"],
    ),
    "keywords of the networks of images": (
        lambda: g_coupling_image_flow(IMAGE, blocks=1, scales=1, network={"bias": "pixels"}, width=1, depth=1),
        lambda: g_coupling_image_flow(
            IMAGE, blocks=1, scales=1, network=functools.partial(conditioner, bias="pixels", width=1, depth=1)
        ),
        [r"g_coupling_image_flow\(network=\{...\}\) is"],
    ),
    "branch": (
        lambda: g_residual(PART, branch=LipschitzNetwork(PART, width=2)),
        lambda: g_residual(PART, branch=functools.partial(LipschitzNetwork, width=2)),
        [r"g_residual\(branch=module\) is g_residual\(branch=factory\)"],
    ),
    "keywords of branches": (
        lambda: g_residual_image_flow(IMAGE, blocks=1, width=1, branch={"activation": "curves"}),
        lambda: g_residual_image_flow(
            IMAGE,
            blocks=1,
            branch=functools.partial(LipschitzNetwork, width=1, depth=1, bound=0.98, activation="curves"),
        ),
        [r"g_residual_image_flow\(branch=\{...\}\) is"],
    ),
    "branch of a residual layer": (
        lambda: GResidual(PART, branch=lipschitz_branch(PART)),
        lambda: GResidual(PART, lipschitz_branch(PART)),
        [r"GResidual\(branch=...\) is GResidual\(contraction=...\) now"],
    ),
    "branch of a monotone layer": (
        lambda: GMonotone(PART, branch=lipschitz_branch(PART)),
        lambda: GMonotone(PART, contraction=lipschitz_branch(PART)),
        [r"GMonotone\(branch=...\) is GMonotone\(contraction=...\) now"],
    ),
    "no soft flow": (
        lambda: g_coupling_image_flow(IMAGE, blocks=1, scales=1, width=1, soft=False),
        lambda: g_coupling_image_flow(IMAGE, blocks=1, scales=1, width=1),
        [r"g_coupling_image_flow\(..., soft=False\) is g_coupling_image_flow\(...\) now; the old form"],
    ),
}


def affine_factory(action_in, action_out):
    return EquivariantMLP(action_in, action_out, width=2)


def affine_network():
    return affine_factory(PART, IrrepScale(PART).params_action)


def weights(make):
    torch.manual_seed(0)
    return make().state_dict()


@pytest.mark.parametrize("name", FORMS)
def test_an_old_form_warns_and_gives_the_same_layer(name):
    old, new, messages = FORMS[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = weights(old)
    assert [warning.category for warning in caught] == [FutureWarning] * len(messages)
    for message in messages:
        matching = [warning for warning in caught if re.search(message, str(warning.message))]
        assert len(matching) == 1, [str(warning.message) for warning in caught]
        assert "goes with the next minor version" in str(matching[0].message)
        assert matching[0].filename == __file__  # where the old form was written
    now = weights(new)
    assert before.keys() == now.keys()
    assert all(torch.equal(before[key], now[key]) for key in now)


SOFT = {"scales": 1, "blocks": 1, "width": 1, "depth": 1}


def test_soft_flows_are_made_by_a_function_of_their_own():
    pytest.importorskip("escnn")
    action = OffGridAction("C8", size=4)
    message = r"soft=True\) is g_soft_coupling_image_flow\(...\) now; the old form"
    with pytest.warns(FutureWarning, match=message):
        old = weights(lambda: g_coupling_image_flow(action, **SOFT, soft=True))
    new = weights(lambda: g_soft_coupling_image_flow(action, **SOFT))
    assert all(torch.equal(old[key], new[key]) for key in new)
    with pytest.warns(FutureWarning, match=r"g_soft_coupling_image_flow\(network=\{...\}\)"):
        flow = g_soft_coupling_image_flow(action, **SOFT, network={"kernel_size": 3})
    assert {module.kernel_size for module in flow.modules() if isinstance(module, SoftNetwork)} == {3}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            lambda: ImageAction("C4", channels=2, size=4, fields="regular"),
            lambda: ImageAction("C4", copies=2, size=4, fields="regular"),
            r"ImageAction\(channels=...\) is ImageAction\(copies=...\)",
        ),
        (
            lambda: ImageAction.translations(channels=2, size=4),
            lambda: ImageAction.translations(copies=2, size=4),
            r"ImageAction.translations\(channels=...\) is ImageAction.translations\(copies=...\)",
        ),
        (
            lambda: OffGridAction("C8", channels=2, size=4),
            lambda: OffGridAction("C8", copies=2, size=4),
            r"OffGridAction\(channels=...\) is OffGridAction\(copies=...\)",
        ),
        (
            lambda: ImageSet("mnist", IMAGE_SETS["mnist"].scaling, turned="group"),
            lambda: ImageSet("mnist", IMAGE_SETS["mnist"].scaling, rotated="group"),
            r"ImageSet\(turned=...\) is ImageSet\(rotated=...\)",
        ),
        (lambda: IMAGE_SETS["cifar10-rot"].turned, lambda: "group", r"ImageSet.turned is ImageSet.rotated now"),
        (lambda: GCoupling(ACTION).moved, lambda: 1, "GCoupling.moved is GCoupling.transformed now"),
        (lambda: SITES.moves("x"), lambda: True, "SitesAction.moves is SitesAction.acts_on now"),
        (
            lambda: SITES.move("x", torch.tensor(1), torch.tensor([1.0, 2.0])).tolist(),
            lambda: [2.0, 1.0],
            "SitesAction.move is SitesAction.act_on_site now",
        ),
        (
            lambda: ACTION.decomposition[0].changed(torch.eye(1, dtype=torch.float64)).basis.tolist(),
            lambda: ACTION.decomposition[0].basis.tolist(),
            "Isotype.changed is Isotype.in_basis now",
        ),
        (
            lambda: ElementwiseAffine(PART)(torch.ones(4), torch.ones(8), belongs=torch.zeros(4))[1].item(),
            lambda: 0.0,
            r"Affine.forward\(belongs=...\) is .*Affine.forward\(mask=...\)",
        ),
        (
            lambda: lipschitz_branch(PART).given(torch.zeros(1)).bound,
            lambda: lipschitz_branch(PART).bound,
            "given is .*condition now",
        ),
    ],
)
def test_old_names_warn_and_mean_the_same(old, new, message):
    with pytest.warns(FutureWarning, match=message):
        assert old() == new()


SITES = SitesAction("S2", {"x": VectorAction.rows("S2")})


def test_a_contraction_with_the_old_method_for_contexts_is_served():
    with pytest.warns(FutureWarning, match=r"Shifted.given is Shifted.condition now"):

        class Shifted(Contraction):
            action = context_action = PART
            bound = 0.5

            def given(self, context):
                return lambda x: 0.5 * (x + context)

    f = Shifted().condition(torch.ones(4))
    assert torch.equal(f(torch.ones(4)), torch.ones(4))


def test_a_module_with_the_old_method_for_contexts_is_served():
    with pytest.warns(FutureWarning, match=r"Shifted.given\(context\) is Shifted.condition\(context\) now"):
        contraction = CustomContraction(Shifted(PART), PART)
    assert torch.equal(contraction.condition(torch.ones(4))(torch.ones(4)), torch.ones(4))


LAYERS = {
    "coupling of splines": lambda: g_coupling(
        ACTION, transformer=lambda part: ElementwiseSpline(part, bins=4), width=1
    ),
    "networks": lambda: g_coupling(ACTION, network=lambda a, b: EquivariantMLP(a, b, width=1, depth=0)),
    "network of another symmetry": lambda: GCoupling(
        ACTION, network=lambda a, b: EquivariantMLP(a.without_symmetry(), b.without_symmetry(), width=16, depth=2)
    ),
    "masked image": lambda: GCoupling(
        IMAGE, split=checkerboard_split(IMAGE), transformer=lambda part: IrrepScale(part)
    ),
    "affine": lambda: GAffine(PART, context_action=PART, transformer=lambda part: IrrepScale(part), width=1),
    "split": lambda: GSplit(ACTION, GActNorm(PART), split=SPLIT, transformer=lambda part: IrrepScale(part), width=1),
    "autoregressive": lambda: GAutoregressive(PAIR, transformer=lambda part: MatrixScale(part, rank=1), width=1),
    "autoregressive of a class": lambda: GAutoregressive(PAIR, transformer=MatrixScale, width=1),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_whose_parts_a_function_makes_is_described_copied_and_pickled(name):
    layer = LAYERS[name]()
    text = json.dumps(describe(layer))
    again = build(json.loads(text))
    again.load_state_dict(layer.state_dict())
    assert json.loads(json.dumps(describe(again))) == json.loads(text)
    for twin in (again, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        x = torch.randn(3, *layer.action_in.event_shape)
        context = None if layer.context_action is None else torch.randn(3, *layer.context_action.event_shape)
        assert torch.equal(twin.call_and_ladj(x, context)[0], layer.call_and_ladj(x, context)[0])
        assert json.loads(json.dumps(describe(twin))) == json.loads(text)


def test_what_a_layer_makes_by_itself_is_not_described():
    for factories in (
        {},
        {"transformer": ElementwiseAffine, "network": functools.partial(conditioner, width=2, depth=1)},
    ):
        arguments = describe(GCoupling(ACTION, width=2, depth=1, **factories))["arguments"]
        assert arguments["transformer"] is None and arguments["network"] is None


def test_modules_that_exist_are_handed_out_if_they_fit():
    parts = [IrrepScale(PART), MatrixScale(PAIR)]
    factory = MadeInTurn(parts)
    assert [factory(PART), factory(PAIR), factory(PART)] == [parts[0], parts[1], parts[0]]
    with pytest.raises(ValueError, match="expected a transformer of"):
        Made(parts[0])(PAIR)
    with pytest.raises(TypeError, match="expected a module, got"):
        Made(IrrepScale)


def test_a_flow_of_such_layers_is_built_from_its_description():
    layers = [g_coupling(ACTION, transformer=lambda part: ElementwiseSpline(part, bins=4), width=1)]
    flow = EquivariantFlow(InvariantNormal(ACTION), layers).eval()
    again = EquivariantFlow.from_config(flow.config())
    again.load_state_dict(flow.state_dict())
    x = torch.randn(5, 8)
    torch.testing.assert_close(again.eval().dist.log_prob(x), flow.dist.log_prob(x))
