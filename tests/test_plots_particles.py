"""Pictures of particles show what they say."""

import math
import sys

import pytest
import torch

from pyro_gflows import plots
from pyro_gflows.targets import DoubleWell


@pytest.fixture
def path(tmp_path):
    pytest.importorskip("matplotlib")
    return tmp_path / "picture.png"


@pytest.fixture
def axes():
    pytest.importorskip("matplotlib")
    return plots.new_figure(1)[1][0, 0]


def configurations(count=6, n=5, d=3):
    return torch.randn(count, n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def disks(axes):
    """The places and the colors of the disks, and their frames."""
    drawn = axes.collections[-1]
    return torch.as_tensor(drawn.get_offsets()), torch.as_tensor(drawn.get_facecolors())


@pytest.mark.parametrize("d", [2, 3])
def test_a_rotated_and_shifted_configuration_looks_the_same_and_a_mirror_image_does_not(axes, d):
    x = configurations(1, d=d)
    rotation = torch.linalg.matrix_exp(torch.randn(d, d, dtype=torch.float64).triu(1) * 2)
    rotation = torch.linalg.qr(rotation + 0.5 * torch.ones(d, d, dtype=torch.float64)).Q
    rotation[:, 0] *= torch.linalg.det(rotation).sign()
    drawn = []
    for image in (x, x @ rotation.T + 3.0, x * torch.tensor([1.0] * (d - 1) + [-1.0])):
        plots.draw_configurations(axes, image)
        both = torch.cat(disks(axes), -1)  # in space the depth shows in the color
        drawn.append(both[both[:, 0].argsort()])
    torch.testing.assert_close(drawn[1], drawn[0])
    assert (drawn[2] - drawn[0]).abs().max() > 1e-3


def test_each_configuration_is_in_its_frame_and_farther_particles_are_paler_and_behind(axes):
    plots.draw_configurations(axes, configurations(6), columns=3)
    where, color = disks(axes)
    side = axes.get_xlim()[1] / 3
    frames = (where / side).floor()
    assert axes.get_ylim() == (2 * side, 0) and len(where) == 30
    assert sorted(map(tuple, frames.tolist())) == sorted([(float(i), float(j)) for i in range(3) for j in range(2)] * 5)
    one = frames[:, 0] + 3 * frames[:, 1] == 0
    red = color[one][:, 0]
    assert (red[1:] <= red[:-1]).all() and red[0] > red[-1]  # later disks lie in front and have a purer blue


def test_species_have_colors_of_their_own(axes):
    plots.draw_configurations(axes, configurations(4, n=5, d=2), species=(2, 3))
    _, color = disks(axes)
    kinds, counts = color.unique(dim=0, return_counts=True)
    assert len(kinds) == 2 and sorted(counts.tolist()) == [8, 12]
    with pytest.raises(ValueError, match=r"species of 5 particles in all, got \(2, 2\)"):
        plots.draw_configurations(axes, configurations(), species=(2, 2))


def area(patch):
    corners = torch.as_tensor(patch.get_xy())
    return float((corners[1:, 0] - corners[:-1, 0]) @ (corners[1:, 1] + corners[:-1, 1]).abs()) / 2


def test_the_areas_of_histograms_are_shares_of_all_draws(axes):
    target = DoubleWell()
    x = target.space.project(2 * configurations(4000, 4, 2))
    plots.draw_energies(axes, 3 * x, x, energy=target.energy, weights=torch.ones(4000))
    low, high = axes.get_xlim()
    energies = target.energy(3 * x)
    share = float(((energies >= low) & (energies <= high)).double().mean())
    exact, drawn, weighted = axes.patches
    assert 0.99 < abs(area(exact)) <= 1.0 + 1e-9
    assert 0 < share < 0.9 and abs(area(drawn)) == pytest.approx(share) == pytest.approx(abs(area(weighted)))
    above = float((energies > high).double().mean())
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert f"({100 * above:.2g} % above)" in labels[1] and "weighted" in labels[2]


def test_weights_select_draws(axes):
    x = torch.tensor([[[0.5, 0.0], [-0.5, 0.0]], [[1.0, 0.0], [-1.0, 0.0]]])  # distances 1 and 2
    plots.draw_pair_distances(axes, x, x, weights=torch.tensor([1.0, 3.0]))
    heights = [torch.as_tensor(patch.get_xy())[:, 1].unique() for patch in axes.patches]
    assert len(heights[1]) == 2  # 0 and one height: both draws count the same
    assert heights[2][2] / heights[2][1] == pytest.approx(3.0)


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.long
def test_pictures_are_written_without_pyplot(path, d):
    sys.modules.pop("matplotlib.pyplot", None)
    x = configurations(20, 4, d)
    for write in (
        lambda: plots.plot_pair_distances(x, x, path, weights=torch.ones(20)),
        lambda: plots.plot_energies(x, x, path, energy=lambda x: x.square().sum((-2, -1))),
        lambda: plots.plot_configurations(x, x, path, columns=4),
    ):
        path.unlink(missing_ok=True)
        write()
        assert path.read_bytes().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules


def test_energies_that_are_infinite_count_as_above(axes):
    x = configurations(100, 3, 2)
    calls = iter([torch.full((100,), math.inf), torch.linspace(0, 1, 100)])
    plots.draw_energies(axes, x, x, energy=lambda _: next(calls))
    assert "(1e+02 % above)" in axes.get_legend().get_texts()[1].get_text()


def test_events_that_are_no_configurations_are_refused(axes, path):
    for shape in ((5, 3), (5, 1, 2), (2, 5, 3, 2)):
        with pytest.raises(ValueError, match=r"shape \(count, n, d\)"):
            plots.plot_pair_distances(torch.zeros(shape), configurations(), path)
    with pytest.raises(ValueError, match="in the plane or in space, got d = 1"):
        plots.draw_configurations(axes, torch.randn(4, 3, 1))
