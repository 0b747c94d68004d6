"""Two logs of metrics: the first difference between them, and which lines of them are compared."""

import pytest

from transformer_jax.training import reproduction


@pytest.mark.parametrize(
    ("theirs", "ours", "found"),
    [
        ([], [], (0, None)),
        ([{"step": 3, "x": 0.1}], [{"step": 3, "x": 0.1}], (1, None)),
        ([{"step": 3, "x": float("nan")}], [{"step": 3, "x": float("nan")}], (1, None)),
        ([{"step": 3, "x": 0.0}], [{"step": 3, "x": -0.0}], (0, (3, "x", "0.0", "-0.0"))),
        ([{"step": 3, "x": 1, "y": 2}], [{"step": 3, "x": 1, "y": 5}], (0, (3, "y", "2", "5"))),
        ([{"step": 3, "x": 1}], [{"step": 3, "x": 1, "y": 5}], (0, (3, "y", "none", "5"))),
        ([{"step": 3}, {"step": 5}], [{"step": 3}], (1, (5, "metrics", "a line", "none"))),
        ([{"step": 7}], [{"step": 5}, {"step": 7}], (0, (5, "metrics", "none", "a line"))),
    ],
)
def test_lines_of_metrics(theirs, ours, found):
    assert reproduction._compare_lines(theirs, ours) == found


def test_means_over_other_intervals_are_not_compared(capsys):
    sessions = [{"placement": {"logging.every": every}} for every in (3, 5)]
    log = [{"step": 3, "train/loss": 1.0}, {"step": 4, "validation/loss": 2.0}]
    assert reproduction._of_one_interval(sessions[:1], log, log) == (log, log)
    assert reproduction._of_one_interval(sessions, log, log) == (log[1:], log[1:])
    assert "logging.every of [3, 5]" in capsys.readouterr().err
