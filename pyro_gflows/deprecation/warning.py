"""The warning of an old name or form, at the line of code that uses it."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn_of"]

_PACKAGE = __name__.partition(".")[0]


def warn_of(old: str, *, now: str, what: str = "name") -> None:
    """Warn that an old name or form has a new one, at the line of code outside the package that uses it.

    Args:
        old: The old code.
        now: The new code.
        what: The kind of what is old, "name" or "form".

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     warn_of("root(x)", now="sqrt(x)", what="form")
        >>> str(caught[0].message)
        'root(x) is sqrt(x) now; the old form goes with the next minor version'
    """
    frame, level = sys._getframe(1), 2
    while _passes_on(frame.f_globals.get("__name__", "")) and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    text = f"{old} is {now} now; the old {what} goes with the next minor version"
    warnings.warn(text, FutureWarning, stacklevel=level)


def _passes_on(module: str) -> bool:
    """Whether a call from a module passes on what was written elsewhere: one of this package, or torch's Module."""
    return f"{module}.".startswith((f"{_PACKAGE}.", "torch.nn.modules.module."))
