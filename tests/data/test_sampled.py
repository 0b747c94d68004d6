"""Pieces that are drawn: the same for the same seed, the same text, and as often as they are probable."""

from pathlib import Path

import jax
import numpy as np
import pytest

from transformer_jax.config import (
    BatchConfig,
    CausalLanguageModel,
    Classification,
    MeshConfig,
    ModelConfig,
    TokenizerConfig,
    Translation,
)
from transformer_jax.data.batches import examples_of
from transformer_jax.data.laps import Windows
from transformer_jax.data.pipeline import Pipeline
from transformer_jax.data.sources import Pairs
from transformer_jax.data.tokenizer import Tokenizers, train_tokenizers
from transformer_jax.errors import InputError
from transformer_jax.sharding import make_mesh

WORDS = ["walking", "walked", "talking", "low", "lower", "lowest", "newest", "widest"]
PAIRS = Pairs(
    [" ".join(WORDS[(i * k) % 8] for k in range(1, 2 + i % 5)) for i in range(37)],
    [" ".join(WORDS[(i + k) % 8] for k in range(1, 2 + i % 3)) for i in range(37)],
)
ROOMY = BatchConfig(rows=4, source_length=97, target_length=97)


def trained(algorithm: str = "bpe", size: int = 53) -> Tokenizers:
    return train_tokenizers(
        TokenizerConfig(algorithm=algorithm), ModelConfig(vocab_size=size), PAIRS.sources, PAIRS.targets
    )


@pytest.fixture(scope="module")
def tokenizers() -> Tokenizers:
    return trained()


@pytest.fixture
def corpus(tokenizers: Tokenizers, tmp_path: Path):
    def make(objective=Translation(), batch=ROOMY, seed=3, strength=0.3, pairs=PAIRS):  # noqa: B008
        return examples_of(pairs, objective, tokenizers, batch, seed, tmp_path, strength)

    return make


def test_a_draw_depends_on_seed_epoch_and_pair_alone(corpus):
    everything = np.arange(37)
    whole, again = corpus().draw(1, everything), corpus().draw(1, everything[::-1])
    for index in everything.tolist():
        assert whole.source[index].tolist() == again.source[36 - index].tolist()
        assert whole.target[index].tolist() == again.target[36 - index].tolist()
    for other in (corpus().draw(2, everything), corpus(seed=4).draw(1, everything)):
        assert other.source.values.tolist() != whole.source.values.tolist()


def test_the_text_stays_what_it_was(corpus, tokenizers: Tokenizers):
    made = corpus().draw(5, np.arange(37))
    assert tokenizers.source.decode(made.source) == list(PAIRS.sources)
    assert tokenizers.target.decode(made.target) == list(PAIRS.targets)
    plain = corpus(strength=0.0).draw(0, np.arange(37))
    assert len(made.source.values) > 1.1 * len(plain.source.values)


def test_what_does_not_fit_stays_in_its_likeliest_pieces(corpus):
    plain = corpus(strength=0.0).draw(0, np.arange(37))
    tight = BatchConfig(rows=4, source_length=int(plain.source.lengths.max()), target_length=97)
    made = corpus(batch=tight).draw(1, np.arange(37))
    assert len(corpus(batch=tight)) == 37
    assert made.source.lengths.max() <= tight.source_length
    stayed = [made.source[i].tolist() == plain.source[i].tolist() for i in range(37)]
    assert 3 < sum(stayed) < 34
    assert all(made.target[i].tolist() == plain.target[i].tolist() for i in range(37) if stayed[i] and i % 5 == 4)


def test_of_a_classifier_only_the_source_is_drawn(corpus):
    pairs = Pairs(PAIRS.sources, ["ab"[len(text) % 2] for text in PAIRS.sources])
    made = corpus(Classification(labels=("a", "b")), pairs=pairs).draw(1, np.arange(37))
    assert made.target.values.tolist() == [len(text) % 2 for text in PAIRS.sources]
    assert made.places.values.tolist() == [0] * 37


def test_a_prompt_takes_its_room_from_the_target_alone(tokenizers: Tokenizers, tmp_path: Path):
    batch = BatchConfig(rows=2, source_length=5, target_length=997)
    prompted = CausalLanguageModel(prompted=True)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    corpus = examples_of(PAIRS, prompted, tokenizers, batch, 3, tmp_path, 0.1)
    pipeline = Pipeline(Windows(corpus, 3), tokenizers.target.special, batch, mesh, 3)
    names = np.concatenate([np.asarray(one.example_ids).ravel() for one in pipeline.one_epoch()])
    assert sorted(names[names >= 0]) == list(range(37))


def test_a_strength_that_is_no_share_is_refused():
    with pytest.raises(InputError, match=r"sampling=1\.1 must be in \[0, 1\]"):
        TokenizerConfig(sampling=1.1)
