"""Sweeps in which nothing is trained and nothing drawn."""

import pytest
from grids import StandIn

from transformer_jax import plots
from transformer_jax.cli.main import main
from transformer_jax.training import loop


@pytest.fixture
def drawn(monkeypatch):
    """What would be drawn: a picture takes longer than all the rest."""
    drawn = []
    monkeypatch.setattr(plots, "sweep", lambda *arguments: drawn.append(arguments))
    return drawn


@pytest.fixture
def stand_in(monkeypatch, drawn):
    stand_in = StandIn()
    monkeypatch.setattr(loop, "train_among", stand_in)
    return stand_in


@pytest.fixture
def sweep(experiment_file, tmp_path, stand_in):
    """Sweeps with these flags in one folder; returns the exit code."""
    return lambda *flags: main(["sweep", str(experiment_file), "--workdir", str(tmp_path / "lr"), *flags])
