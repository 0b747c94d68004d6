"""Public checkpoints of the Transformer's families, opened without the libraries that wrote them."""

from transformer_jax.pretrained.checkpoint import FAMILIES, Checkpoint, read_checkpoint, write_checkpoint
from transformer_jax.pretrained.publish import published

__all__ = ["FAMILIES", "Checkpoint", "published", "read_checkpoint", "write_checkpoint"]
