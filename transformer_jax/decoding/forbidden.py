"""Texts that stand in no output, however they are cut into tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from transformer_jax.decoding.constraints import Constraint, Outputs, mentioned
from transformer_jax.decoding.hypotheses import Fetched
from transformer_jax.errors import InputError

ANYWHERE, START = -1, 0  # where an edge comes from, besides places within the text
DONE = 0  # where the last edge leads
_BITS = 32  # places that one word of the state holds


class Edge(NamedTuple):
    """A token that goes on with a text."""

    source: int  # characters of the text that stand already; START is none, where a text may begin; ANYWHERE is none
    token: int
    target: int  # characters that stand then; DONE is all of them


@flax.struct.dataclass
class Forbidden(Constraint):
    """None of F texts stands in an output: no path of edges leads through one from its beginning to its end.

    Made by `Forbidden.of`, of edges as `chain` gives them for a text in given tokens, or others for all ways to cut it.

    An output may be at several places of a text at once. The places it is at are found anew at every step, from its
    last `depth` tokens.
    """

    edges: Int[Fetched, "B F E 3"]  # as `Edge`; a token below 0 is no edge
    starts: Bool[Fetched, "B V"]  # tokens behind which a text may begin, as it may where an output begins
    depth: int = flax.struct.field(pytree_node=False)  # characters of the longest text, or more

    @classmethod
    def of(
        cls,
        texts: Sequence[Sequence[Sequence[Edge]]],
        starts: Bool[np.ndarray, " V"],
        room: tuple[int, int, int] | None = None,
    ) -> "Forbidden":
        """The texts of each sentence.

        Args:
            texts: the edges of each text of each sentence.
            starts: the tokens behind which a text may begin whose edges come from START.
            room: for so many texts, edges of each and characters; None is as few as hold them.

        Raises:
            InputError: when there is not room enough.
        """
        all_texts = [edges for own in texts for edges in own]
        needed = (
            max(map(len, texts), default=0),
            max(map(len, all_texts), default=0),
            1 + max((edge.target for edges in all_texts for edge in edges), default=0),
        )
        count, most, depth = needed if room is None else room
        if any(own > given for own, given in zip(needed, (count, most, depth), strict=True)):
            raise InputError(f"Forbidden room={room}: texts, edges and characters are {needed}")
        array = np.full((len(texts), count, most, 3), -1, np.int32)
        for sentence, own in enumerate(texts):
            for place, edges in enumerate(own):
                array[sentence, place, : len(edges)] = edges
        return cls(array, np.broadcast_to(starts, (len(texts), len(starts))), depth)

    def adjust(self, log_probs: Float[Array, "B W V"], outputs: Outputs) -> Float[Array, "B W V"]:
        """Not what would lead to the end of a text."""
        recent = outputs.last(self.depth + 1)  # -> [B W D + 1]
        starts = jax.vmap(lambda own, tokens: own[tokens])(jnp.asarray(self.starts), jnp.maximum(recent, 0))
        starts |= recent < 0  # -> [B W D + 1]
        sources, tokens, targets = (jnp.asarray(self.edges)[:, None, :, :, i] for i in range(3))  # -> [B 1 F E]
        words = 1 + self.depth // _BITS

        def leading(places: UInt32[Array, "B W F N"], start: Bool[Array, "B W"]) -> Bool[Array, "B W F E"]:
            word = jnp.broadcast_to(jnp.maximum(sources, 0) // _BITS, (*places.shape[:3], sources.shape[3]))
            held = jnp.take_along_axis(places, word, axis=3) >> (jnp.maximum(sources, 0) % _BITS).astype(jnp.uint32)
            within = (sources > START) & ((held & 1) > 0)
            return (tokens >= 0) & (within | (sources == ANYWHERE) | ((sources == START) & start[..., None, None]))

        def read(place: Int[Array, ""], places: UInt32[Array, "B W F N"]) -> UInt32[Array, "B W F N"]:
            taken = leading(places, starts[..., place]) & (tokens == recent[..., place + 1, None, None])
            bits = jnp.uint32(1) << (targets % _BITS).astype(jnp.uint32)

            def word(number: int) -> UInt32[Array, "B W F"]:
                on = jnp.where(taken & (targets != DONE) & (targets // _BITS == number), bits, jnp.uint32(0))
                return jax.lax.reduce(on, np.uint32(0), jax.lax.bitwise_or, (3,))

            return jnp.stack([word(number) for number in range(words)], axis=-1)

        nothing = jnp.zeros((*recent.shape[:2], sources.shape[2], words), jnp.uint32)
        places = jax.lax.fori_loop(0, self.depth, read, nothing)
        banned = leading(places, starts[..., -1]) & (targets == DONE)  # -> [B W F E]
        flat = (*banned.shape[:2], -1)
        last = jnp.broadcast_to(tokens, banned.shape).reshape(flat)
        return jnp.where(mentioned(last, banned.reshape(flat), log_probs.shape[-1]), -jnp.inf, log_probs)


def chain(tokens: Sequence[int]) -> list[Edge]:
    """The edges of a text that these tokens are, and no others."""
    ends = [*range(1, len(tokens)), DONE]
    return [Edge(place or ANYWHERE, token, end) for place, (token, end) in enumerate(zip(tokens, ends, strict=True))]
