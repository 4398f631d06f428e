"""ModeSearch: the mode of the log-joint of a guide's model, from several starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyro.infer.autoguide.guides import AutoContinuous

from pyro_gflows.guides.log_joint import LogJoint
from pyro_gflows.guides.start import Mode, search_mode
from pyro_gflows.guides.start_points import mode_starts

__all__ = ["ModeSearch"]

_STARTS = 32
_FEW_STARTS = 8  # for a model that runs once for each start


@dataclass(frozen=True)
class ModeSearch:
    """The search for the best mode of a log-joint, from draws of the prior and around a guide's initial values.

    Attributes:
        guide: A guide that has already run the model.
        model: The same model, without the initial values of the guide.
        args: Arguments of the model.
        kwargs: Keyword arguments of the model.
        about_start: Whether half of the starts lie at and around the guide's initial values.
    """

    guide: AutoContinuous
    model: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    about_start: bool

    def __call__(self, target: LogJoint) -> Mode:
        """The mode, and a normal distribution that fits the density there.

        Args:
            target: The log-joint as a function of unconstrained vectors.

        Raises:
            ValueError: The log-density is not finite at any point that was tried.
        """
        starts = mode_starts(
            self.guide,
            self.model,
            log_density=target.on_full_plates,
            count=_FEW_STARTS if target.is_one_by_one else _STARTS,
            about_start=self.about_start,
            args=self.args,
            kwargs=self.kwargs,
        )
        return search_mode(target, starts)
