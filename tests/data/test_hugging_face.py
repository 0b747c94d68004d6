"""Sets that the library `datasets` reads, from folders."""

import dataclasses
import json

import datasets
import pytest
import writers

from transformer_jax.config import HuggingFaceDataset
from transformer_jax.data.sources import load_pairs
from transformer_jax.errors import InputError

PAIRS = [("one", "eins"), ("two", "zwei")]


@pytest.fixture(autouse=True)
def a_cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def mistake(data, split="train"):
    with pytest.raises(InputError) as error:
        load_pairs(data, split)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_splits_of_a_saved_set(tmp_path):
    data = dataclasses.replace(writers.hugging_face(tmp_path, PAIRS), validation="dev", test="test")
    assert list(load_pairs(data, "test").examples()) == PAIRS[1:]
    assert "split 'dev' of 'both': it has the splits ['test', 'train']" in mistake(data, "validation")


def test_one_saved_split_is_that_of_training(tmp_path):
    datasets.Dataset.from_dict({"source": ["a"], "target": ["b"]}).save_to_disk(str(tmp_path / "one"))
    data = HuggingFaceDataset(name="one", dir=str(tmp_path), test="test")
    assert list(load_pairs(data, "train").examples()) == [("a", "b")]
    assert "split 'test' of 'one': it has the splits ['train']" in mistake(data, "test")


def test_labels_are_called_by_their_names(tmp_path):
    kind = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    one = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=kind)
    one.select([0, 1]).save_to_disk(str(tmp_path / "good"))
    one.save_to_disk(str(tmp_path / "bad"))
    data = HuggingFaceDataset(name="good", dir=str(tmp_path), source="text", target="label")
    assert list(load_pairs(data, "train").examples()) == [("a", "yes"), ("b", "no")]
    assert "split 'train' of 'bad', example 3: 'label' is -1" in mistake(dataclasses.replace(data, name="bad"))


def test_a_folder_of_files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for split, pairs in (("train", PAIRS), ("test", PAIRS[:1])):
        records = [json.dumps({"source": source, "target": target}) for source, target in pairs]
        (folder / f"{split}.jsonl").write_text("\n".join(records))
    data = HuggingFaceDataset(name="files", dir=str(tmp_path), validation="train[1:]", test="test")
    assert list(load_pairs(data, "train").examples()) == PAIRS
    assert list(load_pairs(data, "validation").examples()) == PAIRS[1:]
    assert list(load_pairs(data, "test").examples()) == PAIRS[:1]
    message = mistake(dataclasses.replace(data, train="dev"))
    assert message.startswith("data: split 'dev' of 'files' cannot be loaded: ValueError: ")
    assert message.endswith("--data.dir")


def test_what_is_not_there(tmp_path):
    data = writers.hugging_face(tmp_path, PAIRS)
    assert f"{tmp_path}/none: no such folder" in mistake(dataclasses.replace(data, name="none"))
    assert "data.source='en': 'both' has the features ['translation']" in mistake(
        dataclasses.replace(data, source="en")
    )
    message = mistake(dataclasses.replace(data, target="translation.fr"))
    assert "split 'train' of 'both', example 1: there is no field 'translation.fr'; there are " in message
    message = mistake(HuggingFaceDataset(name="no/such"))
    assert message.startswith("data: split 'train' of 'no/such' cannot be loaded: ")
