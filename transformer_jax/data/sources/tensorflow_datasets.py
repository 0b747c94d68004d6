"""Pairs from TensorFlow Datasets, read as array_record: neither TensorFlow nor its own file format is needed."""

from typing import Any

from transformer_jax.config import TensorflowDataset
from transformer_jax.data.sources.pairs import Pairs
from transformer_jax.errors import InputError


def load_tensorflow_dataset(data: TensorflowDataset, split: str) -> Pairs:
    """The pairs of a split of a prepared set; a set that is not prepared is fetched and prepared first.

    Raises:
        InputError: on a set that is unknown or cannot be prepared here, and on an unknown split or feature.
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
    for flag, feature in (("source", data.source), ("target", data.target)):
        if feature not in features:
            raise InputError(f"data.{flag}={feature!r}: {data.name!r} has the features {sorted(features)}")
    sources, targets = [], []
    for example in examples:
        sources.append(_text(example[data.source]))
        targets.append(_text(example[data.target]))
    return Pairs(sources, targets)


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
            f"and preparing it failed ({type(error).__name__}: {_one_line(error)}); {_how_to_prepare(data)}"
        ) from None


def _how_to_prepare(data: TensorflowDataset) -> str:
    folder = "" if data.dir is None else f", data_dir={data.dir!r}"
    return (
        "where there is a network run python -c 'import tensorflow_datasets as tfds, tensorflow_datasets.translate; "
        f'tfds.builder("{data.name}"{folder.replace(chr(39), chr(34))}, file_format="array_record")'
        ".download_and_prepare()', and give that folder with --data.dir"
    )


def _one_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
