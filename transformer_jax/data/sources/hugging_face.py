"""Pairs from sets of the Hugging Face Hub, or in folders that its library `datasets` can read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformer_jax.config import HuggingFaceDataset
from transformer_jax.data.sources.records import check_fields, labels_of, outermost, texts_of
from transformer_jax.data.sources.source import Example
from transformer_jax.errors import InputError, first_line
from transformer_jax.extras import load_extra

_SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk writes of several splits, and of one


def read_hugging_face(data: HuggingFaceDataset, split: str) -> Iterator[Example]:
    """The pairs of a split, which is fetched first where it is not in a folder.

    Raises:
        InputError: on a set that is unknown or cannot be fetched, an unknown split or column, and an example that has
            neither text nor a number in it.
    """
    datasets = load_extra("datasets", "datasets", f"data.name={data.name!r}")
    chosen = _load(datasets, data, split)
    known, fields = chosen.column_names, (data.source, data.target)
    check_fields(data.source, data.target, known, repr(data.name))
    labels = labels_of(chosen.features, fields, datasets.ClassLabel)
    records = chosen.with_format(None).select_columns(sorted(outermost(fields, known)))
    yield from texts_of(records, data.source, data.target, labels, f"data: split {split!r} of {data.name!r}, example")


def _load(datasets: Any, data: HuggingFaceDataset, split: str) -> Any:
    folder = None if data.dir is None else Path(data.dir, data.name).expanduser()
    if folder is not None and not folder.is_dir():
        raise InputError(f"{folder.absolute()}: no such folder; give the folder that data.name is in with --data.dir")
    try:
        if folder is not None and any((folder / name).exists() for name in _SAVED):
            return _saved(datasets.load_from_disk(str(folder)), data, split)
        return datasets.load_dataset(str(folder or data.name), data.config, revision=data.revision, split=split)
    except InputError:
        raise
    except Exception as error:  # network, disk, formats, another version: each set fails in its own way
        raise InputError(
            f"data: split {split!r} of {data.name!r} cannot be loaded: {first_line(error)}; see data.name, data.config "
            "and data.revision, or give a folder that has it with --data.dir"
        ) from None


def _saved(saved: Any, data: HuggingFaceDataset, split: str) -> Any:
    """A split of what save_to_disk wrote; a set that is no split of others is the training split."""
    splits = saved if isinstance(saved, dict) else {str(saved.split or "train"): saved}
    if split not in splits:
        raise InputError(f"data: split {split!r} of {data.name!r}: it has the splits {sorted(splits)}")
    return splits[split]
