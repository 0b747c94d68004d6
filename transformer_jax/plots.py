"""Pictures as PNG files: the learning curves of a run, the attention maps of a sentence, the points of a sweep.

A picture is first built as a matplotlib `Figure`, without pyplot and its global state, then written.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from transformer_jax.errors import InputError
from transformer_jax.files import written_whole
from transformer_jax.training.metrics import read
from transformer_jax.translation import AttendedSentence

DOTS_PER_INCH = 120
FEW_POINTS = 60  # a line of at most so many points shows each of them


class _Curve(NamedTuple):
    metric: str
    label: str
    colour: str


class _Panel(NamedTuple):
    title: str
    unit: str
    height: float  # inches
    curves: tuple[_Curve, ...]


PANELS = (
    _Panel(
        "Loss",
        "nats per token",
        3.0,
        # Training's own loss is not here: it has label smoothing, and so is no match for the validation loss.
        (_Curve("train/log_loss", "training", "tab:gray"), _Curve("validation/loss", "validation", "tab:blue")),
    ),
    _Panel(
        "Translations",
        "score, 0 to 100",
        3.0,
        (
            _Curve("validation/bleu", "BLEU", "tab:blue"),
            _Curve("validation/chrf", "chrF", "tab:orange"),
            _Curve("validation/exact_match", "exact match %", "tab:green"),
        ),
    ),
    _Panel("Schedule", "learning rate", 1.3, (_Curve("train/learning_rate", "learning rate", "tab:gray"),)),
)

SMALL = 8  # points
# Inches. A map is as large as its labels need, within two bounds; a sentence too long for that has fewer labels.
LABEL_HEIGHT = 0.13
SMALLEST_MAP, LARGEST_MAP = 1.6, 6.5
COLUMN_GAP, ROW_GAP = 0.15, 0.75
BAR_WIDTH = 0.12
SWEEP_PANEL = 4.0  # inches

LOGARITHMIC_FROM = 10  # times the smallest value


def curves(metrics: Path, path: Path) -> None:
    """Draws the learning curves of a metrics log into the PNG at `path`; of an empty log, a picture that says so.

    Raises:
        InputError: when a line of the log is broken, or the picture cannot be written.
    """
    _write(curves_figure(read(metrics)), path)


def curves_figure(lines: Sequence[dict[str, Any]]) -> Figure:
    """The curves over the steps: loss, scores of translations, learning rate; what no line has is left out."""
    measured = {name for line in lines for name in line}
    panels = [panel for panel in PANELS if any(curve.metric in measured for curve in panel.curves)]
    heights = [panel.height for panel in panels] or [2.0]
    figure = Figure(figsize=(8, sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    if not panels:
        axes[0].set_title("Nothing has been measured yet")
    for panel, ax in zip(panels, axes, strict=bool(panels)):
        _draw_panel(ax, panel, lines)
    axes[-1].set_xlabel("steps")
    axes[-1].set_xlim(left=0)
    axes[-1].locator_params(axis="x", integer=True)
    axes[-1].xaxis.set_major_formatter("{x:,.0f}")
    return figure


def _draw_panel(ax: Axes, panel: _Panel, lines: Sequence[dict[str, Any]]) -> None:
    for metric, label, colour in panel.curves:
        points = [(line["step"], line[metric]) for line in lines if metric in line]
        if points:
            marker = "." if len(points) <= FEW_POINTS else ""
            steps, values = zip(*points, strict=True)
            ax.plot(steps, values, color=colour, marker=marker, label=f"{label} (last {values[-1]:.4g})")
    ax.set_title(panel.title, loc="left", weight="bold", size="medium")
    ax.set_ylabel(panel.unit)
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    # Beside the title, where no curve can run through it.
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, borderaxespad=0, fontsize="small")


def attention(attended: AttendedSentence, path: Path, layer: int = -1) -> None:
    """Draws every head's attention in one layer into the PNG at `path`; see `attention_figure`.

    Raises:
        InputError: when there is no such layer, or the picture cannot be written.
    """
    _write(attention_figure(attended, layer), path)


def attention_figure(attended: AttendedSentence, layer: int = -1) -> Figure:
    """The encoder's self-attention above the cross-attention, a column a head; queries downwards, keys rightwards.

    Args:
        attended: The sentence, its translation and the weights.
        layer: From 1, the first of the encoder and of the decoder alike; or from -1, the last of each.

    Raises:
        InputError: when the encoder or the decoder has no such layer.
    """
    rows = (
        ("Encoder self-attention", attended.encoder, attended.source, "source (queries)"),
        ("Cross-attention", attended.cross, attended.target, "translation (queries)"),
    )
    depth = min(len(attended.encoder), len(attended.cross))
    if not 1 <= abs(layer) <= depth:
        raise InputError(f"there is no layer {layer} to show: choose 1 to {depth}, or -1 to -{depth} from the last")
    figure, axes = _grid_of_maps(attended.encoder.shape[1], len(attended.source), len(attended.target))
    for (name, weights, queries, label), maps in zip(rows, axes, strict=True):
        index = layer - 1 if layer > 0 else len(weights) + layer
        for head, ax in enumerate(maps):
            image = ax.imshow(weights[index, head], vmin=0, vmax=1, cmap="Blues", aspect="auto")
            ax.set_title(f"head {head + 1}", size=SMALL)
            ax.tick_params(length=0, labelsize=SMALL)
        # Above the line of the heads' numbers.
        heading = f"{name}, layer {index + 1} of {len(weights)}"
        maps[0].annotate(heading, (0, 1), (0, 20), "axes fraction", "offset points", weight="bold")
        _name_pieces(maps[0].yaxis, queries)
        maps[0].set_ylabel(label)
    for ax in axes[-1]:
        _name_pieces(ax.xaxis, attended.source, rotation=90)
    axes[-1, 0].set_xlabel("source (keys)")
    width, _ = figure.get_size_inches()
    upper = axes[0, 0].get_position()  # beside one row only, so that no heading runs into the bar
    bar = figure.add_axes((1 + COLUMN_GAP / width, upper.y0, BAR_WIDTH / width, upper.height))
    figure.colorbar(image, cax=bar, label="attention weight")
    return figure


def _grid_of_maps(heads: int, source: int, target: int) -> tuple[Figure, Any]:
    """Two rows of axes, of `source` and of `target` cells in height, all `source` cells wide and flush with the edges.

    Labels lie outside of the figure; writing makes room for them.
    """
    longest = max(source, target)
    cell = min(max(longest * LABEL_HEIGHT, SMALLEST_MAP), LARGEST_MAP) / longest
    width, heights = source * cell, (source * cell, target * cell)
    figure = Figure(figsize=(heads * (width + COLUMN_GAP) - COLUMN_GAP, sum(heights) + ROW_GAP))
    spacing = {"wspace": COLUMN_GAP / width, "hspace": ROW_GAP / np.mean(heights)}
    edges = {"left": 0, "right": 1, "bottom": 0, "top": 1}
    axes = figure.subplots(
        2, heads, squeeze=False, sharex=True, sharey="row", height_ratios=heights, gridspec_kw=spacing | edges
    )
    return figure, axes


def _name_pieces(axis: Axis, pieces: Sequence[str], rotation: int = 0) -> None:
    """Labels each place with its piece; only every second or so where there is no room for all."""
    every = math.ceil(len(pieces) * LABEL_HEIGHT / LARGEST_MAP)
    shown = range(0, len(pieces), every)
    # A piece may hold dollar signs, which would be read as formulas.
    axis.set_ticks(shown, [pieces[place] for place in shown], rotation=rotation, parse_math=False)


def sweep(
    grid: Mapping[str, Sequence[Any]],
    points: Sequence[tuple[Mapping[str, Any], float]],
    metric: Literal["loss", "bleu", "chrf", "accuracy"],
    path: Path,
) -> None:
    """Draws what the points of a sweep reached, over each of its fields, into the PNG at `path`.

    Raises:
        InputError: when the picture cannot be written.
    """
    _write(sweep_figure(grid, points, metric), path)


def sweep_figure(
    grid: Mapping[str, Sequence[Any]],
    points: Sequence[tuple[Mapping[str, Any], float]],
    metric: Literal["loss", "bleu", "chrf", "accuracy"],
) -> Figure:
    """A panel for each field: the metric of each point over its value, and a line through the best of each value."""
    measured = [(values, reached) for values, reached in points if math.isfinite(reached)]
    figure = Figure(figsize=(SWEEP_PANEL * len(grid), 3.4), layout="constrained")
    axes = figure.subplots(1, len(grid), sharey=True, squeeze=False)[0]
    if not measured:
        axes[0].set_title("Nothing has been measured yet")
    for ax, (field, choices) in zip(axes, grid.items(), strict=True):
        places = _places(ax, choices)
        at = [(places[choices.index(values[field])], reached) for values, reached in measured]
        ax.plot(*zip(*at, strict=True) if at else ([], []), "o", color="tab:gray", alpha=0.6, label="a point")
        best = min if metric == "loss" else max
        tops = [(place, best(same)) for place in sorted(places) if (same := [y for x, y in at if x == place])]
        ax.plot(*zip(*tops, strict=True) if tops else ([], []), color="tab:blue", label="the best of each value")
        ax.set_xlabel(field)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel(f"best validation {metric}")
    if measured:
        axes[0].legend(fontsize=SMALL)
    return figure


def _places(ax: Axes, choices: Sequence[Any]) -> list[float]:
    """Where each value of a field stands: at itself, on a scale that fits, or side by side where it is no number."""
    numbers = all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in choices)
    places = [float(choice) for choice in choices] if numbers else [float(place) for place in range(len(choices))]
    if numbers and min(places) > 0 and max(places) >= LOGARITHMIC_FROM * min(places):
        ax.set_xscale("log")
    ax.set_xticks(places, [str(choice) for choice in choices], rotation=90, fontsize=SMALL, parse_math=False)
    ax.xaxis.set_minor_locator(NullLocator())
    return places


def _write(figure: Figure, path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name the PNG file to write")
    with written_whole(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # pieces in a script that the font lacks are drawn as boxes
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH, bbox_inches="tight")
