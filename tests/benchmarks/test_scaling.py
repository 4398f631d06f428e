"""The benchmark of scaling laws: its exponents, its table and its figures."""

import pytest

pytest.importorskip("sklearn", reason="pip install 'pyro-gflows[data]'")
from benchmarks import scaling
from benchmarks.scaling import AXES, PARTS, Row


def runs(flow="coupling", axis="cyclic", power=1.5):
    """Runs that follow a power law, not in their order."""
    sizes = [AXES[axis].size(value) for value in reversed(AXES[axis].values)]
    return [{"axis": axis, "flow": flow, "size": size, **dict.fromkeys(PARTS, 2e-3 * size**power)} for size in sizes]


def test_the_exponent_is_that_of_a_power_law():
    assert scaling.exponent([2, 4, 8], [3 * x**1.7 for x in (2, 4, 8)]) == pytest.approx(1.7)
    assert scaling.exponent([1, 10, 100], [5.0, 5.0, 5.0]) == pytest.approx(0.0)


def test_the_table_holds_the_exponents_and_the_largest_value():
    (line,) = scaling.table([], runs()).splitlines()[2:]
    assert line.startswith("| order of C_n | 4 to 64 | coupling | 1.50, 1.50 (1.02e+03 ms) |")
    assert scaling.table([], runs()[:1]).splitlines()[2:] == []  # one size has no exponent


def test_every_row_of_an_axis_is_of_its_size():
    for name, axis in AXES.items():
        groups = {"cyclic", "dihedral", "symmetric"}
        for value in axis.values:
            action = axis.action(value)
            if name in groups:
                assert action.group.order == axis.size(value)
            if name in ("event", "translations"):
                assert action.numel == axis.size(value) * (2 if name == "translations" else 1)


@pytest.mark.parametrize("flow", ["coupling", "autoregressive", "residual"])
def test_a_row_is_measured(flow):
    figures = scaling.run(Row("cyclic", flow, 4), seed=0, quick=True)
    assert figures["size"] == 4 and all(figures[part] > 0 for part in PARTS)


def test_the_figures_have_a_line_for_each_flow(tmp_path):
    pytest.importorskip("matplotlib", reason="pip install 'pyro-gflows[plots]'")
    scaling.draw([*runs(), *runs("residual"), *runs(axis="batch")], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"scaling_size.png", "scaling_group.png"}
