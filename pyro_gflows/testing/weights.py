"""Weights at which a check means something."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["randomize_"]


def randomize_(module: nn.Module, *, scale: float = 0.3, generator: torch.Generator | None = None) -> nn.Module:
    """Add normal noise to every parameter, so that nothing is left at a trivial start such as 0 or the identity.

    Args:
        module: changed in place, and returned.
        scale: standard deviation of the noise.
        generator: where the noise comes from; give one on the CPU, the noise is then the same on every device.

    Example:
        >>> bool(randomize_(nn.LayerNorm(3)).bias.abs().sum() > 0)
        True
    """
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((scale * noise).to(parameter))
    return module
