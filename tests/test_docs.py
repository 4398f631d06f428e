"""The examples on the pages of the documentation run."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
IN_PROCESSES = DOCS / "devices.md"  # test_docs_devices.py runs its examples, in several processes
PAGES = [
    DOCS.parent / "README.md",
    *(page for page in sorted(DOCS.glob("*.md")) if page != IN_PROCESSES),
    DOCS.parent / "CONTRIBUTING.md",
]


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    names = {"__name__": page.stem}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)
