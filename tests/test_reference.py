"""The reference: every room and every public name has a page, and what a public signature names is public itself."""

import ast
import functools
import importlib
import inspect
import re
import sys
import typing
from pathlib import Path

import pytest

import pyro_gflows

DOCS = Path(__file__).parent.parent / "docs"
INNER = {"deprecation"}  # only the package itself uses it
ROOMS = sorted({path.parent.name for path in Path(pyro_gflows.__file__).parent.glob("*/__init__.py")} - INNER)


def public_objects(room):
    module = importlib.import_module(f"pyro_gflows.{room}")
    return [(name, getattr(module, name)) for name in module.__all__]


PUBLIC = {name: value for room in ROOMS for name, value in public_objects(room)}
PUBLIC_IDS = {id(value) for value in PUBLIC.values()}


def signatures(name, value):
    """The functions whose annotations a reader of the page of a public name sees."""
    if not inspect.isclass(value):
        return [(name, value)] if inspect.isroutine(value) else []
    shown = [(name, value)]
    for member in vars(value):
        if member[0] != "_" or member in ("__init__", "__call__"):
            found = getattr(value, member)
            if isinstance(found, property):
                found = found.fget
            elif isinstance(found, functools.cached_property):
                found = found.func
            if inspect.isroutine(found):
                shown.append((f"{name}.{member}", found))
    return shown


def classes(hint):
    if inspect.isclass(hint) and not typing.get_origin(hint):
        yield hint
    for argument in [hint] if isinstance(hint, list) else []:
        yield from classes(argument)
    for argument in typing.get_args(hint):
        for part in argument if isinstance(argument, list) else [argument]:
            yield from classes(part)


def aliases(function):
    """Names in the annotations, as written, that stand for a type of several parts, such as a kind of function."""
    function = getattr(inspect.unwrap(function), "__func__", inspect.unwrap(function))
    known = vars(sys.modules.get(getattr(function, "__module__", ""), object))
    for annotation in getattr(function, "__annotations__", {}).values():
        if isinstance(annotation, str):
            for node in ast.walk(ast.parse(annotation)):
                if isinstance(node, ast.Name) and typing.get_origin(known.get(node.id)) is not None:
                    yield node.id


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_public_signature_names_is_public(room):
    hidden = {}
    for name, value in public_objects(room):
        for where, function in signatures(name, value):
            if not getattr(function, "__module__", "").startswith("pyro_gflows."):
                continue
            # names that are imported for the type checker alone are public ones, or this raises NameError
            hints = typing.get_type_hints(inspect.unwrap(function), localns=PUBLIC)
            found = [found for hint in hints.values() for found in classes(hint)]
            own = [c.__name__ for c in found if c.__module__.startswith("pyro_gflows.") and id(c) not in PUBLIC_IDS]
            for hidden_name in own + [alias for alias in aliases(function) if alias not in PUBLIC]:
                hidden.setdefault(hidden_name, set()).add(where)
    assert not hidden, "add these to the __all__ of their room, or name a public type instead"


def test_a_public_name_has_one_home():
    several = {}
    for room in ROOMS:
        for name, value in public_objects(room):
            assert several.setdefault(name, value) is value, name


def test_every_room_and_every_public_name_has_a_page(reference, rooms):
    assert set(rooms) == set(ROOMS)
    pages = reference.pages(rooms)
    lower = [page.lower() for page in pages]
    assert len(lower) == len(set(lower))  # some file systems see no difference between Conditioner and conditioner
    index = pages["index"]
    for room in ROOMS:
        assert f"   {room}\n" in index
        for name, value in public_objects(room):
            home = reference.homes(rooms)[name]
            page = reference.page_of(name, home)
            assert f" {page}\n" in pages[home] + "\n"
            assert f"`{name} <pyro_gflows.{home}.{name}>`" in pages[room]
            assert f":: {name}\n" in pages[page]
            assert getattr(importlib.import_module(f"pyro_gflows.{home}"), name) is value


def test_a_room_groups_its_names_by_purpose(reference):
    module = type(importlib)("pyro_gflows.example", "A room.\n\nShapes:\n    Ball, Cube\n\nMore text.\n")
    module.Ball, module.Cube, module.measure = type("Ball", (), {}), type("Cube", (), {}), lambda: 0
    module.__all__ = ["Ball", "Cube", "measure"]
    text, table = reference.groups(module)
    assert text == "A room.\n\nMore text."
    assert table == {"Shapes": ["Ball", "Cube"], "Functions": ["measure"]}
    module.__doc__ = "A room.\n\nShapes:\n    Ball, Sphere\n"
    with pytest.raises(ValueError, match="Sphere"):
        reference.groups(module)


def test_every_tutorial_has_a_card_with_a_picture(docs_module, tmp_path):
    gallery = docs_module("gallery")
    for notebook in sorted((DOCS.parent / "tutorials").glob("*.ipynb")):
        card = gallery.card(notebook, tmp_path)
        assert f":link: tutorials/{notebook.stem}\n" in card
        assert (tmp_path / f"{notebook.stem}.png").read_bytes().startswith(b"\x89PNG")
    blank = tmp_path / "blank.ipynb"
    blank.write_text('{"cells": [{"source": ["# 1. A title"]}]}', encoding="utf-8")
    with pytest.raises(ValueError, match="needs a title"):
        gallery.card(blank, tmp_path)


@pytest.fixture(name="docs_module")
def _docs_module(monkeypatch):
    monkeypatch.syspath_prepend(DOCS / "extensions")
    return importlib.import_module


@pytest.fixture(name="reference")
def _reference(docs_module):
    pytest.importorskip("sphinx")
    return docs_module("reference")


@pytest.fixture(name="rooms")
def _rooms():
    """The table in docs/conf.py, read without running it."""
    for statement in ast.parse((DOCS / "conf.py").read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "rooms":
            return ast.literal_eval(statement.value)
    raise AssertionError("docs/conf.py has no table of rooms")


def test_a_built_page_asks_no_other_host_for_anything():
    """Scripts, styles and fonts come with the pages; links to other sites are for the reader to follow."""
    pages = sorted((DOCS / "_build" / "html").rglob("*.html"))
    if not pages:
        pytest.skip("the documentation has not been built here: bash scripts/docs.sh")
    outside = re.compile(r"<(?:script|img|iframe)[^>]*\ssrc=[\"'](?:https?:)?//|<link[^>]*href=[\"'](?:https?:)?//")
    assert not [page.name for page in pages if outside.search(page.read_text(encoding="utf-8"))]
    styles = (DOCS / "_build" / "html" / "_static").rglob("*.css")
    assert not [style.name for style in styles if re.search(r"url\([\"']?(?:https?:)?//", style.read_text("utf-8"))]
