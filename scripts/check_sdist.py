"""Checks that an sdist holds every file that git has, so that the tests and the documentation can be run from it."""

import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def tracked() -> set[str]:
    """The files that git has, or those that the tests and the documentation need where this is no repository."""
    if not (ROOT / ".git").exists():
        return {"tests/conftest.py", "docs/index.md", "requirements/tested.txt", ".ci/run"}
    names = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return {name for name in names.split("\0") if name and (ROOT / name).exists()}


def main(sdist: str) -> None:
    """Name what is missing from an sdist, and what must not be in it."""
    with tarfile.open(sdist) as archive:
        held = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    missing = sorted(tracked() - held)
    if missing:
        sys.exit(f"{len(missing)} files are not in {sdist} (add them to MANIFEST.in): {', '.join(missing[:10])}")
    made = {"PKG-INFO", "setup.cfg"} | {name for name in held if name.startswith("pyro_gflows.egg-info/")}
    strays = sorted(held - tracked() - made) if (ROOT / ".git").exists() else []
    if strays:
        sys.exit(f"{len(strays)} files in {sdist} are none of the project's: {', '.join(strays[:10])}")


if __name__ == "__main__":
    main(sys.argv[1])
