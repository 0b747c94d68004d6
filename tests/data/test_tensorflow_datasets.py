import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from transformer_jax.config import TensorflowDataset
from transformer_jax.data.sources import Pairs, load_pairs
from transformer_jax.data.sources.records import texts_of
from transformer_jax.errors import InputError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tensorflow_datasets as tfds

    class FlatNumerals(tfds.core.GeneratorBasedBuilder):
        """Pairs as features of a dictionary."""

        VERSION = tfds.core.Version("1.0.0")
        features = tfds.features.FeaturesDict({"en": tfds.features.Text(), "de": tfds.features.Text()})

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=self.features)

        def _split_generators(self, dl_manager):
            return {
                "train": self._generate_examples([("one", "eins"), ("five", "fünf")]),
                "test": self._generate_examples([("two", "zwei")]),
            }

        def _generate_examples(self, pairs):
            for key, (en, de) in enumerate(pairs):
                yield key, {"en": en, "de": de}

    class TranslationNumerals(FlatNumerals):
        """Pairs as a Translation feature, as the wmt sets have them."""

        features = tfds.features.Translation(("de", "en"))

    class LabelledNumerals(FlatNumerals):
        """Numbers with a label and a size."""

        features = tfds.features.FeaturesDict(
            {"en": tfds.features.Text(), "even": tfds.features.ClassLabel(names=["odd", "even"]), "size": np.int64}
        )

        def _generate_examples(self, pairs):
            for key, (en, de) in enumerate(pairs):
                yield key, {"en": en, "even": int(en == "two"), "size": len(de)}

    folder = tmp_path_factory.mktemp("tfds")
    for builder in (FlatNumerals, TranslationNumerals, LabelledNumerals):
        builder(data_dir=folder).download_and_prepare(file_format="array_record")
    return folder


@pytest.mark.parametrize("name", ["flat_numerals", "flat_numerals:1.0.0", "translation_numerals"])
def test_a_prepared_set_gives_its_pairs_as_text(prepared: Path, name: str):
    data = TensorflowDataset(name=name, dir=str(prepared), validation=None)
    pairs = load_pairs(data, "train")
    assert sorted(zip(pairs.sources, pairs.targets, strict=True)) == [("five", "fünf"), ("one", "eins")]
    assert load_pairs(data, "test") == Pairs(["two"], ["zwei"])
    assert load_pairs(data, "validation") is None


EXPERIMENT = """
from transformer_jax.config import *

def get_config():
    return Experiment(
        data=TensorflowDataset(name="flat_numerals", dir={dir!r}, validation="test"),
        batch=BatchConfig(rows=2, source_length=11, target_length=13),
        model=ModelConfig(encoder_layers=1, decoder_layers=1, width=6, num_heads=3, ffn_width=7, vocab_size=17),
        training=TrainingConfig(steps=3),
        evaluation=EvaluationConfig(translations=0),
        decoding=DecodingConfig(beam=1, extra_length=5),
        logging=LoggingConfig(every=1, tensorboard=False),
    )
"""
TRAINED = """
import sys
from transformer_jax.cli.main import main
assert main(["train", *sys.argv[1:]]) == 0
assert "tensorflow_datasets" in sys.modules
assert not {"tensorflow", "torch", "datasets"} & set(sys.modules)
"""


def test_a_run_on_a_set_imports_neither_tensorflow_nor_torch_nor_datasets(prepared: Path, tmp_path: Path):
    file, run = tmp_path / "numerals.py", tmp_path / "run"
    file.write_text(EXPERIMENT.format(dir=str(prepared)))
    command = [sys.executable, "-c", TRAINED, str(file), "--workdir", str(run)]
    subprocess.run(command, check=True, cwd=Path(__file__).resolve().parents[2])
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in metrics if "train/loss" in line]
    assert len(losses) == 3
    assert all(map(math.isfinite, losses))


def test_labels_are_called_by_their_names_and_numbers_are_decimal(prepared: Path):
    data = TensorflowDataset(name="labelled_numerals", dir=str(prepared), source="en", target="even")
    assert load_pairs(data, "test") == Pairs(["two"], ["even"])
    assert sorted(load_pairs(data, "train").examples()) == [("five", "odd"), ("one", "odd")]
    assert load_pairs(replace(data, source=None, target="size"), "test") == Pairs(None, ["4"])


def test_a_number_below_0_is_no_label():
    with pytest.raises(
        InputError, match=r"row 1: 'even' is -1: a number below 0 stands for no label; see data\.source"
    ):
        list(
            texts_of([{"en": "two", "even": np.int64(-1)}], "en", "even", {"even": ["odd", "even"].__getitem__}, "row")
        )


def test_an_unknown_split_and_feature_name_what_there_is(prepared: Path):
    with pytest.raises(InputError, match=r"split 'dev' of 'flat_numerals'.*\['train', 'test'\]"):
        load_pairs(TensorflowDataset(name="flat_numerals", dir=str(prepared), validation="dev"), "validation")
    with pytest.raises(InputError, match=r"data\.source='fr': .*\['de', 'en'\]"):
        load_pairs(TensorflowDataset(name="flat_numerals", dir=str(prepared), source="fr"), "train")


@pytest.mark.parametrize("name", ["no_such_set", "no such name"])
def test_an_unknown_set_is_one_line(tmp_path: Path, name: str):
    with pytest.raises(InputError, match=rf"^data\.name='{name}': .*--data\.dir$") as error:
        load_pairs(TensorflowDataset(name=name, dir=str(tmp_path)), "train")
    assert len(str(error.value)) < 500  # not the whole catalogue


def test_a_set_that_cannot_be_prepared_is_one_line_with_the_way_to_do_it(tmp_path: Path, monkeypatch):
    import tensorflow_datasets as tfds

    def unreachable(*_: object, **__: object):
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", unreachable)
    with pytest.raises(InputError) as error:
        load_pairs(TensorflowDataset(name="wmt14_translate/de-en", dir=str(tmp_path)), "train")
    message = str(error.value)
    assert message.startswith(f"data.name='wmt14_translate/de-en' is not prepared in {tmp_path}/wmt14_translate/de-en")
    assert "ConnectionError: no route to host)" in message
    assert f'tfds.builder("wmt14_translate/de-en", data_dir="{tmp_path}", file_format="array_record")' in message
    assert "\n" not in message


def test_files_that_are_downloaded_by_hand_have_their_place_and_instructions_told(tmp_path: Path):
    import tensorflow_datasets as tfds

    class HandMade(tfds.core.GeneratorBasedBuilder):
        """A set that is behind a form."""

        VERSION = tfds.core.Version("1.0.0")
        MANUAL_DOWNLOAD_INSTRUCTIONS = """
        Fill in the form, and fetch `words.zip`.
        """

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict({"en": tfds.features.Text()})
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(dl_manager.manual_dir / "words.zip")}

        def _generate_examples(self, path):
            yield 0, {"en": path.read_text()}

    data = TensorflowDataset(name="hand_made", dir=str(tmp_path), source=None, target="en")
    with pytest.raises(InputError) as error:
        load_pairs(data, "train")
    message, manual = str(error.value), tmp_path / "downloads" / "manual"
    assert f"AssertionError: Manual directory {manual} does not exist or is empty." in message
    assert f"downloaded by hand belong in {manual}: Fill in the form, and fetch `words.zip`; where there" in message
    assert (
        f'tfds.builder("hand_made", data_dir="{tmp_path}", file_format="array_record").download_and_prepare()'
        in message
    )
    assert "\n" not in message
    manual.mkdir(parents=True)
    (manual / "words.zip").write_text("one")
    assert load_pairs(data, "train") == Pairs(None, ["one"])


def test_a_set_of_this_process_is_prepared_when_it_is_not_yet(prepared: Path, tmp_path: Path):
    data = TensorflowDataset(name="flat_numerals", dir=str(tmp_path))
    assert len(load_pairs(data, "train")) == 2  # `prepared` has registered its builder
    assert list(tmp_path.glob("flat_numerals/1.0.0/*.array_record*"))
