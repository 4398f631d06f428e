"""Names of version 0.1 are found where they were, with a warning that says where they are now."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pyro_gflows

pytestmark = pytest.mark.all_cases

PACKAGE = Path(pyro_gflows.__file__).parent


def old_names():
    """(module, old name) of every module that has moved names, read from what is written there."""
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if path.parent.name == "deprecation" or "moved_names(" not in text:
            continue
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for name in re.findall(r'"(\w+)": "pyro_gflows[\w.:]*"', text):
            yield module, name


CASES = list(old_names())


def test_the_public_names_of_infer_are_all_there():
    """The names that ``pyro_gflows.infer.__all__`` had in version 0.1."""
    names = (
        "Adam AlphaMixing AutoGFlow Constant DequantisedFlow EnergyReport FitDiverged FitResult FitSettings ForwardKL "
        "HeldOut ImageReport ImportanceReport InvarianceReport LogDetError LogRatioReparam OneCycle OrbitFlow OwnDraws "
        "Ramp SymmetryReport TorchOptimizer VariationalDequantiser check_data check_symmetry eigenvector_blocks "
        "energy_report fit fit_energy g_dequantiser gap group_bits_per_dim group_log_probs guide_transforms "
        "image_report importance_report invariance_error invariance_errors invariance_report load log_det_error "
        "log_probs mean_and_error nll orbit_representative random_elements reverse_kl_loss save symmetrized_nll"
    )
    assert {name for module, name in CASES if module == "pyro_gflows.infer"} == set(names.split())


@pytest.mark.parametrize(("module", "name"), CASES)
def test_an_old_name_is_found_with_a_warning(module, name):
    with pytest.warns(FutureWarning, match=rf"{module}.{name} is pyro_gflows[\w.]* now; the old name goes"):
        found = getattr(importlib.import_module(module), name)
    assert found is not None
    with pytest.warns(FutureWarning):
        exec(f"from {module} import {name}", {})


def test_an_unknown_name_is_no_attribute():
    import pyro_gflows.infer

    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        pyro_gflows.infer.fitt  # noqa: B018


def test_importing_the_package_warns_of_nothing():
    modules = "pyro_gflows, pyro_gflows.infer, pyro_gflows.registry, pyro_gflows.image_flows"
    subprocess.run([sys.executable, "-W", "error::FutureWarning", "-c", f"import {modules}"], check=True)
