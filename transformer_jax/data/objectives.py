"""What a model reads and predicts of a text, for each objective of an experiment."""

import abc
import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from transformer_jax.config import (
    CausalLanguageModel,
    Classification,
    Denoising,
    MaskedLanguageModel,
    ObjectiveConfig,
    PrefixLanguageModel,
    SpanCorruption,
    Translation,
    reads_pairs,
)
from transformer_jax.data import corruption
from transformer_jax.data.examples import Examples, Tokens
from transformer_jax.data.packing import Ragged
from transformer_jax.data.tokenizer import SpecialTokens, Tokenizer, Tokenizers
from transformer_jax.errors import InputError

Ids: TypeAlias = Int[np.ndarray, " _"]
Limits: TypeAlias = tuple[int, int]  # tokens of a row, of source and target


class Single(NamedTuple):
    """What is read and predicted of one text; see `Examples`."""

    source: Ids | None
    target: Ids
    weights: Float[np.ndarray, " _"] | None = None
    places: Ids | None = None


class Objective(abc.ABC):
    """From texts to examples.

    Attributes:
        drawn: whether an example is another one in every epoch.
        longest: tokens of a text that is learned from at once: longer ones are cut. None: nothing is cut.
        framed: whether texts come with what stands around them.
        writes: whether the target is text.
    """

    drawn = False
    longest: int | None = None
    framed = True
    writes = True

    def lengths(self, lengths: Int[np.ndarray, "N 2"]) -> Int[np.ndarray, "N 2"]:
        """Tokens of source and target of the examples of pairs with so many."""
        return lengths

    @abc.abstractmethod
    def examples(self, tokens: Tokens, generators: Callable[[int], np.random.Generator]) -> Examples:
        """The examples of all texts, that of text i drawn by generator i."""


class Pairwise(Objective):
    """The target is predicted, the source is read, both as they are."""

    def examples(self, tokens: Tokens, generators: Callable[[int], np.random.Generator]) -> Examples:
        """Nothing is drawn."""
        return Examples(tokens.source, tokens.target)


class Labels(Objective):
    """The target is a class, predicted at the first place of the source."""

    writes = False

    def examples(self, tokens: Tokens, generators: Callable[[int], np.random.Generator]) -> Examples:
        """Nothing is drawn."""
        return Examples(tokens.source, tokens.target, places=Ragged(0 * tokens.target.values, tokens.target.offsets))


class Continuations(Objective):
    """Texts, or sources with targets behind them, of which the targets count."""

    def __init__(self, longest: int | None) -> None:
        self.longest = longest

    def lengths(self, lengths: Int[np.ndarray, "N 2"]) -> Int[np.ndarray, "N 2"]:
        """A source and its target are read as one."""
        return np.stack([0 * lengths[:, 0], lengths.sum(axis=1)], axis=1)

    def examples(self, tokens: Tokens, generators: Callable[[int], np.random.Generator]) -> Examples:
        """Nothing is drawn; of a text that was cut only the last part ends."""
        if tokens.source is None:
            return Examples(None, tokens.target)
        pairs = list(zip(tokens.source, tokens.target, strict=True))
        weights = [np.repeat([0.0, 1.0], [len(source), len(target)]) for source, target in pairs]
        return Examples(None, Ragged.of(list(map(np.concatenate, pairs))), Ragged.of(weights, np.float32))


class Drawn(Objective):
    """Texts of which something is hidden, by a function of the text and a generator."""

    drawn = True
    framed = False

    def __init__(self, longest: int, example: Callable[[Ids, np.random.Generator], Single]) -> None:
        self.longest, self._example = longest, example

    def examples(self, tokens: Tokens, generators: Callable[[int], np.random.Generator]) -> Examples:
        """Every text by its own generator."""
        made = [self._example(text, generators(index)) for index, text in enumerate(tokens.target)]
        source, target, _, places = zip(*made, strict=True) if made else ([], [], [], [None])
        in_places = None if places[0] is None else Ragged.of(places)
        return Examples(Ragged.of(source), Ragged.of(target), None, in_places)


def check_kind(config: ObjectiveConfig, *, plain: bool) -> None:
    """Checks that the data of an objective is plain texts, or pairs, as it has to be.

    Raises:
        InputError: where it is not.
    """
    if plain is reads_pairs(config):
        has, needs = ("plain text", "sources and targets") if plain else ("sources and targets", "plain text")
        raise InputError(f"objective.kind={config.kind!r}: the data is {has}; it needs {needs}")


def objective_of(config: ObjectiveConfig, tokenizers: Tokenizers, limits: Limits, *, plain: bool) -> Objective:
    """The objective of an experiment.

    Args:
        config: what it says.
        tokenizers: of both sides; plain texts are of the target's.
        limits: tokens of a row.
        plain: whether its texts have no sources.

    Raises:
        InputError: on texts that are plain and should not be, or the other way round; on a vocabulary without masks,
            and on two where there has to be one.
    """
    check_kind(config, plain=plain)
    if not tokenizers.joint and not isinstance(config, Translation | Classification):
        raise InputError(
            f"objective.kind={config.kind!r}: the checkpoint has a vocabulary for each side; it needs one for both"
        )
    text, special = tokenizers.target, tokenizers.target.special
    room = limits[0] - special.frames, limits[1] - special.frames
    match config:
        case Translation():
            return Pairwise()
        case Classification():
            return Labels()
        case CausalLanguageModel():
            return Continuations(None if config.prompted else limits[1])
        case PrefixLanguageModel():
            return Drawn(_possible(min(room), config, limits), functools.partial(_prefix, special))
        case MaskedLanguageModel():
            longest = _possible(min(room[0], int(limits[1] / config.share)), config, limits)
            return Drawn(longest, functools.partial(_masked, config, text, limits[1], _masks(text, config, 1)))
        case SpanCorruption():
            longest = _possible(_longest_corrupted(config, room), config, limits)
            masks = _masks(text, config, corruption.span_counts(longest, config.share, config.length)[1])
            return Drawn(longest, functools.partial(_spans, config, special, masks))
        case Denoising():
            mask = int(_masks(text, config, 1)[0])
            return Drawn(_possible(min(room), config, limits), functools.partial(_infilled, config, special, mask))


def _possible(longest: int, config: ObjectiveConfig, limits: Limits) -> int:
    if longest < 1:
        lengths = f"batch.source_length={limits[0]}, batch.target_length={limits[1]}"
        raise InputError(
            f"objective.kind={config.kind!r}: no token of a text fits in a row; {lengths}: give longer ones"
        )
    return longest


def _masks(tokenizer: Tokenizer, config: ObjectiveConfig, count: int) -> Ids:
    if len(tokenizer.masks) < count:
        raise InputError(
            f"objective.kind={config.kind!r} needs {count} masks, but the vocabulary has {len(tokenizer.masks)}; "
            f"one that is trained here has them by --tokenizer.masks {count}"
        )
    return np.array(tokenizer.masks, np.int32)


def _longest_corrupted(config: SpanCorruption, room: Limits) -> int:
    """The most tokens of which both sides fit, whatever is drawn."""

    def fits(count: int) -> bool:
        hidden, spans = corruption.span_counts(count, config.share, config.length)
        return count - hidden + spans <= room[0] and hidden + spans <= room[1]

    return next((count for count in range(sum(room), 0, -1) if fits(count)), 0)


def _prefix(special: SpecialTokens, text: Ids, random: np.random.Generator) -> Single:
    source, target = corruption.split_prefix(text, random)
    return Single(special.frame(source), special.frame(target))


def _masked(
    config: MaskedLanguageModel, tokenizer: Tokenizer, most: int, masks: Ids, text: Ids, random: np.random.Generator
) -> Single:
    starts = tokenizer.starts[text] if config.whole_words else None
    changed, places = corruption.mask_tokens(
        text,
        random,
        share=config.share,
        mask=int(masks[0]),
        words=tokenizer.words,
        masked=config.masked,
        replaced=config.random,
        starts=starts,
    )
    places = places[:most]  # one long word may be more
    before = len(tokenizer.special.before)
    return Single(tokenizer.special.frame(changed), text[places], None, places + before)


def _spans(
    config: SpanCorruption, special: SpecialTokens, masks: Ids, text: Ids, random: np.random.Generator
) -> Single:
    source, target = corruption.corrupt_spans(text, random, share=config.share, length=config.length, masks=masks)
    return Single(special.frame(source), special.frame(target))


def _infilled(config: Denoising, special: SpecialTokens, mask: int, text: Ids, random: np.random.Generator) -> Single:
    source = corruption.infill(text, random, share=config.share, length=config.length, mask=mask)
    return Single(special.frame(source), special.frame(text))
