"""Data that lies elsewhere than it did."""

import pytest
from small_runs import experiment

from transformer_jax.config import MixtureConfig, Numerals, PlainText, Task, TextFiles
from transformer_jax.errors import InputError
from transformer_jax.training.moved import Moved


def mixed(**fields):
    tasks = (Task(data=PlainText(dir="one")), Task(data=Numerals()))
    return experiment(TextFiles(dir="own"), mixture=MixtureConfig(tasks=tasks), **fields)


def test_each_has_its_own_place():
    tasks = (Task(data=PlainText(dir="one")), Task(data=TextFiles(dir="two")))
    chosen = experiment(
        TextFiles(dir="own"), held_out=TextFiles(dir="held"), mixture=MixtureConfig(tasks=tasks), prepared="shards"
    )
    placed = Moved(data="a", held_out="b", tasks=("c", "d"), prepared="e").applied(chosen)
    assert (placed.data.dir, placed.held_out.dir, placed.prepared) == ("a", "b", "e")
    assert [task.data.dir for task in placed.mixture.tasks] == ["c", "d"]
    assert Moved().applied(chosen) == chosen


@pytest.mark.parametrize(
    ("moved", "message"),
    [
        (Moved(tasks=("a",)), r"--tasks\.dir: 1 folders for 2 tasks; give one for each"),
        (Moved(tasks=("a", "b")), r"--tasks\.dir b: data of kind numerals is in no folder"),
        (Moved(held_out="a"), r"--held-out\.dir a: the run has no such data"),
        (Moved(prepared="a"), "--prepared a: the run was not trained from token shards"),
    ],
)
def test_what_is_not_there_cannot_have_moved(moved, message):
    with pytest.raises(InputError, match=message):
        moved.applied(mixed())
