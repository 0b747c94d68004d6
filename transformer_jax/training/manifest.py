"""manifest.json: all that a checkpoint holds beside its arrays, and what every one of its bytes has to be.

Written last, in a folder that gets its name afterwards: a checkpoint without it is no checkpoint. The manifest of
format 1 has no digests of files, and its parts lie in folders of their own; it is only read.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from transformer_jax.errors import InputError, first_line
from transformer_jax.files import digest_of, to_disk, write_atomically
from transformer_jax.training.fingerprints import Leaves

FORMAT_VERSION = 2
NAME = "manifest.json"

Files: TypeAlias = dict[str, list[Any]]  # path of a file within the checkpoint -> [bytes, SHA-256]


class DamageError(Exception):
    """A piece of a checkpoint is not what was saved: says which."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds."""

    position: dict[str, Any]  # where the run stands
    metrics: dict[str, float] | None  # what was measured at its step
    leaves: Leaves
    files: Files | None  # None in format 1, which has no digests


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a checkpoint was found to be."""

    step: int
    damage: str | None  # the piece that is not what was saved; None: it is intact
    has_digests: bool  # of its files; format 1 has none

    def __str__(self) -> str:
        if self.damage is not None:
            return f"damaged: {self.damage}"
        return "intact" if self.has_digests else "intact; of format 1, without digests of its files"


@contextlib.contextmanager
def damage_shown(contents: Manifest) -> Iterator[None]:
    """Where files have no digests, damage shows as any exception of Orbax; else they have just been checked.

    Raises:
        DamageError: instead of any other error, where there are no digests.
    """
    try:
        yield
    except Exception as error:
        if contents.files is not None:
            raise
        raise DamageError(first_line(error)) from error


def digest_files(folder: Path) -> Files:
    """Size and SHA-256 of every file in a folder; all of them are on disk when this returns."""
    files = {}
    for path in sorted(folder.rglob("*")):
        to_disk(path)
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = [path.stat().st_size, digest_of(path)]
    to_disk(folder)
    return files


def check_files(folder: Path, files: Files) -> None:
    """Checks every file of a checkpoint against its digest.

    Raises:
        DamageError: naming the first file that is missing, of another size, or of other content.
    """
    for name, (size, _) in files.items():
        _check_size(folder, name, size)
    for name, (_, digest) in files.items():
        try:
            found = digest_of(folder / name)
        except OSError as error:
            raise DamageError(f"{name} cannot be read: {error.strerror}") from error
        if found != digest:
            raise DamageError(f"{name} is not what was saved")


def is_complete(folder: Path) -> bool:
    """Whether all files are there in their full size; a look at the folder, not at their content."""
    try:
        for name, (size, _) in (read(folder).files or {}).items():
            _check_size(folder, name, size)
    except (DamageError, InputError):
        return False
    return True


def write(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest of a checkpoint.

    Raises:
        InputError: when it cannot be written.
    """
    content = {"format_version": FORMAT_VERSION, **dataclasses.asdict(manifest)}
    write_atomically(folder / NAME, _with_digest(content))


def read(folder: Path) -> Manifest:
    """The manifest of a checkpoint.

    Raises:
        DamageError: when it is missing or not what was written.
        InputError: when it is of a later format.
    """
    if not (folder / NAME).exists() and (folder / "manifest").is_dir():
        return _read_format_1(folder)
    text = _text(folder, NAME)
    content = _parsed(text, NAME)
    if not isinstance(content, dict) or content.pop("sha256", None) is None or _with_digest(content) != text:
        raise DamageError(f"{NAME} is not what was saved")
    version = content.pop("format_version")
    if version != FORMAT_VERSION:
        raise InputError(f"{folder}: format {version}; this version reads up to {FORMAT_VERSION}")
    return Manifest(**content)


def _read_format_1(folder: Path) -> Manifest:
    name = "manifest/metadata"
    content, position = (_parsed(_text(folder, file), file) for file in (name, "position/metadata"))
    try:
        version, leaves, digest = content["format_version"], content["leaves"], content["position"]
        prints = {
            item: {path: [dtype, shape, of] for path, (dtype, shape, of) in leaves[item].items()} for item in leaves
        }
    except (TypeError, KeyError, ValueError, AttributeError):
        raise DamageError(f"{name} is not what was saved") from None
    if version != 1:
        raise DamageError(f"{name} is of format {version}")
    if hashlib.sha256(json.dumps(position, sort_keys=True).encode()).hexdigest() != digest:
        raise DamageError("position/metadata is not what was saved")
    try:
        metrics = _parsed(_text(folder, "metrics/metrics"), "metrics/metrics")
    except DamageError:  # they cost a checkpoint its rank alone: format 1 has no digest of them
        metrics = None
    return Manifest(position, metrics, prints, None)


def _with_digest(content: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return json.dumps({**content, "sha256": digest}, indent=1) + "\n"


def _parsed(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DamageError(f"{name} is no JSON: {error}") from None


def _text(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_bytes().decode()
    except FileNotFoundError:
        raise DamageError(f"{name} is missing") from None
    except (OSError, ValueError) as error:
        raise DamageError(f"{name} cannot be read: {error}") from None


def _check_size(folder: Path, name: str, size: int) -> None:
    try:
        found = os.stat(folder / name).st_size
    except OSError:
        raise DamageError(f"{name} is missing") from None
    if found != size:
        raise DamageError(f"{name} has {found:,} bytes of {size:,}")
