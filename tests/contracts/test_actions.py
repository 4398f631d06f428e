"""Every action and every split of the table has its mathematical properties (contracts 30, 40, 43)."""

import copy
import functools
import math
import pickle

import pytest
import torch

from pyro_gflows.actions import LinearAction, Split, TorusAction, VectorAction
from pyro_gflows.serialization.registry import build, describe
from tests.constructors import TABLE, names
from tests.contracts.second_device import SECOND, second_device


@functools.cache
def _parts(name):
    """Return the different actions and the different splits of all layers of a constructor."""
    actions, splits = {}, {}
    for module in TABLE[name].build().modules():
        for action in (getattr(module, "action_in", None), getattr(module, "action_out", None)):
            if action is not None:
                actions.setdefault(str(action), action)
        if isinstance(getattr(module, "split", None), Split):
            splits.setdefault(str(module.split), module.split)
    return list(actions.values()), list(splits.values())


@pytest.fixture(params=TABLE)
def actions(request):
    return _parts(request.param)[0]


def elements_of(action, count=4):
    return action.sample((count,), torch.Generator().manual_seed(0))


def events_of(action, *batch):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*batch, *action.event_shape, generator=generator, dtype=torch.float64)


def assert_same(action, x, y, tol=1e-12):
    """Events are equal, angles modulo 2 pi."""
    assert action.space.difference(x, y).abs().max() <= tol


def test_an_action_is_a_homomorphism_to_isometries(actions):
    for action in actions:
        x, y = events_of(action, 2)
        distance = action.space.difference(x, y).norm()
        for g, h in zip(elements_of(action), elements_of(action).flip(0), strict=True):
            assert_same(action, action.act(g, action.act(h, x)), action.act(action.group.compose(g, h), x))
            images = action.space.difference(action.act(g, x), action.act(g, y))
            torch.testing.assert_close(images.norm(), distance, rtol=1e-12, atol=0.0)


def test_an_action_computes_where_its_elements_and_events_are(actions):
    """Contract 9: drawn elements are on the CPU, and elements computed from events are on the device of the events."""

    def computed(action, device):
        g, h, x = elements_of(action), elements_of(action).flip(0).to(device), events_of(action, 4).to(device)
        yield action.act_each(g, x)
        g = g.to(device)
        yield from (action.act_each(g, x), action.act(g[0], x), action.matrix(g))
        yield from (action.group.compose(g, h), action.group.inverse(g))
        if (found := action.canonical(x)) is not None:
            yield action.act_each(found, x)

    for action in actions:
        expected = list(computed(action, torch.device("cpu")))
        with second_device():
            found = list(computed(action, SECOND))
            assert {value.device for value in found} == {SECOND}
            found = [value.cpu() for value in found]
        torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-12)


def test_the_matrices_are_those_of_the_map(actions):
    for action in actions:
        x, elements = events_of(action, 2), elements_of(action)
        images = (
            (action.matrix(elements)[:, None] @ x.flatten(1)[..., None]).squeeze(-1).unflatten(-1, action.event_shape)
        )
        if isinstance(action, TorusAction):
            images = images + action.shift(elements)[:, None]
        assert_same(action, action.act_each(elements[:, None], x), images)
        assert_same(action, action.act_each(elements[:2], x), torch.stack([images[0, 0], images[1, 1]]))
        if action.is_enumerable:
            everything = torch.stack([action.act(g, x) for g in action.elements()])
            torch.testing.assert_close(action.act_all(x), everything, rtol=0.0, atol=1e-14)
        else:
            with pytest.raises(ValueError, match="can be listed" if action.is_finite else "infinitely many"):
                action.act_all(x)


def test_the_decomposition_is_complete_and_block_diagonal(actions):
    for action in actions:
        if not isinstance(action, LinearAction):
            continue
        isotypes = action.decomposition
        basis = torch.cat([isotype.basis.flatten(0, 1) for isotype in isotypes])
        torch.testing.assert_close(basis @ basis.T, torch.eye(action.numel, dtype=torch.float64), rtol=0.0, atol=1e-12)
        elements = elements_of(action)
        blocks = torch.stack(
            [
                torch.block_diag(
                    *[v for isotype in isotypes for v in isotype.irrep(g).expand(isotype.multiplicity, -1, -1)]
                )
                for g in elements
            ]
        )
        torch.testing.assert_close(basis @ action.matrix(elements) @ basis.T, blocks, rtol=0.0, atol=1e-11)
        assert [isotype.is_trivial for isotype in isotypes].count(True) <= 1


def test_an_action_is_a_value(actions):
    for action in actions:
        x, g = events_of(action), elements_of(action)[1]
        for twin in (copy.deepcopy(action), pickle.loads(pickle.dumps(action)), build(describe(action))):
            assert twin == action and hash(twin) == hash(action) and repr(twin) == repr(action)
            assert torch.equal(twin.act(g, x), action.act(g, x))
        assert action != VectorAction.trivial("C7")


def test_an_action_follows_the_dtype(actions):
    for action in actions:
        image = action.act(elements_of(action)[0], events_of(action, 2).float())
        assert image.dtype == torch.float32 and image.shape == (2, *action.event_shape)
        with pytest.raises(ValueError, match="expected x of shape"):
            action.act(elements_of(action)[0], torch.zeros(2, action.event_shape[-1] + 1))


@pytest.mark.parametrize("name", names(TABLE, splits=True))
def test_each_part_of_a_split_is_mapped_to_itself(name):
    """Contract 40, for every generator and for random elements."""
    for split in _parts(name)[1]:
        x = events_of(split.action, 2)
        torch.testing.assert_close(split.merge(split.split(x)), x, rtol=0.0, atol=1e-12)
        for g in torch.cat([split.action.generators(), elements_of(split.action)]):
            images = split.split(split.action.act(g, x))
            shifts = split.split(split.action.act(g, torch.zeros_like(x)))  # of angles; parts have no translations
            for part, before, after, shift in zip(split.parts, split.split(x), images, shifts, strict=True):
                difference = split.action.space.difference(after, part.act(g, before) + shift)
                torch.testing.assert_close(difference, torch.zeros_like(after), rtol=0.0, atol=1e-12)


def test_generators_that_are_not_orthogonal_are_refused_with_the_defect():
    """Contract 43: matrices that are exact to 1e-6 cannot give an equivariance of 1e-10."""
    c, s = round(math.cos(2 * math.pi / 5), 6), round(math.sin(2 * math.pi / 5), 6)
    with pytest.raises(ValueError, match=r"not orthogonal.*e-07, expected at most 1e-12"):
        VectorAction.from_generators([[[c, -s], [s, c]]])
    rotation = torch.linalg.matrix_exp(torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64))
    with pytest.raises(ValueError, match="more than max_order=50"):
        VectorAction.from_generators([rotation], max_order=50)
    exact = VectorAction.from_generators([[1, 2, 3, 4, 0]])
    assert exact.is_permutation and exact.group.order == 5
