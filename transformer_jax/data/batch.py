"""The Batch: the one contract between data and training."""

from typing import TypeAlias, no_type_check

import flax.struct
import jax
import numpy as np
from jaxtyping import Float, Int

Array: TypeAlias = jax.Array | np.ndarray  # numpy on the host, jax on the devices


@no_type_check  # of the fields: as a tree it holds shapes and shardings, too
@flax.struct.dataclass
class Side:
    """One side of a batch: rows of T tokens into which whole sentences are packed.

    A sentence is a segment of its row, numbered from 1 in order; 0 marks the padding behind the last one. Positions
    count from 0 within each segment. `tokens` are what the model reads; `targets` what it should predict there and
    `weights` how much each prediction counts. A side that is only read has neither.
    """

    tokens: Int[Array, "B T"]
    segment_ids: Int[Array, "B T"]
    positions: Int[Array, "B T"]
    targets: Int[Array, "B T"] | None = None
    weights: Float[Array, "B T"] | None = None


@no_type_check  # likewise
@flax.struct.dataclass
class Batch:
    """Packed rows of both sides; segment s of a source row and segment s of its target row are a pair.

    The source is None for a decoder-only model. For an encoder-only one the target's `positions` are the places of the
    source row at which its `targets` are predicted; its `tokens` are not read. `example_ids` holds the index of the
    example in each segment, in order, and -1 where a row has fewer. Where not `packed`, every row holds one pair, from
    its first place on: some attention kernels are faster then.
    """

    source: Side | None
    target: Side | None
    example_ids: Int[Array, "B N"]
    packed: bool = flax.struct.field(pytree_node=False, default=True)

    def target_tokens(self) -> Float[Array, ""]:
        """The number of target tokens that count."""
        if self.target is None or self.target.weights is None:
            raise ValueError("this batch has no weighted target tokens")
        return self.target.weights.sum()
