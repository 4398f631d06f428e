"""Training by the Trainer of PyTorch Lightning, with its callbacks, loggers and profilers.

The room needs Lightning: ``pip install 'pyro-gflows[lightning]'``. Nothing else in the package imports it.

Modules:
    FlowModule, FlowData
"""

try:
    import lightning  # noqa: F401
except ImportError as error:
    raise ImportError(
        "pyro_gflows.lightning needs Lightning, which is not installed: pip install 'pyro-gflows[lightning]'; fit and "
        "fit_energy train on one device without it"
    ) from error

from pyro_gflows.lightning.data import FlowData
from pyro_gflows.lightning.module import FlowModule

__all__ = ["FlowData", "FlowModule"]
