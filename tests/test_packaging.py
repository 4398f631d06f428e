"""What stands in several files about the package is said alike: its version, its Pythons, its tools, its files."""

import re
import runpy
import subprocess
import sys
import tarfile
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
import setuptools
import yaml
from packaging.version import Version

import pyro_gflows
from pyro_gflows import cli

pytestmark = pytest.mark.all_cases

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TESTED = dict(re.findall(r"^([\w-]+)==(.+)$", (ROOT / "requirements" / "tested.txt").read_text(), re.MULTILINE))


@pytest.fixture
def package(monkeypatch):
    """What setup.py tells setuptools."""
    told = {}
    monkeypatch.setattr(setuptools, "setup", lambda **settings: told.update(settings))
    runpy.run_path(str(ROOT / "setup.py"))
    return told


@pytest.fixture
def pythons(package):
    found = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in package["classifiers"]]
    return [match[1] for match in found if match]


def jobs():
    return {
        (path.stem, name): job
        for path in WORKFLOWS
        for name, job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].items()
    }


def test_the_version_is_the_one_of_the_metadata():
    assert pyro_gflows.__version__ == metadata("pyro-gflows")["Version"]


def test_sources_that_pip_knows_nothing_of_can_be_imported(monkeypatch):
    def unknown(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", unknown)
    path = Path(pyro_gflows.__file__).with_name("version.py")
    assert runpy.run_path(str(path))["__version__"] == "0+not.installed"


def test_the_command_says_its_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"pyro-gflows {pyro_gflows.__version__}\n"


def test_the_citation_is_of_this_version(package):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == package["version"]
    assert (citation["title"], citation["license"]) == (package["name"], package["license"])


def test_the_changelog_has_this_version(package):
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[?(\d+\.\d+\.\d+)\]?", text, re.MULTILINE)
    announced = re.findall(r"^To be released as (\d+\.\d+\.\d+)\.$", text, re.MULTILINE)
    assert [*announced, *released][0] == package["version"]
    assert set(re.findall(r"^### (\w+)$", text, re.MULTILINE)) <= {
        "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security",
    }  # fmt: skip


def test_the_pythons_of_the_metadata_are_those_that_are_tested(package, pythons):
    assert pythons == [f"3.{minor}" for minor in range(10, 15)]
    assert package["python_requires"] == f">={pythons[0]}"
    matrix = jobs()["tests", "tests"]["strategy"]["matrix"]
    assert matrix["python"] == pythons
    assert {row["python"] for row in matrix["include"]} <= set(pythons)


def test_environments_are_made_with_each_of_the_pythons(pythons):
    script = (ROOT / "scripts" / "environment.sh").read_text(encoding="utf-8")
    (candidates,) = re.findall(r"^    set -- python3 ((?:python3\.\d+ ?)+)$", script, re.MULTILINE)
    assert candidates.split() == [f"python{version}" for version in reversed(pythons)]
    assert f"({pythons[0].replace('.', ', ')})" in script


def test_the_tools_check_for_the_oldest_python(pythons):
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'target-version = "py{pythons[0].replace(".", "")}"' in settings


def test_the_torches_that_are_tested_are_the_oldest_the_pinned_and_newer_ones(package):
    matrix = jobs()["tests", "tests"]["strategy"]["matrix"]
    assert matrix["torch"] == [TESTED["torch"]]
    (oldest,) = [line.removeprefix("torch>=") for line in package["install_requires"] if line.startswith("torch>")]
    first, *newer = [row["torch"] for row in matrix["include"]]
    assert first.rpartition(".")[0] == oldest
    assert newer and all(Version(version) > Version(TESTED["torch"]) for version in newer)
    for path in WORKFLOWS:
        for version in re.findall(r"torch==([\d.]+)", path.read_text(encoding="utf-8")):
            assert version == TESTED["torch"], path


def test_workflows_run_what_is_run_by_hand():
    commands = [step["run"] for job in jobs().values() for step in job["steps"] if "run" in step]
    called = {script for command in commands for script in re.findall(r"bash (\S+)", command)}
    assert called == {".ci/run", "scripts/docs.sh", "scripts/package.sh"}
    assert all((ROOT / script).is_file() for script in called)
    assert "step bash scripts/package.sh" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_only_what_publishes_may_write():
    may_write = {
        name
        for name, job in jobs().items()
        for permission in job.get("permissions", {}).values()
        if permission == "write"
    }
    assert may_write == {("docs", "publish"), ("release", "publish")}
    for path in WORKFLOWS:
        assert yaml.safe_load(path.read_text(encoding="utf-8"))["permissions"] == {"contents": "read"}, path


def test_commits_are_checked_by_the_tools_of_the_environment():
    """So that no second place holds their versions."""
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repo["repo"] == "local"
    tools = {re.fullmatch(r"\.venv/bin/python -m (\w+).*", hook["entry"])[1] for hook in repo["hooks"]}
    assert tools == {"ruff", "mypy"} <= set(TESTED)


def test_escnn_is_installed_by_one_line_everywhere(package):
    line = "pip install --no-deps escnn==1.0.11"
    assert line in (ROOT / "README.md").read_text(encoding="utf-8")
    assert (ROOT / "docs" / "install.md").read_text(encoding="utf-8").count(line) == 3
    assert line.removeprefix("pip ") in (ROOT / "scripts" / "environment.sh").read_text(encoding="utf-8")
    asked = [*package["install_requires"], *(line for extra in package["extras_require"].values() for line in extra)]
    assert not [line for line in asked if re.match("escnn|lie", line)]


@pytest.mark.parametrize("missing", ["tests/conftest.py", None, "a stray"])
@pytest.mark.long
def test_an_sdist_holds_what_git_has(missing, tmp_path):
    """The check of an sdist sees a file that is missing, and one that is too many."""
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    if listed.returncode:
        pytest.skip("no repository")
    names = [name for name in listed.stdout.splitlines() if name != missing and (ROOT / name).exists()]
    sdist = tmp_path / "package.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        for name in names:
            archive.add(ROOT / name, f"package-1/{name}")
        if missing == "a stray":
            archive.add(ROOT / "setup.py", "package-1/stray.py")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "check_sdist.py", sdist], capture_output=True, text=True, check=False
    )
    said = {"tests/conftest.py": "1 files are not in", "a stray": "stray.py", None: ""}[missing]
    assert (done.returncode, said in done.stderr) == (int(missing is not None), True)
