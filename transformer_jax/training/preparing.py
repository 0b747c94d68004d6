"""Token shards of an experiment's training text: read once as a stream, tokenised by many processes, gone on with."""

import collections
import hashlib
import itertools
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from transformer_jax import runs
from transformer_jax.config import Classification, Experiment, FilterConfig
from transformer_jax.data.filters import Report, iterate_filtered
from transformer_jax.data.objectives import check_kind
from transformer_jax.data.shards import MANIFEST, TOKENIZER, Manifest, Shard, read_shard, shard_path, write_lengths
from transformer_jax.data.sources import Example, iterate, naming
from transformer_jax.data.tokenizer import Tokenizers
from transformer_jax.data.workers import make_shard, workers
from transformer_jax.errors import InputError
from transformer_jax.files import write_atomically, written_whole
from transformer_jax.training import data as datasets
from transformer_jax.training import initial
from transformer_jax.training.metrics import say
from transformer_jax.training.prepared import Part, check_facts, check_same_tokenizer, parts_of

EXAMPLES = 65_536  # of a shard
SAMPLE = 1_000_000  # examples that a tokenizer is trained on where the experiment does not say how many
_AHEAD = 1  # shards that wait for each worker: so many more are in memory


def prepare(experiment: Experiment, folder: Path, count: int = 1, *, per_shard: int = EXAMPLES) -> list[Manifest]:
    """Makes the token shards of an experiment's training data in a folder, or what is missing of them.

    Tasks that are mixed with it have folders of their own in that one; a tokenizer is trained on the text of all.
    The same text gives the same bytes, whatever the number of processes, and however often it was begun again.

    Args:
        experiment: whose data, filters, tokenizer, sizes of vocabularies, and tasks count.
        folder: made if need be; a run takes it by `prepared`.
        count: processes.
        per_shard: examples of each shard.

    Returns:
        What is known of the shards of the experiment's own data, and of each task's.

    Raises:
        InputError: on data that is missing, damaged, empty or not for it, on a folder of other shards, and when nothing
            can be written.
    """
    if isinstance(experiment.objective, Classification):
        raise InputError("objective.kind='classification': its data is small, and is not prepared")
    parts = parts_of(experiment, folder)
    with runs.lock(folder, "--output"):
        _begin(parts[0])
        for part in parts:
            _check_first(part, experiment.filters)
        tokenizers = _tokenizers(experiment, parts)
        return [_prepare(part, experiment.filters, tokenizers, count, per_shard) for part in parts]


def _begin(first: Part) -> None:
    """The folder is that of this experiment from the first moment on."""
    folder, path = first.folder, first.folder / "preparing.json"
    if not path.exists():
        others = [found for found in folder.iterdir() if not found.name.startswith((".lock", f".{path.name}."))]
        if others:
            raise InputError(f"{folder}: exists and is not empty; choose another --output")
    if not (folder / TOKENIZER).exists():  # nothing is made yet, and a mistake can be mended
        write_atomically(path, json.dumps(first.facts, indent=2) + "\n")
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); choose another --output") from None
    check_facts(made, first, str(folder))


def _examples(part: Part, filters: FilterConfig) -> tuple[Iterator[Example], Report]:
    examples = iterate(part.data, "train")
    if examples is None:
        raise InputError(f"{part.flag}.train: the experiment has no training pairs")

    def named() -> Iterator[Example]:
        with naming(part.flag):
            yield from examples

    return iterate_filtered(named(), filters)


def _check_first(part: Part, filters: FilterConfig) -> None:
    """Checks by its first example that there is data, and that it fits the objective."""
    examples, report = _examples(part, filters)
    first = next(examples, None)
    if first is None:
        raise InputError(f"{part.flag}.train: nothing is left to be prepared; {report}")
    check_kind(part.objective, plain=first[0] is None)


def _tokenizers(experiment: Experiment, parts: Sequence[Part]) -> Tokenizers:
    """Those of the folder; where it has none, trained on a sample of all text as the experiment says."""
    place = parts[0].folder / TOKENIZER
    if not place.exists():
        for part in parts:  # what there may be was made with another one
            (part.folder / MANIFEST).unlink(missing_ok=True)
        chosen = replace(experiment.tokenizer, examples=experiment.tokenizer.examples or SAMPLE)
        texts = itertools.chain.from_iterable(_examples(part, experiment.filters)[0] for part in parts)
        made = datasets.tokenizers_of_text(replace(experiment, tokenizer=chosen), texts)
        with written_whole(place) as temporary:
            made.save(temporary)
    tokenizers = _opened(place)
    if experiment.init_from is not None:
        digest = initial.tokenizers_of(experiment).digest
        check_same_tokenizer(parts[0].folder, tokenizers.digest, digest, f"that of {experiment.init_from}")
    return tokenizers


def _opened(place: Path) -> Tokenizers:
    try:
        return Tokenizers.load(place)
    except InputError as error:
        raise InputError(f"{error}; take {place} away, and the same command makes it and the shards again") from None


def _prepare(part: Part, filters: FilterConfig, tokenizers: Tokenizers, count: int, per_shard: int) -> Manifest:
    """The shards of a part, in a folder that is whole without the others."""
    folder = part.folder
    folder.mkdir(exist_ok=True)
    for half in folder.glob(".*.*/"):  # what a process that was killed was writing
        shutil.rmtree(half)
    if not (folder / TOKENIZER).exists():  # it is that of a task
        with written_whole(folder / TOKENIZER) as temporary:
            tokenizers.save(temporary)
    if _opened(folder / TOKENIZER).digest != tokenizers.digest:
        raise InputError(
            f"{folder / TOKENIZER}: not the tokenizer beside it; take it away, and the same command makes it and the "
            "shards again"
        )
    plain, shards, report = _make_shards(part, filters, tokenizers, count, per_shard)
    lengths = write_lengths(folder, len(shards))
    if filters != FilterConfig():
        say(f"{part.flag}: {report}")
        write_atomically(folder / "filters.json", report.to_json())
    texts = hashlib.sha256(" ".join(shard.texts for shard in shards).encode()).hexdigest()
    manifest = Manifest(
        plain=plain,
        per_shard=per_shard,
        dtype=_dtype(tokenizers),
        experiment=part.facts,
        digest=texts,
        tokenizer=tokenizers.digest,
        lengths=lengths,
        shards=tuple(shards),
    )
    manifest.save(folder)
    return manifest


def _dtype(tokenizers: Tokenizers) -> str:
    largest = max(tokenizers.source.vocab_size, tokenizers.target.vocab_size)
    return "<u2" if largest <= 2**16 else "<u4"


def _make_shards(
    part: Part, filters: FilterConfig, tokenizers: Tokenizers, count: int, per_shard: int
) -> tuple[bool, list[Shard], Report]:
    """Whether the texts are plain, all shards, those that were there already included, and what filters dropped."""
    examples, report = _examples(part, filters)
    done: list[Shard] = []
    plain = False
    waiting: collections.deque[Future[Shard]] = collections.deque()
    with (
        workers(count) as pool,
        tqdm(desc=f"Preparing {part.flag}", unit=" examples", unit_scale=True, disable=None) as bar,
    ):

        def finish(most: int) -> None:
            while len(waiting) > most:
                done.append(waiting.popleft().result())
                bar.update(done[-1].examples)
                if bar.disable and len(done) % 10 == 0:
                    print(f"{len(done):,} shards", file=sys.stderr, flush=True)

        for index in itertools.count():
            chunk = list(itertools.islice(examples, per_shard))
            if not chunk:
                break
            plain = chunk[0][0] is None
            waiting.append(_shard(pool, part.folder, index, chunk, tokenizers))
            finish(count * (1 + _AHEAD) if count > 1 else 0)
        finish(0)
    return plain, done, report


def _shard(
    pool: Executor, folder: Path, index: int, chunk: Sequence[Example], tokenizers: Tokenizers
) -> "Future[Shard]":
    """A shard that is there, of the same text and by the same tokenizers, or that is to be made."""
    texts = _digest(chunk)
    there = read_shard(folder, index)
    if there is not None and there.tokenizer == tokenizers.digest:
        if there.texts != texts:
            raise InputError(
                f"{shard_path(folder, index)}: made of other text than the data has now; prepare elsewhere"
            )
        found: Future[Shard] = Future()
        found.set_result(there)
        return found
    made_with = folder / TOKENIZER, tokenizers.digest
    return pool.submit(make_shard, made_with, folder, index, chunk, _dtype(tokenizers), texts)


def _digest(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        for text in example:
            data = b"" if text is None else text.encode()
            digest.update(b"%d:%b" % (-1 if text is None else len(data), data))
    return digest.hexdigest()
