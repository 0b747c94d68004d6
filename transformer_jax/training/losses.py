"""Label-smoothed cross-entropy (5.4), as sums and counts: the mean is taken once, over all tokens there are."""

from typing import no_type_check

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from transformer_jax.projection import LogitSums


@no_type_check  # of the fields: as a tree it holds shapes and shardings, too
@flax.struct.dataclass
class LossSums:
    """Sums over target tokens, in nats: what is minimised, the plain negative log-likelihood, and their number."""

    loss: Float[Array, ""]
    log_loss: Float[Array, ""]
    tokens: Float[Array, ""]

    @staticmethod
    def zero() -> "LossSums":
        """Nothing counted yet."""
        return LossSums(*(jnp.zeros((), jnp.float32) for _ in range(3)))

    def __add__(self, other: "LossSums") -> "LossSums":
        return jax.tree.map(jnp.add, self, other)


@no_type_check  # likewise
@flax.struct.dataclass
class EvaluatedSums(LossSums):
    """What is summed where a model is evaluated: also how much of the weight is on targets that it finds likeliest."""

    correct: Float[Array, ""]


def evaluated(sums: LogitSums, vocab_size: int, weights: Float[Array, "*places"]) -> EvaluatedSums:
    """Cross-entropy without smoothing, and the likeliest predictions that are right; arguments as `cross_entropy`."""
    loss = cross_entropy(sums, vocab_size, weights)
    correct = jnp.where(sums.target >= sums.largest, weights, 0.0).sum()
    return EvaluatedSums(loss.loss, loss.log_loss, loss.tokens, correct)


def cross_entropy(
    sums: LogitSums, vocab_size: int, weights: Float[Array, "*places"], label_smoothing: float = 0.0
) -> LossSums:
    """Cross-entropy with the targets smoothed to (1 - epsilon) onehot + epsilon / V, summed over tokens.

    No one-hot array is made: with z the logits, the sum over the vocabulary is
    logsumexp(z) - (1 - epsilon) z[target] - epsilon mean(z).

    Args:
        sums: what it takes of the logits at each place; finite, also where nothing counts.
        vocab_size: V.
        weights: how much each place counts.
        label_smoothing: epsilon.
    """
    log_loss = loss = sums.normaliser - sums.target
    if label_smoothing:
        loss = (1 - label_smoothing) * log_loss + label_smoothing * (sums.normaliser - sums.total / vocab_size)
    return LossSums(loss=(loss * weights).sum(), log_loss=(log_loss * weights).sum(), tokens=weights.sum())
