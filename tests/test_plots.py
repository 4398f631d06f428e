import math
import sys

import pytest
import torch

from pyro_gflows import ImageAction, OffGridAction, g_coupling_image_flow, plots
from pyro_gflows.actions import TorusAction
from pyro_gflows.datasets import GrayLevels
from pyro_gflows.targets import density
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import moser
from tests.small_flows import points, small_flow

PNG = b"\x89PNG"


@pytest.fixture
def path(tmp_path):
    pytest.importorskip("matplotlib")
    return tmp_path / "picture.png"


@pytest.mark.long
def test_densities_with_and_without_the_truth(path):
    flow = small_flow()
    flow.initialize(points())
    for target in (None, density("8gaussians")):
        plots.plot_density(flow, path, reach=4.0, target=target)
        assert path.read_bytes().startswith(PNG)


def test_the_density_of_a_picture_is_where_it_should_be():
    pytest.importorskip("matplotlib")
    _, axes = plots.new_figure(1)
    plots.draw_density(axes[0, 0], lambda x: -(x - torch.tensor([1.0, -1.0])).square().sum(-1), reach=2.0, points=41)
    (image,) = axes[0, 0].get_images()
    row, column = divmod(int(image.get_array().argmax()), 41)
    assert (row, column) == (10, 30)  # y = -1 is a quarter up from the bottom, x = 1 three quarters to the right


@pytest.mark.parametrize("shape", [(2,), (1,), (5,), (1, 8, 8), (3, 4, 4), (2, 4, 4)])
@pytest.mark.long
def test_samples_of_any_event_shape(path, shape):
    x = torch.rand(70, *shape, generator=torch.Generator().manual_seed(0))
    plots.plot_samples(x, x, path, scaling=GrayLevels(17) if len(shape) == 3 else None)
    assert path.read_bytes().startswith(PNG)


def test_points_are_drawn_in_the_frame_of_their_set(path):
    clouds = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]], [[5.0, 11.0]], [[7.0, 6.0]]])  # the third is outside
    _, axes = plots.new_figure(1)
    plots.draw_clouds(axes[0, 0], clouds, size=(8.0, 10.0), columns=3)
    assert axes[0, 0].get_lines()[0].get_xydata().tolist() == [[1.0, 2.0], [11.0, 4.0], [7.0, 16.0]]
    assert axes[0, 0].get_ylim() == (20.0, 0.0)  # rows of an image go downwards
    plots.plot_clouds(clouds, clouds, path, size=(8.0, 10.0))
    assert path.read_bytes().startswith(PNG)
    with pytest.raises(ValueError, match="shape"):
        plots.draw_clouds(axes[0, 0], torch.zeros(3, 2))


def image_flow(group="C4"):
    torch.manual_seed(0)
    return randomize_(g_coupling_image_flow(ImageAction(group, size=4), scales=1, blocks=1, width=1), scale=0.05)


@pytest.mark.long
def test_a_group_acts_on_latents_as_on_images(path):
    flow = image_flow()
    state = torch.get_rng_state()
    assert plots.plot_latent_rotations(flow, path, scaling=GrayLevels(17)) < 1e-12
    assert path.read_bytes().startswith(PNG)
    assert torch.equal(torch.get_rng_state(), state)
    assert plots.plot_latent_rotations(image_flow("C1"), path, action=flow.action, latents=2) > 1e-3


@pytest.mark.long
def test_elements_between_the_pixels_are_drawn_too(path):
    action = OffGridAction("SO(2)", 1, size=4)
    assert plots.plot_latent_rotations(image_flow(), path, action=action) > 0.1
    quarter = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]], dtype=torch.float64)
    assert plots.plot_latent_rotations(image_flow(), path, action=action, elements=quarter, latents=1) < 1e-12


def test_latents_on_which_the_group_does_not_act_are_refused(path):
    with pytest.raises(ValueError, match="images and latents of one shape"):
        plots.plot_latent_rotations(image_flow(), path, action=ImageAction("C4", size=8))
    with pytest.raises(ValueError, match="images and latents of one shape"):
        plots.plot_latent_rotations(small_flow(), path)


@pytest.mark.long
def test_losses_and_log_probs(path):
    plots.plot_loss([(1, 3.0), (2, 2.0)], [], path, floor=1.5)
    assert path.read_bytes().startswith(PNG)
    plots.plot_log_probs(torch.randn(100), torch.randn(100), path)
    assert path.read_bytes().startswith(PNG)


@pytest.mark.long
def test_pyplot_is_not_touched(path):
    sys.modules.pop("matplotlib.pyplot", None)
    plots.plot_loss([(1, 3.0)], [(1, 3.0)], path)
    assert "matplotlib.pyplot" not in sys.modules


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'pyro-gflows\[plots\]'"):
        plots.new_figure(1)


def test_the_vector_field_of_moser_points_from_p_to_q():
    pytest.importorskip("matplotlib")
    action = TorusAction.trivial(2)
    one = lambda x: -2 * math.log(2 * math.pi) + 0 * x[..., 0]  # noqa: E731
    left = lambda x: one(x) + (1 + 0.5 * x[..., 0].sin()).log()  # noqa: E731
    layer = moser(one, left, action, grid=16, steps=2)
    _, axes = plots.new_figure(1)
    plots.draw_velocity(axes[0, 0], layer, 0.5, arrows=4)
    (arrows,) = [child for child in axes[0, 0].collections if hasattr(child, "U")]
    x, v = arrows.get_offsets(), arrows.U
    # mass goes to the angle pi / 2: to the right on its left, to the left on its right
    assert all(((x[:, 0] - math.pi / 2 + math.pi) % (2 * math.pi) < math.pi) == (v > 0))
    assert abs(arrows.V).max() < 1e-12
    with pytest.raises(ValueError, match="a flow of two angles, got one of 1"):
        circle = moser(one_angle := lambda x: 0 * x[..., 0], one_angle, TorusAction.trivial(1), grid=8, steps=1)
        plots.draw_velocity(axes[0, 0], circle, 0.5)


@pytest.mark.long
def test_pictures_of_moser(path):
    bumps = lambda x: (1 + 0.5 * x.cos().prod(-1)).log()  # noqa: E731
    layer = moser(lambda x: 0 * x[..., 0], bumps, TorusAction.point_group("D4"), grid=16, steps=2)
    plots.plot_moser(layer, path, times=(0.0, 1.0))
    assert path.read_bytes().startswith(PNG)
    plots.plot_moser_errors({8: 1e-2, 16: 1e-6}, {2: 1e-1, 4: 1e-2}, path)
    assert path.read_bytes().startswith(PNG)
