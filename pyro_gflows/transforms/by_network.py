"""The common part of the layers whose element map has parameters that a network computes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pyro_gflows.actions import Action, LinearAction
from pyro_gflows.nn import Conditioner, EquivariantCNN, EquivariantMLP, EquivariantNetwork, Made, RowsNetwork
from pyro_gflows.nn.factories import network_from
from pyro_gflows.serialization.registry import describe
from pyro_gflows.transforms.conditional import ConditionalTransform
from pyro_gflows.transforms.default_transformer import default_transformer
from pyro_gflows.transforms.masked import map_refusal
from pyro_gflows.transforms.transformers import Transformer, TransformerFactory, transformer_from

__all__ = ["ByNetwork"]


class ByNetwork(ConditionalTransform):
    """A transform with an element map, the ``transformer``, and the ``network`` that gives the parameters of that map.

    Both come from factories. Since a file holds no code, a saved layer describes the modules that they made.
    """

    transformer: Transformer
    network: nn.Module
    _size: dict[str, int]
    _network_actions: tuple[LinearAction, LinearAction]
    _defaults: dict[str, bool]

    def _set_up(
        self,
        part: Action,
        inputs: LinearAction,
        *,
        transformer: TransformerFactory | None,
        network: Conditioner | None,
        width: int,
        depth: int,
    ) -> None:
        """Make the map of ``part`` and the network that reads ``inputs``, the default one in this width and depth."""
        self.transformer = transformer_from(transformer, part, usual=self._usual_transformer)
        params_action, start = self.transformer.params_action, self.transformer.start
        self.network = network_from(network, inputs, params_action, width=width, depth=depth, start=start)
        self._network_actions = inputs, params_action
        self._size = {"width": width, "depth": depth}
        self._defaults = {"transformer": transformer is None, "network": network is None}

    def _network_refusal(self) -> str:
        """Why the network and the element map take no mask of rows; an empty string if they do."""
        if not isinstance(self.network, RowsNetwork):
            return f"its network {type(self.network).__name__} is no RowsNetwork"
        return map_refusal([self.transformer])

    def _params_of(self, inputs: Tensor, mask: Tensor | None) -> Tensor:
        """The parameters of the element map, from the rows that are there."""
        found: Tensor = self.network(inputs) if mask is None else self.network(inputs, mask)
        return found

    def computed_arguments(self) -> dict[str, Any]:
        """The modules that factories made; None for those that are equal to the defaults."""
        transformer, network = self.transformer, self.network
        default = self._defaults["transformer"] or _same(transformer, self._usual_transformer(transformer.action))
        usual = self._defaults["network"] or self._is_usual(network)
        return {
            "transformer": None if default else Made(transformer),
            "network": None if usual else Made(network),
        }

    def _usual_transformer(self, action: Action) -> Transformer:
        """The default map of a part."""
        return default_transformer(action)

    def _is_usual(self, network: nn.Module) -> bool:
        """Whether the network is the default one of this layer, as ``pyro_gflows.nn.conditioner`` makes it."""
        if not isinstance(network, EquivariantNetwork | RowsNetwork):
            return False
        if type(network) not in (EquivariantCNN, EquivariantMLP, RowsNetwork):
            return False
        arguments, size = describe(network)["arguments"], self._size
        plain = arguments.keys() == {"action_in", "action_out", *size} and size.items() <= arguments.items()
        actions: tuple[LinearAction, LinearAction] = (network.action_in, network.action_out)
        return plain and actions == self._network_actions


def _same(first: nn.Module, second: nn.Module) -> bool:
    return type(first) is type(second) and bool(describe(first) == describe(second))
