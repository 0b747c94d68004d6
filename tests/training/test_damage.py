"""Damage to any file of a checkpoint is found and named, and the checkpoint before takes its place."""

import logging
import random
import shutil

import pytest
from small_checkpoints import KEEP, abstract, delete, files_of, flip, grow, items_of, same_bits, save, truncate

from transformer_jax.errors import InputError
from transformer_jax.training.checkpoints import Checkpoints
from transformer_jax.training.storage import Storage

# Orbax abandons the other reads of a damaged checkpoint in the middle.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected"),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save(folder, 1, 2, metrics={1: {"loss": 2.0}, 2: {"loss": 1.0}}, **KEEP)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def check(folder, file, caplog):
    """The damaged file of step 2 is named, step 1 is intact and taken instead."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="transformer_jax"), Checkpoints(folder) as checkpoints:
        restored = checkpoints.restore(abstract(items_of(0)))
        verdicts = list(checkpoints.verify())
        with pytest.raises(InputError, match=r"no intact checkpoint among \[2\]"):
            checkpoints.restore(abstract(items_of(0)), [2])
    assert restored.step == 1, file
    assert restored.position["epoch"] == 1, file
    assert same_bits(restored.items, items_of(1)), file
    assert [verdict.step for verdict in verdicts] == [1, 2], file
    assert verdicts[0].damage is None, file
    assert verdicts[1].damage.startswith(file.as_posix()), (file, verdicts[1])
    told = [record.message for record in caplog.records if record.name.startswith("transformer_jax")]
    assert len(told) == 1, (file, told)
    assert f"checkpoint 2 is damaged and skipped: {file.as_posix()} " in told[0], (file, told)


def damages(file, places):
    """Every damage that is done to a file of this content, each with its name."""
    yield "delete", delete
    yield "grow", grow
    if size := file.stat().st_size:
        yield "truncate", truncate
        for place in places(size):
            yield f"flip {place}", lambda damaged, place=place: flip(damaged, place)


def damage_all(saved, tmp_path, caplog, places):
    """Damages every file of step 2, one by one and in every way; returns how many damages that were."""
    count = 0
    for file in files_of(saved / "2"):
        for name, damage in damages(saved / "2" / file, places):
            folder = shutil.copytree(saved, tmp_path / "damaged")
            damage(folder / "2" / file)
            check(folder, file, caplog)
            assert names(folder) == ["1", "2"], (file, name)  # who only reads renames nothing
            shutil.rmtree(folder)
            count += 1
    return count


def test_damage_to_any_file_is_named_and_leads_to_the_checkpoint_before(saved, tmp_path, caplog):
    files = files_of(saved / "2")
    assert {file.parts[0] for file in files} >= {"parameters", "optimizer", "manifest.json"}
    for file, damage in zip(files, [delete, truncate, flip, grow] * len(files), strict=False):
        if (saved / "2" / file).stat().st_size == 0 and damage is not delete:
            damage = grow
        folder = shutil.copytree(saved, tmp_path / "damaged")
        damage(folder / "2" / file)
        check(folder, file, caplog)
        shutil.rmtree(folder)


@pytest.mark.slow
def test_every_damage_to_every_file(saved, tmp_path, caplog):
    draw = random.Random(0)
    count = damage_all(saved, tmp_path, caplog, lambda size: sorted({0, size - 1, *draw.choices(range(size), k=5)}))
    assert count >= 100


@pytest.mark.slow
def test_every_byte_of_the_manifest(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "damaged")
    file = folder / "2" / "manifest.json"
    whole = file.read_bytes()
    with Checkpoints(folder) as checkpoints:
        for place in range(len(whole)):
            flip(file, place)
            with pytest.raises(InputError, match=r"no intact checkpoint among \[2\].*manifest.json"):
                checkpoints.restore(abstract(items_of(0)), [2])
            file.write_bytes(whole)


class TestARunThatGoesOn:
    def test_sets_the_damaged_one_aside_and_saves_that_step_again(self, copy, caplog):
        for number in ("", "-2"):
            flip(copy / "2" / "parameters" / "_METADATA")
            with caplog.at_level(logging.WARNING, logger="transformer_jax"), Checkpoints(copy, **KEEP) as checkpoints:
                assert checkpoints.restore(abstract(items_of(0)), set_aside=True).step == 1
                assert checkpoints.steps() == [1]
                assert checkpoints.aside() == [f"damaged-2{number}" for number in ("", "-2")[: 1 + bool(number)]]
                checkpoints.save(2, items_of(2), {"epoch": 2})
                checkpoints.wait()
                assert same_bits(checkpoints.restore(abstract(items_of(0))).items, items_of(2))
            assert caplog.messages[-1] == (
                f"{copy}: checkpoint 2 is damaged: parameters/_METADATA is not what was saved; "
                f"kept as damaged-2{number}"
            )
        assert names(copy) == ["1", "2", "damaged-2", "damaged-2-2"]

    def test_all_damaged_is_one_line_and_nothing_is_renamed(self, copy, caplog):
        for step in ("1", "2"):
            delete(copy / step / "parameters" / "manifest.ocdbt")
        with Checkpoints(copy) as checkpoints, pytest.raises(InputError, match=r"among \[2, 1\]; put back") as error:
            checkpoints.restore(abstract(items_of(0)), set_aside=True)
        assert "\n" not in str(error.value)
        assert "2: parameters/manifest.ocdbt is missing; 1: parameters/manifest.ocdbt is missing" in str(error.value)
        assert not [record for record in caplog.records if record.name.startswith("transformer_jax")]
        assert names(copy) == ["1", "2"]

    def test_a_checkpoint_that_does_not_match_stops_it_although_the_newest_is_damaged(self, copy):
        flip(copy / "2" / "manifest.json")
        items = items_of(0)
        del items["parameters"]["half"]
        with Checkpoints(copy) as checkpoints, pytest.raises(InputError, match=r"1: .*half.* but the experiment"):
            checkpoints.restore(abstract(items), set_aside=True)
        assert names(copy) == ["1", "2"]

    def test_an_array_that_was_written_wrong_is_found_by_its_fingerprint(self, copy, monkeypatch):
        """The digests are of the files as they were written: only what was in memory can tell."""
        right = Storage.start_writing
        with Checkpoints(copy) as checkpoints, monkeypatch.context() as patch:
            patch.setattr(Storage, "start_writing", lambda self, place, _: right(self, place, items_of(4)))
            checkpoints.save(3, items_of(3), {})
        with Checkpoints(copy) as checkpoints:
            assert [str(verdict) for verdict in checkpoints.verify()] == [
                "intact",
                "intact",
                "damaged: parameters['half'] is not what was saved",
            ]
            assert checkpoints.restore(abstract(items_of(0)), set_aside=True).step == 2
        assert names(copy) == ["1", "2", "damaged-3"]

    def test_what_fails_with_intact_files_is_no_damage(self, copy, monkeypatch):
        def out_of_memory(*_):
            raise RuntimeError("RESOURCE_EXHAUSTED")

        monkeypatch.setattr(Storage, "read", out_of_memory)
        with Checkpoints(copy) as checkpoints, pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
            checkpoints.restore(abstract(items_of(0)), set_aside=True)
        with Checkpoints(copy) as checkpoints, pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
            list(checkpoints.verify())
        assert names(copy) == ["1", "2"]


def test_a_damaged_manifest_costs_the_rank_too(copy):
    flip(copy / "2" / "manifest.json")
    with Checkpoints(copy, **KEEP) as checkpoints:
        assert (checkpoints.metrics(1), checkpoints.metrics(2), checkpoints.best_step()) == ({"loss": 2.0}, None, 1)
