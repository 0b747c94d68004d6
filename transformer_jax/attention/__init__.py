"""Attention (3.2): scaled dot products as free functions, multiple heads as a module, and keys and values kept."""

from transformer_jax.attention.blockwise import blockwise_attention
from transformer_jax.attention.cache import Cache, Held, KeyValue, LayerCache, Memory
from transformer_jax.attention.dot_product import attention_weights, dot_product_attention, mix_values
from transformer_jax.attention.multi_head import MultiHeadAttention
from transformer_jax.attention.places import Places, rotation_of
from transformer_jax.attention.relative import RelativePositions, relative_bias
from transformer_jax.attention.rotary import Rotation, rotated, rotation

__all__ = [
    "Cache",
    "Held",
    "KeyValue",
    "LayerCache",
    "Memory",
    "MultiHeadAttention",
    "Places",
    "RelativePositions",
    "Rotation",
    "attention_weights",
    "blockwise_attention",
    "dot_product_attention",
    "mix_values",
    "relative_bias",
    "rotated",
    "rotation",
    "rotation_of",
]
