"""The objective of variational inference with a Pyro model and guide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_gflows.numerics.random_state import random_state_kept
from pyro_gflows.training.objectives.base import Objective

__all__ = ["ELBO"]


class ELBO(Objective):
    r"""The negative evidence lower bound of a Pyro model and a guide: SVI as an objective, with any torch optimizer.

    The loss is :math:`-E_{q(z)}[\log p(x, z) - \log q(z)]`, as ``pyro.infer.SVI`` minimizes it. As an objective it can
    be wrapped in ``DistributedDataParallel``, or trained by the Trainer of Lightning as a
    :class:`~pyro_gflows.lightning.FlowModule`. A batch is the tuple of the arguments of model and guide.

    The weights are all that a call reads: those of model and guide where these are modules, and those that
    ``pyro.module`` and ``pyro.param`` name. Lazy guides such as Pyro's automatic guides make theirs in the first call,
    so pass its arguments as ``args``, before an optimizer asks for the weights. The weights of modules are trained in
    place, whatever Pyro's parameter store holds under their names; parameters that ``pyro.param`` makes start from
    the store's values where it has them, and are found there, trained, after the run.

    With minibatches, the plate of the rows has to know the number N of all rows, so that the loss of some rows is an
    unbiased estimate of the loss of all: ``with pyro.plate("data", N, subsample_size=len(x))``. Then the mean of the
    losses of several processes is the loss of the rows of all of them.

    Args:
        model: The model.
        guide: The guide.
        loss: An ELBO of ``pyro.infer``; by default ``Trace_ELBO()``.
        args: The arguments of a first call, which finds the weights; also the batch of every step where no other data
            are given, as for a model that holds its data.

    Raises:
        TypeError: ``loss`` has no ``differentiable_loss``.
        ValueError: When called: model or guide use weights that were not found before.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro.infer.autoguide import AutoNormal
        >>> def model(x):
        ...     mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
        ...     with pyro.plate("data", 1000, subsample_size=len(x)):
        ...         pyro.sample("x", dist.Normal(mean, 1.0), obs=x)
        >>> x = torch.randn(1000) + 3.0
        >>> objective = ELBO(model, AutoNormal(model), args=(x[:100],))
        >>> optimizer = torch.optim.Adam(objective.parameters(), lr=0.05)
        >>> for rows in x.split(100):
        ...     optimizer.zero_grad()
        ...     objective((rows,)).backward()
        ...     optimizer.step()
        >>> sorted(name for name, _ in objective.named_parameters())
        ['module.guide.locs.mean_unconstrained', 'module.guide.scales.mean_unconstrained']
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        loss: Any = None,
        *,
        args: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(_Pair(model, guide))
        loss = Trace_ELBO() if loss is None else loss
        if isinstance(loss, type) or not hasattr(loss, "differentiable_loss"):
            raise TypeError(
                f"expected an ELBO of pyro.infer with a differentiable loss, such as Trace_ELBO(), got "
                f"{loss.__name__ if isinstance(loss, type) else type(loss).__name__}"
            )
        self._elbo = loss
        self._args = None if args is None else tuple(args)
        self._is_checked = False
        if args is not None:
            self.find_weights(args)

    def batch(self, step: int) -> tuple[Any, ...]:
        """Returns the arguments that were given at the start.

        Args:
            step: Not used.

        Raises:
            ValueError: There are none.
        """
        if self._args is None:
            raise ValueError(
                "expected arguments of the model, got ELBO(model, guide) without any: pass args=(...), or args=() for "
                "a model without arguments, or a batch"
            )
        return self._args

    def find_weights(self, batch: Any) -> None:
        """Finds the weights by a call of model and guide, which leaves the random state as it was.

        It has to come before an optimizer is made, or the module is wrapped; ``args`` does it at the start.

        Args:
            batch: The arguments of the model, or its only one.
        """
        device = next((weight.device for weight in self.parameters()), None)
        with random_state_kept(device), torch.no_grad():
            for name, (weight, constraint) in self._used(_arguments(batch)).items():
                self._pair.adopt(name, weight, constraint)
        self._is_checked = True

    def forward(self, batch: Any = (), step: int = 0) -> Tensor:
        """Returns the negative ELBO of a batch, in nats.

        Args:
            batch: The tuple of the arguments of model and guide, or their only one.
            step: Not used.
        """
        arguments = _arguments(batch)
        if self._is_checked:
            with self._pair.in_store():
                return self._loss(arguments)
        known = {id(weight) for weight in self.parameters()}
        with self._pair.in_store():
            loss = self._loss(arguments)
            found = [name for name, weight in _store().named_parameters() if id(weight) not in known]
        if found or any(id(weight) not in known for weight in self.parameters()):
            raise ValueError(
                f"model and guide use weights that an optimizer has not seen (by name: {found[:3]}); pass the "
                "arguments of a first call, ELBO(model, guide, args=(x,)), or call objective.find_weights((x,)) before "
                "the optimizer is made"
            )
        self._is_checked = True
        return loss

    @property
    def _pair(self) -> _Pair:
        return self.module  # type: ignore[return-value]

    def _loss(self, arguments: tuple[Any, ...]) -> Tensor:
        loss: Tensor = self._elbo.differentiable_loss(
            self._pair.called("model"), self._pair.called("guide"), *arguments
        )
        return loss

    def _used(self, arguments: tuple[Any, ...]) -> dict[str, tuple[Tensor, Any]]:
        """The weights that a call reads and that no module holds, by the names that it gives them."""
        with self._pair.in_store():
            with poutine.trace(param_only=True) as recorded:
                self._loss(arguments)
            named = {
                name: (_unconstrained(site["value"]), site["kwargs"].get("constraint", constraints.real))
                for name, site in recorded.trace.nodes.items()
                if site["type"] == "param"
            }
        held = {id(weight) for weight in self.parameters()}
        return {name: found for name, found in named.items() if id(found[0]) not in held}


class _Pair(nn.Module):
    """A model and a guide, and the weights that they have in no module.

    Args:
        model: The model.
        guide: The guide.
    """

    def __init__(self, model: Callable[..., Any], guide: Callable[..., Any]) -> None:
        super().__init__()
        self._functions: dict[str, Callable[..., Any]] = {}
        for name, function in (("model", model), ("guide", guide)):
            if isinstance(function, nn.Module):
                self.add_module(name, function)
            else:
                self._functions[name] = function
        self.named = nn.ParameterDict()
        self._constraints: dict[str, Any] = {}

    def called(self, name: str) -> Callable[..., Any]:
        """The model or the guide."""
        return self._functions[name] if name in self._functions else self._modules[name]  # type: ignore[return-value]

    def adopt(self, name: str, weight: Tensor, constraint: Any) -> None:
        """Holds a weight, which the parameter store then holds too."""
        store = _store()
        held = store.get_state()["params"].get(name)
        if held is not None and held.shape == weight.shape and not isinstance(weight, nn.Parameter):
            weight = held
        parameter = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight.detach())
        self.named[_key(name)] = parameter
        self._constraints[name] = constraint
        store.set_state({"params": {name: parameter}, "constraints": {name: constraint}})

    @contextmanager
    def in_store(self) -> Iterator[None]:
        """A context in which the parameter store holds these weights alone; modules read their own."""
        params = {name: self.named[_key(name)] for name in self._constraints}
        frozen = [weight for weight in self.parameters() if not weight.requires_grad]
        with _store().scope({"params": params, "constraints": dict(self._constraints)}):
            yield
        for weight in frozen:  # the store lets every weight have a gradient
            weight.requires_grad_(False)


def _unconstrained(value: Tensor) -> Tensor:
    return value.unconstrained() if hasattr(value, "unconstrained") else value  # type: ignore[no-any-return]


def _key(name: str) -> str:
    return name.replace(".", "/")  # torch allows no dot in the name of a parameter


def _arguments(batch: Any) -> tuple[Any, ...]:
    return tuple(batch) if isinstance(batch, tuple | list) else (batch,)


def _store() -> Any:
    return pyro.get_param_store()
