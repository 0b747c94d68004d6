"""Pairs from TensorFlow Datasets, read as array_record: neither TensorFlow nor its own file format is needed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformer_jax.config import TensorflowDataset
from transformer_jax.data.sources.records import check_fields, labels_of, texts_of
from transformer_jax.data.sources.source import Example
from transformer_jax.errors import InputError


def read_tensorflow_dataset(data: TensorflowDataset, split: str) -> Iterator[Example]:
    """The pairs of a split of a prepared set; a set that is not prepared is fetched and prepared first.

    Raises:
        InputError: on a set that is unknown or cannot be prepared here, an unknown split or feature, and an example
            that has neither text nor a number in it.
    """
    builder = _builder(data)
    if not builder.is_prepared():
        _prepare(builder, data)
    try:
        examples = builder.as_data_source(split)
    except NotImplementedError:
        raise InputError(f"{builder.data_dir} is not prepared as array_record; {_how_to_prepare(data)}") from None
    except ValueError as error:
        raise InputError(f"data: split {split!r} of {data.name!r}: {_one_line(error)}") from None
    features = builder.info.features
    check_fields(data.source, data.target, list(features), repr(data.name))
    labels = labels_of(features, (data.source, data.target), _label_kind())
    yield from texts_of(examples, data.source, data.target, labels, f"data: split {split!r} of {data.name!r}, example")


def _builder(data: TensorflowDataset) -> Any:
    import tensorflow_datasets as tfds
    import tensorflow_datasets.translate  # registers the wmt sets, which are not found otherwise

    try:
        return tfds.builder(data.name, data_dir=data.dir, file_format="array_record")
    except (ValueError, OSError) as error:  # an unknown name is a ValueError that lists the whole catalogue
        raise InputError(
            f"data.name={data.name!r}: {_one_line(error)}; give a set of the TensorFlow Datasets catalogue "
            "as name/config:version, or the folder in which it lies prepared with --data.dir"
        ) from None


def _prepare(builder: Any, data: TensorflowDataset) -> None:
    try:
        builder.download_and_prepare(file_format="array_record")
    except Exception as error:  # network, disk, missing packages, changed web sites: each set fails in its own way
        raise InputError(
            f"data.name={data.name!r} is not prepared in {builder.data_dir}, "
            f"and preparing it failed ({type(error).__name__}: {_one_line(error)}); "
            f"{_by_hand(builder)}{_how_to_prepare(data)}"
        ) from None


def _by_hand(builder: Any) -> str:
    """Where those files belong that no program can download, as far as the set has any."""
    if not builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        return ""
    root = Path(builder.data_dir).parents[builder.info.full_name.count("/")]
    instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split()).rstrip(".")
    return f"files of it that are downloaded by hand belong in {root / 'downloads' / 'manual'}: {instructions}; "


def _how_to_prepare(data: TensorflowDataset) -> str:
    folder = "" if data.dir is None else f", data_dir={data.dir!r}"
    return (
        "where there is a network run python -c 'import tensorflow_datasets as tfds, tensorflow_datasets.translate; "
        f'tfds.builder("{data.name}"{folder.replace(chr(39), chr(34))}, file_format="array_record")'
        ".download_and_prepare()', and give that folder with --data.dir"
    )


def _one_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _label_kind() -> Any:
    import tensorflow_datasets as tfds

    return tfds.features.ClassLabel
