"""What the tests of parallel training share: kinds of mesh, small models that all of them divide, and a batch."""

import math

import jax
import numpy as np

from transformer_jax.config import MeshConfig, ModelConfig
from transformer_jax.data.batch import Batch, Side
from transformer_jax.sharding import make_mesh

ONE, DATA, FSDP, TENSOR, ALL = (1, 1, 1), (8, 1, 1), (1, 8, 1), (1, 1, 4), (2, 2, 2)  # data, fsdp, tensor

ROWS, SOURCE, TARGET = 16, 5, 7
SIZES = {"encoder_layers": 1, "decoder_layers": 2, "width": 24, "num_heads": 4, "head_width": 5, "ffn_width": 28}
TIED = ModelConfig(vocab_size=52, dropout=0.0, **SIZES)
# All else that a model may have, and all dropouts.
UNTIED = ModelConfig(
    vocab_size=50,
    dropout=0.2,
    source_vocab_size=38,
    share_embeddings="none",
    output_bias=True,
    norm="pre",
    positions="learned",
    kv_heads=2,
    query_key_norm=True,
    max_positions=11,
    gated=True,
    attention_dropout=0.1,
    activation_dropout=0.1,
    **SIZES,
)


def mesh_of(shape):
    data, fsdp, tensor = shape
    return make_mesh(MeshConfig(data=data, fsdp=fsdp, tensor=tensor), jax.devices()[: math.prod(shape)])


def make_batch():
    """Sixteen rows whose eighths, and whose odd and even rows, hold different numbers of tokens; one holds none."""
    random = np.random.default_rng(0)
    lengths = np.array([7, 1, 2, 7, 1, 3, 7, 2, 1, 7, 1, 0, 3, 5, 6, 1])
    source, target = (_side(random, np.minimum(lengths, length), length) for length in (SOURCE, TARGET))
    targets = random.integers(1, 38, target.tokens.shape).astype(np.int32) * target.segment_ids
    target = target.replace(targets=targets, weights=(target.segment_ids > 0).astype(np.float32))
    return Batch(source, target, np.arange(ROWS, dtype=np.int32)[:, None])


def _side(random, lengths, length):
    place = np.broadcast_to(np.arange(length, dtype=np.int32), (ROWS, length))
    seen = (place < lengths[:, None]).astype(np.int32)
    return Side(random.integers(1, 38, place.shape).astype(np.int32) * seen, seen, place)
