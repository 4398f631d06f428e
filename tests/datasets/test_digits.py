import math

import pytest
import torch

from pyro_gflows.datasets import DIGITS_SCALING, GrayLevels, digits, random_splits, stratified_rows

pytest.importorskip("sklearn")


def test_the_same_seed_gives_the_same_set_and_another_seed_another():
    first, again, other = digits(seed=1), digits(seed=1), digits(seed=2)
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(first, part), getattr(again, part))
        assert not torch.equal(getattr(first, part), getattr(other, part))
        assert getattr(first, part).shape[1:] == (1, 8, 8)


def test_every_seed_rotates_the_same_images_of_the_same_split():
    from sklearn.datasets import load_digits

    from pyro_gflows.datasets.optical_digits import rotate_by_90

    images = torch.from_numpy(load_digits().images).long().unsqueeze(1)
    labels = torch.from_numpy(load_digits().target).long()
    rows = stratified_rows(labels, parts=(0.7, 0.1, 0.2))
    rotations = set()
    for seed in (0, 5):
        split = digits(seed=seed)
        for part, x in zip(rows, (split.train, split.validation, split.test), strict=True):
            levels = DIGITS_SCALING.quantize(x)
            candidates = [rotate_by_90(images[part], torch.full((len(part),), k)) for k in range(4)]
            same = torch.stack([(levels == c).flatten(1).all(-1) for c in candidates])
            assert same.any(0).all()
            rotations |= set(same.long().argmax(0).tolist())
    assert rotations == {0, 1, 2, 3}


def test_the_split_is_disjoint_complete_and_stratified():
    labels = torch.arange(10).repeat_interleave(180)
    parts = stratified_rows(labels, parts=(0.7, 0.1, 0.2))
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(1800))
    for part, share in zip(parts, (126, 18, 36), strict=True):
        assert labels[part].bincount().tolist() == [share] * 10


def test_fractions_must_sum_to_one_and_rows_must_suffice():
    with pytest.raises(ValueError, match="sum to 1"):
        stratified_rows(torch.zeros(4), parts=(0.5, 0.4))
    with pytest.raises(ValueError, match=r"at least 10 rows.*got 4"):
        random_splits(torch.zeros(4, 2))


def test_a_uniform_density_over_the_cube_costs_log2_17_bits():
    for scaling in (GrayLevels(17), DIGITS_SCALING):
        nll = 64 * math.log(scaling.gain)  # the volume of the scaled cube is gain^64
        assert scaling.bits_per_dim(nll, pixels=64) == pytest.approx(math.log2(17), abs=1e-12)


def test_bits_per_dim_agree_with_the_exact_discrete_likelihood_of_a_histogram():
    levels = torch.tensor([0, 0, 0, 1, 2, 2])
    probabilities = torch.tensor([3, 1, 2], dtype=torch.float64) / 6
    scaling = GrayLevels(3, center=0.4, gain=1.7)
    y = scaling.dequantize(levels.double(), torch.Generator().manual_seed(0))
    density = probabilities[scaling.quantize(y)] * 3 / 1.7  # piecewise constant, so Jensen's bound is tight
    exact = -probabilities[levels].log2().mean()
    assert scaling.bits_per_dim(-float(density.log().mean()), pixels=1) == pytest.approx(float(exact), abs=1e-7)


def test_levels_survive_dequantization_and_fresh_noise():
    levels = torch.arange(17).repeat(4000)
    generator = torch.Generator().manual_seed(0)
    y = DIGITS_SCALING.dequantize(levels, generator)
    again = DIGITS_SCALING.redequantize(y, generator)
    assert torch.equal(DIGITS_SCALING.quantize(y), levels)
    assert torch.equal(DIGITS_SCALING.quantize(again), levels)
    assert not torch.equal(y, again)
    unit = DIGITS_SCALING.to_unit(y)
    assert float(unit.min()) >= 0 and float(unit.max()) <= 1
    assert float(unit.mean()) == pytest.approx(0.5, abs=0.01)
