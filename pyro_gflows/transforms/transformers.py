r"""Transformers: the maps of one part of an event in coupling and autoregressive layers, with computed parameters.

The rule behind all of them: :math:`x \mapsto A(c)\,x + t(c)` commutes with the group when
:math:`A(g c) = \rho(g) A(c) \rho(g)^T` and :math:`t(g c) = \rho(g) t(c)`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pyro_gflows.actions import Action, LinearAction
from pyro_gflows.deprecation import renamed_arguments, renamed_attributes
from pyro_gflows.nn.isotypic import ChangeOfBasis, IsotypicBasis, isotypic_basis
from pyro_gflows.numerics.precision import is_low, on_methods
from pyro_gflows.serialization.registry import registered

__all__ = [
    "BasisAffine",
    "ElementwiseAffine",
    "IrrepScale",
    "Transformer",
    "TransformerFactory",
    "transformer_from",
]


_Result = tuple[Tensor, Tensor]


@renamed_attributes(cap="max_log_scale")
@renamed_arguments(cap="max_log_scale")
class Transformer(nn.Module):
    """The base class of maps of one part of an event, whose parameters a network computes from the other parts.

    Coupling and autoregressive layers take such maps as ``transformer=``. The ready-made ones are
    :class:`ElementwiseAffine`, :class:`ElementwiseSpline` and :class:`IrrepScale`, for vectors :class:`MatrixScale`,
    and for angles :class:`ElementwiseCircularSpline`. A transformer of your own is a subclass that sets
    ``params_action``, how the group acts on the parameters, and writes ``forward(x, params)`` and ``inverse(y,
    params)``. Each returns the value, of the shape ``batch_shape + event_shape`` of x, and its log-det, of shape
    ``batch_shape``; ``params`` has shape ``batch_shape + params_action.event_shape``. The layer is equivariant if T(g
    x; g params) = g T(x; params) for every group element g, where T is the map ``forward``.

    Args:
        action: How the group acts on the part.
        max_log_scale: Bound of the log-scales (smooth, by tanh).

    Raises:
        ValueError: ``max_log_scale`` is not positive and finite.

    Example:
        >>> from pyro_gflows import VectorAction, g_coupling
        >>> class Shift(Transformer):
        ...     def __init__(self, action):
        ...         super().__init__(action)
        ...         self.params_action = action
        ...     def forward(self, x, params, mask=None):
        ...         return x + params, x.new_zeros(x.shape[:-1])
        ...     def inverse(self, y, params, mask=None):
        ...         return y - params, y.new_zeros(y.shape[:-1])
        >>> g_coupling(VectorAction.plane("D4", copies=2), transformer=Shift)(torch.zeros(5, 4)).shape
        torch.Size([5, 4])
    """

    params_action: LinearAction
    """How the group acts on the parameters that ``forward`` and ``inverse`` take."""

    periodic: ClassVar[bool] = False
    """Whether T(x + 2 pi) = T(x) + 2 pi for every coordinate, so that T is a map of angles."""

    start: float = 0.0
    """The factor on the last layer of a new default network; with 0 the layer starts as the identity."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        on_methods(cls, ("forward", "inverse"), _raising_params)

    def __init__(self, action: Action, *, max_log_scale: float = 3.0) -> None:
        super().__init__()
        if not 0 < max_log_scale < float("inf"):
            raise ValueError(
                f"expected max_log_scale, the bound of the log-scales, to be positive and finite, got {max_log_scale}"
            )
        self.action, self.max_log_scale = action, max_log_scale

    def forward(self, x: Tensor, params: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The image of x and the log-det, of shape ``batch_shape``.

        Args:
            x: Events of the part, shape ``batch_shape + action.event_shape``.
            params: Parameters, shape ``batch_shape + params_action.event_shape``.
            mask: None, or a tensor that is 1 at the entries that the part really has, and 0 elsewhere; it broadcasts
                with the events.
        """
        raise NotImplementedError

    def inverse(self, y: Tensor, params: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The preimage of y and the log-det of the inverse."""
        raise NotImplementedError

    def require(self, action: Action) -> Transformer:
        """This transformer; ValueError unless it is made for the action."""
        if self.action != action:
            raise ValueError(f"expected a transformer of {action}, got one of {self.action}")
        return self

    def _bounded(self, raw: Tensor, *, sign: float = 1.0) -> Tensor:
        """The log-scales for what the network computes, times a sign."""
        # a tanh, by the logistic function, which torch computes several times faster; rsub is one operation for two,
        # and 0 where the argument is 0
        bound = sign * self.max_log_scale
        return torch.rsub(torch.sigmoid(raw * (2 / self.max_log_scale)), -bound, alpha=-2 * bound)

    def _halves(self, params: Tensor, first: int) -> tuple[Tensor, Tensor]:
        dim = -self.action.event_dim
        head, tail = params.split([first, params.shape[dim] - first], dim)
        return head, tail

    def extra_repr(self) -> str:
        return f"log-scales within {self.max_log_scale:g}"


#: A factory of transformers: it makes one from the action on a part of an event (a LinearAction; for angles that the
#: group shifts, a TorusAction). A class is such a factory.
TransformerFactory = Callable[[Any], Transformer]


def _raising_params(method: Callable[..., _Result]) -> Callable[..., _Result]:
    """The map, with parameters of half precision (of a network with its own autocast) in the dtype of the event."""

    @functools.wraps(method)
    def inner(self: Transformer, x: Tensor, params: Tensor, mask: Tensor | None = None) -> _Result:
        return method(self, x, params.to(x.dtype) if is_low(params) else params, mask)

    return renamed_arguments(belongs="mask")(inner)


class BasisAffine(Transformer):
    """The base class of transformers A x + t with a log-scale for every coordinate in some orthonormal basis."""

    def _log_scale_and_shift(self, params: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _to_basis(self, x: Tensor) -> Tensor:
        return x

    def _from_basis(self, x: Tensor) -> Tensor:
        return x

    def _ladj(self, log_scale: Tensor) -> Tensor:
        event_dim = self.action.event_dim
        return (log_scale if event_dim == 1 else log_scale.flatten(-event_dim)).sum(-1)

    def forward(self, x: Tensor, params: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._log_scale_and_shift(params, mask)
        return shift + self._from_basis(self._to_basis(x) * log_scale.exp()), self._ladj(log_scale)

    def inverse(self, y: Tensor, params: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._log_scale_and_shift(params, mask)
        return self._from_basis(self._to_basis(y - shift) * (-log_scale).exp()), -self._ladj(log_scale)


@renamed_arguments(cap="max_log_scale")
@registered
class ElementwiseAffine(BasisAffine):
    r"""A transformer with a scale and a shift for every coordinate, for groups that permute coordinates up to signs.

    .. math:: y_i = e^{s_i} x_i + t_i, \qquad \log|\det J| = \sum_i s_i

    It is the usual map of RealNVP, and the default where it is possible. The parameters are a log-scale s_i and a shift
    t_i for each coordinate x_i of the part (on images, for each channel and pixel). If a group element g acts on x by
    the matrix :math:`\rho(g)`, it acts on t by :math:`\rho(g)` too, and on s by the absolute values of its entries,
    since a sign does not change a scale.

    Args:
        action: How the group acts on the part.
        max_log_scale: Smooth bound of \|s\|.

    Raises:
        ValueError: The group does not permute coordinates up to signs; IrrepScale and MatrixScale work there.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> ElementwiseAffine(VectorAction.regular("C4")).params_action
        VectorAction(C4 on R^8: 2 x regular)
    """

    def __init__(self, action: LinearAction, *, max_log_scale: float = 3.0) -> None:
        super().__init__(action, max_log_scale=max_log_scale)
        if not action.is_signed_permutation:
            raise ValueError(
                f"an element-wise scale commutes with (signed) permutations only, got {action}; use IrrepScale or "
                "MatrixScale"
            )
        self.params_action = action.absolute().direct_sum(action)

    def _log_scale_and_shift(self, params: Tensor, mask: Tensor | None, *, sign: float = 1.0) -> tuple[Tensor, Tensor]:
        raw, shift = params.chunk(2, -self.action.event_dim)
        log_scale = self._bounded(raw, sign=sign)
        return (log_scale, shift) if mask is None else (log_scale * mask, shift * mask)

    # in as few operations as there are, since this is the map of most layers
    def forward(self, x: Tensor, params: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._log_scale_and_shift(params, mask)
        return torch.addcmul(shift, x, log_scale.exp()), self._ladj(log_scale)

    def inverse(self, y: Tensor, params: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        minus_log_scale, shift = self._log_scale_and_shift(params, mask, sign=-1.0)
        return (y - shift) * minus_log_scale.exp(), self._ladj(minus_log_scale)


@renamed_arguments(cap="max_log_scale")
@registered
class IrrepScale(BasisAffine):
    r"""A transformer with one scale for each irreducible part, for any group, continuous ones included.

    .. math:: y = \sum_a e^{s_a} P_a x + t, \qquad \log|\det J| = \sum_a d_a s_a

    An irreducible part (irrep) is a smallest piece of the event that the group maps to itself, such as one vector or
    one scalar. P_a projects onto the a-th one, of dimension d_a; on images, the irreducible parts are those of the
    channels at one pixel. The parameters are a log-scale s_a for each part and a shift t. Scaling a whole part commutes
    with the matrices of the group, so the group leaves each s_a unchanged (on images, s_a is one channel with a value
    at each pixel, and the log-det is summed over pixels), and it acts on t as on x. This is the default where
    ElementwiseAffine is not possible.

    Args:
        action: How the group acts on the part.
        max_log_scale: Smooth bound of \|s\|.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> IrrepScale(VectorAction.space("SO(3)")).params_action
        VectorAction(SO(3) on R^4: trivial + defining)
    """

    copy: Tensor

    def __init__(self, action: LinearAction, *, max_log_scale: float = 3.0) -> None:
        super().__init__(action, max_log_scale=max_log_scale)
        isotypes = action.field_decomposition()
        dims = torch.tensor([isotype.dim for isotype in isotypes for _ in range(isotype.multiplicity)])
        self.basis: ChangeOfBasis
        if isotypes.in_closed_form:
            self.basis = isotypic_basis(action)
        else:
            self.basis = IsotypicBasis.of(isotypes, sum(action.field_sizes), event_dim=action.event_dim)
        self.register_buffer("copy", torch.arange(len(dims)).repeat_interleave(dims), persistent=False)
        self.copies = len(dims)
        self.params_action = action.trivial_fields(len(dims)).direct_sum(action)

    def _to_basis(self, x: Tensor) -> Tensor:
        return self.basis.coordinates(x)

    def _from_basis(self, x: Tensor) -> Tensor:
        return self.basis.event(x)

    def _log_scale_and_shift(self, params: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        raw, shift = self._halves(params, self.copies)
        log_scale = self._bounded(raw).index_select(-self.action.event_dim, self.copy)
        return (log_scale, shift) if mask is None else (log_scale * mask, shift * mask)


def transformer_from(how: TransformerFactory | None, action: Action, *, usual: TransformerFactory) -> Transformer:
    """The transformer that a factory makes for a part of an event; that of ``usual`` where there is no factory.

    Raises:
        TypeError: The factory makes something else.
        ValueError: It makes a transformer of another action.
    """
    made = usual(action) if how is None else how(action)
    if not isinstance(made, Transformer):
        raise TypeError(f"expected transformer= to make a Transformer such as IrrepScale, got {type(made).__name__}")
    return made.require(action)
