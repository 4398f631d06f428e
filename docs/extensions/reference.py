"""The pages of the reference, made from each room's ``__all__``, so that no public name can be forgotten.

One page a public name, and one page a room with a table of its names. Where the docstring of a room lists names by
purpose, as in ::

    Groups:
        CyclicGroup, DihedralGroup

the table is parted in the same way; names that are in no list come after, as classes, functions and types.
"""

import ast
import functools
import importlib
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path

from sphinx.pycode import ModuleAnalyzer

PACKAGE = "pyro_gflows"
OTHER = "Types and constants"
Rooms = Mapping[str, tuple[str, str]]  # name of a room -> its title, and one sentence


def module_of(room: str) -> types.ModuleType:
    return importlib.import_module(f"{PACKAGE}.{room}")


def homes(rooms: Rooms) -> dict[str, str]:
    """Where each public name is documented: {"GResidual": "transforms", ...}.

    A name that several rooms export is at home in the one that defines it.
    """
    found: dict[str, str] = {}
    for room in rooms:
        module = module_of(room)
        for name in module.__all__:
            defined_in = str(getattr(getattr(module, name), "__module__", ""))
            if name not in found or f"{defined_in}.".startswith(f"{module.__name__}."):
                found[name] = room
    return found


def page_of(name: str, room: str) -> str:
    """The file of a name. Some file systems see no difference between a class and a function of the same letters."""
    others = {other.lower() for other in module_of(room).__all__ if other != name}
    suffix = "-function" if name.lower() in others and name.islower() else ""
    return f"{room}/{name}{suffix}"


def kind(value: object) -> str:
    if inspect.isclass(value) and not typing.get_origin(value):
        return "Classes"
    return "Functions" if inspect.isroutine(value) else OTHER


def groups(module: types.ModuleType) -> tuple[str, dict[str, list[str]]]:
    """The text of a room's docstring, and its public names by purpose."""
    text, table, listed = inspect.getdoc(module) or "", {}, set()
    for block in re.finditer(r"^(\w[^\n]*):\n((?:    [\w, ]+\n?)+)\n?", text, re.MULTILINE):
        names = re.findall(r"\w+", block[2])
        if unknown := set(names) - set(module.__all__):
            raise ValueError(f"{module.__name__} lists {sorted(unknown)} in its docstring and not in its __all__")
        table[block[1]] = names
        listed.update(names)
        text = text.replace(block[0], "")
    rest: dict[str, list[str]] = {"Classes": [], "Functions": [], OTHER: []}
    for name in module.__all__:
        if name not in listed:
            rest[kind(getattr(module, name))].append(name)
    return text.strip(), table | {title: names for title, names in rest.items() if names}


def _heading(title: str, line: str = "=") -> list[str]:
    return [title, line * len(title), ""]


def _comment(module: types.ModuleType, name: str) -> str:
    """The comment "#: ..." above a type or a constant, in the module that defines it."""
    for statement in ast.parse(inspect.getsource(module)).body:
        if isinstance(statement, ast.ImportFrom) and name in [alias.name for alias in statement.names]:
            return _comment(importlib.import_module(str(statement.module)), name)
    return "\n".join(ModuleAnalyzer.for_module(module.__name__).find_attr_docs().get(("", name), []))


def _about(room: str, name: str) -> str:
    """The docstring of a public name.

    Raises:
        ValueError: there is none.
    """
    module = module_of(room)
    value = getattr(module, name)
    text = _comment(module, name) if kind(value) == OTHER else inspect.getdoc(value)
    if not text:
        raise ValueError(f"{module.__name__}.{name} is public and needs a docstring (a constant: a comment '#: ...')")
    return text


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return re.split(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.) |::?$", paragraph)[0]


def _table(names: list[str], where: dict[str, str]) -> list[str]:
    lines = [".. list-table::", "   :widths: 35 65", ""]
    for name in names:
        about = _first_sentence(_about(where[name], name))
        lines += [f"   * - :py:obj:`{name} <{PACKAGE}.{where[name]}.{name}>`", f"     - {about}"]
    return [*lines, ""]


def _toctree(pages: list[str], *, depth: int = 1) -> list[str]:
    return [".. toctree::", "   :hidden:", f"   :maxdepth: {depth}", "", *(f"   {page}" for page in pages), ""]


def _documented(cls: type) -> set[str]:
    """The methods and properties that a class itself defines, with a docstring of their own."""
    kinds = (property, classmethod, staticmethod, functools.cached_property)
    return {
        name
        for name, value in ((name, getattr(cls, name)) for name in vars(cls) if name[0] != "_")
        if (inspect.isroutine(value) or isinstance(value, kinds)) and value.__doc__
    }


def is_private(cls: type, where: Mapping[str, str]) -> bool:
    """Whether a class is one of the package's helpers: its members are shown as those of the classes that extend it."""
    return cls.__module__.startswith(f"{PACKAGE}.") and cls.__name__ not in where


def _inherited(cls: type, where: dict[str, str]) -> Iterator[str]:
    """What a class takes over from the public classes that it extends, with links."""
    seen = _documented(cls)
    for base in cls.__mro__[1:]:
        fresh = _documented(base) - seen
        seen |= fresh
        if base.__module__.startswith(f"{PACKAGE}.") and base.__name__ in where and fresh:
            full = f"{PACKAGE}.{where[base.__name__]}.{base.__name__}"
            links = ", ".join(f":py:obj:`{name} <{full}.{name}>`" for name in sorted(fresh))
            yield f"From :py:class:`~{full}`: {links}"
            yield ""


def _name_page(room: str, name: str, where: dict[str, str]) -> list[str]:
    value = getattr(module_of(room), name)
    lines = [*_heading(name), f".. currentmodule:: {PACKAGE}.{room}", ""]
    match kind(value):
        case "Classes":
            lines += [f".. autoclass:: {name}", "   :members:", "   :show-inheritance:"]
            if any(is_private(base, where) for base in value.__mro__):
                # Sphinx shows what is inherited from the classes before the first of these
                stop = [base.__name__ for base in value.__mro__[1:] if not is_private(base, where)]
                lines += [f"   :inherited-members: {', '.join(stop)}"]
            if (call := vars(value).get("__call__")) and call.__doc__:
                lines += ["   :special-members: __call__"]
            if inherited := list(_inherited(value, where)):
                lines += ["", ".. rubric:: Inherited", "", *inherited]
        case "Functions":
            lines += [f".. autofunction:: {name}"]
        case _:
            lines += [f".. py:data:: {name}", "", *textwrap.indent(_about(room, name), "   ").splitlines()]
    return [*lines, ""]


def pages(rooms: Rooms) -> dict[str, str]:
    """Every page of the reference: its path without the ending -> its text."""
    where = homes(rooms)
    written = {}
    for room, (title, _) in rooms.items():
        module = module_of(room)
        text, table = groups(module)
        lines = [*_heading(title), f".. py:module:: {module.__name__}", "", text, ""]
        for purpose, names in table.items():
            if len(table) > 1:
                lines += _heading(purpose, "-")
            lines += _table(names, where)
        own = [name for names in table.values() for name in names if where[name] == room]
        written[room] = "\n".join([*lines, *_toctree([page_of(name, room) for name in own])])
        for name in own:
            written[page_of(name, room)] = "\n".join(_name_page(room, name, where))
    return written | {"index": "\n".join(_index(rooms)), "top_level": "\n".join(_top_level(where))}


def _index(rooms: Rooms) -> list[str]:
    lines = [*_heading("Reference"), "One page a room of the package, and one page a public name.", ""]
    lines += [".. list-table::", "   :widths: 30 70", ""]
    for room, (_, sentence) in rooms.items():
        lines += [f"   * - :doc:`{PACKAGE}.{room} <{room}>`", f"     - {sentence}"]
    lines += ["   * - :doc:`Names at top level <top_level>`", f"     - What ``from {PACKAGE} import ...`` offers.", ""]
    return lines + _toctree([*rooms, "top_level"])


def _top_level(where: dict[str, str]) -> list[str]:
    names = importlib.import_module(PACKAGE).__all__
    lines = [*_heading("Names at top level"), f"These can be imported from ``{PACKAGE}`` itself.", ""]
    return lines + _table([name for name in names if name in where], where)


def write(rooms: Rooms, folder: Path) -> None:
    """Write the pages, and leave a page that has not changed alone, so that Sphinx does not read it again."""
    written = {(folder / f"{page}.rst"): text for page, text in pages(rooms).items()}
    for old in set(folder.rglob("*.rst")) - set(written):
        old.unlink()
    for path, text in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
