"""Pictures of flows, written to files without pyplot: densities, samples, latents, losses, sets, particles, fields."""

from pyro_gflows.plots.clouds import draw_clouds, plot_clouds
from pyro_gflows.plots.densities import draw_density, plot_density, plot_log_probs
from pyro_gflows.plots.figures import new_figure, save_figure
from pyro_gflows.plots.latent import plot_latent_rotations
from pyro_gflows.plots.losses import plot_loss
from pyro_gflows.plots.moser import draw_velocity, plot_moser, plot_moser_errors
from pyro_gflows.plots.particles import (
    draw_configurations,
    draw_energies,
    draw_pair_distances,
    plot_configurations,
    plot_energies,
    plot_pair_distances,
)
from pyro_gflows.plots.samples import draw_images, plot_samples

__all__ = [
    "draw_clouds",
    "draw_configurations",
    "draw_density",
    "draw_energies",
    "draw_images",
    "draw_pair_distances",
    "draw_velocity",
    "new_figure",
    "plot_clouds",
    "plot_configurations",
    "plot_density",
    "plot_energies",
    "plot_latent_rotations",
    "plot_log_probs",
    "plot_loss",
    "plot_moser",
    "plot_moser_errors",
    "plot_pair_distances",
    "plot_samples",
    "save_figure",
]
