"""The check of data finds the group elements under which the data are not invariant."""

import tracemalloc
import warnings

import numpy as np
import pytest
import torch

from pyro_gflows import EquivariantFlow, GActNorm, ImageAction, InvariantNormal, OffGridAction, VectorAction
from pyro_gflows.datasets import check_symmetry, load_data
from pyro_gflows.groups import parse_group
from pyro_gflows.targets import density
from pyro_gflows.training import FitSettings, fit, random_elements
from pyro_gflows.training.identity import run_identity

PLANE = VectorAction.plane
SIGNS = parse_group("C2 x C2")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def symmetrized(x, action, seed=0):
    return random_elements(action)(x, torch.Generator().manual_seed(seed))


def digits():
    """Digits in each of the four poses: mirror images are none of them."""
    return load_data("digits").train


def flow_under(action):
    return EquivariantFlow(InvariantNormal(action), [GActNorm(action)])


CONSISTENT = {
    "normal, D4": (lambda: normal(3000, 2), lambda: PLANE("D4")),
    "normal, O(2)": (lambda: normal(3000, 2), lambda: PLANE("O(2)")),
    "triangle, C3": (lambda: symmetrized(0.3 * normal(3000, 2) + 1.0, PLANE("C3")), lambda: PLANE("C3")),
    "axes, D2": (lambda: normal(3000, 2) * torch.tensor([1.0, 2.0]), lambda: PLANE("D2")),
    "rows, S5": (lambda: normal(3000, 5).exp(), lambda: VectorAction.rows("S5")),
    "two vectors, O(3)": (lambda: normal(3000, 6), lambda: VectorAction.space("O(3)", copies=2)),
    "digits, C4": (digits, lambda: ImageAction("C4", 1, size=8)),
    "off the grid, C8": (digits, lambda: OffGridAction("C8", 1, size=8)),
    "no symmetry": (lambda: normal(3000, 2) + 1, lambda: VectorAction.trivial("C1", copies=2)),
}

# the elements that these data contradict
CONTRADICTED = {
    "off-center, D4": (lambda: normal(3000, 2) + torch.tensor([0.4, 0.0]), lambda: PLANE("D4"), {1, 2, 3, 5, 6, 7}),
    "anisotropic, D4": (lambda: normal(3000, 2) * torch.tensor([1.0, 1.6]), lambda: PLANE("D4"), {1, 3, 5, 7}),
    "correlated, D2": (lambda: normal(3000, 2) @ torch.tensor([[1.0, 0.5], [0.0, 1.0]]), lambda: PLANE("D2"), {2, 3}),
    "three corners, D3": (
        lambda: symmetrized(0.3 * normal(3000, 2) + torch.tensor([0.8, 0.5]), PLANE("C3")),
        lambda: PLANE("D3"),
        {3, 4, 5},
    ),
    "one row apart, S3": (
        lambda: normal(3000, 3) + torch.tensor([0.0, 0.0, 0.5]),
        lambda: VectorAction.rows("S3"),
        {1, 3, 4, 5},
    ),
    "digits, D4": (digits, lambda: ImageAction("D4", 1, size=8), {4, 5, 6, 7}),
    "digits' mirror images, off the grid, D8": (digits, lambda: OffGridAction("D8", 1, size=8), {4, 5, 6, 7}),
    "a small component beside a large one": (
        lambda: torch.cat([1e4 * normal(3000, 1), normal(3000, 1, seed=1) + 0.4], -1),
        lambda: VectorAction.signs(1).lift(SIGNS, 0).direct_sum(VectorAction.signs(1).lift(SIGNS, 1)),
        {1, 3},
    ),
}


@pytest.mark.parametrize("name", CONSISTENT)
@pytest.mark.long
def test_data_with_the_symmetry_contradict_no_element(name):
    make, action = CONSISTENT[name]
    report = check_symmetry(make(), action())
    assert report.is_consistent and len(report.contradicted) == 0, report
    assert "do not contradict" in str(report) and "CONTRADICTED" not in str(report)


@pytest.mark.parametrize("name", CONTRADICTED)
@pytest.mark.long
def test_the_elements_that_are_no_symmetry_are_named(name):
    make, action, expected = CONTRADICTED[name]
    report = check_symmetry(make(), action())
    assert set(report.contradicted.tolist()) == expected, report
    lines = [line for line in str(report).splitlines() if "CONTRADICTED" in line]
    assert [line.split(",")[0].strip().split()[1] for line in lines] == [str(i) for i in sorted(expected)]
    assert f"contradict {len(expected)} of" in str(report)


@pytest.mark.parametrize("group", ["SO(2)", "O(2)"])
@pytest.mark.long
def test_a_continuous_group_is_tested_by_its_generators_and_random_elements(group):
    x = normal(3000, 2) * torch.tensor([1.0, 2.0])
    report = check_symmetry(x, PLANE(group))
    assert report.elements.shape == (8, 2, 2) and len(report.contradicted) >= 3
    assert torch.equal(report.elements[0], PLANE(group).generators()[0])
    assert any(name.startswith("rotation by") for name in report.contradicted_names)


@pytest.mark.long
def test_of_a_large_group_the_generators_and_random_elements_are_tested():
    action = VectorAction.rows("S5")
    report = check_symmetry(normal(1000, 5) + torch.tensor([0, 0, 0, 0, 1.0]), action)
    tested = report.elements.tolist()
    assert len(set(tested)) == 8 and 0 not in tested and tested[:2] == action.generators().tolist()
    assert not report.is_consistent
    assert report.level / 8 >= max(result.p_value for result in report.results if result.is_different)
    assert "permutation [1, 0, 2, 3, 4]" in report.names[0]


@pytest.mark.long
def test_the_level_is_that_of_all_elements_together():
    """At a level of 0.2, so that few runs show it; without a correction for seven elements it would be near 0.8."""
    action, rng = PLANE("D4"), torch.Generator().manual_seed(0)
    reports = [check_symmetry(torch.randn(60, 2, generator=rng), action, level=0.2, seed=seed) for seed in range(60)]
    assert 1 <= sum(not report.is_consistent for report in reports) <= 22  # 12 expected at most, as they go together


def test_the_halves_are_disjoint():
    """Data that hold each row with all its images would otherwise be compared with themselves."""
    x = normal(40, 2) + 2
    assert not check_symmetry(x, PLANE("C2")).is_consistent
    everything = PLANE("C2").act_all(x).flatten(0, 1)
    assert check_symmetry(everything, PLANE("C2")).is_consistent


def test_arrays_elements_and_seeds():
    x = normal(500, 2).double().numpy() + np.array([1.0, 0.0])
    state = torch.get_rng_state()
    report = check_symmetry(x, PLANE("C4"), elements=torch.tensor([2]), seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert report.contradicted.tolist() == [2] and report.rows == 500
    assert report.contradicted_names == ("element 2, rotation by 180 degrees",)
    again = check_symmetry(torch.tensor(x).float().requires_grad_(), PLANE("C4"), elements=torch.tensor([2]), seed=3)
    assert again.contradicted.tolist() == [2]


def test_of_a_memory_mapped_array_only_the_rows_that_are_used_are_read(tmp_path):
    array = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype="f4", shape=(200_000, 40))  # 32 MB
    array[:, 0] = 1.0 + np.random.default_rng(0).standard_normal(len(array))
    tracemalloc.start()
    report = check_symmetry(array, VectorAction.regular("C2", copies=20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not report.is_consistent and peak < 1e7


@pytest.mark.parametrize(
    ("data", "action", "options", "error", "message"),
    [
        ([1.0, 2.0], PLANE("C2"), {}, TypeError, "expected a tensor or an array"),
        (normal(39, 2), PLANE("C2"), {}, ValueError, "at least 40 rows to compare two halves, got 39"),
        (normal(100, 2), PLANE("C2"), {"rows": 10}, ValueError, "at least 40 rows to compare two halves, got 10"),
        (normal(100, 3), PLANE("C2"), {}, ValueError, "event shape"),
        (normal(100, 2) / 0, PLANE("C2"), {}, ValueError, "not finite"),
        (torch.zeros(100, 2, dtype=torch.int64), PLANE("C2"), {}, TypeError, "floating-point"),
        (normal(100, 2), "C2", {}, TypeError, r"Action such as VectorAction.plane\('D4'\), got str"),
        (normal(100, 2), PLANE("C2"), {"level": 1.0}, ValueError, r"level in \(0, 1\), got 1.0"),
    ],
)
def test_what_cannot_be_checked_is_refused(data, action, options, error, message):
    with pytest.raises(error, match=message):
        check_symmetry(data, action, **options)


SETTINGS = FitSettings(steps=1, batch_size=32)


@pytest.mark.parametrize("group", ["C4", "O(2)"])
def test_fit_warns_of_data_that_contradict_its_flow(group):
    x = normal(1000, 2) * torch.tensor([1.0, 2.0])
    with pytest.warns(UserWarning, match=r"not symmetric under .*rotation by .*check_symmetry\(data, flow.action\)"):
        fit(flow_under(PLANE(group)), x, settings=SETTINGS, progress=False)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (lambda: {"data": normal(1000, 2)}, SETTINGS),
        (lambda: {"data": normal(1000, 2) + 1}, FitSettings(steps=1, batch_size=32, check_symmetry=False)),
        (lambda: {"data": normal(20, 2) + 1}, SETTINGS),
        (lambda: {"data": normal(1000, 2) + 1, "augment": random_elements(PLANE("C4"))}, SETTINGS),
        (lambda: {"data": density("8gaussians")}, SETTINGS),
    ],
)
def test_fit_says_nothing_where_there_is_nothing_to_say(make, settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(flow_under(PLANE("C4")), settings=settings, progress=False, **make())


def test_the_check_changes_nothing_about_a_run():
    quiet = FitSettings(steps=3, batch_size=32, check_symmetry=False)
    loud = FitSettings(steps=3, batch_size=32)
    flows = [flow_under(PLANE("C4")) for _ in range(2)]
    for flow, settings in zip(flows, (quiet, loud), strict=True):
        fit(flow, normal(500, 2), settings=settings, progress=False)
    for mine, theirs in zip(*(flow.parameters() for flow in flows), strict=True):
        assert torch.equal(mine, theirs)
    assert run_identity(flows[0], quiet) == run_identity(flows[0], loud)
    assert "check_symmetry" not in run_identity(flows[0], loud)["settings"] and "check_symmetry" not in repr(loud)


def test_a_resumed_run_is_not_checked_again(tmp_path):
    x, flow = normal(500, 2) + 1, flow_under(PLANE("C4"))
    with pytest.warns(UserWarning, match="not symmetric"):
        fit(flow, x, settings=SETTINGS, folder=tmp_path, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(flow, x, settings=SETTINGS, folder=tmp_path, resume=True, progress=False)
