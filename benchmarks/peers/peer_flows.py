"""Flows of other libraries on vectors, each built as its own documentation does, at equal sizes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers.models import Model

__all__ = [
    "freia_affine",
    "nflows_affine",
    "nflows_autoregressive",
    "nflows_spline",
    "normflows_affine",
    "normflows_spline",
    "pyro_affine",
    "pyro_autoregressive",
    "pyro_spline",
    "zuko_flow",
]

BINS, TAIL = 8, 4.0  # of every spline: as many bins on [-TAIL, TAIL]


def zuko_flow(kind: str, device: torch.device, *, d: int, hidden: int, layers: int, **keywords: Any) -> Model:
    """A flow of zuko, by the name of its class."""
    import zuko

    flow = getattr(zuko.flows, kind)(d, transforms=layers, hidden_features=[hidden, hidden], **keywords).to(device)
    return Model(flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,)))


def _mlp(inputs: int, outputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )


class _NflowsNetwork(nn.Module):
    """Two hidden layers, with the signature that nflows calls."""

    def __init__(self, inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.layers, self.hidden_features = _mlp(inputs, outputs, hidden), hidden

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.layers(x)


def _nflows(transforms: list[Any], d: int, device: torch.device) -> Model:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import CompositeTransform

    flow = Flow(CompositeTransform(transforms), StandardNormal([d])).to(device)
    return Model(flow, flow.log_prob, flow.sample)


def _masks(d: int, layers: int) -> list[Tensor]:
    return [(torch.arange(d) % 2 == number % 2).long() for number in range(layers)]


def nflows_affine(device: torch.device, *, d: int, hidden: int, layers: int) -> Model:
    """Affine couplings of nflows."""
    from nflows.transforms.coupling import AffineCouplingTransform

    made = [AffineCouplingTransform(mask, lambda i, o: _NflowsNetwork(i, o, hidden)) for mask in _masks(d, layers)]
    return _nflows(made, d, device)


def nflows_spline(device: torch.device, *, d: int, hidden: int, layers: int) -> Model:
    """Couplings by rational quadratic splines of nflows."""
    from nflows.transforms.coupling import PiecewiseRationalQuadraticCouplingTransform

    made = [
        PiecewiseRationalQuadraticCouplingTransform(
            mask, lambda i, o: _NflowsNetwork(i, o, hidden), num_bins=BINS, tails="linear", tail_bound=TAIL
        )
        for mask in _masks(d, layers)
    ]
    return _nflows(made, d, device)


def nflows_autoregressive(device: torch.device, *, d: int, hidden: int, layers: int) -> Model:
    """Masked affine autoregressive layers of nflows with two hidden layers."""
    from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform

    made = [
        MaskedAffineAutoregressiveTransform(d, hidden, num_blocks=1, use_residual_blocks=False) for _ in range(layers)
    ]
    return _nflows(made, d, device)


def _normflows(flows: list[Any], d: int, device: torch.device) -> Model:
    import normflows

    flow = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(d, trainable=False), flows).to(device)
    return Model(flow, flow.log_prob, flow.sample)


def normflows_affine(device: torch.device, *, d: int, hidden: int, layers: int) -> Model:
    """Affine couplings of normflows."""
    import normflows

    flows: list[Any] = []
    for _ in range(layers):
        network = normflows.nets.MLP([d // 2, hidden, hidden, d], init_zeros=True)
        flows += [
            normflows.flows.AffineCouplingBlock(network, scale_map="exp"),
            normflows.flows.Permute(d, mode="swap"),
        ]
    return _normflows(flows, d, device)


def normflows_spline(device: torch.device, *, d: int, hidden: int, layers: int) -> Model:
    """Couplings by rational quadratic splines of normflows, whose networks are residual."""
    import normflows

    flows = [
        normflows.flows.CoupledRationalQuadraticSpline(
            d, 1, hidden, num_bins=BINS, tail_bound=TAIL, reverse_mask=bool(number % 2)
        )
        for number in range(layers)
    ]
    return _normflows(flows, d, device)


def freia_affine(device: torch.device, *, d: int, hidden: int, layers: int) -> Model:
    """Affine couplings of FrEIA, which come with activation normalization and a permutation."""
    import FrEIA.framework
    import FrEIA.modules

    flow = FrEIA.framework.SequenceINN(d)
    for _ in range(layers):
        flow.append(FrEIA.modules.AllInOneBlock, subnet_constructor=lambda i, o: _mlp(i, o, hidden))
    flow.to(device)
    base = torch.distributions.Independent(
        torch.distributions.Normal(torch.zeros(d, device=device), torch.ones(d, device=device)), 1
    )

    def log_prob(x: Tensor) -> Tensor:
        z, ladj = flow(x)
        return base.log_prob(z) + ladj

    return Model(flow, log_prob, lambda n: flow(base.sample((n,)), rev=True)[0])


def _pyro(transforms: list[Any], modules: list[nn.Module], d: int, device: torch.device) -> Model:
    from pyro import distributions

    module = nn.ModuleList(modules).to(device)
    base = distributions.Normal(torch.zeros(d, device=device), torch.ones(d, device=device)).to_event(1)
    density = distributions.TransformedDistribution(base, transforms)

    def log_prob(x: Tensor) -> Tensor:
        return density.log_prob(x.clone())  # the transforms remember the last tensor, by its identity

    return Model(module, log_prob, lambda n: density.sample((n,)), density.clear_cache)


def _pyro_couplings(make: Any, d: int, layers: int, device: torch.device) -> Model:
    from pyro.distributions.transforms import Permute

    transforms: list[Any] = []
    for _ in range(layers):
        transforms += [make(), Permute(torch.arange(d, device=device).flip(0))]
    return _pyro(transforms[:-1], transforms[::2], d, device)


def pyro_affine(device: torch.device, *, d: int, hidden: int, layers: int) -> Model:
    """Pyro's ``affine_coupling`` layers."""
    from pyro.distributions.transforms import affine_coupling

    return _pyro_couplings(lambda: affine_coupling(d, hidden_dims=[hidden, hidden]), d, layers, device)


def pyro_spline(device: torch.device, *, d: int, hidden: int, layers: int) -> Model:
    """Pyro's ``spline_coupling`` layers."""
    from pyro.distributions.transforms import spline_coupling

    return _pyro_couplings(
        lambda: spline_coupling(d, hidden_dims=[hidden, hidden], count_bins=BINS, bound=TAIL), d, layers, device
    )


def pyro_autoregressive(device: torch.device, *, d: int, hidden: int, layers: int) -> Model:
    """Pyro's ``affine_autoregressive`` layers, inverted so that a score takes one pass."""
    from pyro.distributions.transforms import affine_autoregressive

    layers_ = [affine_autoregressive(d, hidden_dims=[hidden, hidden]) for _ in range(layers)]
    return _pyro([layer.inv for layer in layers_], layers_, d, device)
