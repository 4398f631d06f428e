"""Sphinx settings. The reference and the gallery are written by the modules in extensions/."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

import gallery  # noqa: E402
import reference  # noqa: E402

# Every room of the package: its title, and what one finds in it. The pages come in this order.
rooms = {
    "flows": ("Flows", "An invariant base with equivariant transforms is a flow; ready-made flows of images."),
    "guides": ("Guides", "Variational guides for Pyro models whose posterior has a symmetry."),
    "training": ("Training", "Fit a flow to data, or to an energy."),
    "lightning": ("Lightning", "The same objectives and data for the Trainer of PyTorch Lightning."),
    "evaluation": ("Evaluation", "Likelihoods, invariance errors, importance weights and reports."),
    "actions": ("Actions", "How a group acts on one event: the symmetry that one states first."),
    "groups": ("Groups and representations", "Finite and continuous groups, and the matrices that represent them."),
    "spaces": ("Spaces", "Where events live, and with respect to which measure their density is."),
    "distributions": ("Invariant bases", "Pyro distributions whose density is invariant under an action."),
    "transforms": ("Transforms", "Equivariant bijections, as Pyro transform modules."),
    "targets": ("Targets", "Exact densities with a known symmetry, to fit and to measure against."),
    "testing": ("Checks for your own layers", "Assertions of equivariance, invertibility and log-determinants."),
    "nn": ("Equivariant networks", "Equivariant linear maps, convolutions, activations and contractions."),
    "numerics": ("Numerics", "Log-determinant estimators, root solvers, spectral norms and matrix functions."),
    "datasets": ("Data sets", "Images, your own files, and checks of both."),
    "plots": ("Pictures", "Figures of densities, samples and losses."),
    "serialization": ("Saving and rebuilding", "Structure as JSON and weights as safetensors; nothing is unpickled."),
    "experiments": ("Experiments", "Families of runs with their presets, behind the command line."),
    "cli": ("Command line", "The command ``pyro-gflows``."),
}

project = "pyro-gflows"
author = "the pyro-gflows developers"
copyright = "the pyro-gflows developers, Apache License 2.0"
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_design",
    "myst_nb",
    "formulas",
    "links",
    "menu",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "pyro-gflows"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "svg"
html_show_sourcelink = False
html_copy_source = False

autodoc_member_order = "groupwise"
autodoc_preserve_defaults = True  # InvariantNormal, not <class ...>
autodoc_inherit_docstrings = False  # torch's own docstrings are torch's to show
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_custom_sections = [("Arguments of a call", "params_style")]
maximum_signature_line_length = 80
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 2
nb_execution_mode = "off"  # the notebooks come with the outputs of a full run

# A reference to nothing is an error. Names of other packages have no page here.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(abc|types|torch|nn|pyro|lightning|numpy|np|matplotlib|collections|typing|pathlib|fractions)\..*"),
    ("py:.*", "Tensor|DataLoader|Path|Distribution|Fraction"),  # of other packages, as annotations write them
]

reference.write(rooms, HERE / "api")
gallery.write(HERE.parent / "tutorials", HERE / "tutorials")
