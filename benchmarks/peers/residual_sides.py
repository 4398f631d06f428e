"""The two sides of the comparison of residual layers: one of this package, and one of normflows with its weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyro_gflows.nn import kernels_once
from pyro_gflows.transforms import GResidual

__all__ = ["BOUND", "Normflows", "Ours"]

LAYER_BOUND = 0.97  # of each of the two linear layers, the default of normflows
BOUND = LAYER_BOUND**2
STEEP = 10.0  # both sides' weights are multiplied by it, so that the layers reach their bounds


def _steep(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if weight.ndim > 1 or name.endswith("weights"):
                weight.mul_(STEEP)
    return module


class Ours:
    """A residual layer of this package.

    Args:
        layer: Makes the layer.
        tolerance: Of the inverse, or None for the default.
    """

    def __init__(self, layer: Callable[[], GResidual], *, tolerance: float | None = None) -> None:
        self.make, self.tolerance = layer, tolerance

    def prepare(self, x: Tensor) -> None:
        """Make the layer, with steep weights, on the device of x."""
        self.layer = self.make()
        self.layer.solver.tolerance = self.tolerance
        _steep(self.layer)
        self.layer.to(x.device)

    @property
    def module(self) -> nn.Module:
        """All parameters."""
        return self.layer

    def score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From data to base."""
        return self.layer.inv_call_and_ladj(x)

    def value(self, x: Tensor) -> Tensor:
        """From data to base, without the log-det."""
        return x + self.layer.branch(x)

    def invert(self, z: Tensor) -> Tensor:
        """From base to data, the direction that is solved for, without the log-det."""
        branch = self.layer.branch
        with kernels_once(branch):
            return self.layer.solver(branch, z, z.ndim - 1, lipschitz=branch.known_bound())[0]

    def after_step(self) -> None:
        """Nothing: the bound holds for all weights."""


class Normflows:
    """A residual layer of normflows with the network of one of ours, and with its weights.

    Its networks begin with an activation, which ours do not; it is left out here.

    Args:
        twin: Our layer.
        images: Whether the network is convolutional.
    """

    def __init__(self, twin: Ours, *, images: bool) -> None:
        self.twin, self.images = twin, images

    def prepare(self, x: Tensor) -> None:
        """Make the layer, with the weights of ours and a converged estimate of their norms, on the device of x."""
        import normflows
        from normflows.nets.lipschitz import LipschitzCNN, LipschitzMLP

        self.twin.prepare(x)
        ours = self.twin.layer.branch.layers
        kernels = [layer.kernel().detach() for layer in ours]
        channels = [kernels[0].shape[1], *(kernel.shape[0] for kernel in kernels)]
        if self.images:
            network = LipschitzCNN(channels, [3, 3], lipschitz_const=LAYER_BOUND)
        else:
            network = LipschitzMLP(channels, lipschitz_const=LAYER_BOUND)
        network.net = network.net[1:]
        self.layer = normflows.flows.Residual(network).to(x.device)
        with torch.no_grad():
            self.layer.inverse(x[:2])  # convolutions learn the size of the image at the first call
            for layer, kernel, twin in zip(network.net[::2], kernels, ours, strict=True):
                layer.weight.copy_(kernel)
                at_zero = twin(x.new_zeros(twin.action_in.event_shape))
                layer.bias.copy_(at_zero.flatten(1)[:, 0] if self.images else at_zero)
            slope = 1 / self.twin.layer.branch.hidden_scale  # ours is s * swish(x / s) with the slope 1
            network.net[1].beta.fill_(math.log(math.expm1(slope)))
        self.update = functools.partial(normflows.utils.update_lipschitz, self.layer)
        self.update(200)
        with torch.no_grad():
            torch.testing.assert_close(self.value(x[:2]), self.twin.value(x[:2]), rtol=1e-3, atol=1e-3)

    @property
    def module(self) -> nn.Module:
        """All parameters."""
        return self.layer

    def score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From data to base."""
        return self.layer.inverse(x)

    def value(self, x: Tensor) -> Tensor:
        """From data to base, without the log-det."""
        return self.layer.iresblock(x)

    def invert(self, z: Tensor) -> Tensor:
        """From base to data, the direction that is solved for, without the log-det."""
        return self.layer.iresblock.inverse(z)

    def after_step(self) -> None:
        """Five steps of the power iteration, as its documentation has it."""
        self.update(5)
