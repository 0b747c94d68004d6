"""Greedy and beam search over a step function. Knows no model.

A strategy is given the model as two functions. `step(tokens, cache) -> (logits, cache)` reads the next tokens of every
row and gives the logits of what follows each; `select(cache, rows) -> cache` puts into row r what row rows[r] held.
Rows are sentences times beams, the beams of a sentence side by side; rows only ever move within a sentence.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from transformer_jax.errors import InputError

Fetched: TypeAlias = jax.Array | np.ndarray  # numpy once it is on the host
Step: TypeAlias = Callable[[Int[Array, "R T"], PyTree], tuple[Float[Array, "R T V"], PyTree]]
Select: TypeAlias = Callable[[PyTree, Int[Array, " R"]], PyTree]


@flax.struct.dataclass
class Hypotheses:
    """N outputs for each of B sentences, best first.

    Where a sentence has fewer than N, the rest have length 0, only padding and a score of -inf.
    """

    tokens: Int[Fetched, "B N T"]  # padded; with the end token, unless the limit came first
    lengths: Int[Fetched, "B N"]  # tokens, the end token included
    scores: Float[Fetched, "B N"]  # log_probs / length_penalty(lengths): what they are ranked by
    log_probs: Float[Fetched, "B N"]  # sum over the tokens


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """Beam search with the length penalty of Wu et al. (2016); the defaults are those of Vaswani et al., section 6.1.

    At each step the best 2 * width continuations are looked at: those that end join the n_best finished hypotheses,
    the best width of the others stay open. A sentence stops as soon as no open hypothesis can enter its finished list
    any more, so that the list is what decoding to the limit would give; the shorter the list, the earlier.
    A beam of one is greedy search.

    Raises:
        InputError: on a width below 1, a length penalty below 0, or n_best outside 1 to width.
    """

    width: int = 4
    length_penalty: float = 0.6  # alpha; 0 ranks by plain log-probability, more favours longer outputs
    n_best: int = 1  # hypotheses given for each sentence, at most width

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InputError(f"BeamSearch width={self.width} must be at least 1")
        if not self.length_penalty >= 0:
            raise InputError(f"BeamSearch length_penalty={self.length_penalty} must not be negative")
        if not 1 <= self.n_best <= self.width:
            raise InputError(f"BeamSearch n_best={self.n_best} must be 1 to {self.width}, the width")

    @property
    def _num_candidates(self) -> int:
        """Continuations looked at in a step; a runner-up would keep a beam of one open behind its own end."""
        return 2 * self.width if self.width > 1 else 1

    def search(
        self,
        step: Step,
        select: Select,
        cache: PyTree,
        limits: Int[Array, " B"],
        *,
        max_length: int,
        pad_id: int,
        eos_id: int,
    ) -> Hypotheses:
        """Decodes B sentences into N = n_best hypotheses each, in one `lax.while_loop`; may be jitted whole.

        Decoding starts from `pad_id` and never emits it. A hypothesis that reaches its limit without the end token
        is finished there, and ranked by the same formula. A sentence's result does not depend on the others. Of
        equal candidates the lower token id comes first. Logits that are NaN end their hypothesis without a result.

        Args:
            step: The model; called with one token a row.
            select: Reorders the rows of the cache; never called where width is 1.
            cache: Any pytree, with B * width rows that have read nothing yet.
            limits: Greatest number of tokens, end token included, of each sentence. A sentence of limit 0 (a row
                that only fills the batch) gets no hypothesis and costs no step.
            max_length: Width of the token buffer; no limit reaches beyond it.
            pad_id: What the decoder starts from.
            eos_id: The end token.

        Raises:
            InputError: if `pad_id` and `eos_id` are the same.
        """
        if pad_id == eos_id:
            raise InputError(f"pad_id={pad_id} is also eos_id: padding is never emitted, so no output could end")
        limits = jnp.minimum(limits, max_length)

        def advance(state: _SearchState) -> _SearchState:
            logits, cache = step(state.last.reshape(-1, 1), state.cache)  # -> [B * W, 1, V]
            logits = logits[:, -1].astype(jnp.float32).at[:, pad_id].set(-jnp.inf)  # -> [B * W, V]
            logits = logits.reshape(*state.last.shape, -1)  # -> [B, W, V]
            new = _candidates(state.log_probs, logits, self._num_candidates)
            length = state.length + 1
            tokens = _take(state.tokens, new.parents)  # -> [B, C, T]
            tokens = jax.lax.dynamic_update_index_in_dim(tokens, new.tokens, state.length, axis=2)

            ended = (new.tokens == eos_id) | (length == limits)[:, None]  # -> [B, C]
            ended_log_probs = jnp.where(ended, new.log_probs, -jnp.inf)
            finished = _finish(state.finished, tokens, length, ended_log_probs, self.length_penalty)
            log_probs, kept = jax.lax.top_k(jnp.where(ended, -jnp.inf, new.log_probs), self.width)  # -> [B, W]
            open_ = _can_still_win(log_probs, finished, limits, self.length_penalty)  # -> [B]
            return _SearchState(
                length=length,
                tokens=_take(tokens, kept),
                last=_take(new.tokens, kept),
                log_probs=jnp.where(open_[:, None], log_probs, -jnp.inf),
                finished=finished,
                cache=_reorder(select, cache, _take(new.parents, kept)),
            )

        first = _first_state(cache, limits, self.width, self.n_best, max_length, pad_id)
        return jax.lax.while_loop(_any_open, advance, first).finished


@dataclasses.dataclass(frozen=True)
class Greedy(BeamSearch):
    """The most probable token at each step: a beam of one, whose score is the plain log-probability."""

    width: int = dataclasses.field(default=1, init=False, repr=False)
    length_penalty: float = dataclasses.field(default=0.0, init=False, repr=False)
    n_best: int = dataclasses.field(default=1, init=False, repr=False)


def length_penalty(lengths: Int[Array, "*shape"], alpha: float) -> Float[Array, "*shape"]:
    """What a log-probability is divided by: ((5 + length) / 6) ** alpha (Wu et al., 2016, section 7)."""
    return ((5 + lengths) / 6) ** alpha


@flax.struct.dataclass
class _SearchState:
    """Between two steps. A sentence all of whose open log_probs are -inf is done: nothing of it changes any more."""

    length: Int[Array, ""]  # tokens of each open hypothesis
    tokens: Int[Array, "B W T"]  # of the open hypotheses
    last: Int[Array, "B W"]  # the token each of them reads next
    log_probs: Float[Array, "B W"]  # of the open hypotheses, best first; -inf where there is none
    finished: Hypotheses
    cache: PyTree


@flax.struct.dataclass
class _Candidates:
    """The best C continuations by one token of each sentence's open hypotheses, best first."""

    parents: Int[Array, "B C"]  # the beam that each continues
    tokens: Int[Array, "B C"]  # with this token
    log_probs: Float[Array, "B C"]  # of the whole; -inf where there is none


def _none_finished(num_sentences: int, n_best: int, max_length: int, pad_id: int) -> Hypotheses:
    shape = (num_sentences, n_best)
    nothing = jnp.full(shape, -jnp.inf, jnp.float32)
    tokens = jnp.full((*shape, max_length), pad_id, jnp.int32)
    return Hypotheses(tokens=tokens, lengths=jnp.zeros(shape, jnp.int32), scores=nothing, log_probs=nothing)


def _first_state(
    cache: PyTree, limits: Int[Array, " B"], width: int, n_best: int, max_length: int, pad_id: int
) -> _SearchState:
    """One empty open hypothesis a sentence, in its first beam; none where the limit is 0."""
    shape = (len(limits), width)
    return _SearchState(
        length=jnp.zeros((), jnp.int32),
        tokens=jnp.full((*shape, max_length), pad_id, jnp.int32),
        last=jnp.full(shape, pad_id, jnp.int32),
        log_probs=jnp.full(shape, -jnp.inf, jnp.float32).at[:, 0].set(jnp.where(limits > 0, 0.0, -jnp.inf)),
        finished=_none_finished(len(limits), n_best, max_length, pad_id),
        cache=cache,
    )


def _any_open(state: _SearchState) -> Bool[Array, ""]:
    return jnp.any(state.log_probs > -jnp.inf)


def _candidates(log_probs: Float[Array, "B W"], logits: Float[Array, "B W V"], count: int) -> _Candidates:
    """The best continuations; the log-softmax is taken only where it can matter."""
    best, tokens = jax.lax.top_k(logits, min(count, logits.shape[-1]))  # -> [B, W, K]
    best = best - jax.nn.logsumexp(logits, axis=-1, keepdims=True) + log_probs[:, :, None]
    best = jnp.where(jnp.isnan(best), -jnp.inf, best)
    totals, index = jax.lax.top_k(best.reshape(len(best), -1), count)  # -> [B, C]
    return _Candidates(
        parents=index // tokens.shape[-1],
        tokens=_take(tokens.reshape(len(tokens), -1), index),
        log_probs=totals,
    )


def _finish(
    finished: Hypotheses,
    tokens: Int[Array, "B C T"],
    length: Int[Array, ""],
    log_probs: Float[Array, "B C"],
    alpha: float,
) -> Hypotheses:
    """The best of the finished hypotheses and those that end now, at this length; the earlier of equals first."""
    lengths = jnp.full(log_probs.shape, length)
    new = Hypotheses(
        tokens=tokens, lengths=lengths, scores=log_probs / length_penalty(lengths, alpha), log_probs=log_probs
    )
    both = jax.tree.map(lambda old, new: jnp.concatenate([old, new], axis=1), finished, new)  # -> [B, N + C]
    _, best = jax.lax.top_k(both.scores, finished.scores.shape[1])  # -> [B, N]
    return jax.tree.map(lambda leaf: _take(leaf, best), both)


def _can_still_win(
    log_probs: Float[Array, "B W"], finished: Hypotheses, limits: Int[Array, " B"], alpha: float
) -> Bool[Array, " B"]:
    """Whether a continuation of an open hypothesis could still enter the finished list.

    A log-probability only falls and the penalty only grows, so that no continuation scores above today's
    log-probability under the penalty of the limit. A list that is not full has a worst score of -inf.
    """
    attainable = log_probs.max(axis=1) / length_penalty(limits, alpha)
    return attainable > finished.scores.min(axis=1)


def _take(values: Array, index: Int[Array, "B N"]) -> Array:
    """values[b, index[b, n]] for every b and n, whatever the trailing axes."""
    return jax.vmap(lambda row, chosen: row[chosen])(values, index)


def _reorder(select: Select, cache: PyTree, parents: Int[Array, "B W"]) -> PyTree:
    """The cache with every beam's row taken over from its parent."""
    num_sentences, width = parents.shape
    if width == 1:
        return cache
    rows = parents + width * jnp.arange(num_sentences, dtype=parents.dtype)[:, None]  # -> [B, W]
    return select(cache, rows.reshape(-1))
