"""Low-rank adapters (LoRA; Hu et al., 2021) into the kernels beside which they stand."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from transformer_jax.config import ModelConfig


def merged(config: ModelConfig, params: dict[str, Any]) -> tuple[ModelConfig, dict[str, Any]]:
    """The same model without adapters: of every projection the kernel W + scale A B.

    Args:
        config: of the model.
        params: its parameters, layers stacked.
    """
    return without(config), _merged(params, config.lora_scale) if config.lora_rank else params


def without(config: ModelConfig) -> ModelConfig:
    """The model without adapters."""
    default = ModelConfig()
    return replace(config, **{name: getattr(default, name) for name in ("lora_rank", "lora_alpha", "lora_on")})


def _merged(params: dict[str, Any], scale: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: _merged(own, scale) if isinstance(own, dict) else own for name, own in params.items()
    }
    if "lora_a" in found:
        update = jnp.matmul(found.pop("lora_a"), found.pop("lora_b"))  # of each layer: [L I R] [L R O] -> [L I O]
        found["kernel"] = found["kernel"] + scale * update
    return found
