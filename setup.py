"""Package metadata; the settings of the tools are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

# The Pythons that the tests run on (.github/workflows/tests.yml). There is no upper bound: on a newer Python pip would
# answer it by installing an old release of this package, and nothing here is known to break there.
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]

# torch 2.3 is the first release that works with numpy 2, and runs on Python 3.12.
# scipy and joblib are what escnn imports; escnn itself is installed apart, `pip install --no-deps escnn==1.0.11`, since
# it requires py3nj, which pip can only build with a Fortran compiler (pyro_gflows/groups/escnn_adapter.py).
INSTALL = [
    "torch>=2.3",
    "pyro-ppl>=1.9",
    "numpy>=1.24",
    "scipy>=1.10",
    "tqdm>=4.60",
    "safetensors>=0.4",
    "joblib>=1.2",
]

PLOTS = ["matplotlib>=3.7"]
DATA = ["scikit-learn>=1.3"]
FILES = ["pyarrow>=16.1", 'zarr>=3; python_version >= "3.11"']  # open_rows: Parquet, Arrow and Zarr
LIGHTNING = ["lightning>=2.6"]
NOTEBOOKS = [*PLOTS, *DATA, "ipykernel>=6.25", "jupytext>=1.16", "nbclient>=0.10", "arviz>=0.17,<1"]  # no browser
TUTORIALS = [*NOTEBOOKS, "jupyterlab>=4"]
TEST = [*NOTEBOOKS, *FILES, *LIGHTNING, "pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "pyyaml>=6"]
DEV = [*TEST, "ruff>=0.9", "mypy>=1.13", "build>=1.2"]
DOCS = [*PLOTS, *LIGHTNING, "sphinx>=7.3", "myst-nb>=1.1", "furo>=2024.1.29", "sphinx-design>=0.6", "ziamath>=0.12"]
# The peers that benchmarks/peers compares with; nothing else imports them.
BENCH = [*PLOTS, "normflows>=1.7", "zuko>=1.6", "nflows>=0.14", "FrEIA>=0.2", "torchdiffeq>=0.2.5"]

EXTRAS = {
    "plots": PLOTS,
    "data": DATA,
    "files": FILES,
    "lightning": LIGHTNING,
    "test": TEST,
    "dev": DEV,
    "tutorials": TUTORIALS,
    "docs": DOCS,
    "bench": BENCH,
    "all": sorted({*DEV, *TUTORIALS, *DOCS}),
}

setup(
    name="pyro-gflows",
    version="0.2.0",
    description="Normalizing flows for Pyro whose density is exactly invariant under a symmetry group",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=f">={PYTHONS[0]}",
    packages=find_packages(include=["pyro_gflows", "pyro_gflows.*"]),
    package_data={"pyro_gflows": ["py.typed"]},
    install_requires=INSTALL,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["pyro-gflows=pyro_gflows.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: {version}" for version in PYTHONS),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
