"""What decoding knows of a model."""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from transformer_jax.errors import InputError

Step: TypeAlias = Callable[[Int[Array, "R T"], PyTree], tuple[Float[Array, "R T V"], PyTree]]
Select: TypeAlias = Callable[[PyTree, Int[Array, " R"]], PyTree]
Rewind: TypeAlias = Callable[[PyTree, Int[Array, " R"]], PyTree]


def _cannot_rewind(cache: PyTree, lengths: Int[Array, " R"]) -> PyTree:
    raise InputError("speculative decoding needs models that can rewind: StepModel(..., rewind=...)")


@dataclasses.dataclass(frozen=True)
class StepModel:
    """A model as functions over a cache, which may be any pytree.

    Rows are sentences times hypotheses, those of a sentence side by side; rows only ever move within a sentence, among
    as many side by side as `Strategy.beams` says, which have all read equally many tokens.

    Raises:
        InputError: if `pad_id` and `eos_id` are the same: padding is never emitted, so no output could end.
    """

    step: Step  # reads the next T tokens of every row; gives the logits of what follows each
    select: Select  # puts into row r what row rows[r] held; never called where a sentence has one row
    pad_id: int  # what stands behind an output; never emitted
    eos_id: int  # the end token
    rewind: Rewind = _cannot_rewind  # forgets what each row read beyond so many tokens; speculative decoding needs it
    start_id: int | None = None  # what the decoder starts from; None is pad_id
    counts_padding: bool = False  # whether padding has its share of the probability, though it is never emitted

    def __post_init__(self) -> None:
        if self.pad_id == self.eos_id:
            raise InputError(f"pad_id={self.pad_id} is also eos_id: padding is never emitted, so no output could end")

    @property
    def special(self) -> tuple[int, int, int, bool]:
        """What models must have in common to decode together."""
        return self.pad_id, self.eos_id, self.start, self.counts_padding

    @property
    def start(self) -> int:
        """What the decoder starts from."""
        return self.pad_id if self.start_id is None else self.start_id

    def next_logits(self, tokens: Int[Array, "B W"], cache: PyTree) -> tuple[Float[Array, "B W V"], PyTree]:
        """What may follow one more token of every hypothesis, in float32."""
        logits, cache = self.step(tokens.reshape(-1, 1), cache)  # -> [B * W, 1, V]
        return logits[:, -1].astype(jnp.float32).reshape(*tokens.shape, -1), cache

    def log_probs(self, logits: Float[Array, "*rows V"]) -> Float[Array, "*rows V"]:
        """The log-probabilities of all tokens, that of padding at -inf."""
        if self.counts_padding:
            return self.without_padding(jax.nn.log_softmax(logits.astype(jnp.float32)))
        return jax.nn.log_softmax(self.without_padding(logits))

    def normaliser(self, logits: Float[Array, "*rows V"]) -> Float[Array, "*rows 1"]:
        """What is taken off the logits to make log-probabilities of them."""
        counted = logits if self.counts_padding else self.without_padding(logits)
        return jax.nn.logsumexp(counted, axis=-1, keepdims=True)

    def without_padding(self, logits: Float[Array, "*rows V"]) -> Float[Array, "*rows V"]:
        """The logits in float32, that of padding at -inf."""
        others = jnp.arange(logits.shape[-1]) != self.pad_id  # a value set in its place copies all logits on a CPU
        return jnp.where(others, logits.astype(jnp.float32), -jnp.inf)
