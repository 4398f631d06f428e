"""The benchmark of sbibm's posteriors: each guide takes a few steps, and the table is written."""

import pytest
import torch

pytest.importorskip("sklearn", reason="pip install 'pyro-gflows[data]'")
from benchmarks import posteriors
from benchmarks.sbibm_tasks import TASKS
from pyro_gflows import EquivariantFlow
from pyro_gflows.testing import assert_equivariant, randomize_


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.long
def test_the_invariant_guide_fits_and_draws_inside_the_box(name):
    task = TASKS[name]
    draws, figures = posteriors.fit_invariant(task, task.observation(0).float(), seed=0, quick=True)
    assert task.prior.support.check(draws).all()
    assert 0 < figures["ess"] <= 1 and 0 <= figures["total_variation"] < 1


@pytest.mark.parametrize("name", TASKS)
def test_its_flow_is_equivariant_and_its_base_invariant(name):
    action = TASKS[name].action.vector_action
    base = posteriors.images_of_a_normal(action)
    flow = EquivariantFlow(base, posteriors.RECIPES[name].transforms(action)).double()
    x = torch.randn(20, action.numel, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for layer in flow.transforms:
        randomize_(layer, scale=0.2, generator=torch.Generator().manual_seed(1))
        assert_equivariant(layer, action, action, x)
    torch.testing.assert_close(flow(action.act_all(x)), flow(x).expand(len(action.elements()), -1))


def test_the_table_has_a_row_for_each_guide_that_ran():
    row = posteriors.Row("slcp", "NUTS")
    run = {**row.labels(), "draws": 1000, "seconds": 3.0}
    own = posteriors.BENCHMARK
    lines = own.table(own.rows, [{**run, "c2st": 0.5}, {**run, "c2st": 0.52}]).splitlines()
    assert len(lines) == 3 and "| slcp | NUTS | 2 | 1,000 | 0.510 | 0.500 to 0.520 |" in lines[2]
