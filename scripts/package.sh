#!/bin/sh
# Builds the sdist and, from it, the wheel; installs the wheel with what it requires into a clean environment, beside
# the torch that .venv uses, and then the sdist; uses both from outside the tree. All of it in a temporary folder, or in
# the folder that is the argument, where dist/ then holds what was built.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh

root=$PWD
if [ $# -gt 0 ]; then
    mkdir -p "$1"
    folder=$(cd "$1" && pwd)
    rm -rf "$folder/dist" "$folder/clean" "$folder/torch"
else
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
fi

say "building the sdist and the wheel"
.venv/bin/python -m build --outdir "$folder/dist" . >"$folder/build.log" 2>&1 || {
    cat "$folder/build.log" >&2
    exit 1
}
.venv/bin/python scripts/check_sdist.py "$folder"/dist/*.tar.gz

# Of the folder that holds torch the clean environment sees torch alone, and not what else is installed there.
say "installing the wheel into a clean environment"
torch=$(torch_folder .venv/bin/python)
mkdir "$folder/torch"
for path in "$torch"/torch "$torch"/torchgen "$torch"/functorch "$torch"/torch-[0-9]*-info \
    "$torch"/nvidia* "$torch"/cuda* "$torch"/triton*; do
    if [ -e "$path" ]; then ln -s "$path" "$folder/torch/"; fi
done
.venv/bin/python -m venv --without-pip "$folder/clean"
clean=$folder/clean/bin/python
echo "$folder/torch" >"$("$clean" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch_kept.pth"
pip() { .venv/bin/python -m pip --python "$clean" --disable-pip-version-check "$@" >&2; }
pip install --quiet --only-binary :all: --constraint .venv/constraints.txt "$folder"/dist/*.whl
pip check
(cd "$folder" && "$clean" -I "$root/scripts/try_package.py")

say "installing the sdist"
pip uninstall --quiet --yes pyro-gflows
pip install --quiet --no-deps "$folder"/dist/*.tar.gz
(cd "$folder" && "$clean" -I "$root/scripts/try_package.py")
