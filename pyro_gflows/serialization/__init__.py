"""Saving and loading flows: their structure as JSON, their weights as safetensors."""

from pyro_gflows.serialization.registry import (
    ComputesArguments,
    build,
    describe,
    registered,
    registered_classes,
    same_description,
)
from pyro_gflows.serialization.saving import load, save

__all__ = [
    "ComputesArguments",
    "build",
    "describe",
    "load",
    "registered",
    "registered_classes",
    "same_description",
    "save",
]
