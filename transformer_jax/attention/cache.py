"""Keys and values kept between the steps of decoding."""

import functools
from dataclasses import replace

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped


@flax.struct.dataclass
class Memory:
    """Keys and values of the encoder's output, to attend to at every step.

    Of keys, a channel's lie side by side: so XLA on a CPU does not pack them anew for the products with several beams,
    which then take a sixth of the time (64 sentences, a beam of 4, 32 tokens: 0.17 s -> 0.03 s).
    """

    key: Float[Array, "B G K S"]
    value: Float[Array, "B G S K"]

    @staticmethod
    def of(key: Float[Array, "B S G K"], value: Float[Array, "B S G K"]) -> "Memory":
        """Those that `entries` gives back."""
        return Memory(key.transpose(0, 2, 3, 1), value.swapaxes(1, 2))

    def entries(self) -> tuple[Float[Array, "B S G K"], Float[Array, "B S G K"]]:
        """The keys and the values."""
        return self.key.transpose(0, 3, 1, 2), self.value.swapaxes(1, 2)


@flax.struct.dataclass
class KeyValue:
    """Keys and values of a past: S entries of which the first ones are written.

    Those of a head lie side by side, as products with queries read them: a step need not rearrange all it ever kept.
    """

    key: Float[Array, "B G S K"]
    value: Float[Array, "B G S K"]

    @staticmethod
    def of(key: Float[Array, "B S G K"], value: Float[Array, "B S G K"]) -> "KeyValue":
        """Those that `entries` gives back."""
        return KeyValue(key.swapaxes(1, 2), value.swapaxes(1, 2))

    def entries(self) -> tuple[Float[Array, "B S G K"], Float[Array, "B S G K"]]:
        """The keys and the values."""
        return self.key.swapaxes(1, 2), self.value.swapaxes(1, 2)

    def write(self, new: "KeyValue", lengths: Int[Array, " B"]) -> "KeyValue":
        """Writes T new entries [B G T K] behind the `lengths` entries that each row holds."""

        def put(row: Shaped[Array, "G S K"], entries: Shaped[Array, "G T K"], start: Int[Array, ""]) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(row, entries, start, axis=1)

        def write(cache: Float[Array, "B G S K"], entries: Float[Array, "B G T K"]) -> Float[Array, "B G S K"]:
            written = jax.vmap(put)(_bits(cache), _bits(entries.astype(cache.dtype)), lengths)
            return _numbers(written, cache.dtype)

        return jax.tree.map(write, self, new)


@flax.struct.dataclass
class Held:
    """The entries of each row's hypothesis, wherever they lie among those of W rows side by side.

    Attributes:
        past: what the rows hold.
        holders: of each entry of a hypothesis, the one of the W rows that holds it.
        longest: entries of the longest hypothesis, or more; rows that nothing asks for any more count, too.
    """

    past: KeyValue
    holders: Int[Array, "N W S"]
    longest: Int[Array, ""]

    @property
    def beams(self) -> int:
        """Rows that lie side by side: W."""
        return self.holders.shape[1]

    def entries(self) -> tuple[Float[Array, "R S G K"], Float[Array, "R S G K"]]:
        """All keys and values."""
        if self.beams == 1:
            return self.past.entries()

        def gather(x: Float[Array, "R G S K"]) -> Float[Array, "R G S K"]:
            holders = self.holders[:, :, None, :, None]
            return jnp.take_along_axis(self._by_beam(x), holders, axis=1, mode="promise_in_bounds").reshape(x.shape)

        return jax.tree.map(gather, self.past).entries()

    def block(self, x: Float[Array, "R G S K"], start: Int[Array, ""], size: int) -> Float[Array, "R s G K"]:
        """The keys or the values of as many places as `size` says, which end within the S.

        Each is a sum over the beams: the numbers of its holder, and zeros in place of the others'. Sums take XLA on a
        CPU less than gathering (of four beams, decoding as a whole 7% less; of 16 to 32 as much, of 64 a quarter more),
        and slices of single beams a tenth of what a slice of all of them takes.
        """
        holders = jax.lax.dynamic_slice_in_dim(self.holders, start, size, axis=2)[:, :, None, :, None]

        def held_by(beam: int) -> Shaped[Array, "N W G s K"]:
            there = jax.lax.dynamic_slice_in_dim(self._by_beam(_bits(x))[:, beam, None], start, size, axis=3)
            return jnp.where(holders == beam, there, 0)

        total = functools.reduce(jnp.add, map(held_by, range(self.beams)))
        return _numbers(total.reshape(*x.shape[:2], size, x.shape[3]), x.dtype).swapaxes(1, 2)

    def _by_beam(self, x: Shaped[Array, "R G S K"]) -> Shaped[Array, "N W G S K"]:
        return x.reshape(*self.holders.shape[:2], *x.shape[1:])


def _bits(x: Float[Array, "..."]) -> Shaped[Array, "..."]:
    """Numbers of two bytes as whole ones: those in bfloat16 XLA on a CPU moves by way of float32, all of them."""
    return jax.lax.bitcast_convert_type(x, jnp.uint16) if x.dtype.itemsize == 2 else x


def _numbers(bits: Shaped[Array, "..."], dtype: jnp.dtype) -> Float[Array, "..."]:
    return bits if bits.dtype == dtype else jax.lax.bitcast_convert_type(bits, dtype)


@flax.struct.dataclass
class LayerCache:
    """What one decoder layer keeps: of R rows their own past, of B sentences the memory, shared by their beams."""

    past: KeyValue
    memory: Memory | None


@flax.struct.dataclass
class Cache:
    """What the decoder keeps between steps: an entry a layer, and how many tokens each of the R rows holds.

    The rows of a sentence lie side by side, so R is a multiple of the number of sentences B. W rows, side by side, are
    exchanged among each other, without copying what they hold: a table says for each entry of a hypothesis which of
    them holds it. With copies, 64 sentences and a beam of 4 took 0.5 of 7.5 CPU s more; a table as a mask over what all
    W rows hold took longer than copies.
    """

    layers: tuple[LayerCache, ...]
    lengths: Int[Array, " R"]
    holders: Int[Array, "N W C"]  # N * W = R
    memory_mask: Bool[Array, "B 1 1 S"] | None

    @property
    def capacity(self) -> int:
        """Tokens that fit in a row."""
        return self.holders.shape[2]

    @property
    def beams(self) -> int:
        """Rows that are exchanged among each other: W."""
        return self.holders.shape[1]

    def own(self) -> "Cache":
        """The same, where every row holds itself what is written to it next."""
        if self.beams == 1:
            return self
        behind = jnp.arange(self.capacity)[None, None] >= self.lengths.reshape(-1, self.beams, 1)  # -> [N W C]
        return replace(self, holders=jnp.where(behind, jnp.arange(self.beams)[None, :, None], self.holders))

    def reorder(self, rows: Int[Array, " R"]) -> "Cache":
        """Every row goes on with the hypothesis of one of its W, as in beam search, all of which are of one length.

        Raises:
            ValueError: for a cache of one beam.
        """
        if self.beams == 1:
            raise ValueError("rows of this cache are not exchanged: it was started with beams=1")
        beams = rows.reshape(-1, self.beams) % self.beams
        holders = jnp.take_along_axis(self.holders, beams[..., None], axis=1, mode="promise_in_bounds")
        return replace(self, holders=holders)

    def rewind(self, lengths: Int[Array, " R"]) -> "Cache":
        """Only the first `lengths` tokens of each row; what lies behind is written over."""
        return replace(self, lengths=lengths)
