"""The end of a run that fails."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback

__all__ = ["EndAtError"]


class EndAtError(Callback):
    """Ends the run of a FlowModule if it fails or is interrupted."""

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Ends the run.

        Args:
            trainer: The Trainer.
            pl_module: The FlowModule.
            exception: What ended the run.
        """
        pl_module.end_run()
