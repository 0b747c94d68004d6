"""What outputs must and must not contain: pure functions of what has been produced so far.

A constraint is a pytree. Its arrays have a leading axis of sentences, for which it may say different things; its
settings are static. It is given the log-probabilities of what may come next and gives them back adjusted, -inf for what
must not come; adjusted ones choose and rank, the model's own are summed beside them. Where everything is forbidden, a
hypothesis ends without a result.
"""

import abc
import functools
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from transformer_jax.decoding.hypotheses import Fetched
from transformer_jax.errors import InputError


@flax.struct.dataclass
class Outputs:
    """W unfinished outputs of B sentences, all those of a sentence of one length."""

    tokens: Int[Array, "B W T"]  # padded
    length: Int[Array, " B"]
    limits: Int[Array, " B"]  # greatest length, the end token included
    eos_id: int = flax.struct.field(pytree_node=False)

    def last(self, count: int) -> Int[Array, "B W N"]:
        """The last tokens of every output; -1 before its beginning."""
        places = self.length[:, None] - count + jnp.arange(count)[None]  # -> [B N]
        tokens = jnp.take_along_axis(self.tokens, jnp.maximum(places, 0)[:, None], axis=2)
        return jnp.where(places[:, None] >= 0, tokens, -1)


class Constraint(abc.ABC):
    """What may come next."""

    @abc.abstractmethod
    def adjust(self, log_probs: Float[Array, "B W V"], outputs: Outputs) -> Float[Array, "B W V"]:
        """The log-probabilities of every next token, adjusted; -inf forbids one."""


@flax.struct.dataclass
class Prefix(Constraint):
    """Every output begins with these tokens."""

    tokens: Int[Fetched, "B P"]
    lengths: Int[Fetched, " B"]  # how many of them count; 0 is no prefix

    def adjust(self, log_probs: Float[Array, "B W V"], outputs: Outputs) -> Float[Array, "B W V"]:
        """While the output is shorter than the prefix, only its next token may come."""
        place = jnp.clip(outputs.length, 0, self.tokens.shape[1] - 1)[:, None]
        wanted = jnp.take_along_axis(self.tokens, place, axis=1)  # -> [B 1]
        free = (outputs.length >= self.lengths)[:, None]
        allowed = free | (jnp.arange(log_probs.shape[-1])[None] == wanted)  # -> [B V]
        return jnp.where(allowed[:, None], log_probs, -jnp.inf)


@flax.struct.dataclass
class Vocabulary(Constraint):
    """No token but these. The end token is not exempt."""

    allowed: Bool[Fetched, "B V"]

    def adjust(self, log_probs: Float[Array, "B W V"], outputs: Outputs) -> Float[Array, "B W V"]:
        """Only what is in the list."""
        return jnp.where(self.allowed[:, None], log_probs, -jnp.inf)


@flax.struct.dataclass
class Suppressed(Constraint):
    """None of these tokens, in any sentence."""

    tokens: tuple[int, ...] = flax.struct.field(pytree_node=False)

    def adjust(self, log_probs: Float[Array, "B W V"], outputs: Outputs) -> Float[Array, "B W V"]:
        """All but those in the list."""
        return log_probs.at[..., jnp.array(self.tokens, jnp.int32)].set(-jnp.inf)


@flax.struct.dataclass
class MinLength(Constraint):
    """At least so many tokens before the end token."""

    lengths: Int[Fetched, " B"]

    def adjust(self, log_probs: Float[Array, "B W V"], outputs: Outputs) -> Float[Array, "B W V"]:
        """No end too early."""
        early = (outputs.length < self.lengths)[:, None, None]
        return jnp.where(early & _is_end(log_probs, outputs), -jnp.inf, log_probs)


@flax.struct.dataclass
class NoRepeatedNgram(Constraint):
    """No n tokens stand twice in an output, in the same order side by side.

    Raises:
        InputError: on an n below 1.
    """

    n: int = flax.struct.field(pytree_node=False)

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError(f"NoRepeatedNgram n={self.n} must be at least 1")

    def adjust(self, log_probs: Float[Array, "B W V"], outputs: Outputs) -> Float[Array, "B W V"]:
        """Not what came behind the same n - 1 tokens before."""
        tokens, before = outputs.tokens, self.n - 1
        if tokens.shape[2] <= before:
            return log_probs
        starts = tokens.shape[2] - before
        recent = outputs.last(before)
        same = [tokens[:, :, i : i + starts] == recent[:, :, i : i + 1] for i in range(before)]
        inside = jnp.arange(before, before + starts)[None, None] < outputs.length[:, None, None]
        repeated = functools.reduce(jnp.logical_and, same, jnp.broadcast_to(inside, (*tokens.shape[:2], starts)))
        return jnp.where(mentioned(tokens[:, :, before:], repeated, log_probs.shape[-1]), -jnp.inf, log_probs)


@flax.struct.dataclass
class RepetitionPenalty(Constraint):
    """The log-probability of a token that stands in the output already is multiplied by the penalty.

    After Keskar et al. (2019), section 4.1, whose scores are logits; log-probabilities have no arbitrary zero.

    Raises:
        InputError: unless the penalty is above 0.
    """

    penalty: float = flax.struct.field(pytree_node=False)  # 1 changes nothing, more repeats less

    def __post_init__(self) -> None:
        if not self.penalty > 0:
            raise InputError(f"RepetitionPenalty penalty={self.penalty} must be above 0")

    def adjust(self, log_probs: Float[Array, "B W V"], outputs: Outputs) -> Float[Array, "B W V"]:
        """Lower values for what was said before."""
        written = jnp.arange(outputs.tokens.shape[2])[None, None] < outputs.length[:, None, None]
        written = jnp.broadcast_to(written, outputs.tokens.shape)
        return jnp.where(mentioned(outputs.tokens, written, log_probs.shape[-1]), self.penalty * log_probs, log_probs)


@flax.struct.dataclass
class Required(Constraint):
    """Every one of F phrases of up to P tokens stands in the output, in any order; they may overlap.

    A phrase may be the beginning of a longer word. With a beam of one the phrases come first, and draws may come to
    them only when there is room for nothing else: a beam of some width puts them where they fit.

    An output does not end before, and from when its limit leaves no more room than what is missing needs, only that
    may come. Beam search divides its beam among outputs by how much of it they have, so that phrases come where
    they fit (dynamic beam allocation, Post and Vilar 2018; the division by rank is that of Hu et al. 2019).

    Limits must leave room for all tokens of the phrases and the end token.
    """

    phrases: Int[Fetched, "B F P"]  # padded by pad_id on the right; a phrase of padding alone is none
    pad_id: int = flax.struct.field(pytree_node=False)

    def adjust(self, log_probs: Float[Array, "B W V"], outputs: Outputs) -> Float[Array, "B W V"]:
        """Neither an end before all stands, nor what leaves too little room for the rest."""
        missing = self.missing(outputs)  # -> [B W F]
        lengths = _phrase_lengths(self.phrases, self.pad_id)
        unmet = jnp.sum(missing * lengths[:, None], axis=2)  # -> [B W]
        gain = self._gain(outputs, missing, log_probs.shape[-1])  # -> [B W V]
        room = (outputs.limits - outputs.length)[:, None, None] - 1  # behind the next token
        fits = (unmet[:, :, None] == 0) | (unmet[:, :, None] - gain + 1 <= room)
        too_early = _is_end(log_probs, outputs) & (unmet > 0)[:, :, None]
        return jnp.where(fits & ~too_early, log_probs, -jnp.inf)

    def missing(self, outputs: Outputs) -> Bool[Array, "B W F"]:
        """Which phrases stand nowhere in each output yet."""
        tokens, width, longest = outputs.tokens, outputs.tokens.shape[2], self.phrases.shape[2]
        padded = jnp.pad(tokens, ((0, 0), (0, 0), (0, longest)), constant_values=-1)
        lengths = _phrase_lengths(self.phrases, self.pad_id)[:, None, :, None]  # -> [B 1 F 1]
        here = jnp.arange(width)[None, None, None] + lengths <= outputs.length[:, None, None, None]  # -> [B 1 F T]
        for i in range(longest):
            same = padded[:, :, None, i : i + width] == self.phrases[:, None, :, i, None]  # -> [B W F T]
            here = here & (same | (i >= lengths))
        return (lengths[..., 0] > 0) & ~here.any(axis=3)

    def met_tokens(self, outputs: Outputs) -> Int[Array, "B W"]:
        """How many tokens of the phrases each output has: those of whole phrases, and of the one it is in."""
        missing = self.missing(outputs)
        lengths = _phrase_lengths(self.phrases, self.pad_id)[:, None]  # -> [B 1 F]
        begun = begun_phrases(self.phrases, outputs) & missing[..., None]  # -> [B W F P]
        progress = jnp.max(begun * _places(self.phrases), axis=(2, 3))  # -> [B W]
        return jnp.sum(~missing * lengths, axis=2) + progress

    def wanted(self, outputs: Outputs) -> Int[Array, "B W F"]:
        """The next token of every missing phrase, as far as each output is in it; pad_id where there is none."""
        begun = begun_phrases(self.phrases, outputs)  # -> [B W F P]
        progress = jnp.max(begun * _places(self.phrases), axis=3)  # -> [B W F]
        tokens = jnp.take_along_axis(self.phrases[:, None], progress[..., None], axis=3)[..., 0]
        return jnp.where(self.missing(outputs), tokens, self.pad_id)

    def _gain(self, outputs: Outputs, missing: Bool[Array, "B W F"], vocab_size: int) -> Int[Array, "B W V"]:
        """How many tokens of a missing phrase an output would end with, by its next token."""
        ends = begun_phrases(self.phrases, outputs) & missing[..., None] & (self.phrases != self.pad_id)[:, None]
        gains = jnp.where(ends, _places(self.phrases) + 1, 0)  # -> [B W F P]
        flat = (*gains.shape[:2], -1)
        tokens = jnp.broadcast_to(self.phrases[:, None], gains.shape).reshape(flat)
        nothing = jnp.zeros((*gains.shape[:2], vocab_size), gains.dtype)
        put = jax.vmap(jax.vmap(lambda row, token, gain: row.at[token].max(gain)))
        return put(nothing, tokens, gains.reshape(flat))


def begun_phrases(phrases: Int[Fetched, "B F P"], outputs: Outputs) -> Bool[Array, "B W F P"]:
    """Whether the last p tokens of an output are the first p of a phrase, for p from 0."""
    recent = outputs.last(phrases.shape[2])
    begun = [jnp.ones((*recent.shape[:2], phrases.shape[1]), bool)]
    for p in range(1, phrases.shape[2]):
        same = recent[:, :, None, -p:] == phrases[:, None, :, :p]  # -> [B W F p]
        begun.append(same.all(axis=3))
    return jnp.stack(begun, axis=3)


def adjust(
    log_probs: Float[Array, "B W V"], constraints: Sequence[Constraint], outputs: Outputs
) -> Float[Array, "B W V"]:
    """The log-probabilities under all constraints."""
    for constraint in constraints:
        log_probs = constraint.adjust(log_probs, outputs)
    return log_probs


def phrase_array(
    phrases: Sequence[Sequence[Sequence[int]]], pad_id: int, shape: tuple[int, int] | None = None
) -> Int[np.ndarray, "B F P"]:
    """Phrases of each sentence as one padded array.

    Args:
        phrases: the phrases of each sentence.
        pad_id: what fills the rest.
        shape: room for so many phrases of so many tokens; None is as few as hold them, and at least one.
    """
    if shape is None:
        longest = max((len(phrase) for own in phrases for phrase in own), default=1)
        shape = (max([len(own) for own in phrases] + [1]), longest)
    array = np.full((len(phrases), *shape), pad_id, np.int32)
    for sentence, own in enumerate(phrases):
        for place, phrase in enumerate(own):
            array[sentence, place, : len(phrase)] = phrase
    return array


def _phrase_lengths(phrases: Int[Fetched, "B F P"], pad_id: int) -> Int[Array, "B F"]:
    return jnp.sum(phrases != pad_id, axis=2)


def _places(phrases: Int[Fetched, "B F P"]) -> Int[Array, "1 1 1 P"]:
    return jnp.arange(phrases.shape[2])[None, None, None]


def _is_end(log_probs: Float[Array, "B W V"], outputs: Outputs) -> Bool[Array, "1 1 V"]:
    return (jnp.arange(log_probs.shape[-1]) == outputs.eos_id)[None, None]


def mentioned(tokens: Int[Array, "B W N"], counts: Bool[Array, "B W N"], vocab_size: int) -> Bool[Array, "B W V"]:
    """Which words of the vocabulary are among those tokens that count."""
    index = jnp.where(counts, tokens, vocab_size)  # beyond the last is dropped
    put = jax.vmap(jax.vmap(lambda row, chosen: row.at[chosen].set(True, mode="drop")))
    return put(jnp.zeros((*tokens.shape[:2], vocab_size), bool), index)
