"""The ids of the texts of a run: made once, by all processes together, and kept in a file."""

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from transformer_jax import processes
from transformer_jax.data.encoding import encode
from transformer_jax.data.examples import Tokens
from transformer_jax.data.packing import Ragged
from transformer_jax.data.sources import Pairs
from transformer_jax.data.tokenizer import Tokenizers
from transformer_jax.errors import InputError
from transformer_jax.files import written_whole

_FORMAT = 1  # of the cache files; another number makes them all anew


def tokenise(pairs: Pairs, tokenizers: Tokenizers, cache_dir: Path) -> Tokens:
    """The ids of both sides, each text with what stands around it, from the cache where it has them."""
    key = hashlib.sha256(f"{_FORMAT} {pairs.digest} {tokenizers.digest}".encode()).hexdigest()
    path = cache_dir / f"tokens-{key[:32]}.npz"
    cached = _read_cache(path)
    if not processes.highest(cached is None) and cached is not None:
        return cached
    index, count = jax.process_index(), jax.process_count()
    share = slice(len(pairs) * index // count, len(pairs) * (index + 1) // count)
    sides = [(tokenizers.source, pairs.sources), (tokenizers.target, pairs.targets)]
    texts = [(tokenizer, side[share]) for tokenizer, side in sides if side is not None]
    hidden = None if processes.is_coordinator() else True  # None shows it on a terminal only
    with tqdm(total=sum(len(own) for _, own in texts), desc="Tokenising", unit=" sentences", disable=hidden) as bar:
        made = [encode(tokenizer, own, bar.update) for tokenizer, own in texts]
    tokens = Tokens(None if len(made) == 1 else made[0], made[-1])
    if count > 1:
        tokens = _exchange(path, tokens)
    if processes.is_coordinator():
        _write_cache(path, tokens)
    return tokens


def labelled(pairs: Pairs, labels: Sequence[str], tokenizers: Tokenizers, longest: int, cache_dir: Path) -> Tokens:
    """The ids of sources, of long ones the first, and the class of each as a target of one number.

    Raises:
        InputError: on a target that is no label, by its text.
    """
    classes = {label: index for index, label in enumerate(labels)}
    for number, label in enumerate(pairs.targets, start=1):
        if label not in classes:
            raise InputError(f"example {number}: {label!r} is none of objective.labels={tuple(labels)}")
    assert pairs.sources is not None  # as the objective has checked
    texts = tokenise(Pairs(None, pairs.sources), Tokenizers(tokenizers.source, tokenizers.source), cache_dir)
    special = tokenizers.source.special
    sources = texts.target.cut(longest, special.frames - len(special.before))
    return Tokens(sources, Ragged.of([np.array([classes[label]]) for label in pairs.targets]))


def _exchange(path: Path, tokens: Tokens) -> Tokens:
    """The ids of all texts, of which each process made a share, by files beside the cache, which all of them see."""
    parts = [path.with_name(f"{path.stem}.part-{index}.npz") for index in range(jax.process_count())]
    _write_cache(parts[jax.process_index()], tokens)
    processes.barrier("tokenised")
    shares = [_read_cache(part) for part in parts]
    found = [share for share in shares if share is not None]
    if len(found) < len(parts):
        missing = parts[shares.index(None)]
        raise InputError(f"{missing}: not seen by process {jax.process_index()}; --workdir is a folder that all share")
    processes.barrier("read")
    parts[jax.process_index()].unlink()
    return Tokens.joined(found)


def _read_cache(path: Path) -> Tokens | None:
    """What `_write_cache` wrote; None where there is nothing, or a damaged file."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            sides = ["source", "target"] if "source_values" in arrays else ["target"]
            read = [Ragged(arrays[f"{side}_values"], arrays[f"{side}_offsets"]) for side in sides]
            return Tokens(read[0] if len(read) > 1 else None, read[-1])
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def _write_cache(path: Path, tokens: Tokens) -> None:
    arrays: dict[str, Any] = {}
    for name, side in (("source", tokens.source), ("target", tokens.target)):
        if side is not None:
            arrays |= {f"{name}_values": side.values, f"{name}_offsets": side.offsets}
    with written_whole(path) as temporary:
        np.savez(temporary, **arrays)
