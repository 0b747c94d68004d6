"""The run folder: the experiment file it starts from, what it holds, the record of its sessions, its lock."""

import contextlib
import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import json
import os
import shutil
import socket
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock

from transformer_jax import environment
from transformer_jax.checked import fields_of, leaves_of
from transformer_jax.config import Experiment, from_json, identity_difference, to_json
from transformer_jax.errors import InputError
from transformer_jax.files import write_atomically

_PACKAGE = "experiments"
_HOLDER = ".lock.holder"  # beside .lock, which may be truncated by who asks for it


class InUseError(InputError):
    """Another process holds a run folder."""


class RunFolder:
    """The paths of everything that one run writes."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"  # the experiment
        self.environment = self.path / "environment.json"  # where each session of the run happened
        self.tokenizer = self.path / "tokenizer"
        self.cache = self.path / "cache"  # preprocessed data
        self.filters = self.path / "filters.json"  # which training pairs were left out, where there are filters
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"  # values that are the same whenever the run is repeated
        self.timings = self.path / "timings.jsonl"  # values of the clock
        self.incidents = self.path / "incidents.jsonl"  # bad steps, and what was done about them
        self.tensorboard = self.path / "tensorboard"
        self.profile = self.path / "profile"  # a trace of a few steps, where it was asked for
        self.curves = self.path / "curves.png"
        self.attention = self.path / "attention.png"
        self.translations = self.path / "translations"
        self.average = self.path / "average.json"  # of an average of checkpoints: which they are
        self.imported = self.path / "imported.json"  # of a public checkpoint: which it is
        self.results = self.path / "results.json"  # what a finished run reached


def load_experiment(path: str | Path) -> Experiment:
    """The experiment of a Python file with `get_config() -> Experiment`, from any working directory.

    The file's folder is loaded as the package `experiments`, so that a file can build on its neighbours
    (`from experiments import base`). Modules of that name that were there before are back afterwards.

    Args:
        path: the file; with a colon and a word behind it, get_config is given that word.

    Raises:
        InputError: when the file is missing, is no Python, has no get_config that returns an Experiment, or raises; an
            error raised in the folder's files is told with its file and line; and on a word that get_config does not
            take.
    """
    name, colon, word = str(path).rpartition(":")
    chosen = bool(colon) and name.endswith(".py")
    file = Path(name if chosen else path)
    _check_file(file)
    folder = Path(os.path.abspath(file)).parent
    with _experiments_package(folder):
        try:
            experiment = _run_get_config(file, folder, word if chosen else None)
        except SyntaxError as error:
            where = _shown(file, folder, error.filename or str(file))
            raise InputError(f"{where}:{error.lineno or 1}: syntax error: {error.msg}") from None
        except Exception as error:
            raise InputError(f"{_blame(file, folder, error)}: {_one_line(error)}") from error
    if not isinstance(experiment, Experiment):
        raise InputError(f"{file}: get_config() must return an Experiment, not {type(experiment).__name__}")
    return experiment


def _check_file(file: Path) -> None:
    if file.is_dir():
        raise InputError(f"{file}: is a folder; an experiment is a .py file in it")
    if not file.exists():
        neighbours = sorted(near.name for near in file.parent.glob("*.py")) if file.parent.is_dir() else []
        close = difflib.get_close_matches(file.name, neighbours, 1) or difflib.get_close_matches(
            f"{file.name}.py", neighbours, 1
        )
        hint = f"; did you mean {file.parent / close[0]}?" if close else ""
        raise InputError(f"{file}: no such experiment file{hint}")
    if file.suffix != ".py":
        raise InputError(f"{file}: is no .py file; an experiment is a Python file with get_config() -> Experiment")


@contextlib.contextmanager
def _experiments_package(folder: Path) -> Iterator[None]:
    """Within the context, the package `experiments` is this folder."""
    before = _take_modules()
    package = types.ModuleType(_PACKAGE)
    package.__path__ = [str(folder)]
    sys.modules[_PACKAGE] = package
    importlib.invalidate_caches()  # a file written a moment ago is found too
    try:
        yield
    finally:
        _take_modules()
        sys.modules.update(before)


def _take_modules() -> dict[str, types.ModuleType]:
    names = [name for name in sys.modules if name == _PACKAGE or name.startswith(f"{_PACKAGE}.")]
    return {name: sys.modules.pop(name) for name in names}


def _run_get_config(file: Path, folder: Path, word: str | None) -> object:
    name = f"{_PACKAGE}.{file.stem}"
    spec = importlib.util.spec_from_file_location(name, folder / file.name)
    if spec is None or spec.loader is None:
        raise ImportError("cannot be loaded as a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise InputError("has no function get_config() -> Experiment")
    return get_config() if word is None else get_config(_checked(word, get_config))


def _checked(word: str, get_config: Callable[..., object]) -> str:
    """The word, which is one of those that get_config takes, as far as the type of its argument lists them."""
    arguments = [*inspect.signature(get_config, eval_str=True).parameters.values()]
    if not arguments:
        raise InputError(f"get_config() takes no word; leave out :{word}")
    words = typing.get_args(arguments[0].annotation)
    if words and word not in words:
        raise InputError(f":{word}: get_config() takes {', '.join(f':{known}' for known in words)}")
    return word


def _blame(file: Path, folder: Path, error: Exception) -> str:
    """FILE:LINE of the deepest line of the user's folder in the error's traceback; FILE when it has none."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame for frame in frames if Path(frame.filename).parent == folder]
    return f"{_shown(file, folder, lines[-1].filename)}:{lines[-1].lineno}" if lines else str(file)


def _shown(file: Path, folder: Path, filename: str) -> str:
    """A file of the folder, told the way the user told the experiment file."""
    other = Path(filename)
    return str(file.parent / other.name) if other.parent == folder else filename


def _one_line(error: Exception) -> str:
    message = " ".join(str(error).split())
    return message if isinstance(error, InputError) else f"{type(error).__name__}: {message}"


def open_run(workdir: str | Path) -> Experiment:
    """The experiment of a run folder, from its config.json.

    Raises:
        InputError: when the folder is missing, or holds no config.json, or one that is broken.
    """
    folder = RunFolder(workdir)
    if not folder.path.is_dir():
        raise InputError(f"{folder.path}: no such run folder")
    if not folder.config.is_file():
        raise InputError(f"{folder.path}: not a run folder: it has no {folder.config.name}")
    try:
        return from_json(folder.config.read_text(encoding="utf-8"))
    except ValueError as error:  # InputError and UnicodeDecodeError are ValueErrors
        raise InputError(f"{folder.config}: {error}") from None


def start(workdir: str | Path, experiment: Experiment) -> RunFolder:
    """The folder of a new run, made, or that of a run of the same experiment, to go on with.

    Placement fields may differ from those of earlier sessions. So may identity fields until the run has opened its
    logs, since an experiment whose first try failed is there to be corrected; what that try left is forgotten.

    Raises:
        InputError: when the folder belongs to another experiment (all differences are named), to an average of
            checkpoints, or to something else.
    """
    folder = RunFolder(workdir)
    for mark, what in ((folder.average, "an average of checkpoints"), (folder.imported, "an imported checkpoint")):
        if mark.exists():
            raise InputError(
                f"{folder.path}: holds {what}, which cannot be trained on; choose another --workdir, and start from it "
                f"with --init-from {folder.path}"
            )
    trained = has_trained(folder)
    if folder.config.exists():
        differences = identity_difference(open_run(workdir), experiment) if trained else []
        if differences:
            raise InputError(
                f"{folder.path}: holds a run of another experiment; undo the differences or choose another --workdir: "
                + "; ".join(differences)
            )
    elif folder.path.is_dir() and (others := _visible(folder.path)):
        raise InputError(
            f"{folder.path}: not a run folder (it has no {folder.config.name}) and not empty (it has {others[0]}); "
            "choose another --workdir"
        )
    _make(folder.path)
    if not trained:
        _forget(folder)
        write_atomically(folder.config, to_json(experiment))
    return folder


def has_trained(folder: RunFolder) -> bool:
    """Whether a run has begun to train: has opened its logs, or saved."""
    return folder.metrics.exists() or (folder.checkpoints.is_dir() and any(folder.checkpoints.iterdir()))


def _forget(folder: RunFolder) -> None:
    """Drops what an earlier try derived from its data; the cache notices changed inputs by itself."""
    if folder.tokenizer.exists():
        shutil.rmtree(folder.tokenizer)
    folder.environment.unlink(missing_ok=True)
    folder.filters.unlink(missing_ok=True)


def _visible(path: Path) -> list[str]:
    """Names in a folder; the lock and a file half written when a process died begin with a dot."""
    return sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot make the run folder: {error.strerror}; choose another --workdir") from None


def record_session(
    folder: RunFolder, experiment: Experiment, *, platform_name: str, devices: Sequence[str], digests: Mapping[str, str]
) -> None:
    """Appends this session to environment.json: versions, machine, digests of data and tokenizer, placement, commit.

    config.json gets the placement of this session.

    Raises:
        InputError: when data or tokenizer are not those of the sessions before, or no longer there.
    """
    check_digests(folder, {name: "none" for name in recorded_digests(folder)} | dict(digests))
    session: dict[str, Any] = {
        "versions": environment.versions(),
        "commit": environment.commit(),
        "platform": platform_name,
        "devices": list(devices),
        "processor": environment.processor(),
        "xla_flags": os.environ.get("XLA_FLAGS"),
        "digests": dict(digests),
        "seed": experiment.seed,
        "placement": _placement(experiment),
    }
    write_atomically(folder.config, to_json(experiment))
    write_atomically(folder.environment, json.dumps([*read_sessions(folder), session], indent=2) + "\n")


def read_sessions(folder: RunFolder) -> list[dict[str, Any]]:
    """The sessions of environment.json, oldest first; none when it does not exist yet.

    Raises:
        InputError: when the file is broken.
    """
    if not folder.environment.exists():
        return []
    try:
        sessions: list[dict[str, Any]] = json.loads(folder.environment.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder.environment}: is broken: {error}; delete it to record afresh") from None
    return sessions


def recorded_digests(folder: RunFolder) -> dict[str, str]:
    """What data and tokenizer were when the run first saw them, by name.

    Raises:
        InputError: when the record is broken.
    """
    first: dict[str, str] = {}
    for session in read_sessions(folder):
        first = {**session["digests"], **first}
    return first


def check_digests(folder: RunFolder, digests: Mapping[str, str]) -> None:
    """Checks digests, by the name of what they are of, against the first ever recorded in this run.

    Raises:
        InputError: when one differs; it names all that do.
    """
    first = recorded_digests(folder)
    changed = [
        f"{name}: {first[name]} -> {digest}" for name, digest in digests.items() if first.get(name, digest) != digest
    ]
    if changed:
        raise InputError(
            f"{folder.path}: not what the run was started with; bring it back or choose another --workdir: "
            + "; ".join(changed)
        )


def _placement(experiment: Experiment) -> dict[str, object]:
    placements = {name for name, is_placement in fields_of(Experiment) if is_placement}
    return {name: value for name, value in leaves_of(dataclasses.asdict(experiment)) if name in placements}


@contextlib.contextmanager
def lock(workdir: str | Path) -> Iterator[None]:
    """Keeps other processes from this run folder; the operating system lets go when the process dies.

    Raises:
        InUseError: when another process holds it; it names the folder and that process.
    """
    path = Path(workdir)
    _make(path)
    holder = path / _HOLDER
    guard = filelock.FileLock(path / ".lock")
    try:
        guard.acquire(timeout=0)
    except filelock.Timeout:
        who = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
        raise InUseError(f"{path}: in use by {who}; wait for it or choose another --workdir") from None
    try:
        write_atomically(holder, f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        holder.unlink(missing_ok=True)
        guard.release()


def is_in_use(workdir: str | Path) -> bool:
    """Whether a process holds this run folder: one of another machine, as far as its record tells."""
    try:
        _, number, _, host = (Path(workdir) / _HOLDER).read_text(encoding="utf-8").split()
    except (OSError, ValueError):  # nobody's, or being written
        return False
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(number), 0)  # a signal that does nothing
    except ProcessLookupError:  # killed before it could take its record away
        return False
    except PermissionError:  # another user's
        return True
    return True
