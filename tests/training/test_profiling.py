"""What a run tells of its speed: a trace on demand, the share of a known peak; and what it compiles, once."""

import json
import logging

import jax
import pytest
import small_runs

from transformer_jax import accelerators
from transformer_jax.config import LoggingConfig, TrainingConfig
from transformer_jax.training import loop, planning, profiling
from transformer_jax.training.step import Trainer


@pytest.fixture(scope="module")
def experiment(words):
    return small_runs.experiment(
        words, training=TrainingConfig(steps=9), logging=LoggingConfig(every=3, tensorboard=False)
    )


def traced_steps(folder):
    """The numbers of the training steps in the traces of a folder."""
    (file,) = folder.glob("**/*.xplane.pb")
    events = [
        dict(event.stats)
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes
        for line in plane.lines
        for event in line.events
        if event.name == "train"
    ]
    return sorted(stats["step_num"] for stats in events if "step_num" in stats)


def test_a_run_compiles_its_step_once_and_a_trace_holds_a_few_even_steps(experiment, devices, tmp_path, capsys, caplog):
    devices(1)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        assert loop.train(experiment, tmp_path / "run", until=7, profile=True) == 0
    finished = [record.getMessage() for record in caplog.records if "Finished XLA compilation" in record.getMessage()]
    assert sum("jit(train_step)" in message for message in finished) == 1
    assert traced_steps(tmp_path / "run" / "profile") == [4, 5, 6]
    assert f"--profile: a trace of 3 steps: {tmp_path}/run/profile\n" in capsys.readouterr().err


def test_a_run_that_ends_before_says_so(experiment, devices, tmp_path, capsys):
    devices(1)
    assert loop.train(experiment, tmp_path / "run", until=profiling.EVEN, profile=True) == 0
    assert "--profile: the run ended before its steps 4 to 6; there is no trace" in capsys.readouterr().err
    assert not (tmp_path / "run" / "profile").exists()


def test_a_step_that_fails_ends_the_trace(tmp_path):
    def fail():
        raise ArithmeticError

    def run():
        with profiling.Profile(tmp_path / "first") as profile:
            for number in range(profiling.EVEN):
                profile.run(lambda: None, number)
            profile.run(fail, profiling.EVEN)

    with pytest.raises(ArithmeticError):
        run()
    jax.profiler.start_trace(str(tmp_path / "second"))  # refused while another is under way
    jax.profiler.stop_trace()


def test_a_run_that_ends_within_keeps_what_there_is(experiment, devices, tmp_path):
    devices(1)
    assert loop.train(experiment, tmp_path / "run", until=profiling.EVEN + 1, profile=True) == 0
    assert traced_steps(tmp_path / "run" / "profile") == [4]


class TestPeak:
    def timings(self, folder):
        return [json.loads(line) for line in (folder / "timings.jsonl").read_text().splitlines()]

    def test_the_share_is_operations_by_the_peak_of_all_devices(
        self, experiment, devices, tmp_path, monkeypatch, capsys
    ):
        devices(1)
        monkeypatch.setattr(accelerators, "_PEAKS", {"cpu": (5e9, 1e9)})
        loop.train(experiment, tmp_path / "run", until=6)
        lines = [line for line in self.timings(tmp_path / "run") if "peak_share" in line]
        tokens = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [3, 6]
        for line, counted in zip(lines, tokens, strict=True):
            seconds = counted["train/target_tokens"] / line["target_tokens_per_second"]
            assert line["peak_share"] == pytest.approx(3 * planning.step_operations(experiment) / seconds / 5e9)
        assert f"{lines[-1]['peak_share']:.1%} of the peak" in capsys.readouterr().err

    def test_an_unknown_device_has_none(self, experiment, devices, tmp_path):
        devices(1)
        loop.train(experiment, tmp_path / "run", until=3)
        assert not any("peak_share" in line for line in self.timings(tmp_path / "run"))

    @pytest.mark.parametrize(
        ("kind", "operations"),
        [
            ("NVIDIA H100 80GB HBM3", 989e12),
            ("NVIDIA H100 PCIe", 756e12),
            ("NVIDIA A10G", 70e12),
            ("NVIDIA A100-SXM4-40GB", 312e12),
            ("NVIDIA L40S", 362e12),
            ("TPU v5 lite", 197e12),
            ("TPU v5", 459e12),
        ],
    )
    def test_known_devices(self, kind, operations):
        assert accelerators.peak_operations(kind) == operations
        assert accelerators.peak_bandwidth(kind) > 1e11
        assert accelerators.peak_operations("cpu") is accelerators.peak_bandwidth("cpu") is None


def test_a_step_that_would_move_data_from_the_host_is_refused(experiment, devices, tmp_path, monkeypatch):
    devices(1)
    monkeypatch.setattr(Trainer, "asked", lambda self, signal: jax.numpy.zeros(1, int).__array__())
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        loop.train(experiment, tmp_path / "run", until=3)
