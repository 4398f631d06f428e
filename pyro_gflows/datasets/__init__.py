"""Data to fit: known densities, sets of images and the user's own files, with checks before a fit starts.

Data sets:
    load_data, is_named, DataSet, Splits, digits, image_set, ImageSet, RawImages, IMAGE_SETS, DIGITS_SCALING,
    FOLDER_VARIABLE

The user's own data:
    event_format, EventFormat, EventKind, FileOptions, read_array, load_array, open_rows,
    is_file_name, Rows, FileRows, Store

Several processes:
    Share, Processes, on_first, on_all

Images:
    GrayLevels, GrayScale, rotate_images, point_clouds

Checks and splits:
    check_data, check_symmetry, SymmetryReport, random_splits, stratified_rows
"""

from pyro_gflows.datasets.checks import check_data
from pyro_gflows.datasets.clouds import point_clouds
from pyro_gflows.datasets.data_set import DataSet, is_named, load_data
from pyro_gflows.datasets.event_formats import EventFormat, EventKind, GrayScale
from pyro_gflows.datasets.file_rows import FileRows, Store
from pyro_gflows.datasets.files import is_file_name, load_array, read_array
from pyro_gflows.datasets.image_sets import FOLDER_VARIABLE, RawImages, image_set
from pyro_gflows.datasets.images import IMAGE_SETS, ImageSet, rotate_images
from pyro_gflows.datasets.opening import open_rows
from pyro_gflows.datasets.optical_digits import DIGITS_SCALING, digits
from pyro_gflows.datasets.processes import Processes, on_all, on_first
from pyro_gflows.datasets.recognize import FileOptions, event_format
from pyro_gflows.datasets.rows import Rows
from pyro_gflows.datasets.scaling import GrayLevels
from pyro_gflows.datasets.share import Share
from pyro_gflows.datasets.splits import Splits, random_splits, stratified_rows
from pyro_gflows.datasets.symmetry import SymmetryReport, check_symmetry
from pyro_gflows.deprecation import moved_names

__all__ = [
    "DIGITS_SCALING",
    "FOLDER_VARIABLE",
    "IMAGE_SETS",
    "DataSet",
    "EventFormat",
    "EventKind",
    "FileOptions",
    "FileRows",
    "GrayLevels",
    "GrayScale",
    "ImageSet",
    "Processes",
    "RawImages",
    "Rows",
    "Share",
    "Splits",
    "Store",
    "SymmetryReport",
    "check_data",
    "check_symmetry",
    "digits",
    "event_format",
    "image_set",
    "is_file_name",
    "is_named",
    "load_array",
    "load_data",
    "on_all",
    "on_first",
    "open_rows",
    "point_clouds",
    "random_splits",
    "read_array",
    "rotate_images",
    "stratified_rows",
]

__getattr__ = moved_names(
    __name__,
    {
        "GreyLevels": "pyro_gflows.datasets:GrayLevels",
        "GreyScale": "pyro_gflows.datasets:GrayScale",
        "Checkerboard": "pyro_gflows.targets",
        "DENSITIES": "pyro_gflows.targets",
        "Density": "pyro_gflows.targets",
        "EightGaussians": "pyro_gflows.targets",
        "Rings": "pyro_gflows.targets",
        "density": "pyro_gflows.targets",
    },
)
