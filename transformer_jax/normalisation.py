"""Normalisations over channels: by mean and variance (Ba et al., 2016), or by the root mean square alone."""

import flax.linen as nn

from transformer_jax.config import ModelConfig


def layer_norm(config: ModelConfig, name: str | None = None) -> nn.LayerNorm | nn.RMSNorm:
    """Normalisation over the channels, of layers or by their root mean square; mean and variance in float32."""
    return _norm(config, "width", bias=True, name=name)


def head_norm(config: ModelConfig) -> nn.LayerNorm | nn.RMSNorm:
    """That of the queries or the keys of each head (Henry et al., 2020; Dehghani et al., 2023): a scale and no bias."""
    return _norm(config, "channels", bias=False)


def _norm(config: ModelConfig, axis: str, *, bias: bool, name: str | None = None) -> nn.LayerNorm | nn.RMSNorm:
    scale = nn.with_logical_partitioning(nn.initializers.ones, (axis,))
    if config.norm_type == "rms":
        return nn.RMSNorm(epsilon=config.norm_epsilon, dtype=config.dtype, scale_init=scale, name=name)
    return nn.LayerNorm(
        epsilon=config.norm_epsilon,
        dtype=config.dtype,
        use_fast_variance=False,  # E[x^2] - E[x]^2 cancels where the mean is large
        use_bias=bias,
        scale_init=scale,
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, (axis,)),
        name=name,
    )
