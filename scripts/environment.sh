# Sourced by the scripts beside it, from the repository's root: makes the virtual environment .venv, or reuses it.
# It needs Python 3.10 or later, no root and no compiler. PYTHON=... chooses the interpreter; a .venv of another one is
# made anew. An interrupted run is taken up by the next one; of two at once, the second waits.

say() { printf '%s\n' "== $*" >&2; }

find_python() {
    set -- python3 python3.14 python3.13 python3.12 python3.11 python3.10
    if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; fi
    for candidate; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    say "Python 3.10 or later is needed, and is none of: $*; set PYTHON=/path/to/it"
    return 1
}

# Prints which interpreter this is: of a virtual environment, the one that it was made with.
interpreter() { "$1" -c 'import sys; print(sys.base_prefix, *sys.version_info[:3])' 2>/dev/null; }

# Prints the folder that holds the package torch, if this Python can import one that is new enough.
torch_folder() {
    "$1" -c '
import importlib.metadata, importlib.util, pathlib, sys
spec = importlib.util.find_spec("torch")
version = importlib.metadata.version("torch").split(".") if spec else ["0", "0"]
if (int(version[0]), int(version[1])) < (2, 3):
    sys.exit(1)
print(pathlib.Path(spec.origin).parent.parent)' 2>/dev/null
}

# Debian keeps ensurepip in a package of its own: without it, pip is lent by the system's Python.
make_venv() {
    rm -rf .venv
    "$1" -m venv .venv >/dev/null 2>&1 && return
    rm -rf .venv
    lender=$("$1" -c 'import pathlib, pip; print(pathlib.Path(pip.__file__).parent.parent)' 2>/dev/null) &&
        "$1" -m venv --without-pip .venv &&
        PYTHONPATH=$lender .venv/bin/python -m pip install --quiet --ignore-installed pip && return
    rm -rf .venv
    say "$1 can make no virtual environment: install its venv module (on Debian and Ubuntu: apt install python3-venv)"
    return 1
}

install() {
    quiet=--quiet
    if [ -t 2 ]; then quiet=; fi
    .venv/bin/python -m pip install --disable-pip-version-check $quiet "$@" >&2
}

fill_venv() {
    python=$(find_python) || return 1
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        say "making .venv with $python"
        make_venv "$python" || return 1
    fi
    # A path file lets .venv see the torch of this Python, be it a system, a conda or a virtual environment's one.
    kept=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch_kept.pth
    if ! torch_folder .venv/bin/python >/dev/null && torch=$(torch_folder "$python"); then
        say "keeping the torch in $torch"
        echo "$torch" >"$kept"
    fi
    say "installing what is needed into .venv (some minutes, the first time only)"
    cp requirements/tested.txt .venv/constraints.txt
    if torch_folder .venv/bin/python >/dev/null; then
        grep -v '^torch==' requirements/tested.txt >.venv/constraints.txt
    fi
    install --constraint .venv/constraints.txt --editable '.[dev]' || return 1
    # escnn requires py3nj, which needs a Fortran compiler to install and is not needed to run
    install --no-deps escnn==1.0.11 ||
        say "escnn could not be installed: only representations made with escnn are missing"
}

ready_venv() {
    if [ -n "${PYTHON:-}" ] && [ -e .venv ]; then
        python=$(find_python) || return 1
        if [ "$(interpreter "$python")" != "$(interpreter .venv/bin/python)" ]; then
            say "removing the .venv of another Python than $python"
            rm -rf .venv
        fi
    fi
    wanted=$(cat setup.py requirements/tested.txt scripts/environment.sh | cksum)
    if [ "$(cat .venv/ready 2>/dev/null)" = "$wanted" ] && torch_folder .venv/bin/python >/dev/null; then
        return
    fi
    rm -f .venv/ready
    fill_venv || return 1
    echo "$wanted" >.venv/ready
}

if command -v flock >/dev/null; then
    (flock 9 && ready_venv) 9>.venv.lock || exit 1
else
    ready_venv || exit 1
fi
