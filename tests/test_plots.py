"""The numbers drawn are the numbers given; the files are whole pictures."""

import itertools
import json
import math

import numpy as np
import pytest
from matplotlib.image import imread

from transformer_jax import plots
from transformer_jax.errors import InputError
from transformer_jax.translation import AttendedSentence

TRAINING = [
    {"step": 2, "train/loss": 7.5, "train/log_loss": 7.0, "train/learning_rate": 0.1, "train/gradient_norm": 1.0},
    {"step": 4, "train/loss": 5.5, "train/log_loss": 5.0, "train/learning_rate": 0.2, "train/gradient_norm": 1.0},
    {"step": 5, "train/loss": 3.5, "train/log_loss": 3.0, "train/learning_rate": 0.15, "train/gradient_norm": 1.0},
]
VALIDATION = [
    {"step": 3, "validation/loss": 6.0, "validation/perplexity": 403.4},
    {
        "step": 5,
        "validation/loss": 4.0,
        "validation/perplexity": 54.6,
        "validation/bleu": 11.0,
        "validation/chrf": 31.0,
    },
]

HEADS, LAYERS, DECODER_LAYERS = 3, 5, 2
SOURCE = ["▁the", "▁street", "▁$", "x$", "▁in", "ing", "</s>"]
TARGET = ["▁größer", "▁Straße", "▁$", "n", "</s>"]


def random_attention(*shape):
    weights = np.random.default_rng(0).exponential(size=shape)
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def attended(source=SOURCE, target=TARGET, heads=HEADS):
    return AttendedSentence(
        translation="a translation",
        source=list(source),
        target=list(target),
        encoder=random_attention(LAYERS, heads, len(source), len(source)),
        decoder=random_attention(DECODER_LAYERS, heads, len(target), len(target)),
        cross=random_attention(DECODER_LAYERS, heads, len(target), len(source)),
    )


def drawn(figure):
    """The lines of each panel by title: (name, steps, values)."""
    return {
        ax.get_title(loc="left"): [
            (line.get_label().split(" (")[0], line.get_xdata().tolist(), line.get_ydata().tolist()) for line in ax.lines
        ]
        for ax in figure.axes
    }


def maps(figure):
    """The axes with the maps, [2 rows][heads]; the one that is left is the colour bar."""
    axes = [ax for ax in figure.axes if ax.images]
    return axes[: len(axes) // 2], axes[len(axes) // 2 :]


def labels(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def test_the_curves_are_the_metrics():
    assert drawn(plots.curves_figure([*TRAINING, *VALIDATION])) == {
        "Loss": [("training", [2, 4, 5], [7.0, 5.0, 3.0]), ("validation", [3, 5], [6.0, 4.0])],
        "Translations": [("BLEU", [5], [11.0]), ("chrF", [5], [31.0])],
        "Schedule": [("learning rate", [2, 4, 5], [0.1, 0.2, 0.15])],
    }


def test_panels_without_metrics_are_left_out():
    assert list(drawn(plots.curves_figure(VALIDATION[:1]))) == ["Loss"]
    assert list(drawn(plots.curves_figure(TRAINING))) == ["Loss", "Schedule"]


def test_a_legend_tells_the_last_value():
    loss, *_ = plots.curves_figure([*TRAINING, *VALIDATION]).axes
    texts = [text.get_text() for text in loss.get_legend().get_texts()]
    assert texts == ["training (last 3)", "validation (last 4)"]


def test_a_single_point_is_seen():
    loss, _ = plots.curves_figure(TRAINING[:1]).axes
    assert loss.lines[0].get_marker() == "."
    many = [{**TRAINING[0], "step": step} for step in range(101)]
    assert plots.curves_figure(many).axes[0].lines[0].get_marker() == ""


@pytest.mark.parametrize("lines", [[], [{"step": 1, "train/gradient_norm": 1.0}]])
def test_an_empty_log_gives_a_picture_that_says_so(lines):
    figure = plots.curves_figure(lines)
    assert figure.axes[0].get_title() == "Nothing has been measured yet"
    assert not figure.axes[0].lines


def test_curves_writes_a_picture(tmp_path):
    log, path = tmp_path / "metrics.jsonl", tmp_path / "curves.png"
    log.write_text("".join(json.dumps(line) + "\n" for line in [*TRAINING, *VALIDATION]))
    plots.curves(log, path)
    full = imread(path, "png")
    assert full.shape[0] > 600
    assert full.shape[1] > 900
    log.write_text("")
    plots.curves(log, path)  # over the other
    assert 100 < imread(path, "png").shape[0] < full.shape[0]
    assert sorted(tmp_path.iterdir()) == [path, log]


@pytest.mark.parametrize(
    ("layer", "encoder", "cross"), [(1, 0, 0), (2, 1, 1), (-1, LAYERS - 1, DECODER_LAYERS - 1), (-2, LAYERS - 2, 0)]
)
def test_the_maps_are_the_weights_of_the_layer(layer, encoder, cross):
    sentence = attended()
    upper, lower = maps(plots.attention_figure(sentence, layer))
    for row, weights in ((upper, sentence.encoder[encoder]), (lower, sentence.cross[cross])):
        assert [ax.get_title() for ax in row] == ["head 1", "head 2", "head 3"]
        for ax, head in zip(row, weights, strict=True):
            np.testing.assert_array_equal(ax.images[0].get_array(), head)
    headings = [row[0].texts[0].get_text() for row in (upper, lower)]
    assert headings == [f"Encoder self-attention, layer {encoder + 1} of 5", f"Cross-attention, layer {cross + 1} of 2"]


def test_queries_go_down_and_keys_to_the_right():
    upper, lower = maps(plots.attention_figure(attended()))
    assert labels(upper[0].yaxis) == SOURCE
    assert labels(lower[0].yaxis) == TARGET
    for ax in lower:
        assert labels(ax.xaxis) == SOURCE
    for ax in (*upper, *lower):
        assert ax.get_xlim() == (-0.5, len(SOURCE) - 0.5)
    assert lower[0].get_ylim() == (len(TARGET) - 0.5, -0.5)  # the first query on top


def test_all_maps_share_a_scale_from_0_to_1():
    figure = plots.attention_figure(attended())
    assert {ax.images[0].get_clim() for row in maps(figure) for ax in row} == {(0, 1)}
    bar = figure.axes[-1]
    assert bar.get_ylabel() == "attention weight"
    assert bar.get_ylim() == (0, 1)


@pytest.mark.parametrize(("pieces", "heads"), [(5, 1), (5, 16), (41, 2)])
def test_every_piece_has_the_room_of_its_label(pieces, heads):
    figure = plots.attention_figure(attended(["▁a"] * pieces, ["▁b"] * pieces, heads))
    for ax in (row[0] for row in maps(figure)):
        inches = ax.get_position().size * figure.get_size_inches()
        np.testing.assert_allclose(inches[0], inches[1])  # the cells are square
        assert len(labels(ax.yaxis)) == pieces
        assert inches[1] / pieces >= 0.12


def test_a_very_long_sentence_keeps_some_labels():
    pieces = [str(place) for place in range(211)]
    upper, lower = maps(plots.attention_figure(attended(pieces, pieces[:2], heads=1)))
    shown = labels(upper[0].yaxis)
    assert shown == pieces[:: int(shown[1])]
    assert 30 < len(shown) < 60
    assert labels(lower[0].yaxis) == ["0", "1"]


GRID = {"schedule.peak": [0.01, 0.1, 0.001], "model.norm": ["pre", "post"], "seed": [0, 1]}


def swept(*reached):
    """Points of that grid, the last field changing fastest, with what they reached; None is not there yet."""
    combinations = itertools.product(*GRID.values())
    points = [dict(zip(GRID, values, strict=True)) for values in combinations]
    return [(values, loss) for values, loss in zip(points, reached, strict=False) if loss is not None]


@pytest.mark.parametrize(("metric", "best"), [("loss", [2.0, 4.0]), ("bleu", [3.0, 5.0])])
def test_the_points_of_a_sweep_and_the_best_of_each_value(metric, best):
    figure = plots.sweep_figure(GRID, swept(3.0, 2.5, 2.0, math.nan, 4.0, None, 5.0), metric)
    peak, norm, seed = figure.axes
    assert [ax.get_xlabel() for ax in figure.axes] == list(GRID)
    assert peak.get_ylabel() == f"best validation {metric}"
    points, line = peak.lines
    assert list(zip(*points.get_data(), strict=True)) == [(0.01, 3.0), (0.01, 2.5), (0.01, 2.0), (0.1, 4.0), (0.1, 5.0)]
    assert list(zip(*line.get_data(), strict=True)) == list(zip([0.01, 0.1], best, strict=True))
    assert [ax.get_xscale() for ax in figure.axes] == ["log", "linear", "linear"]
    assert labels(peak.xaxis) == ["0.01", "0.1", "0.001"]
    assert labels(norm.xaxis) == ["pre", "post"]
    assert norm.lines[0].get_xdata().tolist() == [0, 0, 1, 0, 1]
    assert seed.lines[0].get_xdata().tolist() == [0, 1, 0, 0, 0]


def test_a_sweep_that_has_nothing_yet(tmp_path):
    assert plots.sweep_figure(GRID, [], "loss").axes[0].get_title() == "Nothing has been measured yet"
    plots.sweep(GRID, swept(math.inf), "loss", tmp_path / "sweep.png")
    assert imread(tmp_path / "sweep.png", "png").shape[1] > 1000


@pytest.mark.parametrize("layer", [0, 3, -3])
def test_a_layer_that_is_not_there(layer, tmp_path):
    with pytest.raises(
        InputError, match=f"^there is no layer {layer} to show: choose 1 to 2, or -1 to -2 from the last$"
    ):
        plots.attention(attended(), tmp_path / "attention.png", layer)
    assert not list(tmp_path.iterdir())


def test_attention_writes_a_picture(tmp_path):
    path = tmp_path / "attention.png"
    plots.attention(attended(), path)
    height, width, _ = imread(path, "png").shape
    assert 500 < height < 900
    assert 700 < width < 1100


def test_a_script_without_glyphs_is_no_error(tmp_path):
    plots.attention(attended(["▁中文", "</s>"], ["▁b", "</s>"], heads=1), tmp_path / "attention.png")
    assert (tmp_path / "attention.png").stat().st_size > 0


def test_a_picture_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="is a folder; name the PNG file to write"):
        plots.attention(attended(), tmp_path)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match=r"file/a\.png: cannot be written: Not a directory"):
        plots.attention(attended(), file / "a.png")
