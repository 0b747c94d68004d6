import itertools
import os
import threading
from pathlib import Path

import jax
import numpy as np
import pytest

from transformer_jax.config import BatchConfig, MeshConfig, ModelConfig, TextFiles, TokenizerConfig, Translation
from transformer_jax.data.batch import Batch
from transformer_jax.data.batches import batches_of, examples_of
from transformer_jax.data.pipeline import Pipeline
from transformer_jax.data.sources import Pairs, load_pairs
from transformer_jax.data.tokenizer import PAD_ID, SentencePiece, Tokenizers, train_tokenizers
from transformer_jax.errors import InputError
from transformer_jax.sharding import make_mesh

WORDS = ["ape", "bee", "cat", "dog", "eel", "fox", "gnu", "hen"]
PAIRS = Pairs(
    [" ".join(WORDS[: 1 + i % 7]) + f" {i}" for i in range(97)],
    [f"{i} " + " ".join(WORDS[-1 - i % 5 :]) for i in range(97)],
)
BATCH = BatchConfig(rows=8, source_length=31, target_length=29)


@pytest.fixture(scope="module")
def tokenizers() -> Tokenizers:
    return train_tokenizers(TokenizerConfig(), ModelConfig(vocab_size=67), PAIRS.sources, PAIRS.targets)


@pytest.fixture
def make(tokenizers: Tokenizers, tmp_path: Path):
    def make(
        pairs: Pairs = PAIRS, batch: BatchConfig = BATCH, mesh: MeshConfig | None = None, seed: int = 3
    ) -> Pipeline:
        devices = jax.devices() if mesh else jax.devices()[:1]
        return batches_of(pairs, tokenizers, batch, make_mesh(mesh or MeshConfig(), devices), seed, tmp_path / "cache")

    return make


def seen(batches: list[Batch]) -> list[int]:
    ids = np.concatenate([np.asarray(batch.example_ids).ravel() for batch in batches])
    return ids[ids >= 0].tolist()


def assert_equal(one: Batch, other: Batch):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for here, there in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(here, there)


def test_every_pair_is_seen_once_an_epoch_each_epoch_in_a_new_order(make):
    pipeline = make()
    orders = [seen(list(pipeline.one_epoch(epoch))) for epoch in range(3)]
    assert all(sorted(order) == list(range(97)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert seen(list(make(seed=4).one_epoch())) != orders[0]


def test_segments_hold_the_pair_that_example_ids_name(make, tokenizers: Tokenizers):
    for batch in make().one_epoch():
        for row, ids in enumerate(np.asarray(batch.example_ids)):
            for segment, index in enumerate(ids[ids >= 0], start=1):
                sources = np.asarray(batch.source.tokens[row])[np.asarray(batch.source.segment_ids[row]) == segment]
                here = np.asarray(batch.target.segment_ids[row]) == segment
                targets, inputs = (
                    np.asarray(batch.target.targets[row])[here],
                    np.asarray(batch.target.tokens[row])[here],
                )
                assert tokenizers.source.decode([sources]) == [PAIRS.sources[index]]
                assert tokenizers.target.decode([targets]) == [PAIRS.targets[index]]
                assert inputs.tolist() == [PAD_ID, *targets[:-1]]


def test_a_batch_in_numbers_done_by_hand(tmp_path: Path):
    # A vocabulary of 6 has room for three characters besides the special ids: the start of a word, a and b.
    tokenizers = train_tokenizers(TokenizerConfig(), ModelConfig(vocab_size=6), ["a", "a", "a b"], [])
    (space, a), (_, b) = tokenizers.source.encode(["a", "b"])
    batch = BatchConfig(rows=2, source_length=5, target_length=7)
    pipeline = batches_of(
        Pairs(["a"], ["b b"]), tokenizers, batch, make_mesh(MeshConfig(), jax.devices()[:1]), 0, tmp_path
    )
    made = pipeline.batch(0, 0)
    assert made.source.tokens.tolist() == [[space, a, 1, 0, 0], [0] * 5]
    assert made.source.segment_ids.tolist() == [[1, 1, 1, 0, 0], [0] * 5]
    assert made.source.positions.tolist() == [[0, 1, 2, 0, 0], [0] * 5]
    assert made.target.tokens.tolist() == [[0, space, b, space, b, 0, 0], [0] * 7]
    assert made.target.targets.tolist() == [[space, b, space, b, 1, 0, 0], [0] * 7]
    assert made.target.weights.tolist() == [[1, 1, 1, 1, 1, 0, 0], [0] * 7]
    assert made.example_ids.tolist() == [[0], [-1]]
    assert (made.source.targets, made.source.weights) == (None, None)


def test_the_batch_does_not_depend_on_the_mesh(make):
    alone = make().batch(1, 1)
    for mesh in (MeshConfig(data=8), MeshConfig(data=2, fsdp=2, tensor=2), MeshConfig(data=1, tensor=8)):
        shared = make(mesh=mesh).batch(1, 1)
        assert_equal(shared, alone)
        assert {leaf.sharding.spec for leaf in jax.tree.leaves(shared)} == {
            jax.sharding.PartitionSpec(("data", "fsdp"))
        }


def test_a_device_gets_its_rows_without_the_others_being_made(make, monkeypatch: pytest.MonkeyPatch):
    pipeline = make(mesh=MeshConfig(data=2, fsdp=2, tensor=2))
    whole = pipeline.rows(0, 8, 16)
    made, rows = [], Pipeline.rows

    def record(self: Pipeline, epoch: int, start: int, stop: int) -> Batch:
        made.append((epoch, start, stop))
        return rows(self, epoch, start, stop)

    monkeypatch.setattr(Pipeline, "rows", record)
    assert_equal(pipeline.batch(0, 1), whole)
    assert sorted(made) == [(0, 0, 0), (0, 8, 10), (0, 10, 12), (0, 12, 14), (0, 14, 16)]


def test_steps_count_batches_over_the_epochs(make):
    pipeline = make()
    steps = [pipeline.steps_of(epoch) for epoch in range(3)]
    expected = [(epoch, index) for epoch in range(3) for index in range(steps[epoch])]
    followed, position = [], (0, 0)
    while position[0] < 3:
        followed.append(position)
        position = pipeline.following(*position)
    assert followed == expected
    assert pipeline.total_steps(3) == sum(steps)


def test_resuming_gives_the_batches_of_an_uninterrupted_run(make):
    straight = list(itertools.islice(make().batches(), 11))
    per_epoch = make().steps_of(0)
    assert per_epoch < 10  # the last start lies in another epoch
    for start in (1, per_epoch - 1, per_epoch, 10):
        resumed = make().batches(*divmod(start, per_epoch))
        assert_equal(next(resumed), straight[start])
        resumed.close()


def test_the_last_batch_is_filled_with_empty_rows(make):
    pipeline = make(batch=BatchConfig(rows=101, source_length=31, target_length=29))
    (batch,) = pipeline.one_epoch()
    rows = int(np.asarray(batch.example_ids >= 0).any(axis=1).sum())
    assert 0 < rows < 97
    assert np.asarray(batch.target.weights)[rows:].sum() == 0
    assert np.asarray(batch.source.tokens)[rows:].max() == 0
    assert np.asarray(batch.target.weights)[:rows].sum(axis=1).min() > 0


def test_pairs_that_cannot_be_used_are_counted_and_never_cut(make, tokenizers: Tokenizers, tmp_path: Path):
    long = "ape " * 40
    pairs = Pairs(["ape", "  ", "bee", long, "cat", ""], ["bee", "ape", "\t", "ape", long, long])
    corpus = examples_of(pairs, Translation(), tokenizers, BATCH, 3, tmp_path)
    assert corpus.dropped == {"an empty side": 3, "a source over 31 tokens": 1, "a target over 29 tokens": 1}
    assert (len(corpus), corpus.total) == (1, 6)
    assert seen(list(make(pairs).one_epoch())) == [0]


def test_a_sentence_that_just_fits_is_kept(tokenizers: Tokenizers, tmp_path: Path):
    ids = tokenizers.source.encode(["ape bee cat"])[0]
    for room, kept in ((len(ids) + 1, 2), (len(ids), 1)):
        batch = BatchConfig(rows=1, source_length=room, target_length=29)
        pairs = Pairs(["ape bee cat", "ape"], ["bee", "bee"])
        assert len(examples_of(pairs, Translation(), tokenizers, batch, 3, tmp_path)) == kept


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (Pairs([], []), "there are no pairs in the data; give others"),
        (Pairs(["", "ape"], ["ape", ""]), "none of the 2 pairs can be used: 2 have an empty side; give others"),
        (Pairs(["ape " * 40], ["ape"]), "none of the 1 pairs can be used: 1 have a source over 31 tokens; give others"),
    ],
)
def test_no_usable_pair_is_refused_with_the_reasons_that_there_are(make, pairs: Pairs, message: str):
    with pytest.raises(InputError, match=f"^{message}"):
        make(pairs)


def test_rows_that_the_devices_do_not_divide_are_refused(make):
    with pytest.raises(InputError, match=r"batch\.rows=12: not a multiple of the 8 devices"):
        make(batch=BatchConfig(rows=12), mesh=MeshConfig())


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counts, encode = [], SentencePiece.encode

    def count(self: SentencePiece, texts: list[str]) -> list[list[int]]:
        counts.append(len(texts))
        return encode(self, texts)

    monkeypatch.setattr(SentencePiece, "encode", count)
    return counts


def test_text_is_tokenised_once_until_it_changes(make, encoded: list[int], tmp_path: Path):
    first = make().batch(0, 0)
    assert encoded == [97, 97]
    assert_equal(make().batch(0, 0), first)
    assert encoded == [97, 97]
    make(Pairs([*PAIRS.sources[:-1], "bee"], PAIRS.targets))
    assert encoded == [97] * 4
    assert all(file.suffix == ".npz" for file in (tmp_path / "cache").iterdir())  # nothing temporary is left


def test_another_tokenizer_is_noticed(make, tokenizers: Tokenizers, encoded: list[int], tmp_path: Path):
    make()
    other = train_tokenizers(TokenizerConfig(), ModelConfig(vocab_size=61), PAIRS.sources, PAIRS.targets)
    batches_of(PAIRS, other, BATCH, make_mesh(MeshConfig(), jax.devices()[:1]), 3, tmp_path / "cache")
    assert encoded == [97] * 4


@pytest.mark.parametrize("damage", ["empty", "half", "flip"])
def test_a_damaged_cache_is_made_again(make, encoded: list[int], tmp_path: Path, damage: str):
    first = make().batch(0, 0)
    (file,) = (tmp_path / "cache").iterdir()
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[500] ^= 1  # within the ids of the source
    file.write_bytes({"empty": b"", "half": content[: len(content) // 2], "flip": bytes(flipped)}[damage])
    assert_equal(make().batch(0, 0), first)
    assert encoded == [97] * 4
    assert file.read_bytes() == content


def test_no_thread_outlives_its_batches(make):
    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("batches")]

    batches = make().batches()
    next(batches)
    assert len(threads()) == 1
    batches.close()
    list(make().one_epoch())
    assert threads() == []


def test_an_error_in_the_thread_reaches_the_caller(make, monkeypatch: pytest.MonkeyPatch):
    pipeline = make()
    monkeypatch.setattr(Pipeline, "rows", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(pipeline.batches())


MULTI30K = Path(os.environ.get("TRANSFORMER_JAX_MULTI30K", Path(__file__).parents[2] / "data" / "multi30k"))


@pytest.mark.skipif(
    not (MULTI30K / "train.en.gz").exists(), reason="Multi30k is not here: set TRANSFORMER_JAX_MULTI30K to its folder"
)
def test_real_captions_fill_their_rows(tmp_path: Path):
    pairs = load_pairs(TextFiles(dir=str(MULTI30K), train=("train.en.gz", "train.de.gz")), "train")
    tokenizers = train_tokenizers(TokenizerConfig(), ModelConfig(vocab_size=8000), pairs.sources, pairs.targets)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    pipeline = batches_of(pairs, tokenizers, BatchConfig(rows=1024), mesh, 0, tmp_path)
    assert (pipeline.kept, pipeline.total) == (29_000, 29_000)
    weights = np.concatenate([np.asarray(batch.target.weights) for batch in pipeline.one_epoch()])
    assert weights[weights[:, 0] > 0].mean() > 0.94
