"""Where the examples of a run come from: pairs of texts, or plain text; one class a kind."""

from typing import Annotated, Literal, TypeAlias

import pydantic

from transformer_jax.checked import config, placement, require, require_positive

Files: TypeAlias = str | tuple[str, ...]  # a file, several, or patterns such as part-*.gz, each in alphabetical order


@config
class Numerals:
    """Texts made on the spot: numbers in English words and in German words."""

    kind: Literal["numerals"] = "numerals"
    form: Literal["pairs", "text", "parity"] = "pairs"  # both; each as a text; English and whether it is odd or even
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
    """Pairs from aligned text files, one sentence a line; plain, .gz, .bz2, .xz or .zst, as all files are below.

    A split is a source file and its target file; further pairs of files may follow. Each may be a pattern, of which
    both sides fit equally many files.
    """

    kind: Literal["text"] = "text"
    dir: str = placement(default=".")  # folder of the files
    train: tuple[str, ...] = placement(default=("train.source", "train.target"))  # files of the training pairs
    validation: tuple[str, ...] | None = placement(default=None)  # files of the validation pairs
    test: tuple[str, ...] | None = placement(default=None)  # files of the test pairs
    url: str | None = placement(default=None)  # where files that are missing are fetched from
    sha256: tuple[tuple[str, str], ...] = ()  # (file, digest): refused when its bytes differ

    def __post_init__(self) -> None:
        for split in ("train", "validation", "test"):
            files = getattr(self, split)
            require(
                files is None or (len(files) > 0 and len(files) % 2 == 0),
                f"{split}={files} must be a source file and a target file, or several such pairs",
            )


@config
class TsvFiles:
    """Pairs from tab-separated files, one pair a line."""

    kind: Literal["tsv"] = "tsv"
    dir: str = placement(default=".")  # folder of the files
    train: Files = placement(default="train.tsv")  # files of the training pairs, or patterns
    validation: Files | None = placement(default=None)  # files of the validation pairs
    test: Files | None = placement(default=None)  # files of the test pairs
    columns: tuple[int | None, int] = (0, 1)  # columns of source and target, from 0; source None is plain text


@config
class JsonLines:
    """Pairs from files of JSON, one object a line."""

    kind: Literal["jsonl"] = "jsonl"
    dir: str = placement(default=".")  # folder of the files
    train: Files = placement(default="train.jsonl")  # files of the training pairs, or patterns
    validation: Files | None = placement(default=None)  # files of the validation pairs
    test: Files | None = placement(default=None)  # files of the test pairs
    source: str | None = "source"  # field of the source, inner ones as translation.en; None is plain text
    target: str = "target"  # field of the target, or of the text or label


@config
class Parquet:
    """Pairs from Parquet files, one pair a row."""

    kind: Literal["parquet"] = "parquet"
    dir: str = placement(default=".")  # folder of the files
    train: Files = placement(default="train.parquet")  # files of the training pairs, or patterns
    validation: Files | None = placement(default=None)  # files of the validation pairs
    test: Files | None = placement(default=None)  # files of the test pairs
    source: str | None = "source"  # column of the source, inner ones as translation.en; None is plain text
    target: str = "target"  # column of the target, or of the text or label


@config
class PlainText:
    """Text without a source side, from files, for a model of language."""

    kind: Literal["plain"] = "plain"
    dir: str = placement(default=".")  # folder of the files
    train: Files = placement(default="train.txt")  # files of the training text, or patterns
    validation: Files | None = placement(default=None)  # files of the validation text
    test: Files | None = placement(default=None)  # files of the test text
    unit: Literal["line", "paragraph", "file"] = "line"  # an example; blank lines part paragraphs


@config
class HuggingFaceDataset:
    """Pairs from a set of the Hugging Face Hub, or one that lies in a folder."""

    kind: Literal["hf"] = "hf"
    name: str  # as on the Hub; with dir the name of a folder in it, written by save_to_disk or of files
    config: str | None = None  # which of the set's configurations
    revision: str | None = None  # commit, branch or tag on the Hub
    dir: str | None = placement(default=None)  # where the folder `name` lies; None is the Hub
    source: str | None = "source"  # column of the source, inner ones as translation.en; None is plain text
    target: str = "target"  # column of the target, or of the text or label
    train: str = placement(default="train")  # split of the training pairs
    validation: str | None = placement(default=None)  # split of the validation pairs
    test: str | None = placement(default=None)  # split of the test pairs


@config
class TensorflowDataset:
    """Pairs from TensorFlow Datasets by name, read as array_record, without TensorFlow."""

    kind: Literal["tfds"] = "tfds"
    name: str = "wmt14_translate/de-en"  # as in the catalogue: name/config:version
    dir: str | None = placement(default=None)  # where the prepared set lies; None is ~/tensorflow_datasets
    source: str | None = "en"  # feature of the source side, inner ones as translation.en; None is plain text
    target: str = "de"  # feature of the target side, or of the text or label
    train: str = placement(default="train")  # split of the training pairs
    validation: str | None = placement(default="validation")  # split of the validation pairs
    test: str | None = placement(default="test")  # split of the test pairs


@config
class SacrebleuSet:
    """Pairs of the test sets that sacrebleu knows, each by its name there; fetched once, into its own folder."""

    kind: Literal["sacrebleu"] = "sacrebleu"
    pair: str  # source and target, such as en-de
    train: str | None = placement(default=None)  # set of the training pairs
    validation: str | None = placement(default=None)  # set of the validation pairs, such as wmt13
    test: str | None = placement(default=None)  # set of the test pairs, such as wmt14/full


@config
class OwnData:
    """Examples of a class of your own; see `transformer_jax.data.sources.Source`."""

    kind: Literal["own"] = "own"
    source: str  # package.module:Class, installed or in the working directory
    arguments: tuple[tuple[str, bool | int | float | str], ...] = ()  # (name, value): what the class is called with
    dir: str | None = placement(default=None)  # folder of its data, which the class is given as dir where there is one

    def __post_init__(self) -> None:
        module, colon, name = self.source.partition(":")
        right = bool(colon) and all(part.isidentifier() for part in (*module.split("."), name))
        require(right, f"source={self.source!r} must be package.module:Class")
        names = [name for name, _ in self.arguments]
        require(len({*names}) == len(names), f"arguments={names}: each may be there only once")
        require("dir" not in names, f"arguments={names}: dir is a field of its own")


_Data: TypeAlias = (
    Numerals
    | TextFiles
    | TsvFiles
    | JsonLines
    | Parquet
    | PlainText
    | HuggingFaceDataset
    | TensorflowDataset
    | SacrebleuSet
    | OwnData
)

DataConfig = Annotated[_Data, pydantic.Field(discriminator="kind")]
HeldOutConfig = Annotated[_Data | None, pydantic.Field(discriminator="kind")]
