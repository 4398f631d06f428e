"""The old place of names that are now in pyro_gflows.flows."""

from pyro_gflows.deprecation import moved_names

__getattr__ = moved_names(
    __name__,
    {
        "Memory": "pyro_gflows.flows",
        "g_coupling_image_flow": "pyro_gflows.flows",
        "g_residual_image_flow": "pyro_gflows.flows",
    },
)
