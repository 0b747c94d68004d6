"""What decoding gives: N outputs for each sentence, and how they are ranked."""

from typing import TypeAlias

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from transformer_jax.sizes import Size

Fetched: TypeAlias = jax.Array | np.ndarray  # numpy once it is on the host


@flax.struct.dataclass
class Hypotheses:
    """N outputs for each of B sentences.

    Where a sentence has fewer than N, the rest have length 0, only padding and a score of -inf.
    """

    tokens: Int[Fetched, "B N T"]  # padded; with the end token, unless the limit came first
    lengths: Int[Fetched, "B N"]  # tokens, the end token included
    scores: Float[Fetched, "B N"]  # what they are ranked by: adjusted log-probabilities / length_penalty(lengths)
    log_probs: Float[Fetched, "B N"]  # the model's own, summed over the tokens

    @classmethod
    def none(cls, num_sentences: Size, count: int, max_length: int, pad_id: int) -> "Hypotheses":
        """No output for any sentence yet."""
        shape = (num_sentences, count)
        nothing = jnp.full(shape, -jnp.inf, jnp.float32)
        tokens = jnp.full((*shape, max_length), pad_id, jnp.int32)
        return cls(tokens=tokens, lengths=jnp.zeros(shape, jnp.int32), scores=nothing, log_probs=nothing)

    def best(self, count: int) -> "Hypotheses":
        """So many of each sentence, best first; of equals the earlier."""
        _, index = jax.lax.top_k(self.scores, count)
        return jax.tree.map(lambda leaf: take(leaf, index), self)

    def joined(self, others: "Hypotheses") -> "Hypotheses":
        """Those of two lists, side by side."""
        return jax.tree.map(lambda own, other: jnp.concatenate([own, other], axis=1), self, others)


def length_penalty(lengths: Int[Array, "*shape"], alpha: float, offset: float = 5.0) -> Float[Array, "*shape"]:
    """What a log-probability is divided by: ((5 + length) / 6) ** alpha (Wu et al., 2016, section 7).

    An offset of 0 in place of their 5 makes it length ** alpha, which other toolkits divide by.
    """
    return ((offset + lengths) / (offset + 1)) ** alpha


def take(values: Array, index: Int[Array, "B N"]) -> Array:
    """values[b, index[b, n]] for every b and n, whatever the trailing axes."""
    return jax.vmap(lambda row, chosen: row[chosen])(values, index)
