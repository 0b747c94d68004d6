"""The shipped experiments, run as they are: minutes each, by `make test-slow`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_numerals_translates_numbers_it_never_saw(tmp_path):
    command = [sys.executable, "-m", "transformer_jax.cli.main", "train", "experiments/numerals.py"]
    subprocess.run([*command, "--workdir", str(tmp_path / "run")], cwd=ROOT, check=True)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["split"] == "test"
    assert results["sentences"] == 1000
    assert results["exact_match"] >= 99
    assert set(results["exact_match_by_group"]) == {"2 digits", "3 digits", "4 digits", "5 digits"}
    assert min(results["exact_match_by_group"].values()) >= 99
    lines = (tmp_path / "run" / "translations" / "test.txt").read_text().splitlines()
    assert len(lines) == 1000
