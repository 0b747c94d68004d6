"""Speculative decoding: a small model guesses some tokens, the large one reads them all at once."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from transformer_jax.decoding.hypotheses import Hypotheses
from transformer_jax.decoding.model import StepModel
from transformer_jax.errors import InputError


@flax.struct.dataclass
class _Progress:
    """Between two rounds."""

    length: Int[Array, " B"]
    tokens: Int[Array, "B T"]
    last: Int[Array, " B"]  # the token each sentence reads next
    log_probs: Float[Array, " B"]
    is_open: Bool[Array, " B"]
    cache: PyTree
    draft_cache: PyTree
    steps: Int[Array, ""]  # of the large model


@dataclasses.dataclass(frozen=True)
class SpeculativeGreedy:
    """Greedy search in fewer steps of the model (Leviathan et al., 2023, with the most probable token for a draw).

    In each round the draft model, of the same vocabulary, guesses `guesses` tokens one by one; the model reads them in
    one step, and those that it would have taken too stand, with one more of its own. The output is that of `Greedy`,
    whatever the draft model guesses, as far as a step of several tokens and steps of one give the same logits: where
    two tokens are equal up to rounding, either may come.

    Raises:
        InputError: on less than one guess.
    """

    guesses: int = 4

    def __post_init__(self) -> None:
        if self.guesses < 1:
            raise InputError(f"SpeculativeGreedy guesses={self.guesses} must be at least 1")

    def search(
        self,
        model: StepModel,
        draft: StepModel,
        cache: PyTree,
        draft_cache: PyTree,
        limits: Int[Array, " B"],
        *,
        max_length: int,
    ) -> tuple[Hypotheses, Int[Array, ""]]:
        """One output for each of B sentences, and the steps of the model that it took; may be jitted whole.

        Args:
            model: The model; it can rewind.
            draft: The model that guesses; it can rewind.
            cache: Of the model, one row a sentence, with room for max_length + guesses tokens; a table of learned
                positions must reach so far too.
            draft_cache: Of the draft model, with the same room.
            limits: Greatest number of tokens, end token included, of each sentence; see `Strategy.search`.
            max_length: Width of the token buffer; no limit reaches beyond it.

        Raises:
            InputError: when a model cannot rewind, or their special ids differ.
        """
        if (model.pad_id, model.eos_id) != (draft.pad_id, draft.eos_id):
            raise InputError("the draft model has a different padding or end token")
        limits = jnp.minimum(limits, max_length)
        start = _Progress(
            length=jnp.zeros_like(limits),
            tokens=jnp.full((limits.shape[0], max_length), model.pad_id, jnp.int32),
            last=jnp.full(limits.shape[0], model.pad_id, jnp.int32),
            log_probs=jnp.zeros(limits.shape[0], jnp.float32),
            is_open=limits > 0,
            cache=cache,
            draft_cache=draft_cache,
            steps=jnp.zeros((), jnp.int32),
        )
        end = jax.lax.while_loop(
            lambda state: state.is_open.any(), lambda state: self._round(model, draft, limits, state), start
        )
        found = (end.length > 0) & ~jnp.isnan(end.log_probs)
        scores = jnp.where(found, end.log_probs, -jnp.inf)[:, None]
        tokens = jnp.where(found[:, None], end.tokens, model.pad_id)[:, None]
        return Hypotheses(tokens, jnp.where(found, end.length, 0)[:, None], scores, scores), end.steps

    def _round(self, model: StepModel, draft: StepModel, limits: Int[Array, " B"], state: _Progress) -> _Progress:
        """Guesses, checks, and keeps what the model would have said."""
        guesses, draft_cache = self._guess(draft, state.last, state.draft_cache)  # -> [B G]
        read = jnp.concatenate([state.last[:, None], guesses], axis=1)  # -> [B G + 1]
        logits, cache = model.step(read, state.cache)
        log_probs = jax.nn.log_softmax(model.without_padding(logits))  # -> [B G + 1, V]
        chosen = jnp.argmax(log_probs, axis=-1)  # -> [B G + 1]
        own = jnp.take_along_axis(log_probs, chosen[..., None], axis=2)[..., 0]

        # The token at a place stands if all guesses before it were right, none of these ended, and it is in the limit.
        right = (guesses == chosen[:, :-1]) & (guesses != model.eos_id)
        stands = jnp.concatenate([jnp.ones_like(right[:, :1]), jnp.cumprod(right, axis=1).astype(bool)], axis=1)
        places = state.length[:, None] + jnp.arange(read.shape[1])[None]
        stands &= state.is_open[:, None] & (places < limits[:, None])
        added = jnp.sum(stands, axis=1)
        length = state.length + added
        last = jnp.take_along_axis(chosen, jnp.maximum(added - 1, 0)[:, None], axis=1)[:, 0]
        write = jax.vmap(lambda row, place, token: row.at[place].set(token, mode="drop"))
        return _Progress(
            length=length,
            tokens=write(state.tokens, jnp.where(stands, places, state.tokens.shape[1]), chosen),
            last=last,
            log_probs=state.log_probs + jnp.sum(jnp.where(stands, own, 0.0), axis=1),
            is_open=state.is_open & (last != model.eos_id) & (length < limits),
            cache=model.rewind(cache, length),
            draft_cache=draft.rewind(draft_cache, length),
            steps=state.steps + 1,
        )

    def _guess(self, draft: StepModel, last: Int[Array, " B"], cache: PyTree) -> tuple[Int[Array, "B G"], PyTree]:
        """The draft's next tokens. It reads its last guess too, since all of them may stand."""
        guesses = []
        for _ in range(self.guesses):
            logits, cache = draft.next_logits(last[:, None], cache)
            last = jnp.argmax(logits[:, 0], axis=-1)
            guesses.append(last)
        _, cache = draft.next_logits(last[:, None], cache)
        return jnp.stack(guesses, axis=1), cache
