"""The examples on the pages of the documentation run, and no room of the package is left out of the reference."""

import re
from pathlib import Path

import pytest

import pyro_gflows

DOCS = Path(__file__).parent.parent / "docs"
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md")), DOCS.parent / "CONTRIBUTING.md"]


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    names = {"__name__": page.stem}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)


def test_every_public_room_has_a_page():
    settings = (DOCS / "conf.py").read_text(encoding="utf-8")
    pages = set(re.findall(r"^api/(\w+)$", (DOCS / "index.md").read_text(encoding="utf-8"), re.MULTILINE))
    package = Path(pyro_gflows.__file__).parent
    rooms = {folder.parent.name for folder in package.glob("*/__init__.py")} - {"cli"}
    assert rooms <= pages
    assert pages == set(re.findall(r'^    "(\w+)": "', settings, re.MULTILINE))
