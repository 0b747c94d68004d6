"""What is asked for, what is printed, and the exit code; what is compared stands in tests/training."""

from pathlib import Path

import pytest

from transformer_jax.cli.main import main
from transformer_jax.config import ProcessesConfig
from transformer_jax.errors import FAILED_CHECK
from transformer_jax.training import reproduction
from transformer_jax.training.moved import Moved
from transformer_jax.training.reproduction import Difference, Outcome


@pytest.fixture
def asked(monkeypatch):
    """What a reproduction is asked for; `asked.difference` is what it finds."""

    class Asked:
        difference = None

        def reproduce(self, run, output, **others):
            self.run, self.output, self.others = run, output, others
            environments = {"the run": {"jax": "0.9", "numpy": "2"}, "here": {"jax": "0.10", "numpy": "2"}}
            return Outcome(Path("again"), 5, 7, 30, self.difference, environments)

    asked = Asked()
    monkeypatch.setattr(reproduction, "reproduce", asked.reproduce)
    return asked


def test_the_same_bits(run, asked, capsys):
    assert main(["reproduce", str(run)]) == 0
    nothing = {"places": Moved(), "until": None, "processes_config": ProcessesConfig()}
    assert (asked.run, asked.output, asked.others) == (run, None, nothing)
    told = "the same to the bit: 5 lines of metrics, 7 leaves of the checkpoint of step 30\nagain\n"
    assert capsys.readouterr().out == told


def test_a_difference_and_every_flag(run, asked, capsys):
    asked.difference = Difference(20, "train/loss", "1.5", "1.25")
    flags = "--output again --data.dir there --held-out.dir out --tasks.dir a b --prepared p --until 30"
    launch = "--processes.coordinator a:1 --processes.count 2 --processes.index 1"
    assert main(["reproduce", str(run), *flags.split(), *launch.split()]) == FAILED_CHECK
    processes = ProcessesConfig(coordinator="a:1", count=2, index=1)
    assert (asked.run, asked.output) == (run, Path("again"))
    places = Moved(data="there", held_out="out", tasks=("a", "b"), prepared="p")
    assert asked.others == {"places": places, "until": 30, "processes_config": processes}
    first, *rows, last = capsys.readouterr().out.splitlines()
    assert first == "5 lines of metrics are the same; then step 20, train/loss: 1.5 in the run, 1.25 here"
    assert [row.split() for row in rows] == [["the", "run", "here"], ["*", "jax", "0.9", "0.10"], ["numpy", "2", "2"]]
    assert last == "again"


def test_mistakes(run, tmp_path, refused):
    refused(["reproduce", tmp_path / "none"], f"{tmp_path / 'none'}: no such run folder")
    refused(["reproduce", run, "--until", "soon"], "--until", "'soon'")
    refused(["reproduce", run, "--until", "1"], "--until 1: the run can be compared from step 2 on, and up to step 3")
    refused(["reproduce", run, "--processes.count", "2"], "coordinator, index: missing")
    refused(["reproduce", run, "--output", run], f"{run}: exists and is not empty; choose another --output")
    refused(["reproduce", run], "train.a and ", "not the train data of the run", "recorded None")
