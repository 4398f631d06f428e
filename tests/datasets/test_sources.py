"""Tensors, arrays on disk, data sets and loaders may be fitted and scored, in any floating dtype."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from pyro_gflows import EquivariantFlow, GActNorm, GAffine, InvariantNormal, VectorAction
from pyro_gflows.datasets import check_data
from pyro_gflows.evaluation import (
    energy_report,
    group_log_probs,
    invariance_error,
    invariance_report,
    log_probs,
    nll,
    symmetrized_nll,
)
from pyro_gflows.training import FitSettings, ForwardKL, fit, fit_energy
from tests.small_flows import points, small_flow

ROOT = Path(__file__).parents[2]
ACTION = VectorAction.plane("D4")


def plain_flow(dtype=torch.float64):
    return EquivariantFlow(InvariantNormal(ACTION), [GActNorm(ACTION)]).to(dtype)


class Labelled(Dataset):
    """Events as arrays, with labels."""

    def __len__(self):
        return 600

    def __getitem__(self, row):
        return points()[row].numpy(), row % 2


class Endless(IterableDataset):
    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        while True:
            yield 2 * torch.randn(2, generator=generator, dtype=torch.float64)


def memory_map(tmp_path, array):
    np.save(tmp_path / "events.npy", array)
    return np.load(tmp_path / "events.npy", mmap_mode="r")


FORMS = {
    "array": lambda x, path: x.numpy(),
    "memory map": lambda x, path: memory_map(path, x.numpy()),
    "a part of a memory map": lambda x, path: memory_map(path, np.concatenate([x.numpy(), 0 * x.numpy()], 1))[:, :2],
    "the other byte order": lambda x, path: x.numpy().astype(">f8"),
    "long double": lambda x, path: x.numpy().astype(np.longdouble),
    "reversed": lambda x, path: x.flip(0).numpy()[::-1],
    "data set": lambda x, path: TensorDataset(x, torch.arange(len(x))),
    "part of a data set": lambda x, path: Subset(TensorDataset(torch.cat([x, 0 * x])), range(len(x))),
    "data set of arrays with labels": lambda x, path: Labelled(),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FORMS)
def test_a_fit_is_the_same_however_the_events_are_stored(name, dtype, tmp_path):
    settings = FitSettings(steps=4, batch_size=64)
    results = []
    for data in (points(), FORMS[name](points(), tmp_path)):
        flow = plain_flow(dtype)
        result = fit(flow, data, validation=data, settings=settings, progress=False)
        results.append((torch.cat([p.detach().flatten() for p in flow.parameters()]), result.validation_nll))
    # casting twice (array, then weights) rounds once more than casting once
    assert torch.equal(results[0][0], results[1][0]) and results[0][1] == results[1][1]


@pytest.mark.parametrize(
    "loader",
    [
        lambda x: DataLoader(TensorDataset(x), batch_size=600),
        lambda x: DataLoader(Labelled(), batch_size=600),
        lambda x: DataLoader(TensorDataset(x), batch_size=600, shuffle=True),
        lambda x: DataLoader(x.numpy(), batch_size=600),
    ],
)
def test_a_loader_gives_its_own_batches_for_as_many_passes_as_needed(loader):
    sizes = []

    def augment(x, generator):
        sizes.append((len(x), x.dtype))
        return x

    flow, same = plain_flow(), plain_flow()
    # one batch holds all events, so that the order does not count
    fit(flow, loader(points()), settings=FitSettings(steps=5, batch_size=7), augment=augment, progress=False)
    fit(same, points(), settings=FitSettings(steps=5, batch_size=600), progress=False)
    assert set(sizes) == {(600, torch.float64)}
    for p, q in zip(flow.parameters(), same.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-4, rtol=1e-4)


class Scaled(TensorDataset):
    """Tensors that are changed on the way out."""

    def __getitem__(self, row):
        return (10 * super().__getitem__(row)[0],)


def test_a_data_set_of_tensors_that_changes_them_is_asked_for_its_items():
    seen = []
    settings = FitSettings(steps=1, batch_size=8)
    fit(plain_flow(), Scaled(points()), settings=settings, augment=lambda x, _: seen.append(x) or x, progress=False)
    torch.testing.assert_close(seen[0], 10 * points()[torch.cdist(seen[0], 10 * points()).argmin(-1)])


def test_a_stream_is_fitted_and_an_empty_loader_is_named():
    result = fit(plain_flow(), DataLoader(Endless(), batch_size=32), settings=FitSettings(steps=3), progress=False)
    assert result.steps == 3
    with pytest.raises(ValueError, match="gives no batch"):
        fit(plain_flow(), DataLoader(TensorDataset(points(5)), batch_size=8, drop_last=True), progress=False)


@pytest.mark.long
def test_a_large_memory_map_is_never_held_in_memory(tmp_path):
    """A process that may not have 40 MB more of memory of its own fits 80 MB, and validates and scores on them."""
    script = f"""
        import resource
        import numpy as np, torch
        torch.set_num_threads(1)
        from pyro_gflows.training import FitSettings, Validation, fit
        from pyro_gflows.evaluation import nll
        from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
        path = {str(tmp_path / "large.npy")!r}
        array = np.lib.format.open_memmap(path, "w+", np.float64, (500_000, 20))
        part = np.random.default_rng(0).normal(size=(100_000, 20))
        for start in range(0, len(array), len(part)):
            array[start:start + len(part)] = part
        array.flush()
        array = np.load(path, mmap_mode="r")
        action = VectorAction.trivial("C1", copies=20)
        small = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        settings = FitSettings(steps=3, batch_size=64, validation=Validation(3))
        fit(small, array[:1000], validation=array[:1000], settings=settings, progress=False)  # what is set up once
        used = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (used + 40_000_000,) * 2)
        fit(small, array, settings=settings, folder={str(tmp_path)!r}, progress=False)
        print("fitted")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout == "fitted\n", done.stderr


# -- what is refused ---------------------------------------------------------------------------------------------------
class Wordy(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, row):
        return {"x": points(3)[row]}


class Unsized(Dataset):
    def __getitem__(self, row):
        return points(3)[row]


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (TensorDataset(points().long()), TypeError, "floating-point data, got int64"),
        (TensorDataset(torch.zeros(9, 3)), ValueError, r"expected event shape \(2,\), received \(3,\)"),
        (Subset(TensorDataset(torch.zeros(9, 3)), [1, 2]), ValueError, r"expected event shape \(2,\), received \(3,\)"),
        (Subset(TensorDataset(points()), []), ValueError, "is empty"),
        (Wordy(), TypeError, "events as a tensor.*got dict"),
        (Unsized(), TypeError, "Dataset with a length"),
        (Endless(), TypeError, "give a stream as a DataLoader"),
        (DataLoader(Wordy(), batch_size=2), TypeError, "events as a tensor.*got dict"),
        (DataLoader(TensorDataset(torch.zeros(9, 3)), batch_size=4), ValueError, r"first batch.* received \(3,\)"),
        (np.ma.masked_less(points().numpy(), 0.0), TypeError, "without a mask"),
        (np.zeros((9, 2), dtype=np.uint8), TypeError, "floating-point data, got uint8"),
        (np.array(["a", "b"]), TypeError, "real floating-point values"),
        (points().numpy() * [[np.nan, 1.0]], ValueError, "row 0 holds nan"),
        ([points()], TypeError, "a Dataset, got list"),
    ],
)
def test_what_is_no_data_is_named(data, error, message):
    with pytest.raises(error, match=message):
        fit(plain_flow(), data, progress=False)


@pytest.mark.parametrize("kind", ["tensor", "array", "float64 array", "data set", "sampler", "augmented", "validation"])
def test_values_whose_squares_overflow_are_named_before_training(kind):
    data = points().float()
    data[17, 1] = 1e20
    options = {}
    if kind == "array":
        data = data.numpy()
    elif kind == "float64 array":
        data = data.double().numpy()
        data[17, 1] = 1e60
    elif kind == "data set":
        data = TensorDataset(data)
    elif kind == "sampler":
        data = (lambda x: lambda n, generator: x[:n])(data)
    elif kind == "augmented":
        data, options = points(), {"augment": lambda x, generator: 1e20 * x}
    elif kind == "validation":
        data, options = points(), {"validation": data}
    with pytest.raises(ValueError, match=r"holds a value of size .*too large for float32: scale the data"):
        fit(plain_flow(torch.float32), data, progress=False, settings=FitSettings(steps=2), **options)


def test_large_values_that_can_be_squared_are_fitted():
    for dtype, size in ((torch.float32, 1e12), (torch.float64, 1e20)):
        result = fit(plain_flow(dtype), size * points(), settings=FitSettings(steps=2), progress=False)
        assert np.isfinite(result.train_curve[-1][1])


def test_frozen_weights_are_named():
    flow = plain_flow().requires_grad_(False)
    with pytest.raises(ValueError, match=r"each of the flow's is frozen \(1 tensors\); call requires_grad_\(True\)"):
        fit(flow, points(), progress=False)
    flow = small_flow()
    flow.transforms[0].requires_grad_(False)
    before = [p.detach().clone() for p in flow.transforms[0].parameters()]
    fit(flow, points(), settings=FitSettings(steps=2, ema_decay=0.9), progress=False)
    assert all(torch.equal(p, q) for p, q in zip(flow.transforms[0].parameters(), before, strict=True))


# -- scoring -----------------------------------------------------------------------------------------------------------
SCORES = {
    "log_probs": lambda flow, x: log_probs(flow, x),
    "nll": lambda flow, x: nll(flow, x),
    "group_log_probs": lambda flow, x: group_log_probs(flow, x, ACTION),
    "symmetrized_nll": lambda flow, x: symmetrized_nll(flow, x, ACTION),
    "invariance_error": lambda flow, x: invariance_error(flow, x, VectorAction.plane("C3")),
    "invariance_report": lambda flow, x: invariance_report(flow, x, VectorAction.plane("C3")).mean,
    "energy_report": lambda flow, x: (
        energy_report(flow, lambda y: -y.square().sum(-1), draws=20, samples=x).forward_nll
    ),
}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_that_scores_takes_arrays_and_other_dtypes(name, dtype):
    flow = small_flow().to(dtype)
    fit(flow, points(), settings=FitSettings(steps=1), progress=False)
    x = points(40)
    expected = SCORES[name](flow, x.to(dtype))
    for other in (x, x.float(), x.numpy(), x.float().numpy(), x.numpy().astype(">f8"), x.flip(0).numpy()[::-1]):
        torch.testing.assert_close(SCORES[name](flow, other), expected, atol=2e-4, rtol=2e-4)


def test_what_cannot_be_scored_is_named():
    flow = plain_flow()
    for wrong, error, message in [
        ([[0.0, 1.0]], TypeError, "got list"),
        (torch.zeros(3, 2, dtype=torch.long), TypeError, "floating-point data, got int64"),
        (np.zeros((3, 2), dtype=np.uint8), TypeError, "floating-point data, got uint8"),
        (np.zeros((0, 2)), ValueError, "x is empty"),
    ]:
        with pytest.raises(error, match=message):
            nll(flow, wrong)


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize(("own", "other"), [(torch.float32, torch.float64), (torch.float64, torch.float32)])
def test_the_density_says_which_dtype_it_expects(own, other, context):
    if context:
        layer = GAffine(ACTION, context_action=ACTION, width=2)
        density = EquivariantFlow(InvariantNormal(ACTION), [layer]).to(own).condition(torch.zeros(3, 2, dtype=own))
    else:
        density = small_flow().to(own).dist
    x = torch.ones(3, 2, dtype=other)
    assert density.log_prob(x.to(own)).dtype == own
    for scored in (density, density.expand((3,)), density.to_event(0)):
        with pytest.raises(TypeError, match=rf"flow's dtype {own}, got {other}; convert them by .to\({own}\)"):
            scored.log_prob(x)
        with pytest.raises(TypeError, match=f"expected events as a tensor of {own}, got ndarray"):
            scored.log_prob(x.numpy())


def test_check_data_gives_a_tensor_of_its_own(tmp_path):
    array = memory_map(tmp_path, points(10).numpy())
    x = check_data(array)
    x += 1.0  # a read-only map would end the process
    np.testing.assert_array_equal(array, points(10).numpy())


@pytest.mark.parametrize("own", [torch.float32, torch.float64])
def test_a_fit_to_an_energy_takes_samples_in_any_form(own):
    x = points(30)
    found = []
    for samples in (x.to(own), x, x.float(), x.numpy(), x.float().numpy()):
        flow = plain_flow(own)
        options = {"settings": FitSettings(steps=3, batch_size=8), "progress": False}
        report = fit_energy(flow, lambda y: -y.square().sum(-1), mixing=ForwardKL(samples), samples=samples, **options)
        found.append(report.forward_nll)
    assert found == pytest.approx([found[0]] * len(found), abs=1e-4)
    with pytest.raises(ValueError, match=r"samples of ForwardKL: expected event shape \(2,\), received \(3,\)"):
        fit_energy(plain_flow(), lambda y: -y.square().sum(-1), mixing=ForwardKL(torch.zeros(4, 3)), progress=False)
