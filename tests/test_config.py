"""Configs read back equal from JSON; what is their identity, and what placement."""

import dataclasses
import json
import subprocess
import sys

import pytest
from plain import experiment, mistake

from transformer_jax.checked import fields_of
from transformer_jax.config import (
    Adafactor,
    Adam,
    AdamW,
    CheckpointConfig,
    DecodingConfig,
    Experiment,
    FilterConfig,
    HuggingFaceDataset,
    JsonLines,
    Lion,
    LoggingConfig,
    MeshConfig,
    ModelConfig,
    Muon,
    Numerals,
    OwnData,
    PaperSchedule,
    Parquet,
    PlainText,
    ProcessesConfig,
    SacrebleuSet,
    Schedule,
    ScheduleFree,
    TensorflowDataset,
    TextFiles,
    TrainingConfig,
    TsvFiles,
    from_json,
    identity_difference,
    to_json,
)


def test_heads_that_do_not_divide_the_width_have_a_width_of_their_own():
    assert ModelConfig(width=512, num_heads=8).channels == 64
    assert ModelConfig(width=6, num_heads=4, head_width=5).channels == 5


@pytest.mark.parametrize(
    "fields",
    [
        {"data": Numerals(limit=15_013)},
        {"data": TextFiles(train=("a.en", "a.de"), test=("b.en", "b.de"), sha256=(("a.en", "00"), ("a.de", "11")))},
        {"data": TextFiles(train=("*.en", "*.de", "x.en", "x.de"))},
        {"data": TsvFiles(train="größe.tsv", columns=(2, 3))},
        {"data": TsvFiles(train=("a", "b*"), columns=(None, 3))},
        {"data": JsonLines(train=("a", "b*"), source=None, target="a.b")},
        {"data": Parquet(validation="a*", source="s")},
        {"data": PlainText(unit="paragraph", test=("a",))},
        {"data": HuggingFaceDataset(name="a/b", config="c", revision="d", validation="train[:3]")},
        {"data": OwnData(source="a.b:C", arguments=(("a", 3), ("b", 0.5), ("c", True), ("d", "3")), dir="e")},
        {"held_out": SacrebleuSet(pair="en-de", validation="wmt13", test="wmt14/full")},
        {"held_out": TextFiles(test=("a.en", "a.de"))},
        {"filters": FilterConfig(max_ratio=2.5, source_scripts=("Han", "Hiragana"), duplicates="either")},
        {"data": TensorflowDataset(name="wmt14_translate/fr-en", target="fr", validation=None)},
        {"optimizer": Adam(epsilon=1e-7)},
        {"optimizer": AdamW(weight_decay=1 / 3)},
        *(
            {"optimizer": kind(), "schedule": Schedule(kind="constant")}
            for kind in (Adafactor, Lion, Muon, ScheduleFree)
        ),
        {"schedule": PaperSchedule(warmup_steps=13)},
        *(
            {"schedule": Schedule(kind=kind, peak=0.1 + 0.2)}
            for kind in ("linear", "cosine", "inverse_sqrt", "constant")
        ),
        {"training": TrainingConfig(epochs=3, clip_norm=1.0, average_decay=0.999, patience=5)},
        {"training": TrainingConfig(steps=3, clip_norm=1)},
        {"mesh": MeshConfig(data=2, fsdp=3, tensor=4), "logging": LoggingConfig(tensorboard=False), "seed": 11},
    ],
)
def test_every_kind_reads_back_equal_from_json(fields):
    made = experiment(**fields)
    text = to_json(made)
    assert from_json(text) == made
    assert to_json(from_json(text)) == text


class TestFromJson:
    def changed(self, **values):
        """The JSON of an experiment with values put at dotted names."""
        tree = json.loads(to_json(experiment()))
        for name, value in values.items():
            *path, last = name.split("__")
            branch = tree
            for part in path:
                branch = branch[part]
            branch[last] = value
        return json.dumps(tree)

    @pytest.mark.parametrize(
        ("values", "parts"),
        [
            ({"model__widht": 3}, ["model.widht", "did you mean 'width'?"]),
            ({"model__width": "wide"}, ["model.width", "'wide'", "integer"]),
            ({"model__num_heads": 7}, ["model", "num_heads=7", "width=512"]),
            ({"model__encoder_layers": 0}, ["model.encoder_layers=0"]),
            ({"data__kind": "csv"}, ["data", "'csv'", "'numerals', 'text', 'tsv', 'jsonl'"]),
            ({"data": {"kind": "text", "dri": "x"}}, ["data.text.dri", "did you mean 'dir'?"]),
        ],
    )
    def test_a_mistake_is_named(self, values, parts):
        message = mistake(from_json, self.changed(**values))
        for part in parts:
            assert part in message

    def test_a_missing_field_is_named(self):
        assert "training" in mistake(from_json, '{"data": {"kind": "numerals"}}')

    @pytest.mark.parametrize("text", ["", "{", "[]", "nonsense"])
    def test_what_is_no_experiment_is_refused(self, text):
        assert "Experiment" in mistake(from_json, text)


class TestIdentity:
    def test_equal_experiments_do_not_differ(self):
        assert identity_difference(experiment(), experiment()) == []

    def test_identity_fields_differ_by_dotted_name(self):
        new = experiment(seed=3, model=ModelConfig(dropout=0.2), optimizer=AdamW())
        assert sorted(identity_difference(experiment(), new)) == [
            "model.dropout: 0.1 -> 0.2",
            "optimizer.kind: adam -> adamw",
            "optimizer.weight_decay: None -> 0.01",
            "seed: 0 -> 3",
        ]

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ({}, {"mesh": MeshConfig(data=1, fsdp=2), "logging": LoggingConfig(every=3)}),
            ({}, {"checkpoints": CheckpointConfig(every=3, newest=5, best=7, on_failure="go_on")}),
            ({}, {"processes": ProcessesConfig(coordinator="a:1", count=2, index=1, timeout=7)}),
            ({}, {"training": TrainingConfig(steps=7, remat="full")}),
            ({}, {"decoding": DecodingConfig(batch_size=3, guesses=2)}),
            ({"data": TextFiles()}, {"data": TextFiles(dir="d", train=("a", "b"), test=("c", "d"), url="u")}),
            ({"data": TsvFiles()}, {"data": TsvFiles(dir="d", train="a", validation="b")}),
            ({"data": Parquet()}, {"data": Parquet(dir="d", train=("a", "b"), test="c")}),
            ({"data": SacrebleuSet(pair="a-b")}, {"data": SacrebleuSet(pair="a-b", train="c", test="d")}),
            ({"held_out": TextFiles()}, {"held_out": TextFiles(dir="d", test=("c", "d"))}),
            ({"data": OwnData(source="a:B")}, {"data": OwnData(source="a:B", dir="d")}),
            ({"data": TensorflowDataset()}, {"data": TensorflowDataset(dir="d", train="train[:9]", test=None)}),
        ],
    )
    def test_placement_is_no_difference(self, old, new):
        assert identity_difference(experiment(**old), experiment(**new)) == []

    def test_what_is_placement_is_this_list(self):
        """A field added to it, or lost from it, changes what a resume refuses: decide that on purpose."""
        split = ["train", "validation", "test"]
        assert {name for name, is_placement in fields_of(Experiment) if is_placement} == {
            *(f"{data}.{name}" for data in ("data", "held_out") for name in ["dir", "url", *split]),
            *(f"checkpoints.{name}" for name in ["every", "newest", "best", "on_failure"]),
            *(f"mesh.{name}" for name in ["data", "fsdp", "tensor"]),
            *(f"processes.{name}" for name in ["coordinator", "count", "index", "timeout"]),
            *(f"logging.{name}" for name in ["every", "tensorboard"]),
            "decoding.batch_size",
            "decoding.guesses",
            "init_from",
            "prepared",
            "training.remat",
        }


def test_data_of_a_split():
    held_out = SacrebleuSet(pair="en-de", test="wmt14/full")
    for made, held in ((experiment(), Numerals()), (experiment(held_out=held_out), held_out)):
        assert [made.data_of(split) for split in ("train", "validation", "test")] == [Numerals(), held, held]


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().width = 3


def test_configs_load_without_jax():
    program = "import sys, transformer_jax.config; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
