"""Batches of several processes: together those of one process, in any number of processes, also after a restart.

Contract 54.
"""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, TensorDataset

from pyro_gflows.datasets import Share, open_rows
from pyro_gflows.datasets.rows import as_rows
from pyro_gflows.training.batches import batches_of
from pyro_gflows.training.loader import check_different, check_shared
from tests.small_flows import points

ROWS = torch.arange(100.0).reshape(-1, 1)


def streams(data, size, *, batch_size=8):
    return [batches_of(data, batch_size, 3, share=Share(rank, size)) for rank in range(size)]


def joined(streams, steps):
    """The global batches of some steps."""
    return [torch.cat([stream.next() for stream in streams]) for _ in range(steps)]


def equal(first, second):
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def stored(form, tmp_path, monkeypatch):
    if form == "computed":
        monkeypatch.setattr("pyro_gflows.datasets.orders._DRAWN_ROWS", 10)
        np.save(tmp_path / "rows.npy", ROWS.numpy())
        return open_rows(tmp_path / "rows.npy")
    return as_rows(ROWS)


@pytest.mark.parametrize("form", ["drawn", "computed"])
@pytest.mark.parametrize("size", [2, 3])
def test_the_global_batches_do_not_depend_on_the_number_of_processes(form, size, tmp_path, monkeypatch):
    data = stored(form, tmp_path, monkeypatch)
    one = joined(streams(data, 1), 30)
    assert equal(one, joined(streams(data, size), 30))
    for epoch in (one[:12], one[12:24]):
        assert len(torch.cat(epoch).unique()) == 96
    assert not equal(one[:12], one[12:24])


@pytest.mark.parametrize("form", ["drawn", "computed"])
def test_a_state_within_an_epoch_is_restored_at_any_number_of_processes(form, tmp_path, monkeypatch):
    data = stored(form, tmp_path, monkeypatch)
    unbroken = joined(streams(data, 1), 40)
    for before, after in ((1, 2), (2, 1), (2, 3), (1, 1)):
        old = streams(data, before)
        assert equal(joined(old, 17), unbroken[:17])
        states = [stream.state() for stream in old]
        for state in states[1:]:
            assert state.keys() == states[0].keys() and all(torch.equal(state[name], states[0][name]) for name in state)
        new = streams(data, after)
        for stream in new:
            stream.restore(states[0])
        assert equal(joined(new, 23), unbroken[17:])


def test_a_hundred_steps_within_an_epoch_are_the_same_after_a_restart(tmp_path, monkeypatch):
    monkeypatch.setattr("pyro_gflows.datasets.orders._DRAWN_ROWS", 10)
    np.save(tmp_path / "rows.npy", np.arange(10_000.0)[:, None])
    data = open_rows(tmp_path / "rows.npy")
    unbroken = joined(streams(data, 1, batch_size=16), 300)
    stopped, resumed = streams(data, 1, batch_size=16), streams(open_rows(tmp_path / "rows.npy"), 1, batch_size=16)
    joined(stopped, 150)
    resumed[0].restore(stopped[0].state())
    assert equal(joined(resumed, 100), unbroken[150:250])


def test_states_of_older_runs_go_on_with_orders_that_are_drawn_as_a_whole(tmp_path, monkeypatch):
    """As versions before the computed orders did: the generator draws a permutation at the start of each epoch."""
    data = stored("computed", tmp_path, monkeypatch)
    generator = torch.Generator().manual_seed(3)
    began = generator.get_state()
    orders = [torch.randperm(100, generator=generator, dtype=torch.int32).long()]
    state = {"generator": generator.get_state(), "epoch": began, "used": torch.tensor(40)}
    orders.append(torch.randperm(100, generator=generator, dtype=torch.int32).long())
    resumed = streams(data, 1)[0]
    resumed.restore(state)
    expected = [*orders[0][40:96].split(8), *orders[1][:96].split(8)]
    assert equal([resumed.next() for _ in expected], [ROWS[rows] for rows in expected])
    again = streams(data, 1)[0]
    again.restore({"generator": generator.get_state(), "order": orders[0], "used": torch.tensor(40)})
    assert torch.equal(again.next(), ROWS[orders[0][40:48]])


@pytest.mark.parametrize("size", [1, 2])
def test_the_whole_next_batch_is_the_same_in_all_processes(size):
    both = streams(as_rows(ROWS), size)
    one = joined(streams(as_rows(ROWS), 1), 3)
    assert all(torch.equal(stream.next(whole=True), one[0]) for stream in both)
    noise = [torch.rand(2, generator=stream.generator) for stream in both]
    assert all(torch.equal(noise[0], other) for other in noise)
    assert equal(joined(both, 2), one[1:])


def test_noise_differs_between_processes_and_steps_and_is_the_same_after_a_restart():
    def noise(stream):
        stream.next()
        return float(torch.rand((), generator=stream.generator))

    both = streams(as_rows(ROWS), 2)
    drawn = [[noise(stream) for stream in both] for _ in range(20)]
    assert len({value for step in drawn for value in step}) == 40
    again = streams(as_rows(ROWS), 2)
    first = [[noise(stream) for stream in again] for _ in range(7)]
    resumed = streams(as_rows(ROWS), 2)
    for stream in resumed:
        stream.restore(again[0].state())
    assert first + [[noise(stream) for stream in resumed] for _ in range(13)] == drawn


# -- samplers ----------------------------------------------------------------------------------------------------------
def draws(n, generator):
    return torch.randn(n, 2, generator=generator)


def test_fresh_draws_of_processes_differ_and_are_the_same_after_a_restart():
    unbroken = joined(streams(draws, 3), 10)
    assert all(len(batch) == 8 and len(batch.unique()) == 16 for batch in unbroken)
    assert len(torch.cat(unbroken).unique()) == 160
    old = streams(draws, 3)
    joined(old, 4)
    new = streams(draws, 3)
    for stream in new:
        stream.restore(old[0].state())
    assert all(torch.equal(stream.next(whole=True), unbroken[4]) for stream in new)
    assert equal(joined(new, 5), unbroken[5:])
    alone = streams(draws, 1)[0]
    alone.restore(old[0].state())
    assert alone.next().shape == (8, 2)


class Chain:
    """A sampler that counts its calls."""

    def __init__(self):
        self.calls = torch.tensor(0)

    def __call__(self, n, generator):
        self.calls = self.calls + 1
        return self.calls + torch.rand(n, 2, generator=generator)

    def state(self):
        return {"calls": self.calls}

    def restore(self, state):
        self.calls = state["calls"]


def chains():
    return [batches_of(Chain(), 8, 3, share=Share(rank, 2)) for rank in range(2)]


def test_a_sampler_with_a_state_draws_in_every_process_and_goes_on_after_a_restart():
    unbroken = joined(chains(), 9)
    assert [int(batch.min()) for batch in unbroken] == list(range(1, 10))
    old, new = chains(), chains()
    joined(old, 4)
    for stream, before in zip(new, old, strict=True):
        stream.restore(before.state())
    assert torch.equal(new[0].next(whole=True), unbroken[4][:4])  # there is no draw of all processes together
    new[1].next()
    assert equal(joined(new, 4), unbroken[5:])


# -- loaders -----------------------------------------------------------------------------------------------------------
def dealing(rank, size=2, *, shuffle=True, **options):
    sampler = DistributedSampler(TensorDataset(ROWS), num_replicas=size, rank=rank, shuffle=shuffle)
    return DataLoader(TensorDataset(ROWS), batch_size=5, sampler=sampler, **options)


def loader_streams(size=2, **options):
    # as one process after the other is started with the same loader
    return [batches_of(dealing(0, size, **options), 99, 3, share=Share(rank, size)) for rank in range(size)]


def test_a_loader_with_a_distributed_sampler_deals_all_rows_out_in_a_new_order_every_pass():
    both = loader_streams()
    assert [stream.batch_size for stream in both] == [10, 10]
    passes = [torch.cat(joined(both, 10)) for _ in range(3)]
    assert all(len(rows.unique()) == 100 for rows in passes)
    assert not torch.equal(passes[0], passes[1])


@pytest.mark.parametrize("own", [False, True])
def test_a_loader_resumes_exactly_on_the_same_number_of_processes(own):
    def start():
        generators = {"generator": torch.Generator().manual_seed(9)} if own else {}
        return loader_streams(**generators)

    unbroken = joined(start(), 40)
    old = start()
    joined(old, 23)
    torch.manual_seed(77)
    new = start()
    for stream in new:
        stream.restore(old[0].state())
    assert equal(joined(new, 17), unbroken[23:])


def test_a_loader_on_another_number_of_processes_says_why_it_cannot_resume():
    old = loader_streams()
    joined(old, 3)
    with pytest.raises(ValueError, match="the run was on 2 processes and is now on 1, .* resume on 2, or start"):
        batches_of(dealing(0), 99, 3).restore(old[0].state())
    alone = batches_of(DataLoader(TensorDataset(ROWS), batch_size=5), 99, 3)
    alone.next()
    with pytest.raises(ValueError, match="the run was on 1 processes and is now on 2"):
        loader_streams()[0].restore(alone.state())


class Stream(IterableDataset):
    def __iter__(self):
        yield from points(40)


@pytest.mark.parametrize("options", [{}, {"shuffle": True}, {"shuffle": True, "batch_size": None}])
def test_a_loader_whose_processes_would_see_the_same_rows_is_refused(options):
    loader = DataLoader(TensorDataset(ROWS), **options)
    check_shared(loader, 1)
    with pytest.raises(
        ValueError, match="all 2 processes would see the same rows of this DataLoader: pass the Dataset"
    ):
        check_shared(loader, 2)
    with pytest.raises(ValueError, match="see the same rows"):
        streams(loader, 2)


def test_a_distributed_sampler_for_another_number_of_processes_is_refused():
    check_shared(dealing(0, 2), 2)
    with pytest.raises(ValueError, match="DistributedSampler for 3 processes, got one for num_replicas=2"):
        check_shared(dealing(0, 2), 3)


def test_streams_are_compared_by_their_first_batches():
    loader = DataLoader(Stream(), batch_size=4)
    check_shared(loader, 2)  # its type does not tell
    first = [stream.next() for stream in streams(loader, 2)]
    with pytest.raises(ValueError, match="processes 0 and 1 see the same rows"):
        check_different(first)
    check_different([first[0], first[1] + 1, first[0][:2]])
