"""The identity of a run: names, structures and values by which a resumed run is compared with the earlier one."""

from __future__ import annotations

import dataclasses
import math
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pyro_gflows.datasets.rows import DatasetRows, TensorRows, is_stored
from pyro_gflows.datasets.samples import rows_fingerprint
from pyro_gflows.numerics.random_state import random_state_kept
from pyro_gflows.serialization.registry import same_description
from pyro_gflows.training.settings import FitSettings

__all__ = [
    "alike",
    "fingerprint",
    "fixed_points",
    "name_of",
    "repeated_values",
    "run_identity",
    "same_values",
    "schedule_identity",
    "values_at",
]

_VALUES = "values"  # the key of values that another machine may round differently
_TOLERANCE = 1e-4
_FINGERPRINT = r"(\([0-9, ]*\) torch\.[a-z0-9]+) [0-9a-f]{16}"


def fingerprint(data: Any, *, dtype: torch.dtype | None = None) -> str:
    """A text that distinguishes data sets: the shape and hash of stored rows, or the name of other data.

    Of files that are too large to be read at the start of a run, a sample of evenly spaced rows is hashed.

    Args:
        data: A tensor, rows, a loader or a sampler.
        dtype: The dtype in which the rows are used, so that the same values in another dtype count as the same data.
    """
    if isinstance(data, Tensor):
        data = TensorRows(data)
    if isinstance(data, DatasetRows) or is_stored(data):
        return rows_fingerprint(data, dtype=dtype)
    if isinstance(data, DataLoader):
        return f"DataLoader of {type(data.dataset).__qualname__}, batch size {data.batch_size}"
    return name_of(data)


def name_of(value: Any) -> str:
    """The name of a function, or the repr of an object without memory addresses.

    Args:
        value: A function or any object.

    Example:
        >>> name_of(object())
        '<object object>'
    """
    return getattr(value, "__qualname__", None) or re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def fixed_points(event_shape: torch.Size, like: Tensor, *, rows: int = 8) -> Tensor:
    """A few standard normal events, the same in every call.

    Args:
        event_shape: The shape of an event.
        like: A tensor of the dtype and device of the events.
        rows: The number of events.
    """
    generator = torch.Generator().manual_seed(20)
    return torch.randn(rows, *event_shape, generator=generator, dtype=torch.float64).to(like)


def repeated_values(call: Callable[[], Tensor], device: torch.device) -> Tensor | None:
    """The value of a function if two calls from the same random state agree; otherwise None.

    The global random state stays unchanged.

    Args:
        call: A function without arguments.
        device: The device whose random state is set.
    """
    found = []
    for _ in range(2):
        with random_state_kept(device, seed=20):
            found.append(call().detach().clone())
    return found[0] if same_values(*found, exact=True) else None


def values_at(
    function: Callable[[Tensor], Tensor], event_shape: torch.Size, like: Tensor, *, name: str
) -> dict[str, list[str | float]] | None:
    """The values of a log-density at a few fixed points, for the identity of a run.

    If two calls differ, or the function fails at these points, the result is None and a warning is issued.

    Args:
        function: The log-density.
        event_shape: The shape of an event.
        like: A tensor of the dtype and device of the events.
        name: The name of the function in the warning.
    """
    points = fixed_points(event_shape, like)
    try:
        with torch.no_grad():
            values = repeated_values(lambda: function(points), like.device)
    except Exception as error:  # a user's function may fail at these points in any way
        reason = f"it cannot be computed at the points of the comparison ({type(error).__name__}: {error})"
    else:
        if values is not None:
            return {_VALUES: [_plain(value) for value in values.double().flatten().tolist()]}
        reason = "two calls at the same points returned different values"
    warnings.warn(
        f"{name} is left out of the comparison between a resumed run and the earlier run: {reason}; make sure that it "
        "is the same when you resume the run",
        stacklevel=3,
    )
    return None


def schedule_identity(schedule: Callable[[float], float] | None) -> Any:
    """The repr of a schedule that is a dataclass or None; otherwise its name and a few values."""
    if schedule is None or dataclasses.is_dataclass(schedule):
        return repr(schedule)
    return {"name": name_of(schedule), _VALUES: [_plain(float(schedule(part / 8))) for part in range(8)]}


def run_identity(module: nn.Module, settings: FitSettings, **others: Any) -> dict[str, Any]:
    """The properties that a resumed run must share with the earlier one: flow, settings and further entries.

    Args:
        module: The module that is trained.
        settings: The settings of the run.
        others: Further entries, such as the data.
    """
    try:
        structure = module.config()  # type: ignore[operator]
    except (AttributeError, TypeError):
        # A module that cannot be described, such as an unregistered class of the user, is identified by the names and
        # shapes of its weights. Flags are left out, since they record what was done and not what the flow is.
        weights = {name: tensor for name, tensor in module.state_dict().items() if tensor.dtype != torch.bool}
        structure = {name: list(tensor.shape) for name, tensor in weights.items()}
    decisive = [field.name for field in dataclasses.fields(settings) if field.name != "check_symmetry"]
    plain = {name: name_of(getattr(settings, name)) for name in decisive}
    plain["schedule"] = schedule_identity(settings.schedule)
    return {"settings": plain, "flow": structure, **others}


def alike(stored: Any, received: Any) -> bool:
    """Whether two parts of an identity, as JSON data, are the same; values may differ by rounding.

    Args:
        stored: The part from the checkpoint.
        received: The part of the new run.
    """
    if isinstance(stored, Mapping) and isinstance(received, Mapping):
        if stored.keys() != received.keys():
            return False
        return all(
            _close(stored[name], received[name]) if name == _VALUES else alike(stored[name], received[name])
            for name in stored
        )
    return same_description(stored, received) or _is_sample_of(received, stored)


def same_values(first: Tensor, second: Tensor, *, exact: bool = False) -> bool:
    """Whether two tensors agree, including infinities and NaN.

    Args:
        first: The one tensor.
        second: The other tensor.
        exact: Whether they must agree exactly, or only up to rounding.
    """
    if first.shape != second.shape:
        return False
    tolerance = 0.0 if exact else _TOLERANCE
    first, second = first.double().cpu(), second.double().cpu()
    return torch.allclose(first, second, rtol=tolerance, atol=tolerance, equal_nan=True)


def _is_sample_of(received: Any, stored: Any) -> bool:
    """Whether a fingerprint by a sample of rows may be of data that an older version read as a whole: as large ones."""
    if not isinstance(received, str) or not isinstance(stored, str):
        return False
    sample, whole = re.fullmatch(_FINGERPRINT + " of [0-9]+ rows", received), re.fullmatch(_FINGERPRINT, stored)
    return sample is not None and whole is not None and sample[1] == whole[1]


def _close(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(
        math.isclose(float(a), float(b), rel_tol=_TOLERANCE, abs_tol=_TOLERANCE) or str(a) == str(b)
        for a, b in zip(first, second, strict=True)
    )


def _plain(value: float) -> float | str:
    """The value in a form that strict JSON can hold, which has no NaN and no infinity."""
    return value if math.isfinite(value) else str(value)
