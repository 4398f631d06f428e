"""Exact densities, real images and the user's own files."""

from pyro_gflows.datasets.data_set import DataSet, load_data
from pyro_gflows.datasets.densities import DENSITIES, Checkerboard, Density, EightGaussians, Rings, density
from pyro_gflows.datasets.digits import DIGITS_SCALING, digits
from pyro_gflows.datasets.event_format import EventFormat, EventKind, GreyScale
from pyro_gflows.datasets.files import is_file_name, load_array, read_array
from pyro_gflows.datasets.image_sets import FOLDER_VARIABLE, RawImages, image_set
from pyro_gflows.datasets.images import IMAGE_SETS, ImageSet, rotate_images
from pyro_gflows.datasets.recognise import FileOptions, event_format
from pyro_gflows.datasets.scaling import GreyLevels
from pyro_gflows.datasets.splits import Splits, random_splits, stratified_rows

__all__ = [
    "DENSITIES",
    "DIGITS_SCALING",
    "FOLDER_VARIABLE",
    "IMAGE_SETS",
    "Checkerboard",
    "DataSet",
    "Density",
    "EightGaussians",
    "EventFormat",
    "EventKind",
    "FileOptions",
    "GreyLevels",
    "GreyScale",
    "ImageSet",
    "RawImages",
    "Rings",
    "Splits",
    "density",
    "digits",
    "event_format",
    "image_set",
    "is_file_name",
    "load_array",
    "load_data",
    "random_splits",
    "read_array",
    "rotate_images",
    "stratified_rows",
]
