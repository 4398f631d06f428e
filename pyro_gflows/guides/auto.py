"""AutoGFlow: a guide whose posterior is exactly invariant."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from pyro import poutine
from pyro.infer.autoguide.guides import AutoContinuous
from torch import Tensor
from torch.distributions import biject_to

from pyro_gflows.actions import SitesAction, VectorAction
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.flows.orbit_flow import OrbitFlow
from pyro_gflows.guides.default_flow import guide_transforms, identity_transforms
from pyro_gflows.guides.invariance import log_joint_invariance
from pyro_gflows.guides.joint_model import JointModel
from pyro_gflows.guides.log_joint import LogJoint
from pyro_gflows.guides.makers import check_makers, made_layers
from pyro_gflows.guides.param_store import take_names
from pyro_gflows.guides.pushforward import pushforward_sites
from pyro_gflows.guides.representative import orbit_representative
from pyro_gflows.guides.row_check import finite_rows
from pyro_gflows.guides.row_runs import OneByOne
from pyro_gflows.guides.start import find_mode
from pyro_gflows.guides.start_points import init_or_zero, mode_starts
from pyro_gflows.guides.supports import unconstrained_action
from pyro_gflows.transforms import EquivariantTransform

__all__ = ["AutoGFlow"]

_POINTS = 3
_DRAWS = 10_000
_STARTS = 32
_FEW_STARTS = 8  # where each takes runs of the model of its own


class AutoGFlow(AutoContinuous):
    r"""A guide whose posterior over all latent sites is an EquivariantFlow, so that :math:`q(\rho(g)\,z) = q(z)`.

    The flow lives on the unconstrained vector that AutoContinuous packs the sites into; the group moves the sites that
    ``action`` names and leaves the others alone. At construction the model runs once, so that all parameters exist
    before the first step; the guide then checks that the group commutes with the map to each constrained site, and that
    the model's own log-joint is invariant at a few random points.

    As every automatic guide, it scores only what it has drawn itself: for the sleeping phase of ReweightedWakeSleep
    write ``pyro.sample(site, flow.dist)`` in a guide of your own.

    Args:
        model: a Pyro model with continuous latent sites (hide discrete ones with ``poutine.block``).
        action: how the group moves its sites.
        transforms: makes the flow's transforms from the action on the unconstrained vector; build them with
            ``fast="sample"``. By default :func:`guide_transforms`; after an OrbitFlow, which is flexible itself, none.
        base: makes the invariant base from that action; by default the isotropic InvariantNormal. A base with separate
            modes (OrbitFlow, OrbitMixture) is placed at the best mode that :func:`find_mode` finds from 32 starts (8
            where the model runs one by one), before training: draws of the prior, and half of them about the point of
            ``init_loc_fn`` if it is given.
        args: arguments to run the model with, such as a batch of data.
        kwargs: keyword arguments to run the model with.
        check: what to do where the log-joint is not invariant: "warn", "raise" (ValueError) or "skip" the check.
        joint: the model whose log-joint is meant, in place of ``model``, where ``model`` is behind ``poutine.block``:
            the whole of it, with discrete sites summed out (by hand, or by ``infer={"enumerate": "parallel"}``) and the
            sites of other guides held fixed by ``poutine.condition``.
        init_loc_fn: as for Pyro's guides, such as ``init_to_value(values={...})``: maps a site to a value. The check
            is made about that point, and modes are looked for from there. By default a point that the support allows;
            priors that cannot be drawn from (ImproperUniform) need none.

    Raises:
        TypeError: the model needs arguments that ``args`` and ``kwargs`` do not give; or ``base``, ``transforms`` or
            ``init_loc_fn`` are no functions.
        ValueError: the action does not fit a site, or does not commute with the map to its support; names the site and
            the way out. With a base that is placed at a mode: what :meth:`log_density` raises.

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649; automatic guides, arXiv:1603.00788.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model():
        ...     with pyro.plate("components", 3):
        ...         means = pyro.sample("means", dist.Normal(0.0, 5.0))
        ...     pyro.sample("x", dist.Normal(means.sum(-1), 1.0), obs=torch.tensor(2.0))
        >>> guide = AutoGFlow(model, SitesAction("S3", {"means": VectorAction.rows("S3")}))
        >>> z = guide()["means"]
        >>> torch.allclose(guide.flow(z), guide.flow(z.flip(0)), atol=1e-5)
        True
    """

    flow: EquivariantFlow
    _has_noted_cost = False

    def __init__(
        self,
        model: Callable[..., Any],
        action: SitesAction,
        *,
        transforms: Callable[[VectorAction], Sequence[EquivariantTransform]] | None = None,
        base: Callable[[VectorAction], Any] = InvariantNormal,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        check: Literal["warn", "raise", "skip"] = "warn",
        joint: Callable[..., Any] | None = None,
        init_loc_fn: Callable[..., Any] | None = None,
    ) -> None:
        if not isinstance(action, SitesAction):
            raise TypeError(f"expected a SitesAction('S3', {{site: action}}), got {type(action).__name__}")
        if check not in ("warn", "raise", "skip"):
            raise ValueError(f"expected check to be 'warn', 'raise' or 'skip', got {check!r}")
        check_makers(base, transforms, init_loc_fn)
        super().__init__(model, init_loc_fn=init_or_zero() if init_loc_fn is None else init_or_zero(init_loc_fn))
        self.action = action
        given = {} if kwargs is None else dict(kwargs)
        try:
            self._setup_prototype(*args, **given)
        except TypeError as error:
            raise TypeError(
                f"AutoGFlow runs the model once to find its sites, and that failed: {error}; give the model's "
                "arguments as AutoGFlow(model, action, args=(data,))"
            ) from error
        self.vector_action = self._packed_action()
        self._joint = (joint or model,)  # in a tuple: a model that is a Module must not become a part of the guide
        chosen_base = base(self.vector_action)
        if transforms is None:
            transforms = identity_transforms if isinstance(chosen_base, OrbitFlow) else guide_transforms
        self.flow = EquivariantFlow(chosen_base, made_layers(transforms, self.vector_action)).to(self._init_loc())
        with poutine.block():
            self._create_plates(*args, **given)
        if check != "skip":
            points = self._points(JointModel(joint or model, self._start(), args, given))
            report = log_joint_invariance(joint or model, action, points, args=args, kwargs=given)
            if not report.is_invariant:
                if check == "raise":
                    raise ValueError(str(report))
                warnings.warn(str(report), stacklevel=2)
        if hasattr(chosen_base, "start_at"):
            target = self.log_density(*args, **given)
            options: dict[str, Any] = {"args": args, "kwargs": given, "about_start": init_loc_fn is not None}
            count = _FEW_STARTS if target.is_one_by_one else _STARTS
            starts = mode_starts(self, model, log_density=target.on_full_plates, count=count, **options)
            chosen_base.start_at(*find_mode(target, starts))

    # -- set-up -------------------------------------------------------------------------------------------------------
    def _packed_action(self) -> VectorAction:
        sizes, free = {}, {}
        for name, site in self.prototype_trace.iter_stochastic_nodes():
            shape = self._unconstrained_shapes[name]
            sizes[name] = shape.numel()
            if name in self.action.sites:
                free[name] = unconstrained_action(self.action, name, site["fn"].support, shape)
        missing = sorted(set(self.action.sites) - set(free))
        if missing:
            raise ValueError(f"the action names {missing}, but the latent sites of the model are {list(sizes)}")
        return SitesAction(self.action.group, free).packed(sizes)

    def _start(self) -> dict[str, Tensor]:
        """The values of all sites at the start."""
        return {name: site["value"] for name, site in self.prototype_trace.iter_stochastic_nodes()}

    def _points(self, joint: JointModel) -> list[dict[str, Tensor]]:
        """Values of all sites, at random unconstrained points about the start, where the log-joint is finite."""
        run, batch = OneByOne(self, joint), joint.minibatch()
        return [self._values(row) for row in finite_rows(lambda rows: run(rows, batch), self._init_loc(), _POINTS)]

    def _values(self, latent: Tensor) -> dict[str, Tensor]:
        """The constrained values of all sites, from unconstrained vectors."""
        return {
            site["name"]: biject_to(site["fn"].support)(unconstrained)
            for site, unconstrained in self._unpack_latent(latent)
        }

    # -- AutoContinuous -----------------------------------------------------------------------------------------------
    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        self._take_names()
        with pushforward_sites():
            drawn: dict[str, Tensor] = super().forward(*args, **kwargs)
        return drawn

    def _take_names(self) -> None:
        """Put this guide's own weights into Pyro's parameter store, in place of those of another guide."""
        name = self._pyro_get_fullname("flow")
        if take_names(self._modules["flow"], name):  # type: ignore[arg-type]
            warnings.warn(
                f"Pyro's parameter store held other weights under the name {name!r}, of an earlier guide or of a "
                "loaded file; this guide keeps its own, which take their place. Call pyro.clear_param_store() before "
                f"a new fit; to take loaded weights, call pyro.module({name!r}, guide.flow, "
                "update_module_params=True) after get_param_store().load(...) and before the guide runs",
                stacklevel=2,
            )

    def get_base_dist(self) -> Any:
        return self.flow.base

    def get_transform(self, *args: Any, **kwargs: Any) -> EquivariantTransform:
        return self.flow.transform

    def get_posterior(self, *args: Any, **kwargs: Any) -> Any:
        return self.flow.dist

    def log_density(self, *args: Any, **kwargs: Any) -> LogJoint:
        r"""The function :math:`u \mapsto \log p(T(u), x) + \log|\det J_T(u)|` of unconstrained vectors u, shape
        ``(rows, latent_dim)``: what ``fit_energy(guide.flow, guide.log_density(data))`` fits the guide to.

        A model that cannot be run for all vectors at once, in one more plate, runs by vmap or for one vector after the
        other; the first such call says so and what it costs. Of a model with minibatches it is an unbiased estimate,
        with new rows at every call; its ``on_full_plates`` is the log-joint of all rows, which the report of
        :func:`fit_energy` is made from.

        Args:
            args: arguments of the model.
            kwargs: its keyword arguments.

        Raises:
            ValueError: the model hides observed sites behind ``poutine.block``, or draws sites that the guide does not
                see, such as discrete ones, and no ``joint`` was given.
        """
        target = LogJoint(self, self._joint[0], args, kwargs)
        if target.note and not self._has_noted_cost:
            self._has_noted_cost = True
            warnings.warn(target.note, stacklevel=2)
        return target

    # -- reading ------------------------------------------------------------------------------------------------------
    def orbit_representative(self, samples: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Draws of the sites, relabeled for reading; see :func:`orbit_representative`."""
        return orbit_representative(samples, self.action)

    def median(self, *args: Any, sites: Sequence[str] | None = None, **kwargs: Any) -> dict[str, Tensor]:
        """The median of each number of the sites that the group leaves alone; see :meth:`quantiles`."""
        return {name: value[0] for name, value in self.quantiles([0.5], sites=sites).items()}

    @torch.no_grad()
    def quantiles(
        self, quantiles: Sequence[float] | Tensor, *args: Any, sites: Sequence[str] | None = None, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Quantiles of each number of the sites that the group leaves alone, from 10,000 draws.

        Args:
            quantiles: numbers between 0 and 1.
            args: ignored, as the posterior depends on no argument.
            sites: which sites; by default all of them.
            kwargs: ignored.

        Returns:
            For each site a tensor of shape ``(len(quantiles), *site_shape)``.

        Raises:
            ValueError: the group moves one of the sites, so that its quantiles are those of all its images at once.
        """
        latent = [site["name"] for site, _ in self._unpack_latent(self._init_loc())]
        chosen = latent if sites is None else list(sites)
        if unknown := [name for name in chosen if name not in latent]:
            raise ValueError(f"expected sites among {latent}, got {unknown}")
        if moved := [name for name in chosen if self.action.acts_on(name)]:
            fixed = [name for name in latent if not self.action.acts_on(name)]
            raise ValueError(
                f"under {self.action.group} the posterior of {moved} is the same for all images of a value, so a "
                "median or quantile says nothing of one of them; ask for those of guide.orbit_representative(samples)"
                + (f", or for sites={fixed}, which the group leaves alone" if fixed else "")
            )
        levels = torch.as_tensor(quantiles, dtype=torch.float64)
        # quantiles pass through monotone maps, but a support's map may mix numbers: so those of constrained draws
        draws = self._draws(chosen)
        return {name: torch.quantile(draws[name].double(), levels, dim=0).to(draws[name]) for name in chosen}

    def _draws(self, sites: Sequence[str]) -> dict[str, Tensor]:
        """Draws of the sites, shape ``(draws, *site_shape)``."""
        latent = self.flow.dist.sample((_DRAWS,))
        drawn: dict[str, Tensor] = {}
        position = 0
        for name, shape in self._unconstrained_shapes.items():
            part = latent[:, position : position + shape.numel()].reshape(-1, *shape)
            position += shape.numel()
            if name in sites:
                drawn[name] = biject_to(self.prototype_trace.nodes[name]["fn"].support)(part)
        return drawn
