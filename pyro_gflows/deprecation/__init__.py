"""Old names and forms that continue to work for one minor version, with a FutureWarning that states the new one."""

from pyro_gflows.deprecation.forms import converted_arguments, flag_is_a_function, split_first
from pyro_gflows.deprecation.names import moved_names, renamed_arguments, renamed_attributes, renamed_methods
from pyro_gflows.deprecation.warning import warn_of

__all__ = [
    "converted_arguments",
    "flag_is_a_function",
    "moved_names",
    "renamed_arguments",
    "renamed_attributes",
    "renamed_methods",
    "split_first",
    "warn_of",
]
