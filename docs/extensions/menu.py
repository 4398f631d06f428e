"""The menu opens the room of the current page alone: 300 names on every page are slow to build and to load."""

from typing import Any

from sphinx.application import Sphinx

_BEFORE_THE_THEME = 100


def _open_current_room(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object) -> None:
    whole = context["toctree"]
    context["toctree"] = lambda **options: whole(**{**options, "collapse": True})


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", _open_current_room, priority=_BEFORE_THE_THEME)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
