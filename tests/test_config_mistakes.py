"""Each mistake in a config is one line that names field, value and what is right."""

import dataclasses

import pytest
from plain import experiment, mistake

from transformer_jax.config import (
    Adafactor,
    Adam,
    AdamW,
    BatchConfig,
    CausalLanguageModel,
    CheckpointConfig,
    Classification,
    DecodingConfig,
    EvaluationConfig,
    FilterConfig,
    HuggingFaceDataset,
    JsonLines,
    Lion,
    LoggingConfig,
    MeshConfig,
    MixtureConfig,
    ModelConfig,
    Muon,
    Numerals,
    OwnData,
    PaperSchedule,
    PlainText,
    ProcessesConfig,
    SacrebleuSet,
    Schedule,
    ScheduleFree,
    SpanCorruption,
    StabilityConfig,
    Task,
    TextFiles,
    TokenizerConfig,
    TrainingConfig,
    TsvFiles,
)

SPANS = MixtureConfig(tasks=(Task(data=PlainText(), objective=SpanCorruption()),))

MISTAKES = [
    (StabilityConfig, {"max_skipped": 0}, ["max_skipped=0", "above 0"]),
    (StabilityConfig, {"spike": 0.0}, ["spike=0.0", "above 0"]),
    (StabilityConfig, {"max_rollbacks": -1}, ["max_rollbacks=-1", "negative"]),
    (ProcessesConfig, {"coordinator": "a:1", "count": 2}, ["index", "missing"]),
    (ProcessesConfig, {"coordinator": "a", "count": 2, "index": 0}, ["coordinator='a'", "HOST:PORT"]),
    (ProcessesConfig, {"coordinator": "a:1", "count": 2, "index": 2}, ["index=2", "count=2"]),
    (ProcessesConfig, {"timeout": 0}, ["timeout=0", "above 0"]),
    (ModelConfig, {"width": 0}, ["width=0", "above 0"]),
    (ModelConfig, {"num_heads": 0}, ["num_heads=0", "above 0"]),
    (ModelConfig, {"ffn_width": -3}, ["ffn_width=-3", "above 0"]),
    (ModelConfig, {"vocab_size": 0}, ["vocab_size=0", "above 0"]),
    (ModelConfig, {"norm_epsilon": 0.0}, ["norm_epsilon=0.0", "above 0"]),
    (ModelConfig, {"max_positions": 0}, ["max_positions=0", "above 0"]),
    (ModelConfig, {"head_width": 0}, ["head_width=0", "above 0"]),
    (ModelConfig, {"dropout": 1.0}, ["dropout=1.0", "[0, 1)"]),
    (ModelConfig, {"attention_dropout": -0.1}, ["attention_dropout=-0.1", "[0, 1)"]),
    (ModelConfig, {"activation_dropout": 1.5}, ["activation_dropout=1.5", "[0, 1)"]),
    (ModelConfig, {"encoder_layers": -1}, ["encoder_layers=-1", "negative"]),
    (ModelConfig, {"decoder_layers": -1}, ["decoder_layers=-1", "negative"]),
    (ModelConfig, {"encoder_layers": 0, "decoder_layers": 0}, ["encoder_layers=0", "decoder_layers=0", "a layer"]),
    (ModelConfig, {"num_heads": 7}, ["num_heads=7", "width=512", "head_width"]),
    (ModelConfig, {"width": 7, "num_heads": 7}, ["width=7", "even"]),
    (ModelConfig, {"source_vocab_size": 11}, ["source_vocab_size=11", "'target' or 'none'"]),
    (ModelConfig, {"pad_id": 13, "vocab_size": 13}, ["pad_id=13", "vocabulary of 13"]),
    (ModelConfig, {"kv_heads": 3}, ["kv_heads=3", "num_heads=8"]),
    (ModelConfig, {"kv_heads": 0}, ["kv_heads=0", "num_heads=8"]),
    (ModelConfig, {"rotary_base": 0.0}, ["rotary_base=0.0", "above 0"]),
    (ModelConfig, {"norm": "mid"}, ["norm", "'mid'", "'pre' or 'deep'"]),
    (ModelConfig, {"width": 3.5}, ["width", "3.5", "integer"]),
    (ModelConfig, {"width": "512"}, ["width", "'512'", "integer"]),
    (ModelConfig, {"width": True}, ["width", "True", "integer"]),
    (ModelConfig, {"dropout": float("nan")}, ["dropout", "nan", "finite"]),
    (Numerals, {"test_numbers": 0}, ["test_numbers=0", "above 0"]),
    (Numerals, {"validation_numbers": 0}, ["validation_numbers=0", "above 0"]),
    (Numerals, {"limit": 14_999}, ["limit=14999", "15000"]),
    (Numerals, {"limit": 10**9 + 1}, ["limit=1000000001", "1,000,000,000"]),
    (TextFiles, {"train": ("one",)}, ["train", "one"]),
    (TextFiles, {"test": ()}, ["test=()", "a source file and a target file"]),
    (TextFiles, {"validation": ("one", "two", "three")}, ["validation=('one', 'two', 'three')", "pairs"]),
    (TsvFiles, {"train": 3}, ["train", "3", "string"]),
    (JsonLines, {"target": None}, ["target", "None", "string"]),
    (PlainText, {"unit": "page"}, ["unit", "'page'", "'paragraph'"]),
    (HuggingFaceDataset, {}, ["name", "missing"]),
    (SacrebleuSet, {"test": "wmt14/full"}, ["pair", "missing"]),
    (OwnData, {}, ["source", "missing"]),
    (OwnData, {"source": "package.module"}, ["source='package.module'", "package.module:Class"]),
    (OwnData, {"source": "a/b.py:Class"}, ["source='a/b.py:Class'", "package.module:Class"]),
    (OwnData, {"source": "a:B", "arguments": (("x", 1), ("x", 2))}, ["arguments=['x', 'x']", "only once"]),
    (OwnData, {"source": "a:B", "arguments": (("dir", "d"),)}, ["arguments=['dir']", "dir"]),
    (OwnData, {"source": "a:B", "arguments": (("x", [3]),)}, ["arguments", "[3]"]),
    (TokenizerConfig, {"character_coverage": 0.0}, ["character_coverage=0.0", "(0, 1]"]),
    (TokenizerConfig, {"algorithm": "words"}, ["algorithm", "'words'", "'bpe' or 'unigram'"]),
    (BatchConfig, {"rows": 0}, ["rows=0", "above 0"]),
    (BatchConfig, {"source_length": 0}, ["source_length=0", "above 0"]),
    (BatchConfig, {"target_length": 0}, ["target_length=0", "above 0"]),
    (Adam, {"beta1": 1.0}, ["beta1=1.0", "[0, 1)"]),
    (Adam, {"beta2": -0.1}, ["beta2=-0.1", "[0, 1)"]),
    (Adam, {"epsilon": 0.0}, ["epsilon=0.0", "above 0"]),
    (AdamW, {"beta1": 1.0}, ["beta1=1.0", "[0, 1)"]),
    (AdamW, {"epsilon": 0.0}, ["epsilon=0.0", "above 0"]),
    (AdamW, {"weight_decay": -0.1}, ["weight_decay=-0.1", "negative"]),
    (Adafactor, {"decay": 1.0}, ["decay=1.0", "(0, 1)"]),
    (Adafactor, {"clip": 0.0}, ["clip=0.0", "above 0"]),
    (Lion, {"weight_decay": -0.1}, ["weight_decay=-0.1", "negative"]),
    (Muon, {"momentum": 1.0}, ["momentum=1.0", "[0, 1)"]),
    (ScheduleFree, {"beta1": 0.0}, ["beta1=0.0", "(0, 1)"]),
    (PaperSchedule, {"warmup_steps": 0}, ["warmup_steps=0", "above 0"]),
    (PaperSchedule, {"scale": 0.0}, ["scale=0.0", "above 0"]),
    (Schedule, {"kind": "stairs"}, ["kind", "'stairs'", "'cosine'"]),
    (Schedule, {"peak": 0.0}, ["peak=0.0", "above 0"]),
    (Schedule, {"warmup_steps": -1}, ["warmup_steps=-1", "negative"]),
    (Schedule, {"peak": 0.1, "final": 0.2}, ["final=0.2", "peak=0.1"]),
    (TrainingConfig, {}, ["steps=None", "epochs=None", "one of the two"]),
    (TrainingConfig, {"steps": 3, "epochs": 5}, ["steps=3", "epochs=5", "one of the two"]),
    (TrainingConfig, {"steps": 0}, ["steps=0", "above 0"]),
    (TrainingConfig, {"epochs": 0}, ["epochs=0", "above 0"]),
    (TrainingConfig, {"steps": 3, "clip_norm": 0.0}, ["clip_norm=0.0", "above 0"]),
    (TrainingConfig, {"steps": 3, "patience": 0}, ["patience=0", "above 0"]),
    (TrainingConfig, {"steps": 3, "accumulation": 0}, ["accumulation=0", "above 0"]),
    (TrainingConfig, {"steps": 3, "label_smoothing": 1.0}, ["label_smoothing=1.0", "[0, 1)"]),
    (TrainingConfig, {"steps": 3, "average_decay": 1.0}, ["average_decay=1.0", "[0, 1)"]),
    (EvaluationConfig, {"every": 0}, ["every=0", "above 0"]),
    (EvaluationConfig, {"translations": -1}, ["translations=-1", "negative"]),
    (EvaluationConfig, {"metric": "bleu", "translations": 0}, ["metric='bleu'", "translations"]),
    (CheckpointConfig, {"every": 0}, ["every=0", "above 0"]),
    (CheckpointConfig, {"newest": 0}, ["newest=0", "above 0"]),
    (CheckpointConfig, {"best": -1}, ["best=-1", "negative"]),
    (DecodingConfig, {"beam": 0}, ["beam=0", "above 0"]),
    (DecodingConfig, {"extra_length": 0}, ["extra_length=0", "above 0"]),
    (DecodingConfig, {"batch_size": 0}, ["batch_size=0", "above 0"]),
    (DecodingConfig, {"length_penalty": -0.6}, ["length_penalty=-0.6", "negative"]),
    (MeshConfig, {"fsdp": 0}, ["(-1, 0, 1)", "above 0, or -1"]),
    (MeshConfig, {"tensor": -1}, ["(-1, 1, -1)", "only one"]),
    (LoggingConfig, {"every": 0}, ["every=0", "above 0"]),
    (experiment, {"model": ModelConfig(encoder_layers=0)}, ["model.encoder_layers=0", "encoder"]),
    (experiment, {"model": ModelConfig(decoder_layers=0)}, ["model.decoder_layers=0", "decoder"]),
    (experiment, {"tokenizer": TokenizerConfig(joint=False)}, ["tokenizer.joint", "model.share_embeddings"]),
    (
        experiment,
        {"model": ModelConfig(share_embeddings="none", source_vocab_size=11)},
        ["model.source_vocab_size=11", "tokenizer.joint=False"],
    ),
    (
        experiment,
        {"model": ModelConfig(positions="learned", max_positions=11), "batch": BatchConfig(source_length=13)},
        ["13", "model.max_positions=11"],
    ),
    (
        experiment,
        {"batch": BatchConfig(rows=7), "training": TrainingConfig(steps=1, accumulation=3)},
        ["training.accumulation=3", "batch.rows=7"],
    ),
    (experiment, {"mesh": MeshConfig(tensor=3)}, ["mesh.tensor=3", "model.num_heads=8"]),
    (
        experiment,
        {
            "optimizer": ScheduleFree(),
            "schedule": Schedule(kind="constant"),
            "training": TrainingConfig(steps=1, average_decay=0.9),
        },
        ["training.average_decay=0.9", "leave it out"],
    ),
    (experiment, {"optimizer": ScheduleFree()}, ["schedule.kind='paper'", "'constant'"]),
    (
        experiment,
        {
            "objective": CausalLanguageModel(),
            "model": ModelConfig(encoder_layers=0),
            "tokenizer": TokenizerConfig(sampling=0.1),
        },
        ["tokenizer.sampling=0.1", "pairs", "'causal'"],
    ),
    (
        experiment,
        {"tokenizer": TokenizerConfig(joint=False), "model": ModelConfig(share_embeddings="target"), "mixture": SPANS},
        ["tokenizer.joint=False", "'spans'", "one vocabulary"],
    ),
    (
        experiment,
        {
            "objective": Classification(labels=("even", "odd")),
            "model": ModelConfig(decoder_layers=0, classes=2),
            "mixture": MixtureConfig(tasks=(Task(data=TextFiles(), objective=Classification(labels=("odd", "even"))),)),
        },
        ["('even', 'odd') and ('odd', 'even')", "the same order"],
    ),
    (MixtureConfig, {"rate": 2.0}, ["rate=2.0", "no tasks"]),
    (
        MixtureConfig,
        {"tasks": (Task(data=PlainText(), rate=1.0),), "rate": 2.0, "temperature": 5.0},
        ["temperature=5.0", "rates are given"],
    ),
    (MixtureConfig, {"temperature": 5.0}, ["temperature=5.0", "no tasks"]),
    (
        experiment,
        {
            "objective": Classification(),
            "model": ModelConfig(decoder_layers=0, classes=2),
            "filters": FilterConfig(min_length=3, source_scripts=("Latin",)),
        },
        ["filters.min_length=3", "is a class"],
    ),
    (experiment, {"seed": 2**32}, ["seed=4294967296", "2^32"]),
    (experiment, {"schedule": Adam()}, ["schedule", "'adam'", "'paper'"]),
]


@pytest.mark.parametrize(("make", "fields", "parts"), MISTAKES)
def test_a_mistake_names_field_value_and_what_is_right(make, fields, parts):
    message = mistake(make, **fields)
    for part in parts:
        assert part in message


def test_every_limit_itself_is_allowed():
    ModelConfig(width=7, num_heads=7, positions="learned", encoder_layers=0, dropout=0.0, pad_id=36_999)
    ModelConfig(width=6, num_heads=4, head_width=5, share_embeddings="target", source_vocab_size=1)
    Numerals(limit=15_000)
    TokenizerConfig(character_coverage=1.0)
    Schedule(peak=0.1, final=0.1, warmup_steps=0)
    EvaluationConfig(metric="loss", translations=0)
    CheckpointConfig(best=0)
    DecodingConfig(beam=1, length_penalty=0.0)
    MeshConfig(data=2, fsdp=-1, tensor=3)


def test_a_typo_suggests_the_right_field():
    assert "did you mean 'width'?" in mistake(ModelConfig, widht=3)
    assert "did you mean 'num_heads'?" in mistake(dataclasses.replace, ModelConfig(), nheads=3)
    assert "'warmup_steps'" in mistake(PaperSchedule, something_else=3)
