"""Logs that survive a crash and a resume, and what a watcher sees."""

import io
import math
import os

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from transformer_jax.errors import InputError
from transformer_jax.training import metrics
from transformer_jax.training.metrics import MetricsLog, ProgressReport


@pytest.fixture
def paths(tmp_path):
    return tmp_path / "metrics.jsonl", tmp_path / "timings.jsonl"


def write_steps(paths, steps, start=0):
    with MetricsLog(*paths, step=start) as log:
        for step in steps:
            log.write(step, {"loss": 1 / step}, {"seconds": step / 10})


class TestMetricsLog:
    def test_lines_hold_the_step_first_and_then_the_order_given(self, paths):
        with MetricsLog(*paths) as log:
            log.write(7, {"loss": 0.5, "bleu": 41.0, "signature": "größe"}, {"seconds": 0.25})
        assert paths[0].read_text(encoding="utf-8") == '{"step": 7, "loss": 0.5, "bleu": 41.0, "signature": "größe"}\n'
        assert paths[1].read_text(encoding="utf-8") == '{"step": 7, "seconds": 0.25}\n'

    def test_floats_read_back_to_the_bit(self, paths):
        values = {
            "third": 1 / 3,
            "tiny": 5e-324,
            "numpy": np.float32(0.1),
            "jax": jnp.float32(0.1),
            "double": np.float64(0.1),
            "count": np.int64(2**60 + 1),
        }
        with MetricsLog(*paths) as log:
            log.write(1, values, {})
        (line,) = metrics.read(paths[0])
        assert line == {
            "step": 1,
            **{name: value if isinstance(value, float) else value.item() for name, value in values.items()},
        }
        assert np.float32(line["numpy"]) == np.float32(0.1)
        assert line["count"] == 2**60 + 1

    def test_a_loss_that_is_no_number_is_logged_as_it_is(self, paths):
        with MetricsLog(*paths) as log:
            log.write(1, {"loss": math.nan, "norm": math.inf}, {})
        (line,) = metrics.read(paths[0])
        assert math.isnan(line["loss"])
        assert line["norm"] == math.inf

    def test_a_line_is_there_when_write_returns(self, paths):
        with MetricsLog(*paths) as log:
            log.write(1, {"loss": 0.5}, {"seconds": 0.5})
            assert metrics.read(paths[0]) == [{"step": 1, "loss": 0.5}]
            assert metrics.read(paths[1]) == [{"step": 1, "seconds": 0.5}]

    def test_no_values_make_no_line(self, paths):
        with MetricsLog(*paths) as log:
            log.write(1, {"loss": 0.5}, {})
        assert paths[1].read_text() == ""

    def test_a_resumed_log_equals_an_uninterrupted_one(self, tmp_path):
        straight = tmp_path / "a", tmp_path / "b"
        resumed = tmp_path / "c", tmp_path / "d"
        write_steps(straight, range(1, 12))
        write_steps(resumed, range(1, 8))
        with resumed[0].open("a") as file:
            file.write('{"step": 8, "lo')  # a crash in the middle of a line
        write_steps(resumed, range(6, 12), start=5)
        assert resumed[0].read_bytes() == straight[0].read_bytes()
        assert resumed[1].read_bytes() == straight[1].read_bytes()

    def test_tensorboard_gets_the_numbers_and_hides_what_was_cut_back(self, paths, tmp_path):
        with MetricsLog(*paths, tmp_path / "events", step=3) as log:
            log.write(5, {"loss": np.float32(0.5), "signature": "text"}, {"seconds": 0.25})
        (file,) = (tmp_path / "events").iterdir()
        events = [Event.FromString(record) for record in tf_records(file.read_bytes())]
        scalars = {value.tag: (event.step, value.simple_value) for event in events for value in event.summary.value}
        assert scalars == {"loss": (5, 0.5), "seconds": (5, 0.25)}
        assert [event.step for event in events if event.HasField("session_log")] == [4]


def tf_records(data):
    """The payloads of TFRecords: length of 8 bytes, checksum of 4, payload, checksum of 4."""
    while data:
        length = int.from_bytes(data[:8], "little")
        yield data[12 : 12 + length]
        data = data[16 + length :]


class TestCutBack:
    @pytest.mark.parametrize(("step", "kept"), [(0, []), (2, [2]), (3, [2]), (5, [2, 5]), (99, [2, 5, 7])])
    def test_lines_of_later_steps_go(self, paths, step, kept):
        write_steps(paths, [2, 5, 7])
        metrics.cut_back(paths[0], step)
        assert [line["step"] for line in metrics.read(paths[0])] == kept

    def test_lines_of_one_step_stay_together(self, paths):
        write_steps(paths, [2, 5, 5, 7, 7])
        metrics.cut_back(paths[0], 5)
        assert [line["step"] for line in metrics.read(paths[0])] == [2, 5, 5]

    @pytest.mark.parametrize("length", range(1, 22))
    def test_a_torn_last_line_goes_wherever_it_was_torn(self, paths, length):
        write_steps(paths, [2, 5])
        whole = paths[0].read_bytes()
        line = b'{"step": 7, "loss": 1}\n'
        paths[0].write_bytes(whole + line[:length])
        assert [line["step"] for line in metrics.read(paths[0])] == [2, 5]
        metrics.cut_back(paths[0], 7)
        assert paths[0].read_bytes() == whole

    def test_a_missing_file_stays_missing(self, paths):
        metrics.cut_back(paths[0], 3)
        assert not paths[0].exists()

    def test_a_broken_line_in_the_middle_is_told_and_nothing_is_lost(self, paths):
        paths[0].write_text('{"step": 1}\n{"step"\n{"step": 3}\n')
        for function in (metrics.read, lambda path: metrics.cut_back(path, 9)):
            with pytest.raises(InputError, match=rf"{paths[0]}:2: ") as caught:
                function(paths[0])
            assert "\n" not in str(caught.value)
        assert len(paths[0].read_text().splitlines()) == 3

    def test_a_crash_before_the_cut_leaves_the_log_as_it_was(self, paths, monkeypatch):
        write_steps(paths, [2, 5])
        whole = paths[0].read_bytes()

        def crash(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "truncate", crash)
        with pytest.raises(KeyboardInterrupt):
            metrics.cut_back(paths[0], 2)
        assert paths[0].read_bytes() == whole


class Terminal(io.StringIO):
    def isatty(self):
        return True


class TestProgress:
    def report(self, stream, steps, total=1_300, start=0):
        with ProgressReport(total, start, stream) as progress:
            for step in steps:
                progress.advance(step)
            progress.report(loss=2.5, learning_rate=0.00125, target_tokens_per_second=12_345.6)
            progress.write("a line")

    def test_plain_lines_elsewhere_than_on_a_terminal(self):
        stream = io.StringIO()
        self.report(stream, [1])
        first, second = stream.getvalue().splitlines()
        assert first == "step 1/1,300: loss 2.5000, learning rate 0.00125, 12,346 target tokens/s, ? left"
        assert second == "a line"

    def test_time_left_is_measured_after_the_first_step(self, monkeypatch):
        clock = iter([100.0, 103.0])  # after step 11; at the report, 3 steps later
        monkeypatch.setattr(metrics.time, "monotonic", lambda: next(clock))
        stream = io.StringIO()
        self.report(stream, [11, 12, 13, 14], total=14 + 3_661, start=10)
        assert stream.getvalue().splitlines()[0].endswith(", 1:01:01 left")

    def test_a_bar_on_a_terminal(self):
        stream = Terminal()
        self.report(stream, [11, 13], total=20, start=10)
        text = stream.getvalue()
        assert "13/20" in text
        assert "loss 2.5000" in text
        assert "12,346 target tokens/s" in text
        assert "a line\n" in text

    def test_shows_on_standard_error(self, capsys):
        with ProgressReport(7) as progress:
            progress.write("a line")
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("", "a line\n")
