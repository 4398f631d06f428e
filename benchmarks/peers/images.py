"""Equivariant convolutions beside torch's and escnn's, and an equivariant image flow beside the plain one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from benchmarks.peers.contest import Contest, Entry, Maker, parameters
from benchmarks.peers.models import TASKS, Model, entries, ours
from pyro_gflows import ImageAction, g_coupling_image_flow
from pyro_gflows.nn import EquivariantConv, SteerableConv

__all__ = ["CONTESTS"]

CHANNELS, SIZE = 64, 32
_ORDERS = {"C4": 4, "D4": 8, "C8": 8}


def _conv(group: str) -> nn.Module:
    action = ImageAction(group, CHANNELS // _ORDERS[group], size=SIZE, fields="regular")
    return EquivariantConv(action, action, kernel_size=3)


def _steerable(group: str) -> nn.Module:
    fields = CHANNELS // _ORDERS[group]
    return SteerableConv(group, fields, fields, kernel_size=3)


class _Escnn(nn.Module):
    """escnn's R2Conv on plain tensors."""

    def __init__(self, n: int) -> None:
        super().__init__()
        from pyro_gflows.groups import escnn_group

        escnn_group()  # escnn can be imported from here on
        import escnn

        space = escnn.gspaces.rot2dOnR2(n)
        self.wrap = escnn.nn.GeometricTensor
        self.fields = escnn.nn.FieldType(space, [space.regular_repr] * (CHANNELS // n))
        self.conv = escnn.nn.R2Conv(self.fields, self.fields, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.wrap(x, self.fields)).tensor


LAYERS: Mapping[str, Callable[[], nn.Module]] = {
    "ours, EquivariantConv C4": lambda: _conv("C4"),
    "ours, EquivariantConv D4": lambda: _conv("D4"),
    "ours, SteerableConv C8": lambda: _steerable("C8"),
}
PEERS: Mapping[str, Callable[[], nn.Module]] = {
    "torch conv2d": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
    "escnn R2Conv C4": lambda: _Escnn(4),
}


def _forward(layer: nn.Module, x: Tensor) -> Callable[[], object]:
    layer.eval()
    return torch.no_grad()(lambda: layer(x))


def _both(layer: nn.Module, x: Tensor) -> Callable[[], object]:
    layer.train()
    x = x.requires_grad_()
    weights = [weight for weight in layer.parameters() if weight.requires_grad]
    return lambda: torch.autograd.grad(layer(x).sum(), [x, *weights])


PASSES: Mapping[str, Callable[[nn.Module, Tensor], Callable[[], object]]] = {
    "forward": _forward,
    "forward and backward": _both,
}


def _maker(make: Callable[[], nn.Module], task: str, batch: int) -> Maker:
    def entry(device: torch.device) -> Entry:
        layer = make().to(device)
        x = torch.randn(batch, CHANNELS, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).to(device)
        return Entry(PASSES[task](layer, x), parameters(layer))

    return entry


def _convolutions(batch: int, limit: float) -> list[Contest]:
    return [
        Contest(
            f"convolution, batch {batch}",
            task,
            f"{CHANNELS} channels (regular fields), {SIZE} x {SIZE} pixels, 3 x 3 kernels",
            {name: _maker(make, task, batch) for name, make in LAYERS.items()},
            {name: _maker(make, task, batch) for name, make in PEERS.items()},
            limits={(name, "torch conv2d"): limit for name in LAYERS},
            notes={
                "escnn R2Conv C4": "it keeps its kernel from call to call in evaluation; ours makes it in every call"
            },
            rounds=21 if batch == 1 else 9,
        )
        for task in PASSES
    ]


def _flow(group: str, width: int, device: torch.device) -> Model:
    action = ImageAction(group, 3, size=16)
    return ours(g_coupling_image_flow(action, scales=2, blocks=2, width=width).to(device))


IMAGE_FLOWS = {"ours, C4": lambda device: _flow("C4", 16, device), "ours, D4": lambda device: _flow("D4", 8, device)}
PLAIN = {"plain flow (C1)": lambda device: _flow("C1", 64, device)}

CONTESTS: Sequence[Contest] = [
    *_convolutions(1, 1.5),
    *_convolutions(32, 1.15),
    *_convolutions(128, 1.15),
    *(
        Contest(
            "image flow",
            task,
            "couplings on 3 x 16 x 16 pixels, 64 hidden channels, 2 scales of 2 blocks, batch 32",
            entries(IMAGE_FLOWS, task, (32, 3, 16, 16)),
            entries(PLAIN, task, (32, 3, 16, 16)),
            limits={(name, peer): 1.15 for name in IMAGE_FLOWS for peer in PLAIN},
            notes={"plain flow (C1)": "the same code under the trivial group"},
            rounds=9,
        )
        for task in TASKS
    ),
]
