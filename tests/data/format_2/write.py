"""Writes the saved flows of this folder: run with the released version that wrote format 2, never with a later one.

    PYTHONPATH=<a checkout of that version> python write.py <an empty folder>

Each flow is written as ``save`` writes it (but for the indentation of its JSON, which is left out to keep the files
small), with random weights in float64, beside what it gave: events with their log-probs, and draws of the base with
their images. ``stopped`` is the checkpoint of a run of ``fit`` that was interrupted, with the log-probs of the same run
when it goes on to its end. A later version reads these files as they are; it adds a folder of its own for its format.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pyro_gflows.actions.representations import EscnnRepresentation
from pyro_gflows.flow import EquivariantFlow
from pyro_gflows.infer.guides import OrbitFlow
from pyro_gflows.infer.training.checkpoint import CHECKPOINT
from torch import Tensor

from pyro_gflows.actions import (
    ChannelSplit,
    CoordinateSplit,
    DefiningRepresentation,
    ImageAction,
    IrrepSplit,
    MatrixRepresentation,
    QuotientRepresentation,
    RegularRepresentation,
    RowsRepresentation,
    TrivialRepresentation,
    VectorAction,
    isotypic_split,
    parse_group,
    plain_checkerboard_split,
)
from pyro_gflows.cli import main
from pyro_gflows.datasets import GreyLevels
from pyro_gflows.distributions import (
    InvariantNormal,
    InvariantStudentT,
    InvariantUniformBall,
    OrbitMixture,
    Symmetrized,
)
from pyro_gflows.image_flows import g_coupling_image_flow, g_residual_image_flow
from pyro_gflows.infer import FitSettings, HeldOut, fit, g_dequantiser, log_probs, save
from pyro_gflows.nn import (
    BoundedKnots,
    ConditionalBranch,
    EquivariantMLP,
    FreeKnots,
    HiddenFields,
    LipschitzDenseNetwork,
    LipschitzNetwork,
    LipschitzSum,
    RadialTerm,
    Ridges,
    SoftNetwork,
)
from pyro_gflows.numerics import (
    BanachSolver,
    ConstantMemory,
    ExactLogDet,
    NewtonSolver,
    RouletteLogDet,
    SeriesLogDet,
)
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import (
    Compose,
    ElementwiseAffine,
    ElementwiseSpline,
    GActNorm,
    GAffine,
    GAutoregressive,
    GCoupling,
    GInverseAutoregressive,
    GLinear,
    GMonotone,
    GNormalCdf,
    GOrbitNorm,
    GRadial,
    GResidual,
    GSigmoid,
    GSplit,
    IrrepScale,
    MatrixExponential,
    Recompute,
    g_coupling,
    g_residual,
)

QUATERNIONS = [
    [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]],
    [[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]],
]


def residual_with_ridges() -> EquivariantFlow:
    action = VectorAction.plane("D8")
    terms = LipschitzSum([Ridges(action, 3, knots=8), RadialTerm(action, knots=8)])
    layers = [
        GResidual(action, terms, log_det=ExactLogDet(), solver=NewtonSolver()),
        GActNorm(action),
        g_residual(action, fast="sample"),
    ]
    return EquivariantFlow(InvariantNormal(action), layers)


def residual_with_estimated_log_det() -> EquivariantFlow:
    action = VectorAction.regular("C2", copies=2)
    roulette = RouletteLogDet(evaluation=SeriesLogDet(8, probes=2, seed=3))

    def branch(activation: str) -> LipschitzNetwork:
        return LipschitzNetwork(action, width=2, bound=0.6, activation=activation)

    layers = [
        GResidual(action, branch("splines"), log_det=ConstantMemory(roulette)),
        Recompute(GResidual(action, branch("sorted_pairs"), log_det=roulette, solver=BanachSolver())),
        GResidual(action, branch("lipswish"), log_det=SeriesLogDet(20, probes=None)),
    ]
    return EquivariantFlow(InvariantStudentT(action, df=5.0, covariance="isotypic"), layers)


def monotone() -> EquivariantFlow:
    action = VectorAction.space("SO(3)", copies=2)
    layers = [GMonotone(action, LipschitzNetwork(action, width=2, bound=0.7)), GLinear(action)]
    return EquivariantFlow(InvariantNormal(action, covariance="full"), layers)


def coupling_of_vectors() -> EquivariantFlow:
    group = parse_group("S3 x C2")
    action = VectorAction.rows("S3").lift(group, 0).direct_sum(VectorAction.signs(1).lift(group, 1))
    layers = [g_coupling(action, width=1, depth=1)]
    return EquivariantFlow(InvariantNormal(action, covariance="isotypic", mean=True), layers)


def coupling_of_irreps_with_splines() -> EquivariantFlow:
    action = VectorAction(
        [RegularRepresentation("D3"), QuotientRepresentation("D3", [0, 3]), DefiningRepresentation("D3")]
    )
    layers = [
        GCoupling(IrrepSplit(action), width=1, depth=1),
        GRadial(action, bins=4, knots=BoundedKnots()),
    ]
    base = InvariantNormal(VectorAction.trivial("C1", copies=action.numel), covariance="isotypic", mean=True)
    return EquivariantFlow(Symmetrized(base, action), layers)


def splines_of_signs() -> EquivariantFlow:
    action = VectorAction.from_generators([torch.diag(torch.tensor([-1.0, 1.0, 1.0])), [0, 2, 1]])
    layers = [
        GCoupling(
            CoordinateSplit(action),
            transformer=ElementwiseSpline(CoordinateSplit(action).parts[1], bins=4, knots=FreeKnots()),
            width=1,
            depth=1,
        ),
        GActNorm(action),
    ]
    return EquivariantFlow(OrbitFlow(action, steps=1, width=2), layers)


def inverse_autoregressive() -> EquivariantFlow:
    action = VectorAction.from_generators(
        [torch.diag(torch.tensor([-1.0, 1, 1])), torch.diag(torch.tensor([1.0, -1, -1]))]
    )
    split = CoordinateSplit(action, [[0], [1], [2]])
    layers = [GInverseAutoregressive(split, width=1, depth=1), GAutoregressive(split, width=1, depth=1)]
    return EquivariantFlow(OrbitMixture(action), layers)


def radial() -> EquivariantFlow:
    action = VectorAction.plane("O(2)")
    layers = [GRadial(action, bins=6, knots=FreeKnots()), GRadial(action, bins=6).inv]
    return EquivariantFlow(InvariantUniformBall(action, covariance="isotypic"), layers)


def coupling_of_images() -> EquivariantFlow:
    action = ImageAction("C2", 1, size=4)
    return g_coupling_image_flow(
        action,
        scales=2,
        blocks=1,
        width=1,
        depth=1,
        preprocess=lambda action: GSigmoid(action, (-20.0, 30.0)),
    )


def soft_coupling_of_images() -> EquivariantFlow:
    action = ImageAction("C1", 1, size=2)
    split = plain_checkerboard_split(action)
    network = SoftNetwork(*(ImageAction("C1", channels, size=2) for channels in (1, 2)), group="C2", width=1, depth=1)
    layers = [Recompute(Compose([GActNorm(action), GCoupling(split, network=network)]))]
    return EquivariantFlow(InvariantNormal(action), [*layers, GNormalCdf(action, (-20.0, 30.0), alpha=0.0)])


def residual_of_images() -> EquivariantFlow:
    action = ImageAction("C4", 1, size=4)
    branch = {"activation": "curves", "layer": "polar", "units": "field"}
    return g_residual_image_flow(action, blocks=1, width=1, memory="constant", branch=branch)


def dense_residual_of_images() -> EquivariantFlow:
    action = ImageAction("D2", 2, size=3)
    layers = [
        GCoupling(ChannelSplit(action), width=1, depth=1),
        GResidual(action, LipschitzDenseNetwork(action, width=1, bound=0.6)),
    ]
    return EquivariantFlow(InvariantNormal(action, covariance="isotypic"), layers)


def translations() -> EquivariantFlow:
    action = ImageAction.translations(2, size=(2, 3))
    layers = [
        GActNorm(action),
        GLinear(action),
        GResidual(action, LipschitzNetwork(action, width=1, bound=0.6)),
        GOrbitNorm(action),
        GSigmoid(action, (-20.0, 30.0)),
    ]
    return EquivariantFlow(InvariantNormal(action), layers)


def conditional() -> EquivariantFlow:
    action, context = VectorAction.plane("C3", copies=2), VectorAction.regular("C3")
    plane = VectorAction.plane("C3")
    split = CoordinateSplit(action)
    layers = [
        GAffine(action, context_action=context, width=1),
        GSplit(split, GRadial(plane, bins=4), width=1, depth=1, context_action=context),
        Compose([GActNorm(action).inv, GLinear(action)]),
        GResidual(action, ConditionalBranch(action, context, bound=0.6, width=1)),
    ]
    return EquivariantFlow(InvariantNormal(action), layers)


def continuous_fields() -> EquivariantFlow:
    action = VectorAction(EscnnRepresentation("SO(2)", [(1,), (2,)], torch.eye(4, dtype=torch.float64)))
    split = IrrepSplit(action)
    matrices = MatrixExponential(split.parts[1])
    hidden = EquivariantMLP(split.parts[1], split.parts[0], hidden_fields=HiddenFields(2, 1), depth=1)
    layers = [
        GCoupling(split, moved=1, transformer=matrices, width=1, depth=1),
        GCoupling(split, moved=0, network=hidden, width=1, depth=1),
    ]
    return EquivariantFlow(InvariantNormal(action), layers)


def quaternions() -> EquivariantFlow:
    action = VectorAction.from_generators(QUATERNIONS)
    return EquivariantFlow(InvariantNormal(action, covariance="full"), [GLinear(action)])


def reflections_of_space() -> EquivariantFlow:
    action = VectorAction.space("O(3)", copies=2)
    layers = [GCoupling(IrrepSplit(action), moved=0, width=1, depth=1)]
    return EquivariantFlow(InvariantNormal(action, covariance="isotypic"), layers)


def features_beside_rows() -> EquivariantFlow:
    sign = MatrixRepresentation(parse_group("S3"), [[[x]] for x in (1.0, -1.0, -1.0, 1.0, 1.0, -1.0)], name="sign")
    action = VectorAction([RowsRepresentation("S3", 2), TrivialRepresentation("S3"), sign])
    layers = [GAffine(action, context_action=VectorAction.rows("S3"), width=1)]
    return EquivariantFlow(InvariantNormal(action, covariance="isotypic"), layers)


def matrices_and_keywords() -> EquivariantFlow:
    action = VectorAction.plane("C3", copies=2)
    couplings = g_coupling(
        action, transformer=MatrixExponential, network={"depth": 1, "activation": "splines"}, width=1
    )
    plane = VectorAction.plane("C3")
    affine = GAffine(
        action,
        context_action=plane,
        transformer=MatrixExponential(action, rank=1, cap=2.0),
        network=EquivariantMLP(plane, MatrixExponential(action, rank=1).params_action, width=1, depth=1),
    )
    return EquivariantFlow(InvariantNormal(action), [couplings, affine])


def split_and_blocks_of_rows() -> EquivariantFlow:
    action = VectorAction.rows("S3", features=2)
    split = CoordinateSplit(action)
    part = split.parts[1]
    inner = Compose([GActNorm(split.parts[0]), GLinear(split.parts[0], cap=2.0)])
    network = EquivariantMLP(split.parts[0], ElementwiseAffine(part).params_action, width=1, depth=1)
    layers = [
        GSplit(split, inner, transformer=ElementwiseAffine(part, cap=2.0), network=network),
        GSplit(split, GActNorm(split.parts[0]), transformer=IrrepScale(part), width=1),
        GAutoregressive(split, transformer=IrrepScale, width=1, depth=1),
    ]
    return EquivariantFlow(OrbitFlow(action, steps=2, width=2), layers)


def soft_flow_of_images() -> EquivariantFlow:
    return g_coupling_image_flow(ImageAction("C2", 1, size=4), scales=1, blocks=1, width=1, depth=1, soft=True)


def fields_of_images() -> EquivariantFlow:
    action = ImageAction("C2", channels=2, size=2, fields="regular")
    layers = [
        g_coupling(action, split=isotypic_split(action), network={"bias": "pixels"}, width=1, depth=1),
        GResidual(action, branch=LipschitzNetwork(action, width=1, depth=0, bound=0.6)),
    ]
    return EquivariantFlow(InvariantNormal(action), layers)


FLOWS: list[Callable[[], EquivariantFlow]] = [
    residual_with_ridges,
    residual_with_estimated_log_det,
    monotone,
    coupling_of_vectors,
    coupling_of_irreps_with_splines,
    splines_of_signs,
    inverse_autoregressive,
    radial,
    coupling_of_images,
    soft_coupling_of_images,
    residual_of_images,
    dense_residual_of_images,
    translations,
    conditional,
    continuous_fields,
    quaternions,
    reflections_of_space,
    features_beside_rows,
    matrices_and_keywords,
    split_and_blocks_of_rows,
    soft_flow_of_images,
    fields_of_images,
]


def record(make: Callable[[], EquivariantFlow], folder: Path) -> None:
    """Save the flow, and what it gives."""
    torch.manual_seed(0)
    flow = make().double()
    randomize_(flow, scale=0.2, generator=torch.Generator().manual_seed(1))
    save(flow.eval(), folder)
    structure = folder / "model.json"
    structure.write_text(json.dumps(json.loads(structure.read_text()), separators=(",", ":")) + "\n")
    generator = torch.Generator().manual_seed(2)
    torch.manual_seed(3)
    with torch.no_grad():
        base = flow.base.sample((2,))
        context = None
        if flow.context_action is not None:
            context = torch.randn(2, *flow.context_action.event_shape, generator=generator, dtype=torch.float64)
        transform = flow.transform if context is None else flow.transform.condition(context)
        sample = transform(base.clone())
        x = sample + 0.1 * torch.randn(sample.shape, generator=generator, dtype=torch.float64)
        density = flow.dist if context is None else flow.condition(context)
        given: dict[str, Tensor | None] = {
            "x": x,
            "context": context,
            "log_prob": density.log_prob(x.clone()),
            "base": base,
            "sample": sample,
        }
    _write(folder, given)


def record_stopped_run(folder: Path) -> None:
    """The checkpoint of a run that Ctrl-C stopped in the middle, and the log-probs of the run when it goes on."""
    x = torch.randn(32, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    settings = FitSettings(
        steps=8, batch_size=8, seed=3, ema_decay=0.9, held_out=HeldOut(every=2, patience=5), checkpoint_every=2
    )

    def run(*, stop_at: int | None = None, **more: object) -> Tensor:
        calls = 0

        def augment(x: Tensor, generator: torch.Generator) -> Tensor:
            nonlocal calls
            calls += 1
            if calls == stop_at:
                os.kill(os.getpid(), signal.SIGINT)
            return x + 0.01 * torch.randn(x.shape, generator=generator, dtype=x.dtype)

        torch.manual_seed(0)
        action = VectorAction.plane("D4")
        terms = LipschitzSum([Ridges(action, 1, knots=4)])
        flow = EquivariantFlow(InvariantNormal(action), [GResidual(action, terms), GActNorm(action)]).double()
        fit(flow, x[:24], settings=settings, validation=x[24:], augment=augment, progress=False, **more)  # type: ignore[arg-type]
        return log_probs(flow, x)

    expected = run()
    try:
        run(folder=folder, stop_at=5)
    except KeyboardInterrupt:
        _write(folder, {"x": x, "log_prob": expected})
    assert (folder / CHECKPOINT).exists()


def record_stopped_run_with_noise(folder: Path) -> None:
    """As ``record_stopped_run``, of a flow of images with the noise that is trained with it."""
    action, scaling = ImageAction("C2", 1, size=4), GreyLevels(5, centre=0.5, gain=3.0)
    x = scaling.dequantise(torch.randint(5, (16, 1, 4, 4), generator=torch.Generator().manual_seed(4))).double()
    settings = FitSettings(steps=6, batch_size=8, seed=3, checkpoint_every=2)

    def run(*, stop_at: int | None = None, **more: object) -> Tensor:
        def stop(step: int, *_: object) -> None:
            if step == stop_at:
                os.kill(os.getpid(), signal.SIGINT)

        torch.manual_seed(0)
        flow = g_coupling_image_flow(action, scales=1, blocks=1, width=1, depth=1).double()
        noise = g_dequantiser(action, scaling, blocks=1, width=1, depth=1).double()
        fit(flow, x, settings=settings, dequantise=noise, callbacks=stop, progress=False, **more)  # type: ignore[arg-type]
        return log_probs(flow, x)

    expected = run()
    try:
        run(folder=folder, stop_at=3)
    except KeyboardInterrupt:
        _write(folder, {"x": x, "log_prob": expected})
    assert (folder / CHECKPOINT).exists()


def record_run_of_images(folder: Path) -> None:
    """A run of the command line on a file of images of grey levels, and what its commands give."""
    folder.mkdir(parents=True)
    data = folder / "images.npy"
    np.save(data, np.random.default_rng(0).integers(0, 5, (24, 4, 4)).astype(np.uint8))
    options = ["--levels", "5", "--events", "images", "--batch-size", "8", "--steps", "2", "--quiet"]
    assert main(["fit", str(data), "--group", "C1", *options, "--out", str(folder)]) == 0
    assert main(["score", str(folder), str(data), "--out", str(folder / "scores.npy")]) == 0
    assert main(["sample", str(folder), "-n", "3", "--out", str(folder / "samples.npy")]) == 0
    for unread in (*folder.glob("*.png"), folder / "metrics.json", folder / CHECKPOINT):
        unread.unlink()
    for file in (folder / "model.json", folder / "run.json"):
        file.write_text(json.dumps(json.loads(file.read_text()), separators=(",", ":")) + "\n")


def _write(folder: Path, recorded: dict[str, Tensor | None]) -> None:
    plain = {name: None if value is None else value.tolist() for name, value in recorded.items()}
    (folder / "recorded.json").write_text(json.dumps(plain) + "\n")


if __name__ == "__main__":
    place = Path(sys.argv[1])
    for flow in FLOWS:
        record(flow, place / flow.__name__)
    record_stopped_run(place / "stopped")
    record_stopped_run_with_noise(place / "stopped_with_noise")
    record_run_of_images(place / "run_of_images")
