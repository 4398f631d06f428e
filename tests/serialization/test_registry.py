"""Descriptions: what goes in comes out, through JSON, and nothing else gets in."""

import json

import pytest
import torch

from pyro_gflows import CoordinateSplit, GCoupling, IrrepScale, VectorAction
from pyro_gflows.serialization.registry import build, describe, registered, registered_classes


@registered
class Brick:
    """A class that remembers its arguments."""

    def __init__(self, first, *rest_is_none, key=2.5, **more):
        self.first, self.key, self.more = first, key, more


@registered
class SmallBrick(Brick):
    """A subclass with a constructor of its own."""

    def __init__(self, first):
        super().__init__(first, key=0.0)


class Stone:
    """A class that is not registered."""


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -0.1,
        1e300,
        "text",
        [1, [2.0, "x"], None],
        {"a": 1, "b": {"c": [True]}},
        {"class": "looks like a description"},
        {"tensor": "this too"},
        Brick,
    ],
    ids=repr,
)
def test_plain_values_come_back_through_json(value):
    assert build(json.loads(json.dumps(describe(value)))) == value


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([[1.0, 1 / 3], [1e-40, -0.0]], dtype=torch.float64),
        torch.tensor([1 / 3, 1e30]),
        torch.tensor([[True, False]]),
        torch.tensor([2**62, -1]),
        torch.tensor(3.5),
        torch.zeros(0, dtype=torch.float64),
    ],
)
def test_tensors_come_back_bit_by_bit(tensor):
    twin = build(json.loads(json.dumps(describe(tensor))))
    assert twin.dtype == tensor.dtype
    assert torch.equal(twin, tensor)


def test_objects_come_back_with_what_was_given():
    brick = Brick([SmallBrick(1), torch.tensor([2.0])], key=Brick, other="x")
    twin = build(json.loads(json.dumps(describe(brick))))
    assert type(twin) is Brick
    assert type(twin.first[0]) is SmallBrick
    assert twin.first[0].first == 1
    assert twin.key is Brick
    assert twin.more == {"other": "x"}


def test_a_subclass_is_described_by_its_own_arguments():
    assert describe(SmallBrick(7)) == {"class": "SmallBrick", "arguments": {"first": 7}}


def test_registered_classes_are_a_copy():
    registered_classes().clear()
    assert registered_classes()["Brick"] is Brick


@pytest.mark.parametrize("value", [Stone(), [Stone()], {"key": Stone()}, Brick(Stone()), Stone, lambda: None, {1: 2}])
def test_what_is_not_registered_names_the_way_by_state_dict(value):
    with pytest.raises(TypeError, match=r"(?s)is not registered.*flow.state_dict\(\) and flow.load_state_dict"):
        describe(value)


@pytest.mark.parametrize("description", [{"class": "Stone", "arguments": {}}, {"type": "os"}])
def test_unknown_classes_are_refused_in_one_short_sentence(description):
    with pytest.raises(ValueError, match=r"is not registered; import the module that defines it.* load its w") as error:
        build(description)
    assert "Brick" not in str(error.value)


@pytest.mark.parametrize("description", [{}, {"class": None}])
def test_descriptions_without_a_class_are_refused(description):
    with pytest.raises(ValueError, match=r"damaged description: expected the name of a class"):
        build(description)


@pytest.mark.parametrize(
    "description",
    [
        {"class": "Brick"},
        {"class": "Brick", "arguments": [1]},
        {"tensor": [1.0], "dtype": "load"},
        {"tensor": [1.0]},
        {"dict": 3},
    ],
    ids=str,
)
def test_damaged_descriptions_are_refused(description):
    with pytest.raises(ValueError, match="damaged description"):
        build(description)


def test_two_classes_of_one_name_are_refused():
    class Brick:
        """Another one."""

    with pytest.raises(ValueError, match="a class named 'Brick' is registered already"):
        registered(Brick)


@registered
class ScaledHalves(GCoupling):
    """A layer of the user's own, whose constructor decides about the parts."""

    def __init__(self, action):
        super().__init__(action, split=CoordinateSplit(action), transformer=IrrepScale, width=4)


def test_a_layer_of_one_s_own_is_described_by_the_arguments_of_its_constructor():
    action = VectorAction.regular("C4", copies=2)
    layer = ScaledHalves(action)
    again = build(describe(layer))
    again.load_state_dict(layer.state_dict())
    assert describe(layer)["arguments"].keys() == {"action"}
    assert type(again.transformer) is IrrepScale
