"""The closed groups of translations of angles: axioms, generators, and values."""

import copy
import math
import pickle

import pytest
import torch

from pyro_gflows.groups import TorusTranslations
from pyro_gflows.numerics.angles import angle_between
from pyro_gflows.serialization.registry import build, describe

GROUPS = {
    "common": TorusTranslations([[1, -1]]),
    "with a finite part": TorusTranslations([[2, 0, 0], [0, 3, 3]]),
    "skew": TorusTranslations([[2, 3, 0]]),
    "many": TorusTranslations([[1, 1, 1, 1], [0, 2, 0, 4]]),
}


@pytest.fixture(params=GROUPS)
def group(request):
    return GROUPS[request.param]


def drawn(group, *shape, seed=0):
    return group.sample(shape, torch.Generator().manual_seed(seed))


def same(first, second):
    assert angle_between(first, second).abs().max() < 1e-13


def test_the_axioms_hold(group):
    g, h, k = drawn(group, 3, 30)
    same(group.compose(group.compose(g, h), k), group.compose(g, group.compose(h, k)))
    same(group.compose(group.identity(), g), g)
    same(group.compose(g, group.inverse(g)), group.identity())
    assert drawn(group).shape == group.element_shape and group.batch_shape(drawn(group, 2, 5)) == (2, 5)


def test_elements_fix_the_combinations(group):
    fixed = torch.tensor(group.fixed).double()
    for elements in (drawn(group, 500), group.generators(), group.compose(*drawn(group, 2, 9)), group.quadrature(2)[0]):
        same(elements @ fixed.T, torch.zeros(()))


def test_the_generators_are_dense(group):
    """The averages of the characters over products of generators vanish, unless the group fixes the character."""
    count = 5000
    generators = group.generators()
    powers = torch.randint(0, 10**6, (count, len(generators)), generator=torch.Generator().manual_seed(0)).double()
    elements = powers @ generators
    for k in torch.cartesian_prod(*[torch.arange(-2, 3)] * group.dimension).double():
        fixed = (drawn(group, 50) @ k).cos().min() > 1 - 1e-9
        assert ((elements @ k).cos().mean() - float(fixed)).abs() < 0.08


def test_a_group_is_a_value(group):
    for twin in (copy.deepcopy(group), pickle.loads(pickle.dumps(group)), build(describe(group))):
        assert twin == group and hash(twin) == hash(group) and str(twin) == str(group)
        assert torch.equal(drawn(twin, 3), drawn(group, 3))
    assert [other for other in GROUPS.values() if other == group] == [group]
    assert TorusTranslations([[1, -1]]) == TorusTranslations([[-1, 1], [2, -2]]) != TorusTranslations([[2, -2]])
    assert group.order == math.inf and not group.is_finite


def test_bad_combinations():
    with pytest.raises(ValueError, match="only the uniform density"):
        TorusTranslations([[0, 0]])
    with pytest.raises(ValueError, match="a list of integer combinations"):
        TorusTranslations([])
    with pytest.raises(ValueError, match="a list of integer combinations"):
        TorusTranslations([[1, 1], [1]])
    with pytest.raises(ValueError, match="whole coefficients"):
        TorusTranslations([[0.5, 1]])
    assert repr(TorusTranslations(torch.tensor([[2, -3, 0]]))) == "translations that fix 2 x1 - 3 x2"
