"""Sampling: outputs drawn from the model."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt32

from transformer_jax.decoding.constraints import Constraint, Outputs, adjust
from transformer_jax.decoding.hypotheses import Fetched, Hypotheses
from transformer_jax.decoding.largest import largest
from transformer_jax.decoding.model import StepModel
from transformer_jax.decoding.strategy import Sentences, Strategy
from transformer_jax.errors import InputError


@flax.struct.dataclass
class Draws:
    """Between two steps; see `Strategy`."""

    length: Int[Array, " B"]  # tokens of every open output
    limits: Int[Array, " B"]
    tokens: Int[Array, "B N T"]
    last: Int[Array, "B N"]  # the token each reads next
    log_probs: Float[Array, "B N"]
    totals: Float[Array, "B N"]  # adjusted by the constraints
    lengths: Int[Array, "B N"]  # of those that have ended; 0 before
    is_open: Bool[Array, "B N"]
    keys: UInt32[Array, "B 2"]
    constraints: tuple[Constraint, ...]
    cache: PyTree
    pad_id: int = flax.struct.field(pytree_node=False)


@dataclasses.dataclass(frozen=True)
class Sampling(Strategy[Draws]):
    """Independent draws, token by token, in the order they are drawn; scores are not divided by a length.

    The distribution is that of the model under the constraints, at a temperature; then only the `top_k` most probable
    tokens stay, of these the fewest that hold at least `top_p` of the mass, and of these the ones that are at least
    `min_p` times as probable as the first.

    Raises:
        InputError: unless temperature is above 0, samples and top_k are at least 1, top_p is above 0 and at most 1,
            and min_p is 0 to 1.
    """

    samples: int = 1  # outputs of each sentence
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        self._require(self.samples >= 1, "samples", "must be at least 1")
        self._require(0 < self.temperature < np.inf, "temperature", "must be above 0")
        self._require(self.top_k is None or self.top_k >= 1, "top_k", "must be at least 1")
        self._require(0 < self.top_p <= 1, "top_p", "must be above 0 and at most 1")
        self._require(0 <= self.min_p <= 1, "min_p", "must be 0 to 1")

    def _require(self, condition: bool, field: str, what: str) -> None:
        if not condition:
            raise InputError(f"Sampling {field}={getattr(self, field)} {what}")

    @property
    def rows(self) -> int:
        """One for each sample."""
        return self.samples

    def start(self, model: StepModel, sentences: Sentences) -> Draws:
        """Nothing drawn yet; nothing is open where the limit is 0.

        Raises:
            InputError: when there are no keys.
        """
        if sentences.keys is None:
            raise InputError("Sampling needs keys, one for each sentence: see keys_of_lines")
        limits = sentences.limits
        shape = (limits.shape[0], self.samples)
        return Draws(
            length=jnp.zeros_like(limits),
            limits=limits,
            tokens=jnp.full((*shape, sentences.max_length), model.pad_id, jnp.int32),
            last=jnp.full(shape, model.start, jnp.int32),
            log_probs=jnp.zeros(shape, jnp.float32),
            totals=jnp.zeros(shape, jnp.float32),
            lengths=jnp.zeros(shape, jnp.int32),
            is_open=jnp.broadcast_to((limits > 0)[:, None], shape),
            keys=sentences.keys,
            constraints=sentences.constraints,
            cache=sentences.cache,
            pad_id=model.pad_id,
        )

    def advance(self, model: StepModel, state: Draws) -> Draws:
        """Draws a token for every open output. One for which nothing is possible is lost: it stays of length 0."""
        logits, cache = model.next_logits(state.last, state.cache)
        log_probs = model.log_probs(logits)  # -> [B N V]
        outputs = Outputs(state.tokens, state.length, state.limits, model.eos_id)
        adjusted = adjust(log_probs, state.constraints, outputs)
        tokens = self._draw(adjusted, state.keys, state.length)
        own, total = (jnp.take_along_axis(x, tokens[..., None], axis=2)[..., 0] for x in (log_probs, adjusted))
        drawn = state.is_open & (total > -jnp.inf)  # also not where it is NaN
        tokens = jnp.where(drawn, tokens, model.pad_id)
        length = state.length + 1
        ended = drawn & ((tokens == model.eos_id) | (length == state.limits)[:, None])
        here = (jnp.arange(state.tokens.shape[2])[None, None] == state.length[:, None, None]) & drawn[..., None]
        return dataclasses.replace(
            state,
            length=length,
            tokens=jnp.where(here, tokens[..., None], state.tokens),
            last=tokens,
            log_probs=state.log_probs + jnp.where(drawn, own, 0.0),
            totals=state.totals + jnp.where(drawn, total, 0.0),
            lengths=jnp.where(ended, length[:, None], state.lengths),
            is_open=drawn & ~ended,
            cache=cache,
        )

    def is_open(self, state: Draws) -> Bool[Array, " B"]:
        """Where any output is open."""
        return state.is_open.any(axis=1)

    def results(self, state: Draws) -> Hypotheses:
        """The outputs that have ended."""
        ended = state.lengths > 0
        return Hypotheses(
            tokens=jnp.where(ended[..., None], state.tokens, state.pad_id),
            lengths=state.lengths,
            scores=jnp.where(ended, state.totals, -jnp.inf),
            log_probs=jnp.where(ended, state.log_probs, -jnp.inf),
        )

    def _draw(
        self, log_probs: Float[Array, "B N V"], keys: UInt32[Array, "B 2"], length: Int[Array, " B"]
    ) -> Int[Array, "B N"]:
        """One token each: by Gumbel noise, whose bits depend on the key of the sentence, the sample and the place."""
        scaled, tokens = log_probs / self.temperature, None
        if self.top_k is not None or self.top_p < 1 or self.min_p > 0:
            count = min(self.top_k or scaled.shape[-1], scaled.shape[-1])
            scaled, tokens = largest(scaled, count)
            scaled = self._truncated(scaled)

        def noise(key: UInt32[Array, "2"], place: Int[Array, ""], sample: Int[Array, ""]) -> Float[Array, " K"]:
            own = jax.random.fold_in(jax.random.fold_in(jax.random.wrap_key_data(key), sample), place)
            return jax.random.gumbel(own, scaled.shape[-1:])

        samples = jnp.arange(self.samples)
        gumbel = jax.vmap(jax.vmap(noise, (None, None, 0)), (0, 0, None))(keys, length, samples)  # -> [B N K]
        best = jnp.argmax(scaled + gumbel, axis=-1)  # -> [B N]
        return best if tokens is None else jnp.take_along_axis(tokens, best[..., None], axis=2)[..., 0]

    def _truncated(self, log_probs: Float[Array, "B N K"]) -> Float[Array, "B N K"]:
        """Sorted from the most probable on; -inf from where top_p or min_p cut."""
        probs = jax.nn.softmax(log_probs)
        before = jnp.cumsum(probs, axis=-1) - probs
        kept = (before < self.top_p) & (probs >= self.min_p * probs[..., :1])
        return jnp.where(kept, log_probs, -jnp.inf)


def keys_of_lines(
    seed: int, lines: Int[Fetched, " B"], parts: Int[Fetched, " B"] | None = None
) -> UInt32[Array, "B 2"]:
    """The randomness of each line: the seed folded with its number, so that no draw depends on the lines around it.

    Args:
        seed: of all.
        lines: the number of each line.
        parts: which part of its line each is, where lines have several; None is the first.
    """

    def key(line: Int[Array, ""], part: Int[Array, ""]) -> UInt32[Array, "2"]:
        return jax.random.key_data(jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), line), part))

    return jax.vmap(key)(jnp.asarray(lines), jnp.zeros_like(lines) if parts is None else jnp.asarray(parts))
