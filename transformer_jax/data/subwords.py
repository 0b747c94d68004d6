"""Texts cut into other pieces: BPE-dropout (Provilkov et al., 2020) and unigram sampling (Kudo, 2018).

SentencePiece draws by a generator that no seed repeats from one process to the next. Here what is drawn is a pure
function of a key. It needs the ids of a text in its likeliest pieces alone: they spell it, and no piece reaches over
the beginning of a word, or over what has no piece.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from transformer_jax.data.keys import keyed, uniform
from transformer_jax.data.packing import Ragged, offsets_of
from transformer_jax.data.tokenizer import SentencePiece, Tokenizer
from transformer_jax.errors import InputError

_CHUNK = 8_192  # texts cut at once
_KEPT = 2**17  # words whose pieces are remembered
_SHORT = 24  # characters of such a word; a longer one, as a sentence without spaces is, hardly comes again


class _Words(NamedTuple):
    """Words that are as long as each other.

    Attributes:
        scores: of the piece of each length that begins at each place of a different word; -inf where there is none.
        kind: which of these each word is.
        keys: that each is drawn by.
    """

    scores: Float[np.ndarray, "K n L"]
    kind: Int[np.ndarray, " W"]
    keys: UInt64[np.ndarray, " W"]


class Segmenter:
    """Draws the pieces of texts.

    Args:
        tokenizer: which texts are of.
        strength: of BPE the share of merges that are left out at each step; of unigram the power that probabilities
            are raised to, less being more even.

    Raises:
        InputError: on tokenizers that have no scores of pieces.
    """

    def __init__(self, tokenizer: Tokenizer, strength: float) -> None:
        if not isinstance(tokenizer, SentencePiece):
            raise InputError(
                f"tokenizer.sampling={strength}: only SentencePiece models draw their pieces; leave it out"
            )
        self._strength = strength
        self._begins = _merged if tokenizer.algorithm == "bpe" else _weighted
        scores, self._pieces = tokenizer.scores, tokenizer.pieces(range(tokenizer.vocab_size))
        self._free = np.array([token in scores for token in range(len(self._pieces))])  # the others stay as they are
        self._starts, self._chars = tokenizer.starts, np.array(list(map(len, self._pieces)))
        self._scores = np.array([scores.get(token, 0.0) for token in range(len(self._pieces))] + [-np.inf])
        self._ids = {self._pieces[token]: token for token in scores}
        self._longest = max(map(len, self._ids))
        self._known: dict[bytes, Int[np.ndarray, "n L"]] = {}  # spans of words, by their ids

    def draw(self, texts: Ragged, keys: UInt64[np.ndarray, " texts"]) -> Ragged:
        """The same texts in pieces that are drawn, each by its key."""
        starts = range(0, max(len(texts), 1), _CHUNK)
        chunks = [np.arange(start, min(start + _CHUNK, len(texts))) for start in starts]
        return Ragged.joined([self._drawn(texts.take(chosen), keys[chosen]) for chosen in chunks])

    def _drawn(self, texts: Ragged, keys: UInt64[np.ndarray, " texts"]) -> Ragged:
        values = texts.values
        free = self._free[values]
        begins = ~free | self._starts[values]
        begins[1:] |= ~free[:-1]
        begins[texts.offsets[:-1][texts.lengths > 0]] = True
        first = np.flatnonzero(begins)  # token of each word
        counts = np.diff(np.append(first, len(values)))
        words = np.searchsorted(first, texts.offsets)  # first of each text, and the end
        text = np.repeat(np.arange(len(texts)), np.diff(words))
        own = keyed(keys[text], np.arange(len(first)) - words[text])
        width = np.add.reduceat(self._chars[values], first) if len(first) else counts
        several = free[first] & (width > 1)
        drawn = []
        for chars in np.unique(width[several]).tolist():
            chosen = np.flatnonzero(several & (width == chars))
            drawn.append((chosen, self._words(values, first[chosen], counts[chosen], own[chosen])))
        return _replaced(texts, words, Ragged(values, np.append(first, len(values))), drawn)

    def _words(
        self,
        values: Int[np.ndarray, " values"],
        first: Int[np.ndarray, " W"],
        counts: Int[np.ndarray, " W"],
        keys: UInt64[np.ndarray, " W"],
    ) -> Ragged:
        """The drawn pieces of words that are as long as each other."""
        data, size = np.ascontiguousarray(values).tobytes(), values.itemsize
        kinds: dict[bytes, int] = {}  # different words
        edges = zip((first * size).tolist(), ((first + counts) * size).tolist(), strict=True)
        kind = np.array([kinds.setdefault(data[start:end], len(kinds)) for start, end in edges])
        spans = np.stack([self._spans(word, values.dtype) for word in kinds])
        begins = self._begins(_Words(self._scores[spans], kind, keys), self._strength)
        word, start = np.nonzero(begins)
        end = np.append(start[1:], 0)
        end[end <= start] = begins.shape[1]
        return Ragged(spans[kind[word], start, end - start - 1], offsets_of(begins.sum(axis=1)))

    def _spans(self, word: bytes, dtype: np.dtype) -> Int[np.ndarray, "n L"]:
        """The id of the piece of each length that begins at each place of a word; -1 where there is none."""
        if (found := self._known.get(word)) is not None:
            return found
        text = "".join(self._pieces[token] for token in np.frombuffer(word, dtype))
        spans = np.full((len(text), min(len(text), self._longest)), -1, np.int32)
        for start, own in enumerate(spans):
            for length in range(1, min(len(own), len(text) - start) + 1):
                own[length - 1] = self._ids.get(text[start : start + length], -1)
        if len(self._known) >= _KEPT:
            self._known.clear()
        if len(text) <= _SHORT:
            self._known[word] = spans
        return spans


def _merged(words: _Words, left_out: float) -> Bool[np.ndarray, "W n"]:
    """Which places of words begin a piece: some of all possible merges are left out, the best of the others made.

    Again and again, until there is none (Provilkov et al., 2020, algorithm 1).
    """
    scores, kind, keys = words
    chars, longest = scores.shape[1:]
    begins = np.zeros((len(kind), chars), bool)
    left, edges = np.arange(len(kind)), np.tile(np.arange(chars + 1), (len(kind), 1))  # words, ends of pieces
    while len(left) and edges.shape[1] > 2:
        lengths = edges[:, 2:] - edges[:, :-2]
        found = scores[kind[left, None], edges[:, :-2], np.minimum(lengths, longest) - 1]
        found[lengths > longest] = -np.inf
        word, place = np.nonzero(found > -np.inf)
        drawn = uniform(keys[left[word]], place + chars * (chars + 1 - edges.shape[1]))
        found[word, place] = np.where(drawn < left_out, -np.inf, found[word, place])
        best = np.argmax(found, axis=1)
        merges = found[np.arange(len(left)), best] > -np.inf
        begins[left[~merges, None], edges[~merges, :-1]] = True
        left, edges, best = left[merges], edges[merges], best[merges]
        kept = np.arange(edges.shape[1]) != best[:, None] + 1
        edges = edges[kept].reshape(len(left), kept.shape[1] - 1)
    begins[left, 0] = True  # words that became one piece
    return begins


def _weighted(words: _Words, power: float) -> Bool[np.ndarray, "W n"]:
    """Which places of words begin a piece, of all ways to cut: sums forwards, draws backwards (Kudo, 2018)."""
    scores, kind, keys = words
    chars, longest = scores.shape[1:]
    logs = scores * power
    sums = np.full((len(scores), chars + 1), -np.inf)  # of all ways to a place
    sums[:, 0] = 0.0
    ways = np.full((len(scores), chars + 1, longest), -np.inf)  # to a place, by a last piece of each length
    for end in range(1, chars + 1):
        starts = end - 1 - np.arange(min(end, longest))
        ways[:, end, : len(starts)] = sums[:, starts] + logs[:, starts, end - 1 - starts]
        sums[:, end] = np.logaddexp.reduce(ways[:, end], axis=1)
    with np.errstate(invalid="ignore"):  # at places that no way leads to
        shares = np.cumsum(np.exp(ways - sums[..., None]), axis=-1)
    begins = np.zeros((len(kind), chars), bool)
    left, place, step = np.arange(len(kind)), np.full(len(kind), chars), 0
    while len(left):
        share = shares[kind[left], place]
        drawn = uniform(keys[left], np.full(len(left), step)) * share[:, -1]
        place = place - 1 - np.argmax(share > drawn[:, None], axis=1)
        begins[left, place] = True
        left, place, step = left[place > 0], place[place > 0], step + 1
    return begins


def _replaced(
    texts: Ragged, first: Int[np.ndarray, " offsets"], words: Ragged, drawn: list[tuple[Int[np.ndarray, " _"], Ragged]]
) -> Ragged:
    """Texts of words, of which some are replaced; `first` is the first word of each text."""
    lengths, same = words.lengths, np.ones(len(words), bool)
    for chosen, own in drawn:
        lengths[chosen], same[chosen] = own.lengths, False
    offsets = offsets_of(lengths)
    values = np.zeros(offsets[-1], texts.values.dtype)
    kept = np.flatnonzero(same)
    for chosen, own in [*drawn, (kept, words.take(kept))]:
        values[np.arange(len(own.values)) + np.repeat(offsets[chosen] - own.offsets[:-1], own.lengths)] = own.values
    return Ragged(values, offsets[first])
