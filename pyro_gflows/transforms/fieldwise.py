"""FieldwiseTransformer: one element map for each run of fields of a part, for events with fields of several kinds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_gflows.actions import VectorAction
from pyro_gflows.actions.requirements import require_vector
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.default_transformer import default_transformer
from pyro_gflows.transforms.transformers import Transformer, TransformerFactory

__all__ = ["FieldwiseTransformer", "by_field"]


@registered
class FieldwiseTransformer(Transformer):
    r"""A transformer that maps the fields of a part by several transformers side by side.

    It serves events whose fields are of different kinds, such as the weights of a mixture in log-ratios, which sum to 0
    over the components, and its means: splines suit the means only. :func:`by_field` makes it for a part. The log-det
    is the sum of those of the transformers, and their parameters lie side by side.

    Args:
        transformers: Transformers of consecutive coordinates of the part.

    Raises:
        ValueError: There is no transformer, or they are of different groups.

    Example:
        >>> from pyro_gflows import ElementwiseSpline, RowsAction, RowScale
        >>> weights, means = RowsAction(20, mean_free=True), RowsAction(20, 2)
        >>> FieldwiseTransformer([RowScale(weights), ElementwiseSpline(means, bins=4)]).action
        RowsAction(S20 on R^59: mean-free rows + rows of 2)
    """

    def __init__(self, transformers: Sequence[Transformer]) -> None:
        if not transformers:
            raise ValueError("expected at least one transformer, got none")
        first, *rest = [require_vector(transformer.action) for transformer in transformers]
        super().__init__(first.direct_sum(*rest))
        self.transformers = nn.ModuleList(transformers)
        self.start = max(transformer.start for transformer in transformers)
        first_params, *other_params = [transformer.params_action for transformer in transformers]
        self.params_action = first_params.direct_sum(*other_params)
        self._sizes = [transformer.action.numel for transformer in transformers]
        self._counts = [transformer.params_action.numel for transformer in transformers]

    def forward(self, x: Tensor, params: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._mapped(x, params, mask, inverse=False)

    def inverse(self, y: Tensor, params: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._mapped(y, params, mask, inverse=True)

    def _mapped(self, x: Tensor, params: Tensor, mask: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        masks: Sequence[Tensor | None] = [None] * len(self._sizes)
        if mask is not None:
            masks = mask.expand(*mask.shape[:-1], self.action.numel).split(self._sizes, -1)
        pieces = zip(self.transformers, x.split(self._sizes, -1), params.split(self._counts, -1), masks, strict=True)
        found = []
        for transformer, part, own, own_mask in pieces:
            assert isinstance(transformer, Transformer)
            element_map = transformer.inverse if inverse else transformer.forward
            found.append(element_map(part, own, own_mask))
        images, ladjs = zip(*found, strict=True)
        return torch.cat(images, -1), torch.stack(ladjs).sum(0)

    def extra_repr(self) -> str:
        return f"{len(self._sizes)} runs of fields"


def by_field(action: VectorAction, *, transformer: TransformerFactory) -> Transformer:
    """The transformer of a factory on the fields whose coordinates the group permutes up to signs, else the default.

    Args:
        action: How the group acts on the part.
        transformer: Makes a transformer that works element by element, such as ``ElementwiseSpline``.

    Example:
        >>> import functools
        >>> from pyro_gflows import ElementwiseSpline, RowsAction, g_coupling
        >>> mixture = RowsAction(20, mean_free=True).direct_sum(RowsAction(20, 2))
        >>> splines = functools.partial(by_field, transformer=ElementwiseSpline)
        >>> g_coupling(mixture, transformer=splines)(torch.zeros(5, 59)).shape
        torch.Size([5, 59])
    """
    runs = itertools.groupby(action.fields, lambda field: action.with_fields([field]).is_signed_permutation)
    made = []
    for element_wise, fields in runs:
        part = action.with_fields(list(fields))
        made.append(transformer(part) if element_wise else default_transformer(part))
    return made[0] if len(made) == 1 else FieldwiseTransformer(made)
