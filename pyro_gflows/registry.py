"""The old place of names that are now in pyro_gflows.serialization."""

from pyro_gflows.deprecation import moved_names

__getattr__ = moved_names(
    __name__,
    {
        "ComputesArguments": "pyro_gflows.serialization",
        "build": "pyro_gflows.serialization",
        "describe": "pyro_gflows.serialization",
        "registered": "pyro_gflows.serialization",
        "registered_classes": "pyro_gflows.serialization",
        "same_description": "pyro_gflows.serialization",
    },
)
