"""How text is tokenised, and the shape of a batch."""

from typing import Literal

from transformer_jax.checked import config, require, require_positive


@config
class TokenizerConfig:
    """SentencePiece, trained on the training text; its sizes are the model's vocab_size and source_vocab_size."""

    algorithm: Literal["bpe", "unigram"] = "bpe"
    joint: bool = True  # one vocabulary for both sides
    character_coverage: float = 1.0  # share of characters kept; the rest become the unknown piece
    split_digits: bool = False  # every digit a piece
    sampling: float = 0.0  # above 0: other pieces of pairs each epoch; of bpe the merges left out, of unigram a power
    examples: int | None = (
        None  # that it is trained on at most, drawn from all of them; None is all (1,000,000 by prepare)
    )
    masks: int = 0  # pieces that stand for what is masked; one, or with spans as many as a text may have of them

    def __post_init__(self) -> None:
        require(0 < self.character_coverage <= 1, f"character_coverage={self.character_coverage} must be in (0, 1]")
        require(0 <= self.sampling <= 1, f"sampling={self.sampling} must be in [0, 1]")
        if self.examples is not None:
            require_positive(self, "examples")
        require(self.masks >= 0, f"masks={self.masks} must not be negative")


@config
class BatchConfig:
    """A training batch: rows into which pairs are packed whole, on all devices and processes together."""

    rows: int = 96  # global number of rows
    source_length: int = 256  # tokens of a row; a longer sentence is dropped and counted
    target_length: int = 256  # the same for the target, its end token included

    def __post_init__(self) -> None:
        require_positive(self, "rows", "source_length", "target_length")
