"""Texts of which something is hidden: pure functions of their ids, and of a generator that draws what it is.

The ids are those of the text alone, without what stands around it.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int


class Masked(NamedTuple):
    """A text to guess at, and where."""

    tokens: Int[np.ndarray, " T"]
    places: Int[np.ndarray, " P"]  # that are predicted, ascending


class Corrupted(NamedTuple):
    """What is read, and what is to be written."""

    source: Int[np.ndarray, " S"]
    target: Int[np.ndarray, " T"]


def split_prefix(tokens: Int[np.ndarray, " T"], random: np.random.Generator) -> Corrupted:
    """The beginning of a text and the rest of it: both have a token, where there are two (Raffel et al., 2020)."""
    cut = int(random.integers(1, len(tokens))) if len(tokens) > 1 else 0
    return Corrupted(tokens[:cut], tokens[cut:])


def mask_tokens(
    tokens: Int[np.ndarray, " T"],
    random: np.random.Generator,
    *,
    share: float,
    mask: int,
    words: Int[np.ndarray, " V"],
    masked: float = 0.8,
    replaced: float = 0.1,
    starts: Bool[np.ndarray, " T"] | None = None,
) -> Masked:
    """Some tokens as a mask, some as another token, some as they are; all of these are to be predicted.

    Devlin et al., 2019, 3.1. At least one token is predicted, and as many as `share` says, as closely as units allow.

    Args:
        tokens: the ids of a text, one at least.
        random: what draws.
        share: of the tokens that are predicted.
        mask: the id that stands for a masked one.
        words: the ids that another token is drawn from.
        masked: the share of predicted tokens that are masked.
        replaced: the share of them that are another token.
        starts: which tokens begin a word; words are predicted whole. None: every token alone.
    """
    wanted = max(1, round(share * len(tokens)))
    if starts is None:
        places = np.sort(random.permutation(len(tokens))[:wanted])
    else:
        units = np.cumsum(starts) - starts[0]
        order = random.permutation(units[-1] + 1)
        places = np.flatnonzero(_filling(np.bincount(units), order, wanted)[units])
    fate, others = random.random(len(places)), words[random.integers(len(words), size=len(places))]
    seen = np.where(fate < masked, mask, np.where(fate < masked + replaced, others, tokens[places]))
    changed = tokens.copy()
    changed[places] = seen
    return Masked(changed, places)


def _filling(
    sizes: Int[np.ndarray, " units"], order: Int[np.ndarray, " units"], wanted: int
) -> Bool[np.ndarray, " units"]:
    """Which units are taken, in this order, each that still fits in what is wanted; one at least."""
    taken, left = np.zeros(len(order), bool), wanted
    for unit, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        if size <= left:
            taken[unit], left = True, left - size
    taken[order[0]] |= left == wanted
    return taken


def corrupt_spans(
    tokens: Int[np.ndarray, " T"],
    random: np.random.Generator,
    *,
    share: float,
    length: float,
    masks: Int[np.ndarray, " M"],
) -> Corrupted:
    """A text with a mark in place of each of some spans, and these spans, each behind its mark (Raffel et al., 2020).

    Args:
        tokens: the ids of a text, one at least.
        random: what draws.
        share: of the tokens that are in spans.
        length: mean tokens of a span.
        masks: the marks, as many as there are spans at least (see `span_counts`).
    """
    hidden, spans = span_counts(len(tokens), share, length)
    own, between = _partition(hidden, spans, random), _partition(len(tokens) - hidden, spans, random)
    ends = np.cumsum(between + own)  # a text begins with what is kept, and ends with a span
    starts = ends - own
    source, target = list[np.ndarray](), list[np.ndarray]()
    for span, (start, end) in enumerate(zip(starts, ends, strict=True)):
        mark = masks[span : span + 1]
        source += [tokens[start - between[span] : start], mark]
        target += [mark, tokens[start:end]]
    return Corrupted(np.concatenate(source), np.concatenate(target))


def span_counts(count: int, share: float, length: float) -> tuple[int, int]:
    """How many of so many tokens stand in spans, and in how many of them: the same whatever is drawn."""
    hidden = min(max(round(count * share), 1), max(count - 1, 1))
    return hidden, min(max(round(hidden / length), 1), hidden, max(count - hidden, 1))


def _partition(total: int, parts: int, random: np.random.Generator) -> Int[np.ndarray, " parts"]:
    """A number as a sum of so many numbers above 0, every such sum as probable; of 0, one part of 0."""
    cuts = np.sort(random.permutation(max(total - 1, 0))[: parts - 1]) + 1
    return np.diff(cuts, prepend=0, append=total)


def infill(
    tokens: Int[np.ndarray, " T"], random: np.random.Generator, *, share: float, length: float, mask: int
) -> Int[np.ndarray, " S"]:
    """A text with one mask in place of each of some spans, of which some hold no token (Lewis et al., 2020).

    Args:
        tokens: the ids of a text, one at least.
        random: what draws.
        share: of the tokens that are in spans.
        length: mean of the Poisson distribution that the lengths of spans are drawn from.
        mask: the id that stands for a span.

    Returns:
        At most as many ids as the text has.
    """
    hidden = max(round(share * len(tokens)), 1)
    kept = len(tokens) - hidden
    ends = np.cumsum(random.poisson(length, min(hidden, kept + 1)))  # of spans, counting hidden tokens alone
    ends = ends[: int(np.searchsorted(ends, hidden)) + 1]
    ends[-1] = hidden  # the last span holds what is left
    gaps = np.sort(random.permutation(kept + 1)[: len(ends)])  # tokens kept before each span; no two spans touch
    starts, source, read = np.append(0, ends[:-1]), list[np.ndarray](), 0
    for gap, start, end in zip(gaps, starts, ends, strict=True):
        source += [tokens[read : gap + start], np.array([mask], tokens.dtype)]
        read = gap + end
    return np.concatenate([*source, tokens[read:]])
