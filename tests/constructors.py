"""The one table of named constructors: every generic test runs over all of them, so a new transform is one new row."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_gflows.actions import (
    CoordinateSplit,
    ImageAction,
    IrrepSplit,
    MatrixRepresentation,
    TrivialRepresentation,
    VectorAction,
    checkerboard_split,
    isotypic_split,
    parse_group,
)
from pyro_gflows.actions.groups import DihedralGroup
from pyro_gflows.actions.representations import EscnnRepresentation
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flow import EquivariantFlow
from pyro_gflows.nn import (
    FreeKnots,
    HiddenFields,
    LipschitzDenseNetwork,
    LipschitzNetwork,
    LipschitzSum,
    RadialTerm,
    Ridges,
    SoftNetwork,
)
from pyro_gflows.numerics import ConstantMemory, ExactLogDet, RouletteLogDet, SeriesLogDet
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import (
    Compose,
    ElementwiseSpline,
    EquivariantTransform,
    GActNorm,
    GAffine,
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
    GSqueeze,
    MatrixExponential,
    Recompute,
    g_autoregressive,
    g_coupling,
    g_radial,
    g_residual,
)

__all__ = [
    "BOUNDED",
    "CONDITIONAL",
    "CONSTRUCTORS",
    "PIECEWISE_LINEAR",
    "RANDOM_IN_TRAINING",
    "conditional_flow",
    "events",
    "make",
    "make_conditional",
    "make_flow",
    "training_steps",
]

QUATERNIONS = [
    [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]],
    [[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]],
]
SIGN_FLIPS = [torch.diag(torch.tensor([-1.0, 1.0, 1.0])), torch.diag(torch.tensor([1.0, -1.0, -1.0]))]


def interleaved() -> VectorAction:
    """A plane, a number and a plane again: fields that repeat without being neighbours."""
    group = DihedralGroup(3)
    plane = MatrixRepresentation(group, group.plane())
    return VectorAction([plane, TrivialRepresentation(group), plane])


def frequencies() -> VectorAction:
    """Two different planes that SO(2) turns, at once and twice as fast, as escnn writes them."""
    return VectorAction([EscnnRepresentation("SO(2)", [(1,), (2,)], torch.eye(4, dtype=torch.float64))])


def rows_and_signs() -> VectorAction:
    """Three rows that are permuted, and a number that changes sign, each as it likes."""
    group = parse_group("S3 x C2")
    return VectorAction.rows("S3").lift(group, 0).direct_sum(VectorAction.signs(1).lift(group, 1))


def ridges(action: VectorAction) -> LipschitzSum:
    return LipschitzSum([Ridges(action, 3, knots=8), RadialTerm(action, knots=8)])


def network(action: VectorAction | ImageAction, *, bound: float = 0.6) -> LipschitzNetwork:
    return LipschitzNetwork(action, width=2, depth=1, bound=bound)


def estimated(action: VectorAction | ImageAction) -> GResidual:
    return GResidual(action, network(action), log_det=RouletteLogDet(evaluation=SeriesLogDet(8, probes=1)))


CONSTRUCTORS: dict[str, Callable[[], EquivariantTransform]] = {
    "residual, ridges, plane D8": lambda: GResidual(VectorAction.plane("D8"), ridges(VectorAction.plane("D8"))),
    "residual, for sampling, plane C3": lambda: GResidual(
        VectorAction.plane("C3"), ridges(VectorAction.plane("C3")), fast="sample"
    ),
    "residual, radial, O(2)": lambda: GResidual(
        VectorAction.plane("O(2)"), LipschitzSum([RadialTerm(VectorAction.plane("O(2)"), knots=8)])
    ),
    "residual, network, regular C4": lambda: GResidual(VectorAction.regular("C4"), network(VectorAction.regular("C4"))),
    "residual, network, two vectors SO(3)": lambda: GResidual(
        VectorAction.space("SO(3)", copies=2), network(VectorAction.space("SO(3)", copies=2))
    ),
    "residual, network, quaternions": lambda: GResidual(
        VectorAction.from_generators(QUATERNIONS), network(VectorAction.from_generators(QUATERNIONS))
    ),
    "residual, network, interleaved fields": lambda: GResidual(interleaved(), network(interleaved())),
    "residual, network, no symmetry": lambda: GResidual(
        VectorAction.trivial("C1", copies=3), network(VectorAction.trivial("C1", copies=3))
    ),
    "residual, network, image C4": lambda: GResidual(
        ImageAction("C4", 1, size=4), network(ImageAction("C4", 1, size=4))
    ),
    "residual, network, shifts": lambda: GResidual(
        ImageAction.translations(1, size=3), network(ImageAction.translations(1, size=3))
    ),
    "residual, sorted pairs, regular C4": lambda: GResidual(
        VectorAction.regular("C4"),
        LipschitzNetwork(VectorAction.regular("C4"), width=2, depth=1, bound=0.6, activation="sorted_pairs"),
    ),
    "residual, concatenated swishes, nearly orthogonal layers, image C4": lambda: GResidual(
        ImageAction("C4", 1, size=3),
        LipschitzNetwork(
            ImageAction("C4", 1, size=3),
            width=1,
            bound=0.6,
            activation="clipswish",
            layer="almost_orthogonal",
            units="field",
        ),
    ),
    "residual, curves, polar layers, image C4": lambda: GResidual(
        ImageAction("C4", 1, size=3),
        LipschitzNetwork(ImageAction("C4", 1, size=3), width=1, bound=0.6, activation="curves", layer="polar"),
    ),
    "residual, dense network, image C4": lambda: GResidual(
        ImageAction("C4", 1, size=3), LipschitzDenseNetwork(ImageAction("C4", 1, size=3), width=1, bound=0.6)
    ),
    "monotone, network, image C4": lambda: GMonotone(
        ImageAction("C4", 1, size=3), network(ImageAction("C4", 1, size=3))
    ),
    "residual, estimated, regular C4": lambda: estimated(VectorAction.regular("C4")),
    "residual, CNN of places, image D4": lambda: GResidual(
        ImageAction("D4", 1, size=3), LipschitzNetwork(ImageAction("D4", 1, size=3), width=1, bound=0.6, bias="pixels")
    ),
    "residual, estimated, image D2": lambda: estimated(ImageAction("D2", 1, size=3)),
    "residual, in constant memory, regular C4": lambda: GResidual(
        VectorAction.regular("C4"), network(VectorAction.regular("C4")), log_det=ConstantMemory(ExactLogDet())
    ),
    "actnorm, sign flips": lambda: GActNorm(VectorAction.from_generators(SIGN_FLIPS)),
    "actnorm, image D4, regular": lambda: GActNorm(ImageAction("D4", 1, size=2, fields="regular")),
    "recomputed, plane D8": lambda: Recompute(CONSTRUCTORS["residual, ridges, plane D8"]()),
    "linear, rows of S3": lambda: GLinear(VectorAction.rows("S3", features=2)),
    "linear, two vectors SO(3)": lambda: GLinear(VectorAction.space("SO(3)", copies=2)),
    "linear, image D4, regular": lambda: GLinear(ImageAction("D4", 1, size=2, fields="regular")),
    "orbit norm, image D4": lambda: GOrbitNorm(ImageAction("D4", 2, size=3)),
    # weights before them, since they have none; intervals that hold all events of the tests
    "sigmoid, image D4": lambda: Compose(
        [GActNorm(ImageAction("D4", 1, size=2)), GSigmoid(ImageAction("D4", 1, size=2), (-20.0, 30.0))]
    ),
    "normal cdf, rows of S3": lambda: Compose(
        [GActNorm(VectorAction.rows("S3")), GNormalCdf(VectorAction.rows("S3"), (-20.0, 30.0), alpha=0.0)]
    ),
    "radial, O(2)": lambda: GRadial(VectorAction.plane("O(2)"), bins=6),
    "radial, knots without bounds, O(2)": lambda: GRadial(VectorAction.plane("O(2)"), bins=6, knots=FreeKnots()),
    "radial, trivial and sign of C2": lambda: GRadial(VectorAction.regular("C2"), bins=6),
    "coupling, regular C4": lambda: GCoupling(CoordinateSplit(VectorAction.regular("C4", copies=2)), width=2, depth=1),
    "coupling, sign flips": lambda: g_coupling(VectorAction.from_generators(SIGN_FLIPS), width=2, depth=1),
    "coupling, rows of S3": lambda: g_coupling(VectorAction.rows("S3", features=2), width=2, depth=1),
    "coupling, rows and signs": lambda: g_coupling(rows_and_signs(), width=2, depth=1),
    "coupling, irrep scales, SO(3)": lambda: GCoupling(
        CoordinateSplit(VectorAction.space("SO(3)", copies=2)), width=2, depth=1
    ),
    "coupling, frequencies 1 and 2 of SO(2)": lambda: g_coupling(frequencies(), width=2, depth=1),
    "coupling, irreps, O(3)": lambda: GCoupling(
        IrrepSplit(VectorAction.space("O(3)", copies=2)), moved=0, width=2, depth=1
    ),
    "coupling, irrep scales, plane D5": lambda: GCoupling(
        IrrepSplit(VectorAction.plane("D5", copies=2)), moved=0, width=2, depth=1
    ),
    "coupling, matrix exponential, O(2)": lambda: g_coupling(
        VectorAction.plane("O(2)", copies=2), transformer=MatrixExponential, width=2, depth=1
    ),
    "coupling, hidden fields, O(2)": lambda: g_coupling(
        VectorAction.plane("O(2)", copies=2), network={"hidden_fields": HiddenFields(3, 2)}, width=2, depth=1
    ),
    "coupling, splines, sign flips": lambda: g_coupling(
        VectorAction.from_generators(SIGN_FLIPS),
        transformer=lambda part: ElementwiseSpline(part, bins=4),
        width=2,
        depth=1,
    ),
    "coupling, checkerboard, image D4": lambda: g_coupling(
        ImageAction("D4", 1, size=4), split=checkerboard_split(ImageAction("D4", 1, size=4)), width=1, depth=1
    ),
    "coupling, soft network of D4, image C4": lambda: GCoupling(
        checkerboard_split(ImageAction("C4", 1, size=4)),
        network=SoftNetwork(ImageAction("C4", 1, size=4), ImageAction("C4", 2, size=4), group="D4", width=1, depth=1),
    ),
    "coupling, isotypes, image C4, placed": lambda: g_coupling(
        ImageAction("C4", size=2, fields="regular"),
        split=isotypic_split(ImageAction("C4", size=2, fields="regular")),
        network={"bias": "pixels"},
        width=1,
        depth=1,
    ),
    "coupling, channels, image C4": lambda: g_coupling(ImageAction("C4", 2, size=3), width=1, depth=1),
    "autoregressive, regular C3": lambda: g_autoregressive(VectorAction.regular("C3", copies=3), width=2, depth=1),
    "autoregressive, plane C5": lambda: g_autoregressive(VectorAction.plane("C5", copies=3), width=2, depth=1),
    "inverse autoregressive, sign flips": lambda: GInverseAutoregressive(
        CoordinateSplit(VectorAction.from_generators(SIGN_FLIPS), [[0], [1], [2]]), width=2, depth=1
    ),
    "inverse autoregressive, SO(3)": lambda: g_autoregressive(
        VectorAction.space("SO(3)", copies=2), width=2, depth=1, fast="sample"
    ),
    "squeeze and coupling, image D4": lambda: Compose(
        [
            squeeze := GSqueeze(ImageAction("D4", 1, size=4)),
            GCoupling(IrrepSplit(squeeze.action_out), width=1, depth=1),
        ]
    ),
    "split, inner radial, plane D3": lambda: GSplit(
        CoordinateSplit(VectorAction.plane("D3", copies=2)), GRadial(VectorAction.plane("D3"), bins=6), width=2, depth=1
    ),
    "inverted, plane D8": lambda: CONSTRUCTORS["residual, ridges, plane D8"]().inv,
    "composed, regular C4": lambda: Compose(
        [
            GActNorm(VectorAction.regular("C4")),
            CONSTRUCTORS["residual, network, regular C4"]().inv,
            Compose([CONSTRUCTORS["residual, network, regular C4"](), GActNorm(VectorAction.regular("C4"))]),
        ]
    ),
}

# the families that take a context; how it moves is not how the events do
_TURNS = VectorAction.plane("D4", copies=2)
_CORNERS = VectorAction.regular("D4")
_PICTURE = ImageAction("D4", 2, size=3)
_ARROWS = VectorAction.space("SO(3)", copies=2)
CONDITIONAL: dict[str, Callable[[], EquivariantTransform]] = {
    "affine, plane D4": lambda: GAffine(_TURNS, context_action=_CORNERS, width=2),
    "affine, matrix exponential, SO(3)": lambda: GAffine(
        _ARROWS, context_action=_ARROWS, transformer=MatrixExponential(_ARROWS), width=2
    ),
    "affine, image D4": lambda: GAffine(_PICTURE, context_action=ImageAction("D4", 1, size=3), width=1),
    "coupling, plane D4": lambda: g_coupling(_TURNS, context_action=_CORNERS, width=2, depth=1),
    "coupling, channels, image D4": lambda: g_coupling(_PICTURE, context_action=_PICTURE, width=1, depth=1),
    "autoregressive, plane D4": lambda: g_autoregressive(_TURNS, context_action=_CORNERS, width=2, depth=1),
    "inverse autoregressive, rows of S3": lambda: g_autoregressive(
        VectorAction.rows("S3", features=2), context_action=VectorAction.rows("S3"), width=2, depth=1, fast="sample"
    ),
    "inverse autoregressive, SO(3)": lambda: g_autoregressive(
        _ARROWS, context_action=VectorAction.space("SO(3)"), width=2, depth=1, fast="sample"
    ),
    "radial, plane and number of C4": lambda: g_radial(
        VectorAction.plane("C4").direct_sum(VectorAction.trivial("C4")),
        bins=6,
        context_action=VectorAction.plane("C4", copies=2),
    ),
    "residual, ridges, plane D4": lambda: g_residual(VectorAction.plane("D4"), context_action=_CORNERS),
    "residual, for sampling, SO(3)": lambda: g_residual(_ARROWS, context_action=_ARROWS, fast="sample", bound=0.8),
    "residual, image D2": lambda: g_residual(
        ImageAction("D2", 1, size=2), context_action=ImageAction("D2", 1, size=2), bound=0.6
    ),
    "split, plane D4": lambda: GSplit(
        CoordinateSplit(_TURNS),
        GAffine(VectorAction.plane("D4"), context_action=_CORNERS, width=2),
        width=2,
        depth=1,
        context_action=_CORNERS,
    ),
    "inverted, plane D4": lambda: CONDITIONAL["coupling, plane D4"]().inv,
    "composed, plane D4": lambda: Compose(
        [GActNorm(_TURNS), CONDITIONAL["affine, plane D4"](), GCoupling(CoordinateSplit(_TURNS), width=2, depth=1)]
    ),
}

# whose slopes are piecewise constant, so that the log-det has no gradient in what only moves the kinks
PIECEWISE_LINEAR = {name for name in CONSTRUCTORS if "sorted pairs" in name}

# whose values lie in an interval, which is then the support
BOUNDED = {name for name in CONSTRUCTORS if "sigmoid" in name or "normal cdf" in name}

# whose log-det is random while they train, and an estimate afterwards
RANDOM_IN_TRAINING = {name for name in CONSTRUCTORS if "estimated" in name}


def make(name: str, *, dtype: torch.dtype = torch.float64, scale: float = 0.3) -> EquivariantTransform:
    """The transform of that name with random, non-trivial weights, in ``eval()``."""
    torch.manual_seed(0)
    transform = CONSTRUCTORS[name]().to(dtype)
    randomize_(transform, scale=scale, generator=torch.Generator().manual_seed(1))
    return transform.eval()


def make_conditional(name: str) -> EquivariantTransform:
    """The conditional transform of that name with random, non-trivial weights, in ``eval()``."""
    torch.manual_seed(0)
    transform = CONDITIONAL[name]().double()
    randomize_(transform, generator=torch.Generator().manual_seed(1))
    return transform.eval()


def conditional_flow(name: str) -> EquivariantFlow:
    """A flow of that one conditional transform on an isotropic base, in ``eval()``."""
    transform = make_conditional(name)
    return EquivariantFlow(InvariantNormal(transform.action_in), [transform]).double().eval()


def make_flow(name: str, *, dtype: torch.dtype = torch.float64, trained: bool = False) -> EquivariantFlow:
    """A flow of that one transform on a learnable base, in ``eval()``; also after 20 training steps."""
    transform = make(name, dtype=dtype)
    flow = EquivariantFlow(InvariantNormal(transform.action_in, covariance="isotypic"), [transform]).to(dtype)
    randomize_(flow.base.module, generator=torch.Generator().manual_seed(2))
    if trained:
        flow.load_state_dict(_trained_state(name))
    return flow.to(dtype).eval()


@functools.cache
def _trained_state(name: str) -> dict[str, Tensor]:
    flow = make_flow(name)
    training_steps(flow, 20)
    return copy.deepcopy(flow.state_dict())


def training_steps(flow: EquivariantFlow, steps: int, *, lr: float = 1e-2) -> None:
    """Maximum likelihood on fixed data that are not symmetric themselves."""
    flow.train()
    parameter = next(flow.parameters())
    x = (events(flow, 32, dtype=parameter.dtype) + 0.3).to(parameter.device)
    optimizer = torch.optim.Adam(flow.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        (-flow(x).mean()).backward()
        optimizer.step()
    flow.eval()


def events(
    source: EquivariantFlow | EquivariantTransform, *batch: int, dtype: torch.dtype = torch.float64, seed: int = 3
) -> Tensor:
    """Random events of a flow's data, or of a transform's domain, of the given batch shape."""
    action = source.action if isinstance(source, EquivariantFlow) else source.action_in
    generator = torch.Generator().manual_seed(seed)
    return 1.3 * torch.randn(*batch, *action.event_shape, generator=generator, dtype=torch.float64).to(dtype)
