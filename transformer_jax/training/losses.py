"""Label-smoothed cross-entropy (5.4), as sums and counts: the mean is taken once, over all tokens there are."""

import functools
from collections.abc import Callable, Sequence
from typing import no_type_check

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped


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


def cross_entropy(
    logits: Float[Array, "B T V"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    label_smoothing: float = 0.0,
) -> LossSums:
    """Cross-entropy with the targets smoothed to (1 - epsilon) onehot + epsilon / V, summed over tokens.

    No one-hot array is made: with z the logits, the sum over the vocabulary is
    logsumexp(z) - (1 - epsilon) z[target] - epsilon mean(z).
    """
    seen = weights > 0  # elsewhere the logits may be anything: zero them before, or 0 * NaN comes back in the gradient
    logits = jnp.where(seen[..., None], logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), 0.0)
    normaliser = jax.nn.logsumexp(logits, axis=-1)  # -> [B T]
    log_loss = normaliser - jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    loss = log_loss
    if label_smoothing:
        loss = (1 - label_smoothing) * log_loss + label_smoothing * (normaliser - logits.mean(-1))
    return LossSums(loss=(loss * weights).sum(), log_loss=(log_loss * weights).sum(), tokens=weights.sum())


def in_parts(sums_of: Callable[..., LossSums], arrays: Sequence[Shaped[Array, "B T ..."]], count: int) -> LossSums:
    """The sums over arrays, added up over so many parts of their positions, of which one at a time is in memory.

    The backward pass computes a part again. Rows stay whole, as devices share them.

    Args:
        sums_of: sums of a part of each array.
        arrays: what it takes.
        count: parts; a divisor of T.
    """
    if count == 1:
        return sums_of(*arrays)

    def cut(x: Shaped[Array, "B T ..."]) -> Shaped[Array, "N B t ..."]:
        return x.reshape(x.shape[0], count, -1, *x.shape[2:]).swapaxes(0, 1)

    @functools.partial(jax.checkpoint, prevent_cse=False)  # a loop is no place where that could happen
    def sums_of_part(part: Sequence[Array]) -> LossSums:
        return sums_of(*part)

    parts = jax.lax.map(sums_of_part, [cut(x) for x in arrays])
    return jax.tree.map(lambda part: part.sum(0), parts)
