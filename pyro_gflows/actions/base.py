"""Action: how a group acts on one event tensor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.groups.base import EnumerableGroup, Group, require_enumerable
from pyro_gflows.groups.elements import as_element
from pyro_gflows.numerics.constants import made_once
from pyro_gflows.numerics.precision import on_methods
from pyro_gflows.spaces import Euclidean, Space

__all__ = ["Action"]


class Action(ABC):
    r"""How a group G acts on one event: :math:`x \mapsto g\,x`, with :math:`g\,(h\,x) = (g h)\,x`.

    An action is what a user builds first. It names the symmetry of a density, for example that rotations act on a
    vector, or permutations on the labels of mixture components, and every base, layer and guide takes one. This is the
    base class of all actions. Choose a ready-made one: :class:`VectorAction` for vectors, :class:`ImageAction` for
    images (C, H, W), or :class:`SitesAction` for the latent sites of a model. In the formula x is one event, and g and
    h are elements of the group.

    Group elements are tensors of batch shape + ``group.element_shape``: int64 indices where all elements can be listed,
    permutations and signs for large finite groups, orthogonal matrices in float64 for continuous ones. An action is a
    plain value: actions are compared by value, an action can be pickled, and it follows the device and dtype of the
    events. Inside ``torch.autocast`` it still computes in full precision.

    Attributes:
        group: The group that acts.
        event_shape: The shape of one event.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> action = VectorAction.plane("C4")
        >>> isinstance(action, Action), action.event_shape
        (True, torch.Size([2]))
        >>> action.act(torch.tensor(1), torch.tensor([1.0, 0.0])).tolist()  # rotation by 90 degrees
        [0.0, 1.0]
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        on_methods(cls, ("act", "act_each", "act_all", "canonical"))

    group: Group
    event_shape: torch.Size

    @made_once
    def space(self) -> Space:
        """The space in which events live: R^n, unless a subclass says otherwise."""
        return Euclidean(self.event_shape)

    # -- the group ----------------------------------------------------------------------------------------------------
    @property
    def event_dim(self) -> int:
        """The number of dimensions of an event."""
        return len(self.event_shape)

    @property
    def numel(self) -> int:
        """The number of coordinates of an event."""
        return self.event_shape.numel()

    @property
    def field_sizes(self) -> list[int]:
        """The number of entries of each field along dimension ``-event_dim``; here the whole event is one field."""
        return [self.event_shape[0]]

    @property
    def is_finite(self) -> bool:
        """Whether the group has finitely many elements, which may still be too many to list."""
        return self.group.is_finite

    @property
    def is_enumerable(self) -> bool:
        """Whether all elements of the group can be listed, as :meth:`elements` and :meth:`act_all` need."""
        return isinstance(self.group, EnumerableGroup)

    def elements(self) -> Tensor:
        """All elements of a finite group.

        Raises:
            ValueError: The group is continuous, or too large to list its elements.
        """
        return require_enumerable(self.group).elements()

    def generators(self) -> Tensor:
        """A few elements whose products are all elements (of a continuous group, a dense subgroup)."""
        return self.group.generators()

    def sample(self, shape: Sequence[int] | int = (), generator: torch.Generator | None = None) -> Tensor:
        """Random elements that are uniformly (Haar) distributed over the group.

        Args:
            shape: The batch shape of the draw, or a number of elements.
            generator: The source of randomness, by default torch's global one.
        """
        return self.group.sample((shape,) if isinstance(shape, int) else shape, generator)

    def is_exact(self, element: Tensor) -> bool:
        """Whether ``act(element, x)`` is exact to float precision, and not an interpolation.

        Args:
            element: One group element.
        """
        return True

    @property
    def exact_subgroup(self) -> Action:
        """The action under which a density can be exactly invariant.

        It is this action itself, except for an action that interpolates: then it is the action of those elements for
        which :meth:`is_exact` holds.
        """
        return self

    # -- acting on events ---------------------------------------------------------------------------------------------
    def act(self, element: Tensor | int, x: Tensor) -> Tensor:
        """The images g x of events under one element.

        Args:
            element: One group element g; of a finite group also its index as an int.
            x: Events, shape ``batch_shape + event_shape``.
        """
        return self.act_each(as_element(self.group, element), x)

    @abstractmethod
    def act_each(self, elements: Tensor, x: Tensor) -> Tensor:
        """The images g x of events, with an element of its own for each event.

        Args:
            elements: Group elements g, whose batch shape broadcasts with the batch shape of x.
            x: Events, shape ``batch_shape + event_shape``.
        """

    def act_all(self, x: Tensor) -> Tensor:
        """The images of x under all elements of a finite group (the orbit of x), shape ``(|G|, *x.shape)``.

        Args:
            x: Events, shape ``batch_shape + event_shape``.

        Example:
            >>> from pyro_gflows.actions import VectorAction
            >>> VectorAction.signs(2).act_all(torch.tensor([1.0, 2.0])).tolist()
            [[1.0, 2.0], [1.0, -2.0], [-1.0, 2.0], [-1.0, -2.0]]
        """
        elements = self.elements()
        batch_rank = x.ndim - self.event_dim
        return self.act_each(elements.reshape(-1, *[1] * batch_rank), x)

    def canonical(self, x: Tensor) -> Tensor | None:
        r"""Elements g(x) that take x to a canonical form, which is the same event for all images of x.

        So ``act_each(canonical(x), x)`` is constant along an orbit, and :math:`g(h\,x) = g(x)\,h^{-1}` up to elements
        that leave x as it is. The map is not continuous: g(x) jumps where two elements are equally good. No gradient
        flows through it.

        Args:
            x: Events, shape ``batch_shape + event_shape``.

        Returns:
            Elements of that batch shape on the device of x, or None where no way to find them is known.
        """
        return None

    @abstractmethod
    def without_symmetry(self) -> Action:
        """The action of the trivial group C1 on the same events, so that layers assume no symmetry."""

    def check_event(self, x: Tensor, what: str = "x") -> None:
        """Raise an error unless x is a floating-point tensor whose shape ends with the event shape.

        Args:
            x: The tensor to check.
            what: The name of the tensor in the error message.

        Raises:
            TypeError: x is not a floating-point tensor.
            ValueError: The shape of x does not end with the event shape.
        """
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            how = ".float()" if isinstance(x, Tensor) else f"torch.as_tensor({what})"
            advice = f"; convert it with {how}" if isinstance(x, (Tensor, np.ndarray)) else ""
            raise TypeError(f"expected {what} to be a floating-point tensor, got {got}{advice}")
        if x.shape[x.ndim - self.event_dim :] != self.event_shape or x.ndim < self.event_dim:
            raise ValueError(
                f"expected {what} of shape (..., {', '.join(map(str, self.event_shape))}) for {self}, "
                f"got {tuple(x.shape)}"
            )

    # -- values -------------------------------------------------------------------------------------------------------
    @abstractmethod
    def _key(self) -> Any:
        """A value that is equal for equal actions."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Action) and type(self) is type(other) and bool(self._key() == other._key())

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._key()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.group} on {' x '.join(map(str, self.event_shape))})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in self._derived()}

    @staticmethod
    def _derived() -> tuple[str, ...]:
        """The names of attributes that are caches, which pickles and copies leave out."""
        return ("decomposition", "_tables")
