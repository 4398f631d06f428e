"""The basis in which a layer splits its events, saved beside the layer's weights."""

from __future__ import annotations

from typing import Any

from pyro_gflows.actions import IrrepSplit, Split
from pyro_gflows.nn.basis import FixedBasis

__all__ = ["SplitBasis"]


class SplitBasis(FixedBasis):
    """The orthogonal matrix of a split by irreps, saved so that a ``state_dict`` says which basis its weights are for.

    The split itself computes the parts. This copy of its matrix is compared with the one in a loaded ``state_dict``:
    weights that were trained in another basis are refused, since with them the flow would silently be another density.

    Args:
        split: The split of the layer.
    """

    since_format = 2
    """The first format of saved flows that holds the basis."""

    def __init__(self, split: IrrepSplit) -> None:
        super().__init__(split.basis)
        self._split = split

    @staticmethod
    def of(split: Split) -> SplitBasis | None:
        """The basis of a split by irreps; None for a split into components, channels or pixels."""
        return SplitBasis(split) if isinstance(split, IrrepSplit) else None

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        own, loaded = self._split.basis, state_dict.get(f"{prefix}value")
        if (
            loaded is not None
            and loaded.shape == own.shape
            and (apart := float((loaded.to(own) - own).abs().max())) > 1e-6
        ):
            error_msgs.append(
                f"the weights beside {prefix}value were trained in another basis of the split (it differs by "
                f"{apart:.1e}), and would be another density here; build the layer with the basis that they refer to, "
                "IrrepSplit(action, parts, blocks=...), or load the flow from its folder"
            )
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if loaded is None:
            # torch raises an error about missing keys only with strict=True, which is not known here
            missing_keys[missing_keys.index(f"{prefix}value")] += (
                " (written by a version that did not save the basis of a split by irreps, so that the weights would be "
                "another density in this layer's basis; on the machine that wrote them, build the layer with "
                "IrrepSplit(action, blocks=pyro_gflows.actions.eigenvector_blocks(action)) and load with strict=False)"
            )
