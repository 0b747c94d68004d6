"""Where pairs come from, how they are tokenised, and the shape of a batch."""

from typing import Annotated, Literal

import pydantic

from transformer_jax.checked import config, placement, require, require_positive


@config
class Numerals:
    """Texts made on the spot: numbers in English words and in German words."""

    kind: Literal["numerals"] = "numerals"
    form: Literal["pairs", "text", "parity"] = "pairs"  # both; English alone; English and whether it is odd or even
    limit: int = 100_000  # numbers from 0 to limit - 1
    test_numbers: int = 1_000  # size of the test split, drawn by hash, stratified by digit count
    validation_numbers: int = 500  # size of the validation split, drawn likewise

    def __post_init__(self) -> None:
        require_positive(self, "test_numbers", "validation_numbers")
        held_out = self.test_numbers + self.validation_numbers
        require(
            self.limit >= 10 * held_out and self.limit <= 10**9,
            f"limit={self.limit} must be between 10 times the held-out numbers, {10 * held_out}, and 1,000,000,000",
        )


@config
class TextFiles:
    """Pairs from aligned text files, one sentence a line, plain or .gz; each split is (source file, target file)."""

    kind: Literal["text"] = "text"
    dir: str = placement(default=".")  # folder of the files
    train: tuple[str, str] = placement(default=("train.source", "train.target"))  # files of the training pairs
    validation: tuple[str, str] | None = placement(default=None)  # files of the validation pairs
    test: tuple[str, str] | None = placement(default=None)  # files of the test pairs
    url: str | None = placement(default=None)  # where files that are missing are fetched from
    sha256: tuple[tuple[str, str], ...] = ()  # (file, digest): refused when its bytes differ


@config
class TsvFiles:
    """Pairs from tab-separated files, plain or .gz, one pair a line."""

    kind: Literal["tsv"] = "tsv"
    dir: str = placement(default=".")  # folder of the files
    train: str = placement(default="train.tsv")  # file of the training pairs
    validation: str | None = placement(default=None)  # file of the validation pairs
    test: str | None = placement(default=None)  # file of the test pairs
    columns: tuple[int, int] = (0, 1)  # columns of source and target, from 0


@config
class TensorflowDataset:
    """Pairs from TensorFlow Datasets by name, read as array_record, without TensorFlow."""

    kind: Literal["tfds"] = "tfds"
    name: str = "wmt14_translate/de-en"  # as in the catalogue: name/config:version
    dir: str | None = placement(default=None)  # where the prepared set lies; None is ~/tensorflow_datasets
    source: str = "en"  # feature of the source side
    target: str = "de"  # feature of the target side
    train: str = placement(default="train")  # split of the training pairs
    validation: str | None = placement(default="validation")  # split of the validation pairs
    test: str | None = placement(default="test")  # split of the test pairs


DataConfig = Annotated[Numerals | TextFiles | TsvFiles | TensorflowDataset, pydantic.Field(discriminator="kind")]


@config
class TokenizerConfig:
    """SentencePiece, trained on the training text; its sizes are the model's vocab_size and source_vocab_size."""

    algorithm: Literal["bpe", "unigram"] = "bpe"
    joint: bool = True  # one vocabulary for both sides
    character_coverage: float = 1.0  # share of characters kept; the rest become the unknown piece
    split_digits: bool = False  # every digit a piece
    masks: int = 0  # pieces that stand for what is masked; one, or with spans as many as a text may have of them

    def __post_init__(self) -> None:
        require(0 < self.character_coverage <= 1, f"character_coverage={self.character_coverage} must be in (0, 1]")
        require(self.masks >= 0, f"masks={self.masks} must not be negative")


@config
class BatchConfig:
    """A training batch: rows into which pairs are packed whole, on all devices and processes together."""

    rows: int = 96  # global number of rows
    source_length: int = 256  # tokens of a row; a longer sentence is dropped and counted
    target_length: int = 256  # the same for the target, its end token included

    def __post_init__(self) -> None:
        require_positive(self, "rows", "source_length", "target_length")
