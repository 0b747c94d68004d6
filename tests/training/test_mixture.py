"""Several tasks side by side in one run."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from small_runs import WORDS, experiment

from transformer_jax.cli.main import main
from transformer_jax.config import (
    CausalLanguageModel,
    FilterConfig,
    LoggingConfig,
    MixtureConfig,
    PlainText,
    PrefixLanguageModel,
    SpanCorruption,
    Task,
    TokenizerConfig,
    from_json,
    identity_difference,
    to_json,
)
from transformer_jax.errors import InputError
from transformer_jax.runs import RunFolder
from transformer_jax.sharding import data_mesh
from transformer_jax.training.data import BatchMaker, load_splits, make_tokenizers
from transformer_jax.training.loop import train
from transformer_jax.training.prepared import open_shards
from transformer_jax.training.preparing import prepare


@pytest.fixture
def mixed(words, tmp_path):
    """Thirteen pairs, three times as often as seven texts with holes."""
    (tmp_path / "text.txt").write_text("".join(f"{line} {line}\n" for line in WORDS[:7]))
    task = Task(data=PlainText(dir=str(tmp_path), train="text.txt"), objective=SpanCorruption(), rate=1.0)
    return experiment(
        words,
        mixture=MixtureConfig(tasks=(task,), rate=3.0),
        tokenizer=TokenizerConfig(masks=3),
        model=dataclasses.replace(experiment(words).model, vocab_size=15),
        logging=LoggingConfig(every=1, tensorboard=False),
    )


def test_it_reads_back_equal(mixed):
    assert from_json(to_json(mixed)) == mixed


@pytest.fixture
def shards(mixed, tmp_path):
    """Pairs and texts as token shards."""
    folder = tmp_path / "prepared"
    prepare(mixed, folder, per_shard=5)
    return folder


def test_a_run_learns_all_tasks_and_one_from_shards_resumes_to_the_same(mixed, shards, devices, tmp_path):
    devices(1)
    assert train(mixed, tmp_path / "memory") == 0
    streamed = dataclasses.replace(mixed, prepared=str(shards))
    assert train(streamed, tmp_path / "shards", until=7) == 0
    assert train(streamed, tmp_path / "shards") == 0
    memory, resumed = (RunFolder(tmp_path / name) for name in ("memory", "shards"))
    assert memory.metrics.read_bytes() == resumed.metrics.read_bytes()
    losses = [json.loads(line)["train/loss"] for line in memory.metrics.read_text().splitlines() if "train" in line]
    assert np.mean(losses[-3:]) < losses[0]
    for run in (memory, resumed):
        assert "task 0 data" in json.loads(run.environment.read_text())[0]["digests"]


def test_shards_of_tasks_are_verified_and_made_again(mixed, shards, capsys):
    record = shards / "task-0" / "tokens-00001.array_record"
    whole = record.read_bytes()
    record.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert main(["verify", str(shards)]) == 1
    assert f"{record}: damaged" in capsys.readouterr().out
    prepare(mixed, shards, per_shard=5)
    assert record.read_bytes() == whole
    assert main(["verify", str(shards)]) == 0


def test_killed_between_two_parts_and_begun_again_it_is_the_same(mixed, shards, tmp_path):
    half = shutil.copytree(shards, tmp_path / "half")
    shutil.rmtree(half / "task-0")
    (half / "task-0" / ".tokenizer.abc").mkdir(parents=True)
    prepare(mixed, half, per_shard=5)
    files = [path for path in sorted(shards.rglob("*")) if path.is_file() and path.name != ".lock"]
    assert len(files) > 12
    for file in files:
        assert (half / file.relative_to(shards)).read_bytes() == file.read_bytes()
    assert not list((half / "task-0").glob(".tokenizer*"))


def test_where_text_is_missing_the_flag_of_its_owner_is_named(mixed, tmp_path):
    (tmp_path / "text.txt").unlink()
    for make in (load_splits, lambda experiment: prepare(experiment, tmp_path / "shards")):
        with pytest.raises(InputError, match=r"text\.txt: no such file; .* with --mixture\.tasks\.0\.data\.dir"):
            make(mixed)
    held_out = dataclasses.replace(mixed, mixture=MixtureConfig(), held_out=PlainText(dir="none", test="test.txt"))
    with pytest.raises(InputError, match=r"none/test\.txt: no such file; .* with --held-out\.dir"):
        load_splits(held_out)


def test_shards_are_for_the_tasks_they_were_made_with(mixed, shards):
    (task,) = mixed.mixture.tasks
    alone = dataclasses.replace(mixed, mixture=MixtureConfig(), prepared=str(shards))
    with pytest.raises(InputError, match=r"made with tasks\.0\.kind=plain, and now it is None; prepare another"):
        open_shards(alone)
    other = dataclasses.replace(task, data=dataclasses.replace(task.data, unit="paragraph"))
    with pytest.raises(InputError, match=r"made with tasks\.0\.unit=line, and now it is paragraph"):
        prepare(dataclasses.replace(mixed, mixture=MixtureConfig(tasks=(other,), rate=3.0)), shards)
    moved = dataclasses.replace(task, data=dataclasses.replace(task.data, dir="elsewhere"), rate=5.0)
    again = dataclasses.replace(mixed, mixture=MixtureConfig(tasks=(moved,), rate=3.0), prepared=str(shards))
    assert [len(own) for own in open_shards(again)] == [13, 7]  # places and rates are none of their business
    (shards / "task-0" / "prepared.json").unlink()
    with pytest.raises(InputError, match=r"task-0/prepared\.json: missing: nothing is prepared there"):
        open_shards(again)


def test_a_task_without_text_is_named_before_anything_is_made(mixed, tmp_path):
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(InputError, match=r"mixture\.tasks\.0\.data\.train: nothing is left to be prepared"):
        prepare(mixed, tmp_path / "shards")
    assert not (tmp_path / "shards" / "tokenizer").exists()


def test_filters_are_for_all_that_is_mixed(mixed):
    long = dataclasses.replace(mixed, filters=FilterConfig(min_length=2))
    texts = WORDS[:7]
    splits = load_splits(long)
    assert list(splits.mixed[0].targets) == [f"{text} {text}" for text in texts]  # two words at least
    assert len(splits.train) < len(load_splits(mixed).train)
    assert [report.kept for report in splits.reports] == [len(splits.train), 7]
    with pytest.raises(InputError, match=r"mixture\.tasks\.0\.data\.train: no pair passes the filters"):
        load_splits(dataclasses.replace(mixed, filters=FilterConfig(max_length=1)))


def corpora_of(chosen, folder):
    splits = load_splits(chosen)
    return BatchMaker(chosen, make_tokenizers(chosen, splits), data_mesh(), folder).corpora(splits)


def test_no_two_tasks_draw_the_same(words, tmp_path):
    data = PlainText(dir=words.dir, train="train.source")
    tasks = tuple(Task(data=data, objective=PrefixLanguageModel()) for _ in range(2))
    chosen = experiment(data, objective=PrefixLanguageModel(), mixture=MixtureConfig(tasks=tasks))
    drawn = [corpus.draw(0, np.arange(13)).source for corpus in corpora_of(chosen, tmp_path)]
    assert len({tuple(own.lengths.tolist()) for own in drawn}) == 3


def test_prompted_tasks_are_cut_into_other_pieces_too(words, tmp_path):
    task = Task(data=words, objective=CausalLanguageModel(prompted=True))
    model = dataclasses.replace(experiment(words).model, encoder_layers=0)
    batch = dataclasses.replace(experiment(words).batch, target_length=29)
    mixture = MixtureConfig(tasks=(task,))
    chosen = experiment(words, objective=task.objective, model=model, batch=batch, mixture=mixture)

    def drawn(strength):
        sampled = dataclasses.replace(chosen, tokenizer=TokenizerConfig(sampling=strength))
        return [len(corpus.draw(0, np.arange(13)).target.values) for corpus in corpora_of(sampled, tmp_path)]

    assert all(more > plain for more, plain in zip(drawn(0.9), drawn(0.0), strict=True))


def test_where_the_data_of_a_task_lies_is_no_difference(mixed):
    (task,) = mixed.mixture.tasks
    moved, other = (
        dataclasses.replace(mixed, mixture=MixtureConfig(tasks=(dataclasses.replace(task, data=data),), rate=3.0))
        for data in (PlainText(dir="elsewhere", train="*.txt"), PlainText(unit="paragraph"))
    )
    assert identity_difference(mixed, moved) == []
    assert identity_difference(mixed, other) == ["mixture.tasks.0.data.unit: line -> paragraph"]


def test_other_text_of_a_task_is_refused(mixed, devices, tmp_path):
    devices(1)
    assert train(mixed, tmp_path / "run", until=2) == 0
    (tmp_path / "text.txt").write_text("a b\nc d\n")
    with pytest.raises(InputError, match="task 0 data"):
        train(mixed, tmp_path / "run")


def test_the_digest_of_every_task_is_its_own(mixed):
    splits = load_splits(mixed)
    assert len(splits.mixed) == 1
    assert len(set(splits.digests().values())) == len(splits.digests()) == 2


def test_rates_are_for_all_or_none():
    with pytest.raises(InputError, match="rate: give it to all that is mixed, or to none"):
        MixtureConfig(tasks=(Task(data=PlainText()),), rate=1.0)
    with pytest.raises(InputError, match=r"rate=-1\.0 must be above 0"):
        Task(data=PlainText(), rate=-1.0)
    with pytest.raises(InputError, match=r"temperature=0\.5 must be at least 1"):
        MixtureConfig(temperature=0.5)


def test_a_run_with_drawn_pieces_resumes_exactly(words, devices, tmp_path):
    devices(1)
    chosen = experiment(words, steps=8, tokenizer=TokenizerConfig(sampling=0.2))
    assert train(chosen, tmp_path / "whole") == 0
    assert train(chosen, tmp_path / "parts", until=5) == 0
    assert train(chosen, tmp_path / "parts") == 0
    whole, parts = (RunFolder(tmp_path / name) for name in ("whole", "parts"))
    assert whole.metrics.read_bytes() == parts.metrics.read_bytes()
