"""How sentences are translated."""

from transformer_jax.checked import config, placement, require, require_positive


@config
class DecodingConfig:
    """How sentences are translated; the defaults are the paper's."""

    beam: int = 4  # hypotheses kept; 1 is greedy
    length_penalty: float = 0.6  # alpha of ((5 + length) / 6)^alpha
    extra_length: int = 50  # a translation is at most this many tokens longer than its source
    batch_size: int = placement(default=64)  # sentences translated at once

    def __post_init__(self) -> None:
        require_positive(self, "beam", "extra_length", "batch_size")
        require(self.length_penalty >= 0, f"length_penalty={self.length_penalty} must not be negative")
