"""AutoGFlow: an automatic guide whose posterior is exactly invariant under a group."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pyro import poutine
from pyro.infer.autoguide.guides import AutoContinuous
from torch import Tensor
from torch.distributions import biject_to

from pyro_gflows.actions import SitesAction, VectorAction
from pyro_gflows.flows.canonicalized import Canonicalized
from pyro_gflows.flows.distribution import FlowDistribution
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.flows.orbit_flow import OrbitFlow
from pyro_gflows.guides.choice import chosen_base
from pyro_gflows.guides.default_flow import guide_transforms, identity_transforms
from pyro_gflows.guides.invariance import log_joint_invariance
from pyro_gflows.guides.joint_model import JointModel
from pyro_gflows.guides.jumps import warn_of_jumps
from pyro_gflows.guides.log_joint import LogJoint
from pyro_gflows.guides.makers import check_makers, made_layers
from pyro_gflows.guides.mode_search import ModeSearch
from pyro_gflows.guides.param_store import take_names
from pyro_gflows.guides.pushforward import pushforward_sites
from pyro_gflows.guides.readable import ReadablePosterior
from pyro_gflows.guides.row_check import finite_rows
from pyro_gflows.guides.row_runs import OneByOne
from pyro_gflows.guides.start_points import init_or_zero
from pyro_gflows.guides.supports import packed_action
from pyro_gflows.transforms import EquivariantTransform

__all__ = ["AutoGFlow"]

_POINTS = 3


class AutoGFlow(ReadablePosterior, AutoContinuous):
    r"""An automatic guide, set up eagerly at construction, with an exactly invariant posterior under a symmetry group.

    Unlike Pyro's own automatic guides, AutoGFlow runs the model at construction, not at the first call. This has four
    consequences. The constructor needs the model's arguments (``args=`` and ``kwargs=``). All parameters exist before
    the first step and can be passed to an optimizer or loaded. The shapes of the latent sites are fixed from then on.
    And mistakes are reported at once: the constructor checks that the group commutes with the map from unconstrained
    space to each site's support, and that the model's log-joint is invariant at a few random points. Call
    ``pyro.set_rng_seed`` and ``pyro.clear_param_store`` before constructing the guide.

    Use it where a posterior has a known symmetry, such as the exchangeable components of a mixture (label switching) or
    the sign of a factor. Its posterior is an :class:`EquivariantFlow` on the unconstrained vector z into which Pyro's
    AutoContinuous packs all sites, so that :math:`q(\rho(g)\,z) = q(z)` for every element g of the group. The group
    acts on the sites that ``action`` names and leaves the other sites unchanged.

    Args:
        model: A Pyro model with continuous latent sites; hide discrete sites with ``poutine.block``.
        action: How the group acts on the latent sites.
        transforms: A function that makes the flow's transforms from the action on the unconstrained vector; build them
            with ``fast="sample"``. The default is :func:`guide_transforms`; with an OrbitFlow or Canonicalized as the
            base, which are flexible themselves, there are no transforms.
        base: A function that makes the invariant base from the same action. By default the guide chooses it by the
            distance of the posterior's mode to its nearest other image under the group, in Laplace standard deviations:
            InvariantNormal where they coincide (below 0.5), for continuous groups, for groups without a known canonical
            form, and where ``transforms`` are given; OrbitFlow where they are apart (at least 4) and the group has at
            most 720 elements; else Canonicalized. ``base_choice`` and ``repr(guide)`` tell the choice. A base with
            separate modes (OrbitFlow, OrbitMixture, Canonicalized) is placed before training at the best mode that
            :func:`find_mode` finds from 32 starts (8 if the model has to run once for each start). The starts are draws
            from the prior; if ``init_loc_fn`` is passed, half of them lie around its point.
        args: Arguments to run the model with, such as a batch of data.
        kwargs: Keyword arguments to run the model with.
        check: What to do if the log-joint is not invariant: "warn", "raise" a ValueError, or "skip" the check.
        joint: The model that defines the log-joint, if ``model`` hides sites behind ``poutine.block``: the whole model,
            with discrete sites summed out (by hand, or by ``infer={"enumerate": "parallel"}``) and the sites of other
            guides held fixed by ``poutine.condition``.
        init_loc_fn: A function from a site to its initial value, as for Pyro's guides, such as
            ``init_to_value(values={...})``. The log-joint is checked around this point, and the search for modes starts
            there. The default is a point in the support, also for priors without samples (ImproperUniform).

    Raises:
        TypeError: The model needs arguments that are missing from ``args`` and ``kwargs``; or ``base``, ``transforms``
            or ``init_loc_fn`` is not a function.
        ValueError: The action does not fit a site or does not commute with the map to its support; the message names
            the site and a way out. With a base that is placed at a mode, also the errors of :meth:`log_density`.

    Note:
        Like every automatic guide, AutoGFlow scores only its own draws. For the sleep phase of ReweightedWakeSleep,
        write a guide with ``pyro.sample(site, flow.dist)``.

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649; automatic guides, arXiv:1603.00788.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
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
    base_choice: str = ""
    """Why the guide has its base, with the figure that decided; empty if the user passed ``base=``."""
    _has_noted_cost = False

    def __init__(
        self,
        model: Callable[..., Any],
        action: SitesAction,
        *,
        transforms: Callable[[VectorAction], Sequence[EquivariantTransform]] | None = None,
        base: Callable[[VectorAction], Any] | None = None,
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
        keywords = {} if kwargs is None else dict(kwargs)
        try:
            self._setup_prototype(*args, **keywords)
        except TypeError as error:
            raise TypeError(
                f"AutoGFlow runs the model once at construction to find its sites, and this run failed: {error}; pass "
                "the model's arguments as AutoGFlow(model, action, args=(data,))"
            ) from error
        self.vector_action = packed_action(action, self._supports(), self._unconstrained_shapes)
        self._joint = (joint or model,)  # in a tuple: a model that is a Module must not become a part of the guide
        with poutine.block():
            self._create_plates(*args, **keywords)
        search = ModeSearch(self, model, args=args, kwargs=keywords, about_start=init_loc_fn is not None)
        target = functools.partial(LogJoint, self, self._joint[0], args, keywords)
        chosen = chosen_base(self.vector_action, base, transforms, find=lambda: search(target()))
        self.base_choice = chosen.reason
        if transforms is None:
            flexible = isinstance(chosen.base, OrbitFlow | Canonicalized)
            transforms = identity_transforms if flexible else guide_transforms
        self.flow = EquivariantFlow(chosen.base, made_layers(transforms, self.vector_action)).to(self._init_loc())
        if check != "skip":
            points = self._points(JointModel(joint or model, self._start(), args, keywords))
            report = log_joint_invariance(joint or model, action, points, args=args, kwargs=keywords)
            if not report.is_invariant:
                if check == "raise":
                    raise ValueError(str(report))
                warnings.warn(str(report), stacklevel=2)
        if hasattr(chosen.base, "start_at"):
            chosen.base.start_at(*(chosen.mode or search(self.log_density(*args, **keywords))[:2]))

    def extra_repr(self) -> str:
        because = f" ({self.base_choice})" if self.base_choice else ""
        return f"base: {type(self.flow.base).__name__}{because}"

    # -- set-up -------------------------------------------------------------------------------------------------------
    def _start(self) -> dict[str, Tensor]:
        """The initial values of all latent sites."""
        return {name: site["value"] for name, site in self.prototype_trace.iter_stochastic_nodes()}

    def _points(self, joint: JointModel) -> list[dict[str, Tensor]]:
        """Values of all sites at random unconstrained points around the start where the log-joint is finite."""
        run, batch = OneByOne(self, joint), joint.minibatch()
        return [self._values(row) for row in finite_rows(lambda rows: run(rows, batch), self._init_loc(), _POINTS)]

    def _values(self, latent: Tensor) -> dict[str, Tensor]:
        """The constrained values of all sites that belong to unconstrained vectors."""
        return {
            site["name"]: biject_to(site["fn"].support)(unconstrained)
            for site, unconstrained in self._unpack_latent(latent)
        }

    # -- AutoContinuous -----------------------------------------------------------------------------------------------
    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Draws all latent sites from the posterior.

        Args:
            args: Arguments of the model.
            kwargs: Keyword arguments of the model.

        Returns:
            The constrained value of each site, by name.
        """
        self._take_names()
        with pushforward_sites():
            drawn: dict[str, Tensor] = super().forward(*args, **kwargs)
        return drawn

    def _take_names(self) -> None:
        """Put this guide's own weights into Pyro's parameter store, in place of another guide's weights."""
        name = self._pyro_get_fullname("flow")
        if take_names(self._modules["flow"], name):  # type: ignore[arg-type]
            warnings.warn(
                f"Pyro's parameter store held other weights under the name {name!r}, from an earlier guide or a loaded "
                "file; they have been replaced by this guide's own weights. Call pyro.clear_param_store() before a new "
                f"fit; to use loaded weights instead, call pyro.module({name!r}, guide.flow, "
                "update_module_params=True) after get_param_store().load(...) and before the guide runs",
                stacklevel=2,
            )

    def get_base_dist(self) -> Any:
        """Returns the invariant base distribution on the unconstrained vector; of Canonicalized, the base of its q."""
        inner = self._density_of_forms()
        return self.flow.base if inner is None else inner.base_dist

    def get_transform(self, *args: Any, **kwargs: Any) -> EquivariantTransform:
        """Returns the transform from the base to the posterior; the arguments are ignored.

        It is equivariant. With Canonicalized it is the map of q, from a standard normal to events in canonical form,
        as NeuTraReparam needs it: then draws are in canonical form, and :func:`random_images` makes draws of the
        posterior of them. A log-det that jumps brings a warning, since NUTS follows its gradient.
        """
        inner = self._density_of_forms()
        transform = self.flow.transform if inner is None else inner.transform
        warn_of_jumps(transform)
        return transform

    def _density_of_forms(self) -> FlowDistribution | None:
        """The density of canonical forms, if the posterior is that of a Canonicalized base without further layers."""
        base = self.flow.base
        is_alone = isinstance(base, Canonicalized) and not any(True for _ in self.flow.transform.parameters())
        return base.density if is_alone else None

    def get_posterior(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the posterior as a distribution of the unconstrained vector; the arguments are ignored."""
        return self.flow.dist

    def log_density(self, *args: Any, **kwargs: Any) -> LogJoint:
        r"""Returns the model's log-joint as a function of unconstrained latent vectors.

        It is the target for fitting the guide by its energy: ``fit_energy(guide.flow, guide.log_density(data))``.
        With T the map from unconstrained vectors u to the values of the sites, the function is
        :math:`u \mapsto \log p(T(u), x) + \log|\det J_T(u)|`, from shape ``(rows, latent_dim)`` to ``(rows,)``.

        The model runs for all vectors at once, inside one additional plate. If it does not support this, it runs under
        ``torch.func.vmap`` or once for each vector, and a warning states the cost. If the model has minibatches, the
        function is an unbiased estimate with new rows at every call; its method ``on_full_plates`` is the log-joint of
        all rows, which the report of :func:`fit_energy` uses.

        Args:
            args: Arguments of the model.
            kwargs: Keyword arguments of the model.

        Raises:
            ValueError: No ``joint`` was passed to the guide, and the model hides observed sites behind
                ``poutine.block`` or draws sites that the guide does not have, such as discrete ones.

        Example:
            >>> import pyro, pyro.distributions as dist, torch
            >>> def model():
            ...     pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            >>> guide = AutoGFlow(model, SitesAction("S2", {"z": VectorAction.rows("S2")}))
            >>> guide.log_density()(torch.zeros(3, 2))  # -log(2 pi) at the mode of a standard normal
            tensor([-1.8379, -1.8379, -1.8379])
        """
        target = LogJoint(self, self._joint[0], args, kwargs)
        if target.note and not self._has_noted_cost:
            self._has_noted_cost = True
            warnings.warn(target.note, stacklevel=2)
        return target
