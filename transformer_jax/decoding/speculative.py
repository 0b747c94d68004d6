"""Speculative decoding: a small model guesses some tokens, the large one reads them all at once."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from transformer_jax.decoding.constraints import Constraint, Outputs, Required, adjust
from transformer_jax.decoding.hypotheses import Hypotheses, length_penalty
from transformer_jax.decoding.model import StepModel
from transformer_jax.decoding.strategy import Sentences, Strategy
from transformer_jax.errors import InputError


@flax.struct.dataclass
class Guessed:
    """Between two rounds; see `Strategy`."""

    length: Int[Array, " B"]
    limits: Int[Array, " B"]
    tokens: Int[Array, "B T"]
    last: Int[Array, " B"]  # the token each sentence reads next
    totals: Float[Array, " B"]  # adjusted log-probabilities
    log_probs: Float[Array, " B"]  # the model's own
    is_open: Bool[Array, " B"]
    rounds: Int[Array, " B"]  # steps of the large model that each sentence took
    constraints: tuple[Constraint, ...]
    caches: tuple[PyTree, PyTree]  # of the model, and of the draft model
    pad_id: int = flax.struct.field(pytree_node=False)


@dataclasses.dataclass(frozen=True)
class SpeculativeGreedy(Strategy[Guessed]):
    """Greedy search in fewer steps of the model (Leviathan et al., 2023, with the most probable token for a draw).

    In each round the draft model, of the same vocabulary, guesses `guesses` tokens one by one; the model reads them in
    one step, and those that it would have taken too stand, with one more of its own. The output is that of a beam of
    one, whatever the draft model guesses, as far as a step of several tokens and steps of one give the same logits:
    where two tokens are equal up to rounding, either may come.

    The cache of its sentences is a pair, the model's and the draft model's, each of one row a sentence with room for
    max_length + guesses tokens. Both models can rewind.

    Raises:
        InputError: on less than one guess, or a negative length penalty or offset.
    """

    draft: StepModel
    guesses: int = 4
    length_penalty: float = 0.0  # of the score: nothing is chosen by it
    length_offset: float = 5.0  # in the length penalty

    def __post_init__(self) -> None:
        if self.guesses < 1:
            raise InputError(f"SpeculativeGreedy guesses={self.guesses} must be at least 1")
        for name in ("length_penalty", "length_offset"):
            if getattr(self, name) < 0:
                raise InputError(f"SpeculativeGreedy {name}={getattr(self, name)} must not be negative")

    @property
    def rows(self) -> int:
        """One."""
        return 1

    def start(self, model: StepModel, sentences: Sentences) -> Guessed:
        """Nothing guessed yet.

        Raises:
            InputError: when the special ids of the models differ, or phrases are required, which takes a beam.
        """
        if model.special != self.draft.special:
            raise InputError("the draft model has a different padding or end token, or another start")
        if any(isinstance(constraint, Required) for constraint in sentences.constraints):
            raise InputError("SpeculativeGreedy cannot see to required phrases: use BeamSearch")
        limits = sentences.limits
        zeros, nothing = jnp.zeros_like(limits), jnp.zeros(limits.shape, jnp.float32)
        return Guessed(
            length=zeros,
            limits=limits,
            tokens=jnp.full((*limits.shape, sentences.max_length), model.pad_id, jnp.int32),
            last=jnp.full_like(limits, model.start),
            totals=nothing,
            log_probs=nothing,
            is_open=limits > 0,
            rounds=zeros,
            constraints=sentences.constraints,
            caches=sentences.cache,
            pad_id=model.pad_id,
        )

    def advance(self, model: StepModel, state: Guessed) -> Guessed:
        """One round: guesses, checks, and keeps what the model would have said."""
        guesses, draft_cache = self._guess(state)  # -> [B G]
        read = jnp.concatenate([state.last[:, None], guesses], axis=1)  # -> [B G + 1]
        logits, cache = model.step(read, state.caches[0])
        log_probs = model.log_probs(logits)  # -> [B G + 1, V]
        adjusted = _adjusted(log_probs, state, guesses, model.eos_id)
        chosen = jnp.argmax(adjusted, axis=-1)  # -> [B G + 1]
        own, total = (jnp.take_along_axis(x, chosen[..., None], axis=2)[..., 0] for x in (log_probs, adjusted))

        # The token at a place stands if all guesses before it were right, none of these ended, and it is in the limit.
        right = (guesses == chosen[:, :-1]) & (guesses != model.eos_id)
        stands = jnp.concatenate([jnp.ones_like(right[:, :1]), jnp.cumprod(right, axis=1).astype(bool)], axis=1)
        places = state.length[:, None] + jnp.arange(read.shape[1])[None]
        stands &= state.is_open[:, None] & (places < state.limits[:, None])
        added = jnp.sum(stands, axis=1)
        length = state.length + added
        last = jnp.take_along_axis(chosen, jnp.maximum(added - 1, 0)[:, None], axis=1)[:, 0]
        totals = state.totals + jnp.sum(jnp.where(stands, total, 0.0), axis=1)
        possible = totals > -jnp.inf  # not where it is NaN either
        return dataclasses.replace(
            state,
            length=length,
            tokens=_write(state.tokens, jnp.where(stands, places, state.tokens.shape[1]), chosen),
            last=last,
            totals=totals,
            log_probs=state.log_probs + jnp.sum(jnp.where(stands, own, 0.0), axis=1),
            is_open=state.is_open & possible & (last != model.eos_id) & (length < state.limits),
            rounds=state.rounds + state.is_open,
            caches=(model.rewind(cache, length), self.draft.rewind(draft_cache, length)),
        )

    def is_open(self, state: Guessed) -> Bool[Array, " B"]:
        """Where the end has not come."""
        return state.is_open

    def results(self, state: Guessed) -> Hypotheses:
        """One output a sentence."""
        found = ((state.length > 0) & (state.totals > -jnp.inf) & ~state.is_open)[:, None]
        scores = state.totals / length_penalty(state.length, self.length_penalty, self.length_offset)
        return Hypotheses(
            tokens=jnp.where(found[..., None], state.tokens[:, None], state.pad_id),
            lengths=jnp.where(found, state.length[:, None], 0),
            scores=jnp.where(found, scores[:, None], -jnp.inf),
            log_probs=jnp.where(found, state.log_probs[:, None], -jnp.inf),
        )

    def _guess(self, state: Guessed) -> tuple[Int[Array, "B G"], PyTree]:
        """The draft's next tokens. It reads its last guess too, since all of them may stand."""
        guesses, last, cache = jnp.zeros((len(state.last), 0), jnp.int32), state.last, state.caches[1]
        for _ in range(self.guesses):
            logits, cache = self.draft.next_logits(last[:, None], cache)  # -> [B 1 V]
            scores = self.draft.without_padding(logits)
            if state.constraints:
                outputs = _outputs(state, guesses, guesses.shape[1], self.draft.eos_id)
                scores = adjust(self.draft.log_probs(logits), state.constraints, outputs)
            last = jnp.argmax(scores[:, 0], axis=-1)
            guesses = jnp.concatenate([guesses, last[:, None]], axis=1)
        _, cache = self.draft.next_logits(last[:, None], cache)
        return guesses, cache


def _adjusted(
    log_probs: Float[Array, "B G1 V"], state: Guessed, guesses: Int[Array, "B G"], eos_id: int
) -> Float[Array, "B G1 V"]:
    """The log-probabilities behind each guess, as if it stood, under the constraints."""
    if not state.constraints:
        return log_probs
    behind = [
        adjust(log_probs[:, count, None], state.constraints, _outputs(state, guesses, count, eos_id))
        for count in range(log_probs.shape[1])
    ]
    return jnp.concatenate(behind, axis=1)


def _outputs(state: Guessed, guesses: Int[Array, "B G"], count: int, eos_id: int) -> Outputs:
    """The outputs, with so many of the guesses behind them."""
    places = state.length[:, None] + jnp.arange(count)[None]
    tokens = _write(state.tokens, places, guesses[:, :count])
    return Outputs(tokens[:, None], state.length + count, state.limits, eos_id)


def _write(tokens: Int[Array, "B T"], places: Int[Array, "B N"], new: Int[Array, "B N"]) -> Int[Array, "B T"]:
    """Tokens with new ones in these places; one beyond the last is nowhere."""
    return jax.vmap(lambda row, place, token: row.at[place].set(token, mode="drop"))(tokens, places, new)
