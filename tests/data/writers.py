"""Writes the same examples as every kind of source holds them, and tells how each is opened."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import zstandard

from transformer_jax.config import (
    HuggingFaceDataset,
    JsonLines,
    OwnData,
    Parquet,
    PlainText,
    TensorflowDataset,
    TextFiles,
    TsvFiles,
)

PACK = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


class Words:
    """A source of one's own, with what it needs and no more."""

    def __init__(self, dir, count=5, plain=False):
        self.pairs_of_files = json.loads(Path(dir, "own.json").read_text())[:count]
        self.plain = plain

    def pairs(self, split):
        if split == "train":
            return [(None if self.plain else source, target) for source, target in self.pairs_of_files]
        return None


def lines(texts, suffix):
    return PACK[suffix]("".join(f"{text}\n" for text in texts).encode())


def text(folder, pairs, suffix):
    names = tuple(f"{side}{suffix}" for side in ("a", "b"))
    for name, side in zip(names, zip(*pairs, strict=True), strict=True):
        (folder / name).write_bytes(lines(side, suffix))
    return TextFiles(dir=str(folder), train=names)


def tsv(folder, pairs, suffix):
    (folder / f"a.tsv{suffix}").write_bytes(lines([f"3\t{target}\t{source}" for source, target in pairs], suffix))
    return TsvFiles(dir=str(folder), train=f"a.tsv{suffix}", columns=(2, 1))


def jsonl(folder, pairs, suffix):
    records = [json.dumps({"en": source, "inner": {"de": target}}) for source, target in pairs]
    (folder / f"a.jsonl{suffix}").write_bytes(lines(records, suffix))
    return JsonLines(dir=str(folder), train=f"a.jsonl{suffix}", source="en", target="inner.de")


def plain(folder, pairs, suffix):
    (folder / f"a.txt{suffix}").write_bytes(lines([target for _, target in pairs], suffix))
    return PlainText(dir=str(folder), train=f"a.txt{suffix}")


def parquet(folder, pairs):
    import pyarrow
    from pyarrow.parquet import write_table

    table = pyarrow.Table.from_pylist([{"x": 3, "en": source, "inner": {"de": target}} for source, target in pairs])
    write_table(table, folder / "a.parquet", row_group_size=2)
    return Parquet(dir=str(folder), train="a.parquet", source="en", target="inner.de")


def hugging_face(folder, pairs):
    import datasets

    records = [{"translation": {"en": source, "de": target}} for source, target in pairs]
    kind = datasets.Features({"translation": datasets.Translation(["de", "en"])})
    one = datasets.Dataset.from_list(records, features=kind)
    datasets.DatasetDict({"train": one, "test": one.select([1])}).save_to_disk(str(folder / "both"))
    return HuggingFaceDataset(name="both", dir=str(folder), source="translation.en", target="translation.de")


def tensorflow_dataset(folder, pairs):
    import tensorflow_datasets as tfds

    class WordPairs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """In the order in which they are given."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            texts = tfds.features.FeaturesDict({"en": tfds.features.Text(), "de": tfds.features.Text()})
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict({"inner": texts}), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for key, (en, de) in enumerate(pairs):
                yield key, {"inner": {"en": en, "de": de}}

    WordPairs(data_dir=folder).download_and_prepare(file_format="array_record")
    return TensorflowDataset(name="word_pairs", dir=str(folder), source="inner.en", target="inner.de")


def own(folder, pairs):
    (folder / "own.json").write_text(json.dumps(pairs))
    return OwnData(source="writers:Words", dir=str(folder))
