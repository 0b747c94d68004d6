"""What each objective makes of a text, read from its batches as text again."""

from pathlib import Path

import jax
import numpy as np
import pytest

from transformer_jax.config import (
    BatchConfig,
    CausalLanguageModel,
    Classification,
    Denoising,
    MaskedLanguageModel,
    MeshConfig,
    ModelConfig,
    PrefixLanguageModel,
    SpanCorruption,
    TokenizerConfig,
    Translation,
)
from transformer_jax.data.batch import Batch
from transformer_jax.data.batches import batches_of, examples_of
from transformer_jax.data.sources import Pairs
from transformer_jax.data.tokenizer import Tokenizers, train_tokenizers
from transformer_jax.errors import InputError
from transformer_jax.sharding import make_mesh

WORDS = ["ape", "bee", "cat", "dog", "eel", "fox", "gnu", "hen"]
TEXTS = [" ".join(WORDS[(i * k) % 8] for k in range(1, 2 + i % 7)) for i in range(41)]
PLAIN = Pairs(None, TEXTS)
PAIRS = Pairs(TEXTS, [text.split()[-1] for text in TEXTS])
BATCH = BatchConfig(rows=4, source_length=23, target_length=19)


@pytest.fixture(scope="module")
def tokenizers() -> Tokenizers:
    config = TokenizerConfig(masks=7)
    return train_tokenizers(config, ModelConfig(vocab_size=53), [], [*TEXTS, *WORDS * 9])


@pytest.fixture
def make(tokenizers: Tokenizers, tmp_path: Path):
    def make(pairs: Pairs, objective, seed: int = 3, batch: BatchConfig = BATCH):
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
        return batches_of(pairs, tokenizers, batch, mesh, seed, tmp_path, objective)

    return make


class Reader:
    """The segments of a batch as text, the special pieces shown."""

    def __init__(self, tokenizers: Tokenizers) -> None:
        self._pieces = tokenizers.target.pieces

    def text(self, ids: np.ndarray) -> str:
        return "".join(self._pieces(ids)).replace("\u2581", " ").replace("</s>", ".").replace("<pad>", "^").strip()

    def segments(self, batch: Batch) -> dict[int, tuple]:
        """By the name of each example: its source, the target's input, the targets, their weights and positions."""
        found = {}
        for row, names in enumerate(np.asarray(batch.example_ids)):
            for segment, name in enumerate(names[names >= 0], start=1):
                source = None
                if batch.source is not None:
                    own = np.asarray(batch.source.segment_ids[row]) == segment
                    source = np.asarray(batch.source.tokens[row])[own]
                here = np.asarray(batch.target.segment_ids[row]) == segment
                target = (batch.target.tokens, batch.target.targets, batch.target.weights, batch.target.positions)
                found[int(name)] = (source, *(np.asarray(array[row])[here] for array in target), row)
        return found

    def all(self, pipeline, epoch: int = 0) -> dict[int, tuple]:
        return {name: own for batch in pipeline.one_epoch(epoch) for name, own in self.segments(batch).items()}


@pytest.fixture
def reader(tokenizers: Tokenizers) -> Reader:
    return Reader(tokenizers)


def test_every_token_of_a_text_is_predicted_from_those_before_it(make, reader: Reader):
    found = reader.all(make(PLAIN, CausalLanguageModel()))
    assert sorted(found) == list(range(41))
    for name, (source, inputs, targets, weights, positions, _) in found.items():
        assert source is None
        assert reader.text(targets) == f"{TEXTS[name]}."
        assert reader.text(inputs) == f"^ {TEXTS[name]}"
        assert weights.tolist() == [1.0] * len(targets)
        assert positions.tolist() == list(range(len(targets)))


def test_of_a_prompted_text_only_what_is_behind_the_prompt_counts(make, reader: Reader):
    for name, (_, _, targets, weights, _, _) in reader.all(make(PAIRS, CausalLanguageModel(prompted=True))).items():
        assert reader.text(targets) == f"{PAIRS.sources[name]}. {PAIRS.targets[name]}."
        assert reader.text(targets[weights == 1]) == f"{PAIRS.targets[name]}."
        assert reader.text(targets[weights == 0]) == f"{PAIRS.sources[name]}."


def test_a_prefix_is_read_and_the_rest_written(make, reader: Reader):
    cuts = [reader.all(make(PLAIN, PrefixLanguageModel()), epoch) for epoch in range(2)]
    for found in cuts:
        for name, (source, _, targets, _, _, _) in found.items():
            assert reader.text(np.concatenate([source[:-1], targets])) == f"{TEXTS[name]}."
            assert reader.text(source[-1:]) == "."
    assert any(len(cuts[0][name][0]) != len(cuts[1][name][0]) for name in range(41))  # another place each epoch


def test_masked_places_are_predicted_where_they_stand(make, reader: Reader, tokenizers: Tokenizers):
    objective = MaskedLanguageModel(share=0.3, masked=1.0, random=0.0)
    mask, seen = tokenizers.target.masks[0], 0
    for batch in make(PLAIN, objective).one_epoch():
        rows = np.asarray(batch.source.tokens)
        for name, (source, _, targets, weights, positions, row) in reader.segments(batch).items():
            (ids,) = tokenizers.target.encode([TEXTS[name]])
            assert len(targets) == max(1, round(0.3 * len(ids)))
            assert (rows[row, positions] == mask).all()
            assert int((source == mask).sum()) == len(targets)
            whole = rows[row].copy()
            whole[positions] = targets
            own = np.asarray(batch.source.segment_ids[row])
            assert reader.text(whole[own == own[positions[0]]]) == f"{TEXTS[name]}."
            assert weights.tolist() == [1.0] * len(targets)
            seen += 1
    assert seen == 41


def test_whole_words_are_masked(make, reader: Reader, tokenizers: Tokenizers):
    objective = MaskedLanguageModel(share=0.3, masked=1.0, random=0.0, whole_words=True)
    for name, (_, _, targets, _, _, _) in reader.all(make(PLAIN, objective)).items():
        hidden = reader.text(targets).split()
        assert set(hidden) <= set(TEXTS[name].split())
        assert all(any(word == other for other in WORDS) for word in hidden)


def test_spans_are_written_behind_their_marks(make, reader: Reader):
    found = reader.all(make(PLAIN, SpanCorruption(share=0.4, length=2.0)))
    for name, (source, _, targets, _, _, _) in found.items():
        spans = reader.text(targets).removesuffix(".").split("<mask_")[1:]
        text = reader.text(source)
        for span in spans:
            number, _, words = span.partition(">")
            assert f"<mask_{number}>" in text
            text = text.replace(f"<mask_{number}>", words)
        assert " ".join(text.split()).replace(" ", "") == f"{TEXTS[name]}.".replace(" ", "")


def test_a_whole_text_is_written_of_one_with_masks(make, reader: Reader, tokenizers: Tokenizers):
    for name, (source, inputs, targets, _, _, _) in reader.all(make(PLAIN, Denoising())).items():
        assert reader.text(targets) == f"{TEXTS[name]}."
        assert reader.text(inputs) == f"^ {TEXTS[name]}"
        assert "<mask_0>" in reader.text(source)


def test_a_label_is_predicted_at_the_beginning_of_its_text(make, reader: Reader):
    labels = tuple(WORDS)
    for batch in make(PAIRS, Classification(labels=labels)).one_epoch():
        for name, (source, _, targets, weights, positions, row) in reader.segments(batch).items():
            assert reader.text(source) == f"{PAIRS.sources[name]}."
            assert [labels[index] for index in targets] == [PAIRS.targets[name]]
            assert weights.tolist() == [1.0]
            assert int(batch.source.positions[row, positions[0]]) == 0
            assert int(batch.source.tokens[row, positions[0]]) == source[0]


def test_of_a_text_too_long_for_a_row_a_classifier_reads_the_beginning(make, reader: Reader):
    long = " ".join(WORDS * 5)
    pairs = Pairs([long, "ape", ""], ["bee", "cat", "dog"])
    found = reader.all(make(pairs, Classification(labels=tuple(WORDS))))
    assert sorted(found) == [0, 1]
    assert len(found[0][0]) == BATCH.source_length
    assert f"{long}.".startswith(reader.text(found[0][0]).removesuffix("."))
    assert reader.text(found[0][0]).endswith(".")
    assert reader.text(found[1][0]) == "ape."


def test_what_is_drawn_depends_on_seed_epoch_and_example_alone(make, reader: Reader, tokenizers, tmp_path: Path):
    objective = MaskedLanguageModel()
    corpus = examples_of(PLAIN, objective, tokenizers, BATCH, 3, tmp_path)
    alone = corpus.draw(1, np.array([7, 2]))
    among = corpus.draw(1, np.arange(41))
    assert [alone.source[0].tolist(), alone.source[1].tolist()] == [among.source[7].tolist(), among.source[2].tolist()]
    other = [
        corpus.draw(2, np.arange(41)),
        examples_of(PLAIN, objective, tokenizers, BATCH, 4, tmp_path).draw(1, np.arange(41)),
    ]
    assert all(made.places.values.tolist() != among.places.values.tolist() for made in other)


def test_seeds_of_64_bits_are_told_apart(tokenizers, tmp_path: Path):
    """As those of the tasks of a mixture are; as floats these two would be one."""
    draws = [
        examples_of(PLAIN, MaskedLanguageModel(), tokenizers, BATCH, seed, tmp_path).draw(0, np.arange(41))
        for seed in (2**64 - 3, 2**64 - 5)
    ]
    assert draws[0].places.values.tolist() != draws[1].places.values.tolist()


@pytest.mark.parametrize(
    "objective", [CausalLanguageModel(), PrefixLanguageModel(), MaskedLanguageModel(), SpanCorruption(), Denoising()]
)
def test_a_long_text_is_cut_into_parts_that_fit_and_nothing_is_lost(make, reader: Reader, objective):
    text = " ".join(WORDS * 9)
    found = reader.all(make(Pairs(None, ["ape", text, ""]), objective))
    longest = max(len(targets) for _, _, targets, _, _, _ in found.values())
    assert longest <= BATCH.target_length
    assert len(found) > 3
    parts = [reader.text(found[name][2]) for name in sorted(found)]
    if isinstance(objective, Denoising):  # every part ends
        assert "".join(part.removesuffix(".") for part in parts).replace(" ", "") == "ape" + text.replace(" ", "")
    if isinstance(objective, CausalLanguageModel):  # every text ends
        assert "".join(parts).replace(" ", "") == f"ape.{text}.".replace(" ", "")


def test_texts_without_sources_and_pairs_are_told_apart(make):
    for pairs, objective, message in (
        (PLAIN, Translation(), "the data is plain text; it needs sources and targets"),
        (PLAIN, CausalLanguageModel(prompted=True), "it needs sources and targets"),
        (PAIRS, CausalLanguageModel(), "the data is sources and targets; it needs plain text"),
        (PAIRS, MaskedLanguageModel(), r"objective\.kind='masked'"),
    ):
        with pytest.raises(InputError, match=message):
            make(pairs, objective)


def test_a_vocabulary_without_enough_masks_says_how_many_it_takes(make):
    long = BatchConfig(rows=4, source_length=131, target_length=131)
    with pytest.raises(InputError, match=r"needs 10 masks, but the vocabulary has 7; .*--tokenizer\.masks 10$"):
        make(PLAIN, SpanCorruption(share=0.15, length=2.0), batch=long)


def test_what_reads_and_writes_one_text_needs_one_vocabulary(tokenizers, tmp_path: Path):
    config = TokenizerConfig(masks=7, joint=False)
    other = train_tokenizers(config, ModelConfig(vocab_size=53, share_embeddings="target"), TEXTS, TEXTS)
    two = Tokenizers(other.source, tokenizers.target)
    for pairs, objective in (
        (PLAIN, SpanCorruption()),
        (PLAIN, MaskedLanguageModel()),
        (PAIRS, CausalLanguageModel(prompted=True)),
    ):
        with pytest.raises(InputError, match=f"'{objective.kind}': the checkpoint has a vocabulary for each side"):
            examples_of(pairs, objective, two, BATCH, 3, tmp_path)


def test_a_label_that_there_is_not_is_named(make):
    with pytest.raises(InputError, match=r"example 1: 'bee' is none of objective\.labels=\('ape', 'cat'\)"):
        make(Pairs(TEXTS[:1], ["bee"]), Classification(labels=("ape", "cat")))


def test_rows_too_short_for_any_text_are_refused(make):
    with pytest.raises(InputError, match=r"batch\.source_length=1, batch\.target_length=19: give longer ones"):
        make(PLAIN, Denoising(), batch=BatchConfig(rows=4, source_length=1, target_length=19))


def test_the_steps_of_epochs_that_are_drawn_are_those_of_the_first(make):
    pipeline = make(PLAIN, SpanCorruption(share=0.4, length=2.0))
    assert pipeline.total_steps(7) == 7 * pipeline.steps_of(0)
    fixed = make(PLAIN, CausalLanguageModel())
    assert fixed.total_steps(3) == sum(map(fixed.steps_of, range(3)))
