"""What an import brings along, and that every public name is there. Each in a process of its own."""

import importlib
import os
import pkgutil
import subprocess
import sys

import pytest

import transformer_jax

HEAVY = {"tensorflow", "torch", "tensorflow_datasets", "datasets", "pyarrow", "pandas", "py3langid", "sacremoses"}


def run(code, **environment):
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.split()


def modules():
    return [module.name for module in pkgutil.walk_packages(transformer_jax.__path__, "transformer_jax.")]


def test_the_package_imports_no_jax():
    assert run("import sys, transformer_jax; print('jax' in sys.modules)") == ["False"]


def test_no_module_touches_a_device_nor_brings_a_heavy_library():
    code = "import sys, importlib\n"
    code += f"for name in {modules()}: importlib.import_module(name)\n"
    code += f"print(*(({HEAVY} | {{'jax'}}) & set(sys.modules)))\n"
    code += "import jax\n"
    code += "try: jax.devices()\n"  # a backend started before would make this succeed
    code += "except RuntimeError: print('untouched')"
    assert run(code, JAX_PLATFORMS="nonesuch") == ["jax", "untouched"]


def test_the_config_needs_no_jax():
    assert run("import sys, transformer_jax.config; print('jax' in sys.modules)") == ["False"]


@pytest.mark.parametrize("name", transformer_jax.__all__)
def test_a_public_name_loads(name):
    assert getattr(transformer_jax, name).__name__ == name


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'Transfomer'"):
        _ = transformer_jax.Transfomer


def test_dir_lists_the_public_names():
    assert dir(transformer_jax) == transformer_jax.__all__
    assert importlib.import_module("transformer_jax.models").Transformer is transformer_jax.Transformer
