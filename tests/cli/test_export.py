"""What is exported runs without this package, and gives the same tokens."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from transformer_jax.cli.main import main
from transformer_jax.config import DecodingConfig
from transformer_jax.data.tokenizer import EOS_ID, PAD_ID
from transformer_jax.runs import RunFolder, open_run
from transformer_jax.translation import Translator, load_tokenizers

SCRIPT = Path(__file__).parents[2] / "docs" / "run_exported.py"
LINES = ["abc abc", "d d", "cab bad", "a", "dd abc a"]


@pytest.fixture(scope="module")
def beam():
    return 2


@pytest.fixture(scope="module")
def folder(trained, beam, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "new"
    arguments = ["export", trained, path, "--beam", beam, "--length", 19, "--no-repeated-ngram", 3]
    assert main([str(argument) for argument in arguments]) == 0
    return path


@pytest.fixture(scope="module")
def expected(trained, beam):
    decoding = DecodingConfig(beam=beam, extra_length=5, no_repeated_ngram=3)
    return Translator.from_run(trained, decoding=decoding).translate(LINES)


def test_the_script_gives_the_same_lines_and_imports_nothing_of_ours(folder, expected):
    watch = f"import sys, runpy; sys.argv = ['x', {str(folder)!r}]; runpy.run_path({str(SCRIPT)!r}); "
    watch += "assert not {'transformer_jax', 'flax', 'optax'} & set(sys.modules), sys.modules"
    content = "\n".join([*LINES, "", LINES[0]])  # a blank line, and no end of the last
    done = subprocess.run([sys.executable, "-c", watch], input=content, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == [*expected, "", expected[0]]
    nothing = subprocess.run([sys.executable, SCRIPT, folder], input="", capture_output=True, text=True, check=False)
    assert (nothing.returncode, nothing.stdout) == (0, ""), nothing.stderr


def test_the_script_is_short():
    _, *statements = ast.parse(SCRIPT.read_text()).body
    imports = [one for one in statements if isinstance(one, ast.Import | ast.ImportFrom)]
    assert len(statements) - len(imports) <= 10
    modules = {
        name
        for one in imports
        for name in ([one.module] if isinstance(one, ast.ImportFrom) else [a.name for a in one.names])
    }
    assert {module.partition(".")[0] for module in modules} == {"jax", "sentencepiece", "sys", "pathlib"}


def test_any_batch_and_every_platform(folder, trained, expected):
    translate = export.deserialize(bytearray((folder / "translate.jax_export").read_bytes()))
    assert translate.platforms == ("cpu", "cuda", "tpu")
    weights = list(jnp.load(folder / "parameters.npz").values())
    tokenizers = load_tokenizers(RunFolder(trained))
    for count in (1, 4):
        rows = [[*ids, EOS_ID] for ids in tokenizers.source.encode(LINES[:count])]
        source = np.array([[*row, *[PAD_ID] * (19 - len(row))] for row in rows], np.int32)
        tokens, lengths, scores = translate.call(weights, source)
        best = [row[:length] for row, length in zip(tokens[:, 0].tolist(), lengths[:, 0].tolist(), strict=True)]
        assert tokenizers.target.decode(best) == expected[:count]
        assert (np.diff(scores, axis=1) <= 0).all()


def test_a_search_of_ones_own(folder, trained):
    """Greedy search by hand over `start` and `step`."""
    start, step = (export.deserialize(bytearray((folder / f"{n}.jax_export").read_bytes())) for n in ("start", "step"))
    facts = json.loads((folder / "export.json").read_text())
    weights = list(jnp.load(folder / "parameters.npz").values())
    tokenizers = load_tokenizers(RunFolder(trained))
    ids = [*tokenizers.source.encode(["cab bad"])[0], facts["eos_id"]]
    cache = start.call(weights, np.array([[*ids, *[facts["pad_id"]] * (facts["source_length"] - len(ids))]], np.int32))
    token, output = facts["pad_id"], []
    while len(output) < len(ids) + 5 and token != facts["eos_id"]:
        logits, cache = step.call(weights, np.array([[token]], np.int32), cache)
        token = int(np.argmax(np.asarray(logits)[0, 0].tolist()[1:])) + 1
        output.append(token)
    plain = DecodingConfig(beam=1, extra_length=5)
    assert tokenizers.target.decode([output]) == Translator.from_run(trained, decoding=plain).translate(["cab bad"])


def test_mistakes(refused, trained, tmp_path):
    assert open_run(trained).batch.source_length == 17
    refused(["export", trained, tmp_path], f"{tmp_path}: stands there already")
    refused(["export", trained, tmp_path / "a", "--length", "1"], "--length 1: a sentence has 2 tokens")
    refused(["export", trained, tmp_path / "a", "--sampling"], "sampling=True: what is exported draws nothing")
    refused(["export", trained], "FOLDER")
    assert not (tmp_path / "a").exists()
