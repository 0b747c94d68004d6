"""Token shards: the ids of examples on disk, for sets larger than memory; each example can be read by its number."""

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from transformer_jax.data.examples import Tokens
from transformer_jax.data.packing import Ragged, offsets_of
from transformer_jax.data.tokenizer import Tokenizers
from transformer_jax.errors import InputError
from transformer_jax.files import digest_of, write_atomically, written_whole

FORMAT = 3
LENGTHS = "lengths.npy"
TOKENIZER = "tokenizer"
MANIFEST = "prepared.json"

_OPEN = 256  # shards at once: many systems allow a process 1,024 files

# Alone a record takes a third more room, and is read no faster: 5.5 microseconds for 4.2, of 1,600 among 100,000.
_OPTIONS = "group_size:8,uncompressed"


@dataclasses.dataclass(frozen=True)
class Shard:
    """What is known of a shard without reading it."""

    examples: int
    source_tokens: int
    target_tokens: int
    size: int  # bytes
    sha256: str
    lengths: str  # the sha256 of the file of its lengths
    texts: str  # the sha256 of the examples it was made of
    tokenizer: str  # the digest of the tokenizers it was made with

    def to_json(self) -> str:
        """As the file beside a shard holds it."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What is known of all shards of a folder.

    Attributes:
        plain: whether the texts have no sources.
        per_shard: examples of each shard; the last has fewer.
        dtype: of ids in records, "<u2" or "<u4".
        experiment: what of an experiment decides about the tokens, by field.
        digest: the identity of the text, as a run records it.
        tokenizer: the digest of the tokenizers.
        lengths: the sha256 of the file of all lengths.
        shards: all of them, in order.
    """

    plain: bool
    per_shard: int
    dtype: str
    experiment: dict[str, Any]
    digest: str
    tokenizer: str
    lengths: str
    shards: tuple[Shard, ...]
    format: int = FORMAT

    @property
    def examples(self) -> int:
        """Of all shards."""
        return sum(shard.examples for shard in self.shards)

    def save(self, folder: Path) -> None:
        """Writes it into its folder, which is prepared from then on."""
        write_atomically(folder / MANIFEST, json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n")

    @staticmethod
    def load(folder: Path) -> "Manifest":
        """What `save` wrote.

        Raises:
            InputError: on a folder that is not prepared, or not to the end, and on a damaged or foreign file.
        """
        path = folder / MANIFEST
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            if fields["format"] != FORMAT:
                raise InputError(f"{path}: of format {fields['format']}, and this version reads {FORMAT}; prepare anew")
            return Manifest(**{**fields, "shards": tuple(Shard(**shard) for shard in fields["shards"])})
        except FileNotFoundError:
            raise InputError(f"{path}: missing: nothing is prepared there, or not to its end; see prepare") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: damaged ({error}); prepare anew") from None


def shard_path(folder: Path, index: int) -> Path:
    """The file of a shard; beside it lie its lengths (.npy) and what is known of it (.json)."""
    return folder / f"tokens-{index:05}.array_record"


def task_path(folder: Path, number: int) -> Path:
    """The folder of the shards of a task, in that of the experiment that mixes it with its own data."""
    return folder / f"task-{number}"


def write_shard(folder: Path, index: int, tokens: Tokens, dtype: str, texts: str, tokenizer: str) -> Shard:
    """Writes a shard and its lengths, each whole or not at all, and in the end the file that says it is done.

    A record holds the ids of the source and then those of the target; how many they are stands among the lengths.

    Raises:
        InputError: when they cannot be written.
    """
    from array_record.python import array_record_module

    path = shard_path(folder, index)
    with written_whole(path) as temporary:
        writer = array_record_module.ArrayRecordWriter(str(temporary), _OPTIONS)
        for record in _records(tokens, dtype):
            writer.write(record)
        writer.close()
    lengths = path.with_suffix(".npy")
    with written_whole(lengths) as temporary:
        np.save(temporary, tokens.lengths.astype(np.int32))
    source, target = tokens.lengths.sum(axis=0).tolist()
    shard = Shard(
        len(tokens), source, target, path.stat().st_size, digest_of(path), digest_of(lengths), texts, tokenizer
    )
    write_atomically(path.with_suffix(".json"), shard.to_json())
    return shard


def _records(tokens: Tokens, dtype: str) -> Iterator[bytes]:
    for index in range(len(tokens)):
        sides = [tokens.target[index]] if tokens.source is None else [tokens.source[index], tokens.target[index]]
        yield b"".join(side.astype(dtype).tobytes() for side in sides)


def read_shard(folder: Path, index: int) -> Shard | None:
    """What is known of a shard that is done; None of one that is not, or not any more what was written."""
    path = shard_path(folder, index)
    try:
        shard = Shard(**json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
        whole = digest_of(path) == shard.sha256 and digest_of(path.with_suffix(".npy")) == shard.lengths
        return shard if whole else None
    except (OSError, ValueError, TypeError):
        return None


def write_lengths(folder: Path, count: int) -> str:
    """Puts the lengths of all shards, of which there are so many, into one file that is mapped into memory.

    Returns:
        Its sha256.
    """
    parts = [np.load(shard_path(folder, index).with_suffix(".npy")) for index in range(count)]
    with written_whole(folder / LENGTHS) as temporary:
        np.save(temporary, np.concatenate([np.zeros((0, 2), np.int32), *parts]))
    return digest_of(folder / LENGTHS)


class Shards:
    """The tokens of a prepared folder; of them only the lengths are in memory, as far as the system keeps them there.

    Args:
        folder: the folder.

    Raises:
        InputError: on a folder that is not prepared, and on a file that is missing or of another size.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest = folder, Manifest.load(folder)
        for index, shard in enumerate(self.manifest.shards):
            self._check(shard_path(folder, index), shard.size)
        try:
            self.lengths: Int[np.ndarray, "N 2"] = np.load(folder / LENGTHS, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise InputError(f"{folder / LENGTHS}: cannot be read ({error}); prepare anew") from None
        if self.lengths.shape != (self.manifest.examples, 2):
            raise InputError(f"{folder / LENGTHS}: not of {self.manifest.examples:,} examples; prepare anew")
        self._reader = functools.lru_cache(maxsize=_OPEN)(self._opened)

    def _check(self, path: Path, size: int) -> None:
        found = path.stat().st_size if path.exists() else None
        if found != size:
            said = "missing" if found is None else f"{found:,} bytes, and it was written with {size:,}"
            raise InputError(f"{path}: {said}; prepare again, which makes what is missing")

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def digest(self) -> str:
        """The identity of the text."""
        return self.manifest.digest

    def _opened(self, index: int) -> Any:
        from array_record.python import array_record_module

        return array_record_module.ArrayRecordReader(str(shard_path(self.folder, index)))

    def take(self, indices: Int[np.ndarray, " N"]) -> Tokens:
        """The tokens of these examples, in that order.

        Raises:
            InputError: on a shard that is damaged.
        """
        records: list[bytes] = [b""] * len(indices)
        order = np.argsort(indices, kind="stable")
        shards, places = np.divmod(indices[order], self.manifest.per_shard)
        for shard in np.unique(shards):
            own = shards == shard
            for place, record in zip(order[own], self._read(int(shard), places[own].tolist()), strict=True):
                records[place] = record
        lengths = np.asarray(self.lengths[indices], np.int64)
        sizes = np.fromiter(map(len, records), np.int64, len(records))
        wrong = np.flatnonzero(sizes != lengths.sum(axis=1) * np.dtype(self.manifest.dtype).itemsize)
        if len(wrong):
            raise InputError(
                f"{self.folder}: example {indices[wrong[0]]:,} is not as long as {LENGTHS} says; verify tells what is "
                "damaged, and prepare makes it again"
            )
        values = np.frombuffer(b"".join(records), self.manifest.dtype).astype(np.int32)
        if self.manifest.plain:
            return Tokens(None, Ragged(values, offsets_of(lengths[:, 1])))
        sides = Ragged(values, offsets_of(lengths.reshape(-1)))
        return Tokens(*(sides.take(np.arange(side, 2 * len(indices), 2)) for side in range(2)))

    def _read(self, shard: int, places: Sequence[int]) -> list[bytes]:
        try:
            return list(self._reader(shard).read(places))
        except (RuntimeError, IndexError, ValueError) as error:
            why = str(error).strip().partition("\n")[0]
            raise InputError(
                f"{shard_path(self.folder, shard)}: damaged ({why}); prepare again, which makes what is damaged"
            ) from None

    def verify(self) -> Iterator[tuple[Path, bool]]:
        """Each file that a run reads, and whether it is what was written."""
        yield self.folder / LENGTHS, digest_of(self.folder / LENGTHS) == self.manifest.lengths
        yield self.folder / TOKENIZER, self._has_tokenizer()
        for index, shard in enumerate(self.manifest.shards):
            path = shard_path(self.folder, index)
            yield path, digest_of(path) == shard.sha256

    def _has_tokenizer(self) -> bool:
        try:
            return Tokenizers.load(self.folder / TOKENIZER).digest == self.manifest.tokenizer
        except InputError:
            return False
