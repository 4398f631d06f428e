"""Links from the names in signatures and docstrings to the page of each, and |x| as a norm."""

import re
import sys
from typing import TypeVar

from docutils.parsers.rst.states import Inliner
from reference import PACKAGE, homes, is_private
from sphinx.application import Sphinx


def _public_target(target: str, where: dict[str, str]) -> str | None:
    """The documented name for one like pyro_gflows.actions.base.Action.act: the file that defines it is left out."""
    parts = target.split(".")
    for i, part in enumerate(parts):
        if part in where:
            return ".".join([PACKAGE, where[part], *parts[i:]])
    return None


def _object_at(target: str) -> object:
    module, _, name = target.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


def _link_to_public_name(app, env, node, content):
    """A type hint names a class by the file that defines it; its documentation is at the room that exports it."""
    target = node["reftarget"]
    if node.get("refdomain") != "py" or not (target.startswith(f"{PACKAGE}.") or target.split(".")[0] in app.homes):
        return None
    if re.search(r"\._[A-Z]\w*$", target) and isinstance(_object_at(target), TypeVar):
        return content  # a type variable has no page
    public = _public_target(target, app.homes)
    if public is None or target == public:
        return None
    return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, "obj", public, node, content)


def _plain_bar(inliner, match, lineno):
    """In the docstrings |G| is an order and |x| a norm, never the name of a substitution."""
    end = match.end("start")
    return match.string[:end], [], match.string[end:], []


def _public_bases(app, name, cls, options, bases):
    """A class that extends a private helper is shown to extend what the helper does."""
    while private := [base for base in bases if isinstance(base, type) and is_private(base, app.homes)]:
        at = bases.index(private[0])
        bases[at : at + 1] = [base for base in private[0].__bases__ if base not in bases and base is not object]


def _plain_property(app, what, name, value, options, lines):
    """The docstring of a property is a sentence: napoleon would take what stands before a colon for a type."""
    if what in ("property", "attribute"):
        lines[:0] = ["..", ""]  # an empty comment, in which it finds no colon


def _find_homes(app: Sphinx) -> None:
    app.homes = homes(app.config.rooms)


def setup(app: Sphinx) -> dict[str, bool]:
    Inliner.dispatch["|"] = _plain_bar
    app.add_config_value("rooms", {}, "env", types=dict)
    app.connect("builder-inited", _find_homes)
    app.connect("autodoc-process-bases", _public_bases)
    app.connect("autodoc-process-docstring", _plain_property, priority=100)  # before napoleon
    app.connect("missing-reference", _link_to_public_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
