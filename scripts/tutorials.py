"""Runs the tutorials and writes each as a notebook with its outputs: ``tutorials/NAME.py`` to ``NAME.ipynb``."""

import argparse
import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

TUTORIALS = Path(__file__).parent.parent / "tutorials"


def run(source: Path, out: Path, *, smoke: bool) -> None:
    """Execute one tutorial in a fresh kernel; an error in a cell is raised."""
    notebook = jupytext.read(source)
    # the same text gives the same file, but for its outputs
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    # one thread: the numbers do not depend on the machine's cores; the warning is about a missing progress widget
    environment = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore:IProgress not found"}
    environment["PYRO_GFLOWS_SMOKE"] = str(int(smoke))
    quiet = ["--log-level=ERROR"]
    client = NotebookClient(notebook, timeout=600, record_timing=False, coalesce_streams=True, extra_arguments=quiet)
    client.execute(env={**os.environ, **environment}, cwd=str(source.parent))
    notebook.metadata.pop("language_info", None)
    nbformat.write(notebook, out / f"{source.stem}.ipynb")


def main() -> None:
    """The command: run the tutorials that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="beginnings of names, such as 01 (default: all)")
    parser.add_argument("--smoke", action="store_true", help="short runs that only show that the code works")
    parser.add_argument("--out", type=Path, default=TUTORIALS, help="folder for the notebooks (default: tutorials)")
    arguments = parser.parse_args()
    chosen = [s for s in sorted(TUTORIALS.glob("*.py")) if s.name.startswith(tuple(arguments.names) or "")]
    if not chosen:
        sys.exit(f"no tutorial begins with any of {arguments.names}: there are {os.listdir(TUTORIALS)}")
    if arguments.smoke and arguments.out == TUTORIALS:
        parser.error("the committed notebooks come from full runs: give --out DIR with --smoke")
    for source in chosen:
        start = time.monotonic()
        run(source, arguments.out, smoke=arguments.smoke)
        print(f"{source.stem}: {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
