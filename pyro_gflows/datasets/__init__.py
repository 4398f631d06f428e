"""Exact densities, real digits and the user's own files."""

from pyro_gflows.datasets.data_set import DataSet, load_data
from pyro_gflows.datasets.densities import DENSITIES, Checkerboard, Density, EightGaussians, Rings, density
from pyro_gflows.datasets.digits import DIGITS_SCALING, digits
from pyro_gflows.datasets.files import load_array
from pyro_gflows.datasets.scaling import GreyLevels
from pyro_gflows.datasets.splits import Splits, random_splits, stratified_rows

__all__ = [
    "DENSITIES",
    "DIGITS_SCALING",
    "Checkerboard",
    "DataSet",
    "Density",
    "EightGaussians",
    "GreyLevels",
    "Rings",
    "Splits",
    "density",
    "digits",
    "load_array",
    "load_data",
    "random_splits",
    "stratified_rows",
]
