"""Pieces that are drawn: as probable as the papers have it, the same in every process, and nothing of a text lost."""

import io
import itertools
import json
import math
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from sentencepiece import SentencePieceTrainer

from transformer_jax.config import ModelConfig, Numerals, TokenizerConfig
from transformer_jax.data.keys import key_of, keyed
from transformer_jax.data.packing import Ragged
from transformer_jax.data.sources import load_pairs
from transformer_jax.data.subwords import Segmenter
from transformer_jax.data.tokenizer import SPACE, JsonTokenizer, SentencePiece, Tokenizer, train_tokenizers
from transformer_jax.errors import InputError

TEXT = ["banana bandana", "ananas and bananas", "bad band", "sand and bands"] * 3
DRAWS = 10_000
ODD_TEXT = ["", "  two   spaces ", "three\u3042\u3044 unknown \u3042", "12 345", "\u3042", "tw\u3042o", "f\u00fcnf"]


def trained(algorithm: str, size: int, texts=TEXT, **fields) -> SentencePiece:
    made = train_tokenizers(TokenizerConfig(algorithm=algorithm, **fields), ModelConfig(vocab_size=size), texts, [])
    assert isinstance(made.source, SentencePiece)
    return made.source


@pytest.fixture(scope="module")
def small() -> dict[str, SentencePiece]:
    return {"bpe": trained("bpe", 23), "unigram": trained("unigram", 16)}


def framed(tokenizer: Tokenizer, texts) -> Ragged:
    return Ragged.of([np.array(tokenizer.framed(ids)) for ids in tokenizer.encode(texts)])


def keys(count: int) -> np.ndarray:
    return keyed(key_of(3), np.arange(count))


def frequencies(tokenizer: Tokenizer, strength: float, text: str) -> Counter:
    drawn = Segmenter(tokenizer, strength).draw(framed(tokenizer, [text] * DRAWS), keys(DRAWS))
    return Counter(tuple(tokenizer.pieces(ids[:-1])) for ids in drawn)


def merged(scores: dict[str, float], word: tuple[str, ...], share: float) -> dict[tuple[str, ...], float]:
    """The probability of every segmentation that merges with dropout may end in, by trying all of them."""
    possible = [place for place in range(len(word) - 1) if word[place] + word[place + 1] in scores]
    possible.sort(key=lambda place: -scores[word[place] + word[place + 1]])  # the leftmost first, of the same
    found = Counter({word: share ** len(possible)})
    for better, place in enumerate(possible):
        after = (*word[:place], word[place] + word[place + 1], *word[place + 2 :])
        for end, probability in merged(scores, after, share).items():
            found[end] += share**better * (1 - share) * probability
    return found


def weighted(scores: dict[str, float], word: str, power: float) -> dict[tuple[str, ...], float]:
    """The probability of every segmentation of a word, by looking at all places at which it may be cut."""
    weights = {}
    for cuts in itertools.product([False, True], repeat=len(word) - 1):
        edges = [0, *(place + 1 for place, cut in enumerate(cuts) if cut), len(word)]
        pieces = tuple(word[start:end] for start, end in itertools.pairwise(edges))
        if all(piece in scores for piece in pieces):
            weights[pieces] = math.exp(power * sum(scores[piece] for piece in pieces))
    return {pieces: weight / sum(weights.values()) for pieces, weight in weights.items()}


def scores_of(tokenizer: SentencePiece) -> dict[str, float]:
    return {tokenizer.pieces([token])[0]: score for token, score in tokenizer.scores.items()}


def check(found: Counter, wanted: dict[tuple[str, ...], float]) -> None:
    """Each as often as its probability says, by Bernstein's bound, which one in 10^8 exceeds."""
    assert set(found) <= {pieces for pieces, probability in wanted.items() if probability > 0}
    assert len(found) >= 3
    assert sum(wanted.values()) == pytest.approx(1)
    for pieces, probability in wanted.items():
        log, variance = math.log(2e8), DRAWS * probability * (1 - probability)
        assert abs(found[pieces] - DRAWS * probability) <= math.sqrt(2 * log * variance) + 2 * log / 3, pieces


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_merges_are_left_out_as_often_as_the_paper_says(small, share):
    wanted = merged(scores_of(small["bpe"]), tuple(f"{SPACE}banana"), share)
    check(frequencies(small["bpe"], share, "banana"), wanted)


@pytest.mark.parametrize("power", [0.01, 0.3, 1.0])
def test_unigram_pieces_come_by_their_probability_to_a_power(small, power):
    wanted = weighted(scores_of(small["unigram"]), f"{SPACE}bananas", power)
    check(frequencies(small["unigram"], power, "bananas"), wanted)


def test_words_of_a_text_are_drawn_apart(small):
    found = frequencies(small["bpe"], 0.5, "bad bad")
    alone = frequencies(small["bpe"], 0.5, "bad")
    wanted = {(*a, *b): alone[a] * alone[b] / DRAWS**2 for a in alone for b in alone}
    for pieces, probability in wanted.items():
        assert found[pieces] / DRAWS == pytest.approx(probability, abs=0.03), pieces


@pytest.mark.parametrize(("algorithm", "strength", "size"), [("bpe", 1e-12, 190), ("unigram", 1e6, 110)])
def test_with_no_chance_it_is_what_sentencepiece_encodes(algorithm, strength, size):
    numbers = load_pairs(Numerals(limit=1000, test_numbers=50, validation_numbers=50), "train")
    assert numbers is not None
    assert numbers.sources is not None
    texts = [*numbers.sources, *numbers.targets]
    tokenizer = trained(algorithm, size, texts, split_digits=True)
    assert tokenizer.algorithm == algorithm
    plain = framed(tokenizer, [*texts, *ODD_TEXT])
    again = Segmenter(tokenizer, strength).draw(plain, keys(len(plain)))
    assert again.values.tolist() == plain.values.tolist()
    assert again.offsets.tolist() == plain.offsets.tolist()
    some = Segmenter(tokenizer, 0.3).draw(plain, keys(len(plain)))
    assert len(some.values) != len(plain.values)
    assert tokenizer.decode(some) == tokenizer.decode(plain)
    assert [ids[-1] for ids in some] == [tokenizer.special.eos] * len(some)


def test_a_text_alone_is_drawn_as_among_others(small):
    plain = framed(small["bpe"], TEXT)
    whole = Segmenter(small["bpe"], 0.5).draw(plain, keys(len(plain)))
    for index in (0, 5, 11):
        alone = Segmenter(small["bpe"], 0.5).draw(plain.take(np.array([index])), keys(12)[[index]])
        assert alone[0].tolist() == whole[index].tolist()
    nothing = Segmenter(small["bpe"], 0.5).draw(plain.take(np.arange(0)), keys(0))
    assert len(nothing) == 0


OTHER_PROCESS = """
import json, sys
import numpy as np
from pathlib import Path
from transformer_jax.data.keys import key_of, keyed
from transformer_jax.data.packing import Ragged
from transformer_jax.data.subwords import Segmenter
from transformer_jax.data.tokenizer import SentencePiece
found = []
for path in sys.argv[1:]:
    tokenizer = SentencePiece.load(Path(path))
    texts = Ragged.of([np.array(ids) for ids in tokenizer.encode(["ananas and bananas"] * 101)])
    found.append(Segmenter(tokenizer, 0.3).draw(texts, keyed(key_of(3), np.arange(101))).values.tolist())
print(json.dumps(found))
"""


def test_it_is_the_same_in_every_process(small, tmp_path):
    own = []
    for name, tokenizer in small.items():
        tokenizer.save(tmp_path / name)
        texts = Ragged.of([np.array(ids) for ids in tokenizer.encode(["ananas and bananas"] * 101)])
        own.append(Segmenter(tokenizer, 0.3).draw(texts, keys(101)).values.tolist())
    command = [sys.executable, "-c", OTHER_PROCESS, *(str(tmp_path / name) for name in small)]
    other = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(other.stdout) == own


def test_models_of_others_draw_by_their_own_ids(small):
    model = small["unigram"]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *(model.pieces(range(3, model.vocab_size))), "<extra>"]
    other = SentencePiece(model.model, pieces=pieces)
    drawn = Segmenter(other, 0.3).draw(Ragged.of(list(map(np.array, other.encode(TEXT)))), keys(len(TEXT)))
    same = Segmenter(model, 0.3).draw(Ragged.of(list(map(np.array, model.encode(TEXT)))), keys(len(TEXT)))
    assert [other.pieces(ids) for ids in drawn] == [model.pieces(ids) for ids in same]


def test_pieces_that_are_cut_out_of_a_text_stay_whole():
    for algorithm, strength in (("bpe", 0.5), ("unigram", 0.01)):
        model = io.BytesIO()
        SentencePieceTrainer.train(
            sentence_iterator=iter(TEXT * 3),
            model_writer=model,
            model_type=algorithm,
            vocab_size={"bpe": 20, "unigram": 14}[algorithm],
            user_defined_symbols=["and"],
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
        tokenizer = SentencePiece(model.getvalue())
        plain = framed(tokenizer, TEXT)
        drawn = Segmenter(tokenizer, strength).draw(plain, keys(len(plain)))
        (symbol,) = [token for token in range(tokenizer.vocab_size) if tokenizer.pieces([token]) == ["and"]]
        assert [np.sum(ids == symbol) for ids in drawn] == [text.count("and") for text in TEXT]
        assert len(drawn.values) > len(plain.values)
        assert tokenizer.decode(drawn) == tokenizer.decode(plain)


def test_what_has_no_scores_is_refused():
    with pytest.raises(InputError, match=r"tokenizer\.sampling=0\.1: only SentencePiece models draw their pieces"):
        Segmenter(object.__new__(JsonTokenizer), 0.1)
