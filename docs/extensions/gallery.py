"""The gallery of the front page: each tutorial's largest picture, out of the outputs of its notebook."""

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any


def _pictures(notebook: dict[str, Any]) -> list[bytes]:
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return [
        base64.b64decode(output["data"]["image/png"]) for output in outputs if "image/png" in output.get("data", {})
    ]


def card(notebook: Path, pictures: Path) -> str:
    """One card of the gallery, in MyST; the picture is written into the folder ``pictures``.

    Raises:
        ValueError: the notebook has no picture, or does not begin with a title and "**The question.** *...*".
    """
    content = json.loads(notebook.read_text(encoding="utf-8"))
    text = "".join(content["cells"][0]["source"])
    title = re.match(r"# (?:\d+\. )?(.+)", text)
    question = re.search(r"\*\*The question\.\*\* \*(.+?)\*(?:\n|$)", text, re.DOTALL)
    found = _pictures(content)
    if not (title and question and found):
        raise ValueError(f"{notebook.name} needs a title, '**The question.** *...*' in its first cell, and a picture")
    (pictures / f"{notebook.stem}.png").write_bytes(max(found, key=len))
    lines = [
        f":::{{grid-item-card}} {title[1]}",
        f":link: tutorials/{notebook.stem}",
        ":link-type: doc",
        f":img-top: tutorials/pictures/{notebook.stem}.png",
        f":img-alt: A picture of the tutorial: {title[1]}",
        "",
        " ".join(question[1].split()),
        ":::",
    ]
    return "\n".join(lines)


def write(tutorials: Path, folder: Path) -> None:
    """Copy the notebooks into ``folder``, with their pictures and ``gallery.txt``, which the front page includes."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "pictures").mkdir(parents=True)
    notebooks = sorted(tutorials.glob("*.ipynb"))
    for notebook in notebooks:
        shutil.copy2(notebook, folder)
    cards = [card(notebook, folder / "pictures") for notebook in notebooks]
    grid = ["::::{grid} 1 2 2 3", ":gutter: 3", ":class-container: gallery", "", *cards, "::::", ""]
    (folder / "gallery.txt").write_text("\n".join(grid), encoding="utf-8")
