"""A checkpoint's whole folder: opened, translated with, made a run of, and out again."""

import json
import re
import subprocess
import sys
import types
from dataclasses import replace

import jax
import numpy as np
import pytest
from whole import write_whole

from transformer_jax.cli.main import main
from transformer_jax.config import DecodingConfig
from transformer_jax.errors import InputError
from transformer_jax.pretrained import decoding_of, load_pretrained, save_pretrained
from transformer_jax.translation import Line, Translator

LINES = ["two horses ride", "", "a man"]
SHORT = DecodingConfig(beam=2, extra_length=5, batch_size=4)
LANGUAGES = {
    "mbart": {"source_language": "en_XX", "target_language": "de_DE"},
    "m2m_100": {"source_language": "en", "target_language": "de"},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        name: write_whole(name, tmp_path_factory.mktemp(name) / name) for name in ("marian", "m2m_100", "mbart", "bart")
    }


@pytest.fixture(scope="module")
def translated(folders):
    """What each checkpoint says to the lines."""

    def of(name):
        translator = Translator.from_pretrained(folders[name], decoding=SHORT, **LANGUAGES.get(name, {}))
        return [translation.hypotheses[0] for translation in translator.stream(map(Line, LINES))]

    return {name: of(name) for name in folders}


def same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_what_a_target_begins_with_is_forced(folders, translated):
    """The language of M2M-100, the beginning of BART; mBART starts from the language instead."""
    for name, begins in (("m2m_100", True), ("bart", True), ("mbart", False), ("marian", False)):
        tokenizers = load_pretrained(folders[name], **LANGUAGES.get(name, {})).tokenizers
        special = tokenizers.target.special
        assert bool(special.before) == begins
        for line, hypothesis in ((LINES[0], translated[name][0]), (LINES[2], translated[name][2])):
            (part,) = hypothesis.parts
            assert tuple(part.target[: len(special.before)]) == special.before
            assert part.source == tokenizers.source.framed(tokenizers.source.encode([line])[0])
        assert translated[name][1].text == ""


def test_in_and_out_is_the_same_to_the_bit(folders, tmp_path):
    for name, folder in folders.items():
        model, params, tokenizers = load_pretrained(folder, **LANGUAGES.get(name, {}))
        save_pretrained(tmp_path / name, model, params, tokenizers)
        again = load_pretrained(tmp_path / name, **LANGUAGES.get(name, {}))
        same(again.params, params)
        assert again.model.config == model.config
        assert again.tokenizers.digest == tokenizers.digest
        for path in folder.iterdir():
            assert (tmp_path / name / path.name).exists()


def test_a_run_of_it_translates_the_same_and_goes_out_again(folders, translated, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "out"
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in LANGUAGES["m2m_100"].items()]
    assert main(["import", str(folders["m2m_100"]), str(run), *flags]) == 0
    assert "1 + 1 layers, 138 pieces" in capsys.readouterr().out
    translator = Translator.from_run(run, decoding=SHORT)
    assert translator.translate(LINES) == [hypothesis.text for hypothesis in translated["m2m_100"]]
    assert main(["export", str(run), str(out), "--format", "transformers", "--beam", "3"]) == 0
    assert "as m2m_100" in capsys.readouterr().out
    same(
        load_pretrained(out, **LANGUAGES["m2m_100"]).params,
        load_pretrained(folders["m2m_100"], **LANGUAGES["m2m_100"]).params,
    )
    assert json.loads((out / "generation_config.json").read_text())["num_beams"] == 3


def test_every_verb_takes_an_imported_run(folders, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["import", str(folders["marian"]), str(run)]) == 0
    pairs = tmp_path / "source", tmp_path / "target"
    for path in pairs:
        path.write_text("two men\na horse\n")
    assert main(["score", str(run), *map(str, pairs)]) == 0
    assert main(["verify", str(run)]) == 0
    assert main(["average", str(run), "--output", str(tmp_path / "mean"), "--newest", "1"]) == 0
    translate = [
        sys.executable,
        "-m",
        "transformer_jax.cli.main",
        "translate",
        str(tmp_path / "mean"),
        "--extra-length=3",
    ]
    done = subprocess.run(translate, input="two men\n", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr
    assert main(["export", str(run), str(tmp_path / "programs"), "--length", "7", "--extra-length", "3"]) == 0
    assert (tmp_path / "programs" / "tokenizer" / "source.spm").exists()
    capsys.readouterr()
    assert main(["train", "experiments/numerals.py", "--workdir", str(run)]) == 2
    error = capsys.readouterr().err
    assert "holds an imported checkpoint" in error
    assert f"--init-from {run}" in error


def test_settings_of_generation(folders, tmp_path):
    tokenizers = load_pretrained(folders["marian"]).tokenizers
    assert decoding_of(tokenizers) == DecodingConfig(beam=1, length_penalty=1, length_offset=0, narrow_ends=True)
    write_whole("marian", tmp_path)
    pad = tokenizers.target.special.pad
    said = {"num_beams": 6, "length_penalty": 0.8, "bad_words_ids": [[pad], [7], [8, 9]], "suppress_tokens": [5]}
    (tmp_path / "generation_config.json").write_text(json.dumps({**said, "min_length": 3, "no_repeat_ngram_size": 2}))
    decoding = decoding_of(load_pretrained(tmp_path).tokenizers)
    assert (decoding.beam, decoding.length_penalty, decoding.suppressed) == (6, 0.8, (5, 7))
    assert (decoding.min_length, decoding.no_repeated_ngram) == (2, 2)
    config = json.loads((tmp_path / "config.json").read_text()) | {"num_beams": 3, "length_penalty": 2.0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert decoding_of(load_pretrained(tmp_path).tokenizers) == decoding  # one file counts, as in transformers
    (tmp_path / "generation_config.json").unlink()
    decoding = decoding_of(load_pretrained(tmp_path).tokenizers)
    assert (decoding.beam, decoding.length_penalty, decoding.suppressed) == (3, 2.0, ())


def test_what_was_there_before_is_not_mixed_in(folders, tmp_path):
    """A model in several files and a tokenizer.json go; a file of the user stays."""
    mine = tmp_path / "model-of-mine.safetensors"
    for path in (mine, tmp_path / "tokenizer.json", tmp_path / "model-00001-of-00002.safetensors"):
        path.write_text("{}")
    model, params, tokenizers = load_pretrained(folders["marian"])
    save_pretrained(tmp_path, model, params, tokenizers)
    assert load_pretrained(tmp_path).tokenizers.digest == tokenizers.digest
    assert mine.exists()
    assert not (tmp_path / "model-00001-of-00002.safetensors").exists()


def test_languages_go_out_too(folders, tmp_path):
    model, params, tokenizers = load_pretrained(folders["m2m_100"], **LANGUAGES["m2m_100"])
    save_pretrained(tmp_path, model, params, tokenizers, DecodingConfig(length_penalty=0.7, length_offset=0.0))
    assert load_pretrained(tmp_path).tokenizers.digest == tokenizers.digest
    said = json.loads((tmp_path / "generation_config.json").read_text())
    assert (said["forced_bos_token_id"], said["length_penalty"]) == (tokenizers.target.special.before[0], 0.7)
    save_pretrained(tmp_path, model, params, tokenizers, DecodingConfig(length_penalty=0.7))
    assert "length_penalty" not in json.loads((tmp_path / "generation_config.json").read_text())  # ours is another


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([1], "generation_config.json: no JSON object"),
        ({"num_beams": "4"}, "generation_config.json: num_beams='4' is no whole number"),
        ({"num_beams": 0}, "generation_config.json: DecodingConfig: beam=0 must be above 0"),
        ({"length_penalty": [1]}, "generation_config.json: length_penalty=[1] is no number"),
        ({"bad_words_ids": [5]}, "generation_config.json: bad_words_ids=5 is no list of ids"),
        ({"suppress_tokens": ["a"]}, "generation_config.json: suppress_tokens=['a'] is no list of ids"),
    ],
)
def test_odd_settings_of_generation_are_a_line_each(folders, said, message):
    tokenizers = load_pretrained(folders["marian"]).tokenizers
    files = {**tokenizers.public.files, "generation_config.json": json.dumps(said).encode()}
    with pytest.raises(InputError, match=re.escape(message)):
        decoding_of(replace(tokenizers, public=replace(tokenizers.public, files=files)))


def test_suppressed_tokens_never_come(folders, translated):
    tokens = translated["marian"][0].parts[0].target
    first = tokens[0]
    decoding = DecodingConfig(beam=2, extra_length=5, batch_size=4, suppressed=(first,))
    translator = Translator.from_pretrained(folders["marian"], decoding=decoding)
    (other,) = translator.stream([Line(LINES[0])])
    assert first not in other.hypotheses[0].parts[0].target
    with pytest.raises(InputError, match=r"suppressed=997: the vocabulary ends with 37"):
        Translator.from_pretrained(folders["marian"], decoding=DecodingConfig(suppressed=(997,)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "{}/none", "{}/run"], "none: no such folder"),
        (["import", "{}/marian", "{}"], "exists and is not empty; choose another RUN"),
        (["import", "{}/m2m_100", "{}/run"], "source_language must be named: it has __af__"),
        (
            ["import", "{}/m2m_100", "{}/run", "--source-language", "en", "--target-language", "tlh"],
            "target_language='tlh'",
        ),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, capsys):
    for name in ("marian", "m2m_100"):
        write_whole(name, tmp_path / name)
    assert main([argument.format(tmp_path) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_name_that_cannot_be_fetched_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["import", "Helsinki-NLP/opus-mt-en-xx", "run"]) == 2
    assert re.match(r"error: Helsinki-NLP/opus-mt-en-xx: no such folder[,;] .*\n$", capsys.readouterr().err)


def test_what_is_fetched(folders, tmp_path, monkeypatch):
    """The name and the revision go to the Hub; a repository without safetensors is refused with the way out."""
    hub = types.ModuleType("huggingface_hub")
    asked, answers = [], {"owner/marian": folders["marian"], "owner/pickled": tmp_path}

    def snapshot_download(name, *, revision, allow_patterns):
        asked.append((name, revision))
        assert "*.bin" not in allow_patterns
        return str(answers[name])

    hub.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    same(load_pretrained("owner/marian@refs/pr/3").params, load_pretrained(folders["marian"]).params)
    with pytest.raises(InputError, match=r"^owner/pickled: has no safetensors on the Hub; .*owner/pickled@refs/pr/1"):
        load_pretrained("owner/pickled")
    assert asked == [("owner/marian", "refs/pr/3"), ("owner/pickled", None)]
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"^owner/marian: no such folder; .*pip install 'transformer-jax\[hub\]'"):
        load_pretrained("owner/marian")


def test_without_the_library_of_tokenizer_json(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(InputError, match=r"tokenizer\.json: to be read by the library tokenizers, .*\[hub\]"):
        load_pretrained(folders["bart"])
