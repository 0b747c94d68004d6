"""What lets deep post-norm stacks train: constants by depth, of the residual sums and of fresh kernels."""

from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from transformer_jax.config import ModelConfig

Side: TypeAlias = Literal["encoder", "decoder"]

_SHRUNK = ("value", "out", "inner", "outer")  # the projections whose gain DeepNorm makes small


def residual_weight(config: ModelConfig, side: Side) -> float:
    """How many times its input counts in a sublayer's sum: alpha of DeepNorm, else 1."""
    return _deep(config, side)[0] if config.norm == "deep" else 1.0


def initial_gains(config: ModelConfig, side: Side, projection: str) -> Float[np.ndarray, " L"]:
    """What the fresh kernels of a projection are multiplied by in each layer of a stack."""
    layers = config.encoder_layers if side == "encoder" else config.decoder_layers
    gains = np.ones(layers)
    if config.initialisation == "depth_scaled":  # DS-Init (Zhang et al., 2019)
        gains = gains / np.sqrt(np.arange(1, layers + 1))
    if config.norm == "deep" and projection in _SHRUNK:
        gains = gains * _deep(config, side)[1]
    return gains.astype(np.float32)


def _deep(config: ModelConfig, side: Side) -> tuple[float, float]:
    """Alpha and beta of DeepNorm (Wang et al., 2022, figure 2)."""
    encoder, decoder = config.encoder_layers, config.decoder_layers
    if not encoder or not decoder:
        layers = encoder + decoder
        return (2 * layers) ** 0.25, (8 * layers) ** -0.25
    if side == "encoder":
        depth = (encoder**4 * decoder) ** 0.0625
        return 0.81 * depth, 0.87 / depth
    return (3 * decoder) ** 0.25, (12 * decoder) ** -0.25
