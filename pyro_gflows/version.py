"""The version of the package, which setup.py holds."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("pyro-gflows")
except PackageNotFoundError:  # a folder of sources on the path, that pip knows nothing of
    __version__ = "0+not.installed"
