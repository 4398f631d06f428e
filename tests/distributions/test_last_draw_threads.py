"""The memory of a distribution that several threads use at the same time."""

import pytest
import torch
from torch import nn

from pyro_gflows.distributions import last_draw
from pyro_gflows.distributions.last_draw import LastDraw


@pytest.fixture
def drawn(monkeypatch):
    """A memory of one draw, in whose comparison another thread's draw comes in between."""
    module, memory = nn.Linear(1, 1), LastDraw()
    values = {name: torch.tensor(value) for name, value in zip(("x", "y", "ladj"), (1.0, 2.0, 3.0), strict=True)}
    other = torch.tensor(-1.0), torch.tensor(-2.0), torch.tensor(-3.0)
    memory.keep(module, values["x"], values["y"], values["ladj"])
    reads = last_draw._reads

    def interrupted(module):
        """Another thread uses the module at the moment at which its tensors are compared."""
        monkeypatch.setattr(last_draw, "_reads", reads)
        memory.keep(module, *other)
        return reads(module)

    monkeypatch.setattr(last_draw, "_reads", interrupted)
    return module, memory, values, other


def test_a_log_det_is_never_that_of_another_threads_draw(drawn):
    module, memory, values, _ = drawn
    assert memory.take(module, values["y"])[1] is values["ladj"]


def test_a_source_is_never_that_of_another_threads_draw(drawn):
    module, memory, values, _ = drawn
    assert memory.take(module, values["y"])[0] is values["x"]


def test_another_threads_draw_outlives_the_end_of_this_one(drawn):
    module, memory, values, (source, product, ladj) = drawn
    memory.take(module, values["y"])
    values.clear()
    assert memory.take(module, product) == (source, ladj)
