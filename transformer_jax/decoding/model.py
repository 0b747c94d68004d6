"""What decoding knows of a model."""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

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

    Rows are sentences times hypotheses, those of a sentence side by side; rows only ever move within a sentence.

    Raises:
        InputError: if `pad_id` and `eos_id` are the same: padding is never emitted, so no output could end.
    """

    step: Step  # reads the next T tokens of every row; gives the logits of what follows each
    select: Select  # puts into row r what row rows[r] held; never called where a sentence has one row
    pad_id: int  # what the decoder starts from; never emitted
    eos_id: int  # the end token
    rewind: Rewind = _cannot_rewind  # forgets what each row read beyond so many tokens; speculative decoding needs it

    def __post_init__(self) -> None:
        if self.pad_id == self.eos_id:
            raise InputError(f"pad_id={self.pad_id} is also eos_id: padding is never emitted, so no output could end")

    def next_logits(self, tokens: Int[Array, "B W"], cache: PyTree) -> tuple[Float[Array, "B W V"], PyTree]:
        """What may follow one more token of every hypothesis, in float32; nothing but padding is ruled out."""
        logits, cache = self.step(tokens.reshape(-1, 1), cache)  # -> [B * W, 1, V]
        logits = self.without_padding(logits[:, -1])
        return logits.reshape(*tokens.shape, -1), cache

    def without_padding(self, logits: Float[Array, "*rows V"]) -> Float[Array, "*rows V"]:
        """The logits in float32, that of padding at -inf."""
        return logits.astype(jnp.float32).at[..., self.pad_id].set(-jnp.inf)
