"""Random weights, so that a check does not run at a trivial start."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["randomize_"]


def randomize_(module: nn.Module, *, scale: float = 0.3, generator: torch.Generator | None = None) -> nn.Module:
    """Add normal noise to every parameter of a module, in place.

    Many layers start as the identity, which is equivariant whatever the layer is; a check means more at random weights.

    Args:
        module: The module, which is changed and returned.
        scale: The standard deviation of the noise.
        generator: A generator on the CPU; the noise is the same on every device.

    Example:
        >>> bool(randomize_(nn.LayerNorm(3)).bias.abs().sum() > 0)
        True
    """
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((scale * noise).to(parameter))
    return module
