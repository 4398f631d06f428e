"""The two-sample test: its level on equal distributions, its power on unequal ones."""

import pytest
import torch

from pyro_gflows.numerics import two_sample_test

EQUAL = {
    "normal": lambda n, rng: torch.randn(n, 3, generator=rng),
    "heavy tails": lambda n, rng: torch.randn(n, 2, generator=rng) / torch.rand(n, 1, generator=rng) ** 2,
    "few values, with ties": lambda n, rng: torch.randint(0, 2, (n, 2), generator=rng).float(),
    "one value": lambda n, rng: torch.ones(n, 2),
    "many components": lambda n, rng: torch.rand(n, 40, generator=rng),
    "far from the origin": lambda n, rng: 1e6 + torch.rand(n, 2, generator=rng, dtype=torch.float64),
}


def split_of(x):
    return x[: len(x) // 2], x[len(x) // 2 :]


@pytest.mark.parametrize("name", EQUAL)
@pytest.mark.long
def test_equal_distributions_are_called_different_as_often_as_the_level_says(name):
    rng = torch.Generator().manual_seed(0)
    runs, level = 250, 0.05
    results = [two_sample_test(*split_of(EQUAL[name](24, rng)), level=level, generator=rng) for _ in range(runs)]
    false_alarms = sum(result.is_different for result in results)
    # 12.5 expected; 26 or more has probability 4e-4. None at all would be a test without power, but for a constant.
    assert false_alarms < 26
    assert false_alarms > 0 or name == "one value"


@pytest.mark.parametrize(
    ("name", "change"),
    {
        "location": lambda y: y + 0.6 * torch.eye(len(y[0]))[0],
        "scale": lambda y: 1.5 * y,
        "one scale": lambda y: y * torch.tensor([1.0, 1.0, 2.0]),
        "correlation": lambda y: y + 0.7 * y.roll(1, -1),
        "shape": lambda y: y.sign() * (1 + 0.1 * y),  # two heaps in each component
        "detail": lambda y: 0.8 * (y / 0.8).round() + 0.1 * y,
    }.items(),
)
def test_unequal_ones_are_told_apart(name, change):
    rng = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, 400, 3, generator=rng)
    result = two_sample_test(x, change(y), level=1e-3, generator=rng)
    assert result.is_different and result.p_value <= 1e-3 and result.distance > 3
    assert not two_sample_test(x, y, level=1e-3, generator=rng).is_different


def test_a_rejection_takes_as_many_swaps_as_the_level_needs():
    rng = torch.Generator().manual_seed(2)
    x = torch.randn(30, 2, generator=rng)
    for level in (0.5, 0.01, 1e-4):
        assert two_sample_test(x, x + 9, level=level, generator=rng).p_value == pytest.approx(level)
    two_pairs = two_sample_test(x[:2], x[:2] + 9, level=0.01, generator=rng)
    assert not two_pairs.is_different and two_pairs.p_value > 0.1  # of four ways to swap, two are as far apart


@pytest.mark.parametrize(
    ("first", "second", "level", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(4, 2), 0.1, r"one shape \(n, d\).* got \(3, 2\) and \(4, 2\)"),
        (torch.zeros(1, 2), torch.zeros(1, 2), 0.1, "n >= 2"),
        (torch.zeros(3), torch.zeros(3), 0.1, r"got \(3,\)"),
        (torch.zeros(3, 2), torch.zeros(3, 2), 0.0, r"level in \(0, 1\), got 0.0"),
    ],
)
def test_what_cannot_be_tested_is_refused(first, second, level, message):
    with pytest.raises(ValueError, match=message):
        two_sample_test(first, second, level=level, generator=torch.Generator())
