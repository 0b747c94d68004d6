"""The experiments that ship are valid and read back equal."""

from pathlib import Path

import jax
import pytest

from transformer_jax.config import from_json, to_json
from transformer_jax.initialisation import init_parameters
from transformer_jax.runs import load_experiment

FOLDER = Path(__file__).parent.parent / "experiments"
FILES = sorted(FOLDER.glob("*.py"))


def test_the_experiments_are_these():
    assert [file.stem for file in FILES] == [
        "bert_multi30k",
        "bert_numerals",
        "finetune_opus_mt",
        "gpt_multi30k",
        "multi30k_en_de",
        "multi30k_from_t5",
        "numerals",
        "parity_from_bert",
        "t5_multi30k",
        "wmt14_en_de_base",
        "wmt14_en_de_big",
        "wmt14_en_fr_big",
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_experiment_reads_back_equal(file):
    experiment = load_experiment(file)
    assert from_json(to_json(experiment)) == experiment


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_experiment_names_the_command_that_runs_it(file):
    command = "make train" if file.stem == "numerals" else f"experiments/{file.name} --workdir runs/"
    assert command in file.read_text()


def test_the_paper_rows_differ_where_the_paper_says():
    base, big, french = (load_experiment(FOLDER / f"wmt14_en_{name}.py") for name in ("de_base", "de_big", "fr_big"))
    sizes = [
        (e.model.width, e.model.num_heads, e.model.ffn_width, e.model.vocab_size, e.model.dropout, e.training.steps)
        for e in (base, big, french)
    ]
    assert sizes == [
        (512, 8, 2048, 37_000, 0.1, 100_000),
        (1024, 16, 4096, 37_000, 0.3, 300_000),
        (1024, 16, 4096, 32_000, 0.1, 300_000),
    ]
    assert {e.model.channels for e in (base, big, french)} == {64}


@pytest.mark.parametrize(("name", "averaged"), [("de_base", 5), ("de_big", 20), ("fr_big", 20)])
def test_the_last_checkpoints_of_the_paper_rows_are_kept_and_evenly_spaced(name, averaged):
    experiment = load_experiment(FOLDER / f"wmt14_en_{name}.py")
    checkpoints, steps = experiment.checkpoints, experiment.training.steps
    saved = {step for every in (checkpoints.every, experiment.evaluation.every) for step in range(0, steps + 1, every)}
    last = sorted(saved | {steps})[-averaged:]  # an evaluation and the end save too
    assert last == list(range(steps - (averaged - 1) * checkpoints.every, steps + 1, checkpoints.every))
    assert checkpoints.newest >= averaged


@pytest.mark.parametrize(
    ("name", "width", "ffn_width", "vocab_size", "total"),
    [
        ("de_base", 512, 2048, 37_000, 63_045_632),  # the paper: 65 million
        ("de_big", 1024, 4096, 37_000, 214_171_648),  # the paper: 213 million
        ("fr_big", 1024, 4096, 32_000, 209_051_648),
    ],
)
def test_the_paper_rows_have_as_many_parameters_as_the_paper_derives(name, width, ffn_width, vocab_size, total):
    model = load_experiment(FOLDER / f"wmt14_en_{name}.py").model
    shapes = jax.eval_shape(lambda: init_parameters(model, jax.random.key(0)))
    attention = 4 * width**2  # W^Q, W^K, W^V, W^O
    feed_forward = 2 * width * ffn_width + ffn_width + width
    norm = 2 * width  # scale and bias
    encoder_layer = attention + feed_forward + 2 * norm
    decoder_layer = 2 * attention + feed_forward + 3 * norm
    assert vocab_size * width + 6 * (encoder_layer + decoder_layer) == total
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == total
