"""The table of named constructors, with the layers, flows and events that tests make from its rows."""

from tests.constructors.flows import (
    base_for,
    conditional_flow,
    events,
    in_space,
    make,
    make_conditional,
    make_flow,
    plain_base_for,
    training_steps,
)
from tests.constructors.row import Row
from tests.constructors.table import CONDITIONAL, CONSTRUCTORS, TABLE, names, slow_unless

__all__ = [
    "CONDITIONAL",
    "CONSTRUCTORS",
    "TABLE",
    "Row",
    "base_for",
    "conditional_flow",
    "events",
    "in_space",
    "make",
    "make_conditional",
    "make_flow",
    "names",
    "plain_base_for",
    "slow_unless",
    "training_steps",
]
