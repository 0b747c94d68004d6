"""What processes do that make token shards side by side."""

import functools
import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformer_jax.data.encoding import encode
from transformer_jax.data.examples import Tokens
from transformer_jax.data.shards import Shard, write_shard
from transformer_jax.data.sources import Example
from transformer_jax.data.tokenizer import Tokenizers
from transformer_jax.errors import InputError


@functools.lru_cache(maxsize=1)  # once for each process
def _opened(folder: Path, digest: str) -> Tokenizers:
    """The tokenizers of a folder, which are known."""
    tokenizers = Tokenizers.load(folder)
    assert tokenizers.digest == digest
    return tokenizers


def make_shard(
    tokenizers: tuple[Path, str], folder: Path, index: int, examples: Sequence[Example], dtype: str, texts: str
) -> Shard:
    """Tokenises the examples of a shard and writes it.

    Args:
        tokenizers: their folder and digest.
        folder: of the shards.
        index: of the shard.
        examples: pairs, or all of them plain texts.
        dtype: of ids.
        texts: the digest of the examples.

    Raises:
        InputError: when it cannot be written.
    """
    both = _opened(*tokenizers)
    sources = [source for source, _ in examples if source is not None]
    target = encode(both.target, [text for _, text in examples])
    tokens = Tokens(encode(both.source, sources) if sources else None, target)
    return write_shard(folder, index, tokens, dtype, texts, both.digest)


@contextmanager
def workers(count: int) -> Iterator[Executor]:
    """So many processes; one is this one. When it dies, they do.

    Raises:
        InputError: when the system killed one of them.
    """
    if count == 1:
        yield _Here()
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(count, mp_context=context, initializer=_end_with_parent) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            raise InputError(
                f"one of {count} processes was killed, as a system does that is out of memory; the same command goes "
                "on where it was, also with fewer --workers"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """A process that is killed tells nobody; its children would wait for work that never comes."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # as it was spawned

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Here(Executor):
    """Does at once what it is given."""

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """The result, or what was raised."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
