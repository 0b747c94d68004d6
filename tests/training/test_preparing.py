"""Token shards: the same however they were made, and trained from as from memory."""

import dataclasses
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from small_runs import WORDS, experiment

from transformer_jax.cli.main import main
from transformer_jax.config import (
    CausalLanguageModel,
    FilterConfig,
    ModelConfig,
    PlainText,
    SpanCorruption,
    TextFiles,
    TokenizerConfig,
    Translation,
    TsvFiles,
)
from transformer_jax.data import shards as shards_module
from transformer_jax.data.batches import examples_in, examples_of
from transformer_jax.data.laps import Windows
from transformer_jax.data.pipeline import Pipeline
from transformer_jax.data.reservoir import sample
from transformer_jax.data.shards import Shards
from transformer_jax.data.sources import load_pairs
from transformer_jax.data.tokenizer import Tokenizers
from transformer_jax.data.workers import workers
from transformer_jax.errors import InputError
from transformer_jax.runs import RunFolder
from transformer_jax.sharding import data_mesh
from transformer_jax.training.loop import train
from transformer_jax.training.prepared import open_shards
from transformer_jax.training.preparing import prepare

SIZE, PER_SHARD = 523, 97


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Files of 523 pairs, one of them with an empty side."""
    folder = tmp_path_factory.mktemp("pairs")
    random = np.random.default_rng(1)
    lines = [" ".join(random.choice(list("abcd"), random.integers(1, 4))) for _ in range(SIZE)]
    lines[5] = ""
    (folder / "train.source").write_text("".join(f"{line}\n" for line in lines))
    (folder / "train.target").write_text("".join(f"{line[::-1]}\n" for line in lines))
    return TextFiles(dir=str(folder))


@pytest.fixture(scope="module")
def shards(pairs, tmp_path_factory):
    """The shards of these pairs; not to be written to."""
    folder = tmp_path_factory.mktemp("shards") / "pairs"
    prepare(experiment(pairs), folder, per_shard=PER_SHARD)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_two_processes_write_the_same_bytes_as_one(pairs, shards, tmp_path):
    prepare(experiment(pairs), tmp_path / "two", 2, per_shard=PER_SHARD)
    assert contents(tmp_path / "two") == contents(shards)
    assert len(list(shards.glob("*.array_record"))) == 6  # 5 * 97 + 38


def test_what_is_there_stays_and_what_is_missing_is_made(pairs, shards, tmp_path):
    folder = shutil.copytree(shards, tmp_path / "part")
    (folder / "prepared.json").unlink()
    (folder / "tokens-00002.array_record").unlink()
    (folder / "tokens-00004.json").unlink()
    (folder / "tokens-00001.npy").unlink()
    lengths = np.load(folder / "tokens-00000.npy")
    np.save(folder / "tokens-00000.npy", lengths[::-1])
    whole = (folder / "tokens-00005.array_record").read_bytes()
    (folder / "tokens-00005.array_record").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    for half in (".lengths.npy.abc", ".tokenizer.abc"):  # of a process that was killed
        (folder / half).mkdir()
    kept = (folder / "tokens-00003.array_record").stat().st_mtime_ns
    prepare(experiment(pairs), folder, per_shard=PER_SHARD)
    assert contents(folder) == contents(shards)
    assert (folder / "tokens-00003.array_record").stat().st_mtime_ns == kept


KILLED = """
import sys
from pathlib import Path
from small_runs import experiment
from transformer_jax.config import TextFiles
from transformer_jax.training.preparing import prepare
if __name__ == "__main__":
    folder, count = sys.argv[2], int(sys.argv[3])
    prepare(experiment(TextFiles(dir=sys.argv[1])), Path(folder), count, per_shard=97)
"""


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_at_any_moment_and_begun_again_it_is_the_same(pairs, shards, tmp_path, count):
    program = tmp_path / "program.py"
    program.write_text(KILLED)
    places = [str(Path(__file__).parents[2]), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, str(program), pairs.dir, str(tmp_path / "out"), str(count)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    codes = []
    moments = ["preparing.json", "tokenizer", "tokens-00000.json", "tokens-00002.json"]
    for moment in moments if count == 1 else [*moments, "tokens-00004.json"]:
        process = subprocess.Popen(command, env=environment)
        while process.poll() is None and not (tmp_path / "out" / moment).exists():
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        codes.append(process.wait())
    assert -signal.SIGKILL in codes  # which late moments leave no time for
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert contents(tmp_path / "out") == contents(shards)


@pytest.mark.parametrize("objective", [Translation(), CausalLanguageModel(prompted=True)])
def test_batches_of_pairs_are_those_from_memory(pairs, shards, objective, tmp_path):
    tokenizers = Tokenizers.load(shards / "tokenizer")
    held = examples_of(load_pairs(pairs, "train"), objective, tokenizers, experiment(pairs).batch, 3, tmp_path)
    streamed = examples_in(Shards(shards), objective, tokenizers, experiment(pairs).batch, 3)
    assert streamed.dropped == held.dropped
    assert_same_batches(held, streamed, tokenizers, experiment(pairs).batch)


@pytest.mark.parametrize("objective", [CausalLanguageModel(), SpanCorruption(share=0.3)])
def test_batches_of_texts_are_those_from_memory(pairs, objective, tmp_path):
    data = PlainText(dir=pairs.dir, train="train.source")
    halves = {"encoder_layers": 0} if isinstance(objective, CausalLanguageModel) else {}
    model = dataclasses.replace(experiment(pairs).model, vocab_size=15, **halves)
    whole = experiment(data, objective=objective, tokenizer=TokenizerConfig(masks=3), model=model)
    prepare(whole, tmp_path / "texts", per_shard=PER_SHARD)
    tokenizers = Tokenizers.load(tmp_path / "texts" / "tokenizer")
    held = examples_of(load_pairs(data, "train"), objective, tokenizers, whole.batch, 3, tmp_path)
    streamed = examples_in(Shards(tmp_path / "texts"), objective, tokenizers, whole.batch, 3)
    assert_same_batches(held, streamed, tokenizers, whole.batch)


def assert_same_batches(held, streamed, tokenizers, batch):
    special, mesh = tokenizers.target.special, data_mesh()
    ours, theirs = (Pipeline(Windows(own, 3, 211), special, batch, mesh, 3) for own in (held, streamed))
    for lap in range(4):
        for index in (0, ours.steps_of(lap) - 1):
            for one, other in zip(*(jax.tree.leaves(p.batch(lap, index)) for p in (ours, theirs)), strict=True):
                np.testing.assert_array_equal(one, other)


def test_only_what_is_asked_for_is_read(shards, monkeypatch):
    opened = Shards(shards)
    assert isinstance(opened.lengths, np.memmap)
    read, asked = Shards._read, []
    monkeypatch.setattr(
        Shards, "_read", lambda self, shard, places: asked.append((shard, places)) or read(self, shard, places)
    )
    tokens = opened.take(np.array([500, 3, 98, 3]))
    assert asked == [(0, [3, 3]), (1, [1]), (5, [15])]
    assert tokens.target[1].tolist() == tokens.target[3].tolist()


def test_there_may_be_more_shards_than_files_that_may_be_open(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "_OPEN", 5)
    prepare(experiment(pairs), tmp_path / "many", per_shard=11)  # 48 of them
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = itertools.filterfalse(set(map(int, os.listdir("/proc/self/fd"))).__contains__, itertools.count())
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(free, 20, None)), before[1]))  # 20 more may be
    try:
        assert len(Shards(tmp_path / "many").take(np.arange(SIZE))) == SIZE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_run_from_shards_resumes_exactly(pairs, shards, devices, tmp_path):
    devices(1)
    chosen = experiment(pairs, prepared=str(shards))
    assert train(chosen, tmp_path / "whole") == 0
    assert train(chosen, tmp_path / "parts", until=5) == 0
    moved = shutil.copytree(shards, tmp_path / "moved")  # where they lie is placement
    assert train(dataclasses.replace(chosen, prepared=str(moved)), tmp_path / "parts") == 0
    whole, parts = (RunFolder(tmp_path / name) for name in ("whole", "parts"))
    assert whole.metrics.read_bytes() == parts.metrics.read_bytes()
    with pytest.raises(InputError, match="train data"):  # in memory it is another run
        train(dataclasses.replace(chosen, prepared=None), tmp_path / "parts")


class TestMistakes:
    def test_the_same_text_in_other_pieces(self, pairs, shards, devices, tmp_path):
        devices(1)
        chosen = experiment(pairs, prepared=str(shards))
        assert train(chosen, tmp_path / "run", until=2) == 0
        other = shutil.copytree(shards, tmp_path / "other")
        manifest = json.loads((other / "prepared.json").read_text())
        (other / "prepared.json").write_text(json.dumps({**manifest, "tokenizer": "that of another version"}))
        for folder, whose in ((tmp_path / "run", "that of the run"), (tmp_path / "new", "that beside the shards")):
            with pytest.raises(InputError, match=f"made with the tokenizer that of another version, and {whose} is"):
                train(dataclasses.replace(chosen, prepared=str(other)), folder)

    def test_the_tokenizer_of_another_checkpoint(self, pairs, shards, devices, tmp_path):
        devices(1)
        other = dataclasses.replace(experiment(pairs).model, vocab_size=11)
        assert train(experiment(pairs, model=other, steps=1), tmp_path / "start") == 0
        prepare(experiment(pairs), tmp_path / "shards", per_shard=PER_SHARD)
        manifest = json.loads((tmp_path / "shards" / "prepared.json").read_text())
        facts = {**manifest["experiment"], "tokenizer": None, "vocab_size": None, "source_vocab_size": None}
        (tmp_path / "shards" / "prepared.json").write_text(json.dumps({**manifest, "experiment": facts}))
        started = experiment(pairs, init_from=str(tmp_path / "start"), model=ModelConfig(dropout=0.1))
        (tmp_path / "shards" / "preparing.json").write_text(json.dumps(facts))
        with pytest.raises(InputError, match=rf"and that of {tmp_path}/start is"):
            prepare(started, tmp_path / "shards", per_shard=PER_SHARD)
        chosen = experiment(
            pairs, init_from=str(tmp_path / "start"), prepared=str(tmp_path / "shards"), model=ModelConfig(dropout=0.1)
        )
        with pytest.raises(InputError, match=rf"and that of {tmp_path}/start is"):
            train(chosen, tmp_path / "run")

    def test_other_settings_than_they_were_made_with(self, pairs, shards, devices, tmp_path):
        devices(1)
        for changed, message in (
            ({"tokenizer": TokenizerConfig(masks=2)}, r"made with tokenizer\.masks=0, and now it is 2"),
            ({"filters": FilterConfig(max_ratio=2.0)}, r"made with filters\.max_ratio=None, and now it is 2\.0"),
        ):
            with pytest.raises(InputError, match=message):
                train(experiment(pairs, prepared=str(shards), **changed), tmp_path / "run")
            with pytest.raises(InputError, match=message):
                prepare(experiment(pairs, **changed), shards, per_shard=PER_SHARD)

    def test_other_sides_or_kinds_of_data(self, devices, tmp_path):
        devices(1)
        (tmp_path / "train.tsv").write_text("".join(f"{word}\t{word[::-1]}\n" for word in WORDS * 9))
        data = TsvFiles(dir=str(tmp_path))
        prepare(experiment(data), tmp_path / "shards", per_shard=PER_SHARD)
        for other, message in (
            (TsvFiles(dir=str(tmp_path), columns=(1, 0)), r"made with data\.columns=\[0, 1\], and now it is \[1, 0\]"),
            (TextFiles(dir=str(tmp_path)), r"made with data\.kind=tsv, and now it is text"),
        ):
            with pytest.raises(InputError, match=message):
                train(experiment(other, prepared=str(tmp_path / "shards")), tmp_path / "run")
        moved = TsvFiles(dir="elsewhere", train="no.tsv")
        assert [len(own) for own in open_shards(experiment(moved, prepared=str(tmp_path / "shards")))] == [
            len(WORDS) * 9
        ]

    def test_what_another_tokenizer_made_is_made_again(self, pairs, shards, tmp_path):
        folder = shutil.copytree(shards, tmp_path / "other")
        (folder / "tokenizer" / "joint.model").write_bytes(b"no model")
        with pytest.raises(InputError, match=r"not a SentencePiece model; take .*/other/tokenizer away, and the same"):
            prepare(experiment(pairs), folder, per_shard=PER_SHARD)
        shutil.rmtree(folder / "tokenizer")
        fewer = dataclasses.replace(experiment(pairs).model, vocab_size=9)
        prepare(experiment(pairs, model=fewer), folder, per_shard=PER_SHARD)
        assert Shards(folder).manifest.tokenizer != Shards(shards).manifest.tokenizer
        assert Shards(folder).manifest.digest == Shards(shards).manifest.digest
        tokens, tokenizers = Shards(folder).take(np.arange(7)), Tokenizers.load(folder / "tokenizer")
        assert tokenizers.source.decode(tokens.source) == list(load_pairs(pairs, "train").sources[:7])
        shutil.rmtree(folder / "tokenizer")
        prepare(experiment(pairs), folder, per_shard=PER_SHARD)
        assert contents(folder) == contents(shards)

    def test_a_mistake_before_anything_is_made_can_be_mended(self, pairs, tmp_path):
        wrong = dataclasses.replace(experiment(pairs).model, vocab_size=999)
        with pytest.raises(InputError, match="more pieces than the training text allows"):
            prepare(experiment(pairs, model=wrong), tmp_path / "out", per_shard=SIZE)
        prepare(experiment(pairs), tmp_path / "out", per_shard=SIZE)

    def test_other_text_than_it_was_begun_with(self, pairs, shards, tmp_path):
        folder = shutil.copytree(shards, tmp_path / "begun")
        other = shutil.copytree(pairs.dir, tmp_path / "other")
        lines = (other / "train.source").read_text().splitlines(keepends=True)
        (other / "train.source").write_text("".join([*lines[:200], "d d d\n", *lines[201:]]))
        with pytest.raises(InputError, match=r"tokens-00002\.array_record: made of other text"):
            prepare(experiment(dataclasses.replace(pairs, dir=str(other))), folder, per_shard=PER_SHARD)

    def test_shards_that_are_missing_or_damaged(self, pairs, shards, tmp_path, capsys):
        folder = shutil.copytree(shards, tmp_path / "damaged")
        assert main(["verify", str(folder)]) == 0
        shard = folder / "tokens-00001.array_record"
        whole = shard.read_bytes()
        shard.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
        capsys.readouterr()
        assert main(["verify", str(folder)]) == 1
        assert f"{shard}: damaged" in capsys.readouterr().out
        shard.write_bytes(whole)
        (folder / "tokenizer" / "joint.model").write_bytes(b"no model")
        assert main(["verify", str(folder)]) == 1
        assert f"{folder / 'tokenizer'}: damaged" in capsys.readouterr().out
        shutil.copytree(shards / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
        lengths = np.load(folder / "lengths.npy")
        first, other = 3, int(np.flatnonzero(lengths.sum(axis=1) != lengths[3].sum())[0])
        lengths[[first, other]] = lengths[[other, first]]
        np.save(folder / "lengths.npy", lengths)
        assert main(["verify", str(folder)]) == 1
        assert f"{folder / 'lengths.npy'}: damaged" in capsys.readouterr().out
        with pytest.raises(InputError, match=r"example 3 is not as long as lengths\.npy says; verify tells"):
            Shards(folder).take(np.array([2, first, other]))
        shard.write_bytes(whole[:-7])
        with pytest.raises(InputError, match=r"tokens-00001\.array_record: .* bytes, .* with .*; prepare again"):
            Shards(folder)
        shard.unlink()
        with pytest.raises(InputError, match=r"tokens-00001\.array_record: missing; prepare again"):
            Shards(folder)
        prepare(experiment(pairs), folder, per_shard=PER_SHARD)
        assert contents(folder) == contents(shards)
        (folder / "prepared.json").write_text("{")
        with pytest.raises(InputError, match=r"prepared\.json: damaged"):
            Shards(folder)

    def test_a_folder_of_other_things_and_one_that_is_not_finished(self, pairs, tmp_path):
        (tmp_path / "thing").write_text("mine")
        with pytest.raises(InputError, match="not empty; choose another --output"):
            prepare(experiment(pairs), tmp_path)
        with pytest.raises(InputError, match=r"thing: cannot make the folder: File exists; choose another --output"):
            prepare(experiment(pairs), tmp_path / "thing")
        (tmp_path / "begun" / ".preparing.json.abc").mkdir(parents=True)
        prepare(experiment(pairs), tmp_path / "begun", per_shard=SIZE)
        assert not list((tmp_path / "begun").glob(".preparing*"))
        with pytest.raises(InputError, match=r"prepared\.json: missing: nothing is prepared there"):
            Shards(tmp_path / "nowhere")

    def test_another_objective_than_the_data_is_for(self, pairs, tmp_path):
        model = dataclasses.replace(experiment(pairs).model, encoder_layers=0)
        with pytest.raises(InputError, match="'causal': the data is sources and targets; it needs plain text"):
            prepare(experiment(pairs, model=model, objective=CausalLanguageModel()), tmp_path / "out")
        assert not (tmp_path / "out" / "tokenizer").exists()

    def test_a_process_that_the_system_killed(self):
        with pytest.raises(InputError, match="one of 2 processes was killed"), workers(2) as pool:
            pool.submit(os._exit, 1).result()


def test_shards_are_cut_into_other_pieces_as_texts_are(pairs, shards, tmp_path):
    tokenizers, batch = Tokenizers.load(shards / "tokenizer"), experiment(pairs).batch
    held = examples_of(load_pairs(pairs, "train"), Translation(), tokenizers, batch, 3, tmp_path, 0.5)
    streamed = examples_in(Shards(shards), Translation(), tokenizers, batch, 3, 0.5)
    assert_same_batches(held, streamed, tokenizers, batch)
    sampled = dataclasses.replace(experiment(pairs).tokenizer, sampling=0.5)  # what is prepared is the same
    prepare(experiment(pairs, tokenizer=sampled), shards, per_shard=PER_SHARD)


def test_a_sample_is_even_the_same_each_time_and_in_order():
    counts = np.zeros(20)
    chosen = sample(range(20), 5)
    assert chosen == sample(iter(range(20)), 5) == sorted(chosen)
    for shift in range(2000):
        counts[np.array(sample(range(shift * 20, shift * 20 + 20), 5)) % 20] += 1
    assert sample(range(3), 5) == sample(range(3), None) == [0, 1, 2]
    assert counts.sum() == 10_000


def test_the_command_line(pairs, shards, tmp_path, capsys):
    file = tmp_path / "words.py"
    file.write_text(
        "from small_runs import experiment\nfrom transformer_jax.config import TextFiles\n\n\n"
        f"def get_config():\n    return experiment(TextFiles(dir={pairs.dir!r}))\n"
    )
    assert main(["prepare", str(file), "--output", str(tmp_path / "out"), "--workers", "1"]) == 0
    assert f"{tmp_path / 'out'}: 523 pairs, " in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "prepared.json").read_text())["digest"] != Shards(shards).digest
    assert main(["prepare", str(file), "--output", str(tmp_path / "out"), "--workers", "0"]) == 2
    assert "--workers 0: a number above 0" in capsys.readouterr().err
