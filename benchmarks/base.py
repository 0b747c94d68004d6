"""The model that all systems run: the paper's base size, over 8,000 pieces, as Marian has it."""

from typing import TypeAlias

import jax
import numpy as np

from transformer_jax import ModelConfig, init_parameters
from transformer_jax.attention import dot_product_attention
from transformer_jax.config import BatchConfig, Experiment, Numerals, TrainingConfig
from transformer_jax.data.batch import Batch, Side
from transformer_jax.masks import SegmentMask
from transformer_jax.models import Parameters

EOS = 1
Pair: TypeAlias = tuple[np.ndarray, np.ndarray]  # padded ids of sources and of targets, a sentence a row
BASE = ModelConfig(
    vocab_size=8_000,
    positions="halves",
    norm_epsilon=1e-5,
    attention_dropout=0.1,
    activation_dropout=0.1,
)


def parameters(config: ModelConfig = BASE, seed: int = 0) -> Parameters:
    """Random parameters, as numpy arrays; the vector of padding is zero, as the peers' is."""
    params = jax.tree.map(np.array, init_parameters(config, jax.random.key(seed)))
    params["embedding"]["table"][config.pad_id] = 0.0
    return params


def sentences(rows: int, length: int, seed: int = 0, vocab_size: int = BASE.vocab_size) -> Pair:
    """Random ids, padded, of both sides."""
    random = np.random.default_rng(seed)
    sides = []
    for _ in range(2):
        lengths = random.integers(-(-3 * length // 4), length + 1, rows)
        tokens = random.integers(2, vocab_size, (rows, length), np.int32)
        sides.append(np.where(np.arange(length) < lengths[:, None], tokens, 0).astype(np.int32))
    return sides[0], sides[1]


def batch_of(pair: Pair) -> Batch:
    """A batch of one sentence a row."""
    source, target = pair

    def side(tokens: np.ndarray, read: np.ndarray, **fields: np.ndarray) -> Side:
        positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
        return Side(tokens=read, segment_ids=(tokens > 0).astype(np.int32), positions=positions, **fields)

    shifted = np.pad(target, ((0, 0), (1, 0)))[:, :-1]
    weights = (target > 0).astype(np.float32)
    return Batch(
        source=side(source, source),
        target=side(target, shifted, targets=target, weights=weights),
        example_ids=np.arange(len(source), dtype=np.int32)[:, None],
        packed=False,
    )


def experiment_of(model: ModelConfig, rows: int, length: int) -> Experiment:
    """A run of this model; of its data nothing is read."""
    batch = BatchConfig(rows=rows, source_length=length, target_length=length)
    return Experiment(data=Numerals(), batch=batch, model=model, training=TrainingConfig(steps=1_000))


def attention_at_once(query: jax.Array, key: jax.Array, value: jax.Array, mask: SegmentMask) -> jax.Array:
    """Attention with all its weights in memory, beside which other ways are set."""
    return dot_product_attention(query, key, value, mask.dense())
