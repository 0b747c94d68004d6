"""Runs that start from a public checkpoint: on eight devices, resumed, in part, with adapters, with new words."""

import json
import re
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from whole import write_whole

from transformer_jax.adapters import merged
from transformer_jax.config import (
    BatchConfig,
    CheckpointConfig,
    DecodingConfig,
    EvaluationConfig,
    Experiment,
    FinetuningConfig,
    LoggingConfig,
    MeshConfig,
    ModelConfig,
    Schedule,
    TextFiles,
    TrainingConfig,
)
from transformer_jax.data.tokenizer import Tokenizers
from transformer_jax.errors import InputError
from transformer_jax.initialisation import init_parameters
from transformer_jax.models import Transformer
from transformer_jax.pretrained import load_pretrained, save_pretrained
from transformer_jax.runs import RunFolder, open_run
from transformer_jax.sharding import data_mesh
from transformer_jax.training import initial, loop
from transformer_jax.training.importing import import_checkpoint
from transformer_jax.training.loop import train
from transformer_jax.training.reproduction import reproduce
from transformer_jax.training.step import Trainer
from transformer_jax.training.trained import rates_of, scaled, share_trained
from transformer_jax.translation import Translator, read_parameters

ENGLISH = ["two men", "a man rides", "the horse", "two horses ride", "a horse and a man", "the man rides a horse"]
GERMAN = ["zwei Männer", "ein Mann reitet", "das Pferd", "zwei Pferde reiten", "ein Pferd", "das Pferd reitet"]
EIGHT = MeshConfig(data=2, fsdp=2, tensor=2)
ALONE = MeshConfig(data=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A checkpoint and a few pairs."""
    folder = tmp_path_factory.mktemp("home")
    write_whole("marian", folder / "marian")
    (folder / "train.source").write_text("".join(f"{line}\n" for line in ENGLISH))
    (folder / "train.target").write_text("".join(f"{line}\n" for line in GERMAN))
    return folder


@pytest.fixture(scope="module")
def compiled():
    return {}


@pytest.fixture(autouse=True)
def few_programs(monkeypatch, compiled):
    """What a run compiles serves the runs of the same experiment, too; what each starts from is its own.

    Reports, of which the curves take seconds to draw, are those of any run, and tested there.
    """

    def trainer(experiment, mesh, total, start):
        key = experiment, mesh, total
        if key not in compiled:
            compiled[key] = Trainer(experiment, mesh, total)
        compiled[key]._initial = start
        return compiled[key]

    monkeypatch.setattr(loop, "Trainer", trainer)
    monkeypatch.setattr(loop, "report", lambda *arguments: None)


@pytest.fixture
def one_device(monkeypatch):
    everything = jax.devices()
    monkeypatch.setattr(jax, "devices", lambda: everything[:1])


def experiment(home, steps=6, model=ModelConfig(dropout=0.1), training=None, **fields):  # noqa: B008  # frozen
    return Experiment(
        **{
            "init_from": str(home / "marian"),
            "data": TextFiles(dir=str(home)),
            "batch": BatchConfig(rows=4, source_length=23, target_length=23),
            "model": model,
            "schedule": Schedule(kind="constant", peak=1e-2, warmup_steps=0),
            "training": replace(training or TrainingConfig(steps=1, label_smoothing=0.0), steps=steps),
            "evaluation": EvaluationConfig(translations=0),
            "checkpoints": CheckpointConfig(every=3),
            "decoding": DecodingConfig(beam=2, extra_length=3, batch_size=4),
            "logging": LoggingConfig(every=1, tensorboard=False),
            "mesh": ALONE,
        }
        | fields
    )


def reached(run):
    """Experiment and parameters of a run's last checkpoint, by path."""
    own = open_run(run)
    params, _ = read_parameters(RunFolder(run), own, data_mesh())
    leaves, _ = jax.tree.flatten_with_path(params)
    return own, {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}


def lines_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def start_of(home):
    params = load_pretrained(home / "marian").params
    leaves, _ = jax.tree.flatten_with_path(params)
    return {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}


def test_on_eight_devices_it_learns_and_resumes_to_the_bit(home, tmp_path):
    own = experiment(home, steps=14, mesh=EIGHT)
    assert train(own, tmp_path / "whole") == 0
    losses = [line["train/loss"] for line in lines_of(tmp_path / "whole")]
    assert losses[-1] < losses[0] - 0.5
    assert train(own, tmp_path / "parts", until=7) == 0
    assert train(own, tmp_path / "parts") == 0
    assert (tmp_path / "parts" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    (_, whole), (_, parts) = reached(tmp_path / "whole"), reached(tmp_path / "parts")
    for path, leaf in whole.items():
        np.testing.assert_array_equal(parts[path], leaf, err_msg=path)
    digests = json.loads((tmp_path / "whole" / "environment.json").read_text())[0]["digests"]
    assert set(digests) == {"train data", "tokenizer", "initial weights"}


@pytest.mark.usefixtures("one_device")
class TestOnOneDevice:
    def test_what_is_frozen_stays_and_the_rest_moves(self, home, tmp_path):
        frozen = ("encoder/*", "embedding/table", "decoder/layers/0/feed_forward/*")
        assert train(experiment(home, training=TrainingConfig(steps=1, frozen=frozen, accumulation=2)), tmp_path) == 0
        (own, found), before = reached(tmp_path), start_of(home)
        assert (own.model.pad_id, own.model.dropout) == (37, 0.1)
        for path, leaf in found.items():
            stays = path.startswith(("encoder/", "embedding/", "decoder/layers/feed_forward/"))
            assert np.array_equal(leaf, before[path]) == stays, path

    def test_adapters_alone_are_trained_and_merge_to_the_same_logits(self, home, tmp_path):
        adapted = ModelConfig(dropout=0.0, lora_rank=2, lora_alpha=6.0, lora_on=("query", "value", "inner"))
        assert train(experiment(home, model=adapted), tmp_path / "run") == 0
        own, found = reached(tmp_path / "run")
        before = start_of(home)
        for path, leaf in found.items():
            assert np.array_equal(leaf, before[path]) if path in before else leaf.any(), path
        params, _ = read_parameters(RunFolder(tmp_path / "run"), own, data_mesh())
        config, whole = merged(own.model, params)
        source, target = jnp.array([[3, 5, 11, 0]]), jnp.array([[37, 6, 7, 9, 4]])
        with_adapters, _ = Transformer(own.model).apply({"params": params}, source, target)
        without, _ = Transformer(config).apply({"params": whole}, source, target)
        np.testing.assert_allclose(without, with_adapters, atol=1e-5)
        plain, _ = Transformer(config).apply({"params": load_pretrained(home / "marian").params}, source, target)
        assert np.abs(np.asarray(plain - without)).max() > 0.01

        translator = Translator.from_run(tmp_path / "run")
        save_pretrained(tmp_path / "out", own.model, params, translator.tokenizers)
        out = Translator.from_pretrained(tmp_path / "out", decoding=own.decoding)
        assert out.translate(ENGLISH) == translator.translate(ENGLISH)

    def test_new_words_are_tokens_of_their_own(self, home, tmp_path):
        new = FinetuningConfig(new_tokens=("<2de>", "Männer"))
        assert train(experiment(home, finetuning=new, steps=1), tmp_path / "run") == 0
        own, found = reached(tmp_path / "run")
        tokenizers = Tokenizers.load(tmp_path / "run" / "tokenizer")
        assert own.model.vocab_size == tokenizers.target.vocab_size == found["embedding/table"].shape[0] == 40
        (ids,) = tokenizers.target.encode(["<2de> zwei Männer"])
        assert (ids[0], ids[-1]) == (38, 39)
        assert tokenizers.target.decode([ids]) == ["<2de> zwei Männer"]
        begun = initial.parameters_of(initial.resolved(experiment(home, finetuning=new)), data_mesh())
        table = np.asarray(begun["embedding"]["table"])
        np.testing.assert_array_equal(table[:38], start_of(home)["embedding/table"])
        np.testing.assert_allclose(table[38:], np.tile(table[:38].mean(0), (2, 1)), atol=1e-6)
        assert begun["output_bias"].shape == (40,)
        params, _ = read_parameters(RunFolder(tmp_path / "run"), own, data_mesh())
        save_pretrained(tmp_path / "out", own.model, params, tokenizers)
        again = load_pretrained(tmp_path / "out")
        assert again.model.config.vocab_size == 40
        assert again.tokenizers.target.encode(["<2de> zwei Männer"]) == [ids]

    def test_a_run_is_started_from_as_well(self, home, tmp_path):
        import_checkpoint(home / "marian", tmp_path / "imported")
        lines = []
        for name, start in (("one", home / "marian"), ("two", tmp_path / "imported")):
            assert train(experiment(home, steps=2, init_from=str(start)), tmp_path / name) == 0
            lines.append(lines_of(tmp_path / name))
        assert lines[0] == lines[1]
        outcome = reproduce(tmp_path / "two", tmp_path / "again")
        assert outcome.difference is None
        assert (outcome.lines, outcome.checkpoint) == (2, 2)
        shutil.rmtree(tmp_path / "imported")
        import_checkpoint(write_whole("marian", tmp_path / "other", seed=1), tmp_path / "imported")
        initial.initial_of.cache_clear()
        with pytest.raises(InputError, match="imported: not the weights that the run started from"):
            reproduce(tmp_path / "two", tmp_path / "third")

    def test_a_run_that_has_begun_keeps_to_how_it_began(self, home, tmp_path):
        plain = ModelConfig(
            encoder_layers=1, decoder_layers=1, width=6, num_heads=2, ffn_width=10, vocab_size=40, dropout=0.0
        )
        assert train(experiment(home, init_from=None, model=plain, steps=1), tmp_path / "fresh") == 0
        with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'fresh'}: did not start from a checkpoint")):
            train(experiment(home, model=replace(plain, vocab_size=37_000), steps=1), tmp_path / "fresh")

    def test_a_second_try_counts_alone(self, home, tmp_path):
        """What the first left is forgotten, sizes too; and weights that were exchanged meanwhile are noticed."""
        wrong = TrainingConfig(steps=1, frozen=("encode/*",))
        with pytest.raises(InputError, match=r"training\.frozen"):
            train(experiment(home, training=wrong), tmp_path / "run")
        copied = write_whole("marian", tmp_path / "copied")
        new = experiment(home, init_from=str(copied), finetuning=FinetuningConfig(new_tokens=("<2de>",)), steps=1)
        assert train(new, tmp_path / "run") == 0
        assert reached(tmp_path / "run")[1]["embedding/table"].shape == (39, 6)
        shutil.rmtree(tmp_path / "run" / "checkpoints")
        write_whole("marian", copied, seed=1)
        with pytest.raises(InputError, match="copied: not the weights that the run started from"):
            train(new, tmp_path / "run")

    def test_a_run_that_has_begun_needs_no_checkpoint_any_more(self, home, tmp_path):
        copied = tmp_path / "copied"
        write_whole("marian", copied)
        own = experiment(home, steps=4, init_from=str(copied))
        assert train(own, tmp_path / "run", until=3) == 0
        for path in copied.iterdir():
            path.unlink()
        initial.initial_of.cache_clear()
        assert train(own, tmp_path / "run") == 0
        assert lines_of(tmp_path / "run")[-1]["step"] == 4


def test_under_two_percent_of_a_usual_size():
    """BERT's width: adapters of rank 8 on queries and values are a half of a percent."""
    model = ModelConfig(encoder_layers=6, decoder_layers=6, width=512, num_heads=8, vocab_size=58_101, lora_rank=8)
    shapes = jax.eval_shape(lambda: init_parameters(model, jax.random.key(0)))
    some, all_of_them = share_trained(rates_of(model, TrainingConfig(steps=1)), shapes)
    assert some == 18 * 2 * 8 * (512 + 512)
    assert some < 0.01 * all_of_them


def test_rates_are_by_layer_and_the_first_pattern_that_fits_counts():
    model = ModelConfig(encoder_layers=3, decoder_layers=1, width=4, num_heads=1, ffn_width=6, vocab_size=7)
    patterns = (("encoder/layers/2/*", 0.5), ("encoder/*", 0.25))
    training = TrainingConfig(steps=1, frozen=("encoder/layers/[01]/self_attention/*",), learning_rates=patterns)
    rates = rates_of(model, training)
    assert rates["encoder"]["layers"]["self_attention"]["query"]["kernel"].tolist() == [0, 0, 0.5]
    assert rates["encoder"]["layers"]["feed_forward"]["inner"]["bias"].tolist() == [0.25, 0.25, 0.5]
    assert rates["embedding"]["table"].tolist() == [1]
    ones = jax.tree.map(jnp.ones_like, init_parameters(model, jax.random.key(0)))
    found = scaled(rates, ones)
    assert found["encoder"]["layers"]["feed_forward"]["inner"]["bias"][:, 0].tolist() == [0.25, 0.25, 0.5]
    assert found["decoder"]["layers"]["feed_forward"]["outer"]["kernel"].min() == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"init_from": "{}/none"}, "{}/none: no such folder"),
        ({"model": ModelConfig(width=16)}, "model.width=16: what init_from names has 6; leave it out"),
        (
            {"finetuning": FinetuningConfig(new_tokens=(">>fra<<",))},
            "new_tokens: '>>fra<<' is in the vocabulary already",
        ),
        ({"training": TrainingConfig(steps=1, frozen=("encode/*",))}, "training.frozen: 'encode/*' fits no parameter"),
        ({"training": TrainingConfig(steps=1, frozen=("*",))}, "training.frozen=('*',): nothing is left to be trained"),
        (
            {"training": TrainingConfig(steps=1, learning_rates=(("decode/*", 0.1),))},
            "training.learning_rates: 'decode/*' fits no parameter",
        ),
        ({"finetuning": FinetuningConfig(target_language="tlh")}, "target_language='tlh': not among >>deu<<, >>fra<<"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.usefixtures("one_device")
def test_mistakes_come_before_anything_is_compiled(fields, message, home, tmp_path):
    fields = {name: value.format(home) if isinstance(value, str) else value for name, value in fields.items()}
    with pytest.raises(InputError, match=re.escape(message.format(home))) as error:
        train(experiment(home, **fields), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "environment.json").exists()
