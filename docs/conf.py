"""Sphinx settings: every page of the reference is made from a room's ``__all__``, so none can be forgotten."""

import importlib
import re
import shutil
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst.states import Inliner

HERE = Path(__file__).parent
ROOMS = {
    "flows": "Flows",
    "guides": "Guides",
    "training": "Training",
    "evaluation": "Evaluation",
    "actions": "Actions",
    "groups": "Groups and representations",
    "spaces": "Spaces",
    "distributions": "Invariant bases",
    "transforms": "Transforms",
    "targets": "Targets",
    "testing": "Checks for your own layers",
    "nn": "Equivariant networks",
    "numerics": "Numerics",
    "datasets": "Data sets",
    "plots": "Pictures",
    "serialization": "Saving and rebuilding",
    "experiments": "Experiments",
}

project = "pyro-gflows"
author = "the pyro-gflows developers"
copyright = "the pyro-gflows developers, Apache License 2.0"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx.ext.viewcode", "myst_nb"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "pyro-gflows"

autodoc_member_order = "groupwise"
autodoc_inherit_docstrings = False  # torch's own docstrings are torch's to show
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_custom_sections = [("Arguments of a call", "params_style")]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 2
nb_execution_mode = "off"  # the notebooks come with the outputs of a full run


def _write_pages() -> None:
    """One page a room, and the tutorials, beside this file (git ignores both)."""
    pages, tutorials = HERE / "api", HERE / "tutorials"
    for folder in (pages, tutorials):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for room, title in ROOMS.items():
        name = f"pyro_gflows.{room}"
        lines = [title, "=" * len(title), "", f".. automodule:: {name}", "   :members:", ""]
        (pages / f"{room}.rst").write_text("\n".join(lines), encoding="utf-8")
    for notebook in (HERE.parent / "tutorials").glob("*.ipynb"):
        shutil.copy(notebook, tutorials)


def _public_names() -> dict[str, str]:
    """Where each public name is documented: {"GResidual": "pyro_gflows.transforms.GResidual", ...}."""
    rooms = [f"pyro_gflows.{room}" for room in ROOMS]
    return {name: f"{room}.{name}" for room in rooms for name in importlib.import_module(room).__all__}


def _link_to_public_name(app, env, node, content):
    """A type hint names a class by the file that defines it; its documentation is at the room that exports it."""
    short = re.sub(r"^pyro_gflows\..*\.", "", node["reftarget"])
    public = _public_names().get(short)
    if public is None or node["reftarget"] == public:
        return None
    found = env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, "obj", public, node, content)
    return found or nodes.inline("", "", content)


def _plain_bar(inliner, match, lineno):
    """In the docstrings |G| is an order and |x| a norm, never the name of a substitution."""
    end = match.end("start")
    return match.string[:end], [], match.string[end:], []


def setup(app):
    Inliner.dispatch["|"] = _plain_bar
    _write_pages()
    app.connect("missing-reference", _link_to_public_name)
