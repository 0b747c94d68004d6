"""Public checkpoints of the Transformer's families, opened without the libraries that wrote them."""

from transformer_jax.pretrained.checkpoint import FAMILIES, Checkpoint, read_checkpoint, write_checkpoint
from transformer_jax.pretrained.folder import Pretrained, family_of, load_pretrained, save_pretrained
from transformer_jax.pretrained.generation import decoding_of
from transformer_jax.pretrained.publish import published

__all__ = [
    "FAMILIES",
    "Checkpoint",
    "Pretrained",
    "decoding_of",
    "family_of",
    "load_pretrained",
    "published",
    "read_checkpoint",
    "save_pretrained",
    "write_checkpoint",
]
