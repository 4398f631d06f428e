"""Couplings, spline couplings and autoregressive flows on 16 coordinates, beside those of five libraries."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import torch

from benchmarks.peers import peer_flows
from benchmarks.peers.contest import Contest
from benchmarks.peers.models import TASKS, Model, ModelMaker, entries, ours
from pyro_gflows import EquivariantFlow, InvariantNormal, VectorAction, g_autoregressive, g_coupling
from pyro_gflows.actions import CoordinateSplit
from pyro_gflows.transforms import ElementwiseSpline
from pyro_gflows.transforms.transformers import TransformerFactory

__all__ = ["CONTESTS"]

D, HIDDEN, LAYERS, BATCH = 16, 64, 4, 512
SIZE = f"d = {D}, two hidden layers of {HIDDEN}, {LAYERS} layers, batch {BATCH}"
C4, C1 = "ours, C4 x 4", "ours, C1"
_sizes = functools.partial(functools.partial, d=D, hidden=HIDDEN, layers=LAYERS)


def _coupling(group: str, transformer: TransformerFactory | None, device: torch.device) -> Model:
    """Each ``g_coupling`` transforms both parts, so half as many are as many couplings."""
    regular = group == "C4"
    action = VectorAction.regular("C4", copies=D // 4) if regular else VectorAction.trivial("C1", copies=D)
    width = HIDDEN // 4 if regular else HIDDEN
    layers = [g_coupling(action, width=width, depth=2, transformer=transformer) for _ in range(LAYERS // 2)]
    return ours(EquivariantFlow(InvariantNormal(action), layers).to(device))


def _autoregressive(group: str, device: torch.device) -> Model:
    """Four blocks of one regular field each, or 16 of one coordinate: 60 hidden units, shared out among the blocks."""
    if group == "C4":
        action, blocks, width = VectorAction.regular("C4", copies=D // 4), D // 4, HIDDEN // 12
    else:
        action, blocks, width = VectorAction.trivial("C1", copies=D), D, HIDDEN // 15
    each = D // blocks
    split = CoordinateSplit(action, [list(range(each * i, each * (i + 1))) for i in range(blocks)])
    layers = [g_autoregressive(action, split=split, width=width, depth=2) for _ in range(LAYERS)]
    return ours(EquivariantFlow(InvariantNormal(action), layers).to(device))


AFFINE: Mapping[str, ModelMaker] = {
    C4: functools.partial(_coupling, "C4", None),
    C1: functools.partial(_coupling, "C1", None),
}
SPLINE: Mapping[str, ModelMaker] = {
    C4: functools.partial(_coupling, "C4", ElementwiseSpline),
    C1: functools.partial(_coupling, "C1", ElementwiseSpline),
}
AUTOREGRESSIVE: Mapping[str, ModelMaker] = {
    C4: functools.partial(_autoregressive, "C4"),
    C1: functools.partial(_autoregressive, "C1"),
}
AFFINE_PEERS: Mapping[str, ModelMaker] = {
    "zuko RealNVP": _sizes(peer_flows.zuko_flow, "RealNVP"),
    "nflows": _sizes(peer_flows.nflows_affine),
    "normflows": _sizes(peer_flows.normflows_affine),
    "Pyro affine_coupling": _sizes(peer_flows.pyro_affine),
    "FrEIA AllInOneBlock": _sizes(peer_flows.freia_affine),
}
SPLINE_PEERS: Mapping[str, ModelMaker] = {
    "zuko NSF(passes=2)": _sizes(peer_flows.zuko_flow, "NSF", bins=peer_flows.BINS, passes=2),
    "nflows": _sizes(peer_flows.nflows_spline),
    "normflows": _sizes(peer_flows.normflows_spline),
    "Pyro spline_coupling": _sizes(peer_flows.pyro_spline),
}
AUTOREGRESSIVE_PEERS: Mapping[str, ModelMaker] = {
    "zuko MAF": _sizes(peer_flows.zuko_flow, "MAF"),
    "zuko MAF(passes=4)": _sizes(peer_flows.zuko_flow, "MAF", passes=4),
    "nflows": _sizes(peer_flows.nflows_autoregressive),
    "Pyro affine_autoregressive": _sizes(peer_flows.pyro_autoregressive),
}
#: Draws of an autoregressive flow take a pass for each block: what has as many passes is compared.
PASSES = {(C4, "zuko MAF(passes=4)"): 1.3, (C1, "zuko MAF"): 1.3}


def _limits(peer: str, limit: float) -> dict[tuple[str, str], float]:
    return {(C4, peer): limit, (C1, peer): limit}


def _contest(
    family: str,
    task: str,
    mine: Mapping[str, ModelMaker],
    peers: Mapping[str, ModelMaker],
    limits: Mapping[tuple[str, str], float],
    notes: Mapping[str, str],
) -> Contest:
    shape = (BATCH, D)
    return Contest(
        family, task, SIZE, entries(mine, task, shape), entries(peers, task, shape), limits=limits, notes=notes
    )


_AFFINE_LIMITS = {"training step": 1.1, "scoring": 1.3, "sampling": 1.3}

CONTESTS: Sequence[Contest] = [
    *(
        _contest(
            "affine coupling",
            task,
            AFFINE,
            AFFINE_PEERS,
            _limits("zuko RealNVP", _AFFINE_LIMITS[task]),
            {"FrEIA AllInOneBlock": "each block also has activation normalization and a fixed permutation"},
        )
        for task in TASKS
    ),
    *(
        _contest(
            "spline coupling",
            task,
            SPLINE,
            SPLINE_PEERS,
            _limits("zuko NSF(passes=2)", 1.0),
            {
                "zuko NSF(passes=2)": "a layer transforms all coordinates, half of them by splines without a network",
                "normflows": "its networks are residual, with three hidden layers",
            },
        )
        for task in TASKS
    ),
    *(
        _contest(
            "autoregressive",
            task,
            AUTOREGRESSIVE,
            AUTOREGRESSIVE_PEERS,
            PASSES
            if task == "sampling"
            else {
                (mine, peer): _AFFINE_LIMITS[task] for mine in (C4, C1) for peer in ("zuko MAF", "zuko MAF(passes=4)")
            },
            {
                "ours": "C4: 4 blocks, so a draw takes 4 passes a layer; C1: 16 blocks and passes",
                "zuko MAF": "a draw takes 16 passes a layer",
                "nflows": "a draw takes 16 passes a layer",
                "Pyro affine_autoregressive": "a draw takes 16 passes a layer",
            },
        )
        for task in TASKS
    ),
]
