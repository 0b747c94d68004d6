"""The encoder-decoder Transformer in JAX and Flax.

Dimension letters, in annotations, einsums and sharding alike: B batch, S source length, T target length, D width,
H heads, G heads of keys and values, K channels of a head, F feed-forward width, V vocabulary, W beam width, L layers,
R rows of a cache (one for each hypothesis, B * W).

The names below load on first use; importing the package touches no device.
"""

import importlib
from typing import Any

_HOMES = {
    "Transformer": "models",
    "Encoder": "stacks",
    "Decoder": "stacks",
    "init_parameters": "initialisation",
    "EncoderLayer": "layers",
    "DecoderLayer": "layers",
    "MultiHeadAttention": "attention",
    "dot_product_attention": "attention",
    "Greedy": "decoding",
    "BeamSearch": "decoding",
    "Sampling": "decoding",
    "StepModel": "decoding",
    "Translator": "translation",
    "Generator": "translation",
    "Classifier": "classification",
    "load_pretrained": "pretrained",
    "Experiment": "config",
    "ModelConfig": "config",
}

__all__ = sorted(_HOMES)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Loads a public name from the module it lives in."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
