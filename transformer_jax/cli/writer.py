"""What translate writes, and how it goes on behind what stands there already."""

import contextlib
import dataclasses
import io
import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from tqdm import tqdm

from transformer_jax.errors import InputError

if TYPE_CHECKING:
    from transformer_jax.translation import Hypothesis, Translation

    # Hypotheses, the layer and the head to the aligned words of each.
    Align: TypeAlias = Callable[[Sequence[Hypothesis], int | None, int | None], list[list[tuple[int, int]]]]

_Bytes: TypeAlias = io.RawIOBase | io.BufferedIOBase


@dataclasses.dataclass(frozen=True)
class Files:
    """What is read and written."""

    input: Path | None = None  # lines to translate, plain or .gz; None is standard input
    output: Path | None = None  # where translations go; None is standard output
    resume: bool = False  # go on behind what stands in --output already
    invalid: Literal["error", "replace"] = "error"  # bytes that are no UTF-8: stop there, or U+FFFD in their place
    prefix_file: Path | None = None  # what each translation begins with, a line each
    constraints_file: Path | None = None  # words and phrases that must stand in each, a line each, tabs between them
    vocabulary: Path | None = None  # words, a line each, whose pieces alone translations are made of
    alignments: Path | None = None  # where word alignments go, a line each: source-translation, counted from 0
    suspicious: Path | None = None  # where lines go that look wrong: number, reasons, line, translation, tabs between

    def __post_init__(self) -> None:
        if self.resume and self.output is None:
            raise InputError("--resume goes on with a file: it needs --output FILE")
        written = {f"--{flag}": getattr(self, flag) for flag in ("output", "alignments", "suspicious")}
        written = {flag: path for flag, path in written.items() if path is not None}
        for flag, path in written.items():
            self._check(flag, path)
        given = [path.resolve() for path in (*written.values(), self.input) if path is not None]
        if len(set(given)) < len(given):
            raise InputError(
                f"{', '.join(written)}: files that are written must differ from each other and from --input"
            )

    def _check(self, flag: str, path: Path) -> None:
        if not path.absolute().parent.is_dir():
            raise InputError(f"{flag} {path}: no such folder: {path.absolute().parent}")
        if path.suffix == ".gz":
            raise InputError(f"{flag} {path}: what is written is plain; leave out .gz")
        if not self.resume and path.is_file() and path.stat().st_size:
            raise InputError(f"{flag} {path}: stands there already; --resume goes on with it, or take it away")
        if self.resume and _has_content(self.output) and not path.is_file():
            raise InputError(f"--resume: {self.output} is there, but {flag} {path} is not")


@dataclasses.dataclass(frozen=True)
class Wishes:
    """What is written of each line."""

    scores: bool = False  # before each translation its score and a tab; n-best lists have scores anyway
    mbr: Literal["chrf", "bleu"] | None = None  # of the n best, give the one most like the others, by chrF or BLEU
    forbid: tuple[str, ...] = ()  # words and phrases that stand in no translation
    align_layer: int | None = None  # of the decoder, from 1, or -1 for the last; None is the last but one
    align_head: int | None = None  # counted from 1; None is the mean over all


class Writer:
    """Writes what becomes of each line, behind what is done already."""

    def __init__(
        self, nbest: int, files: Files, wishes: Wishes, stack: contextlib.ExitStack, align: "Align | None" = None
    ) -> None:
        self._align, self._wishes = align, wishes
        self._lists = nbest > 1 and wishes.mbr is None
        self._rows = nbest if self._lists else 1
        self.done = 0
        if files.resume:
            counts = [_whole_lines(files.output) // self._rows]
            counts += [] if files.alignments is None else [_whole_lines(files.alignments)]
            self.done = min(counts)
            self._check_kind(files.output)
        rows = {"output": self.done * self._rows, "alignments": self.done}
        if files.resume and files.suspicious is not None:
            rows["suspicious"] = _rows_before(files.suspicious, self.done)

        def opened(name: str) -> _Bytes | None:
            path = getattr(files, name)
            return None if path is None else stack.enter_context(_opened(path, rows.get(name, 0), files.resume))

        self._suspicious, self._alignments = opened("suspicious"), opened("alignments")
        self._output = opened("output") or cast(_Bytes, sys.stdout.buffer)

    def _check_kind(self, output: Path | None) -> None:
        """Checks that what stands there is lists of as many where lists are to be written, and plain where not."""
        if output is None or not output.is_file():
            return
        with output.open("rb") as file:
            begun = [row for row in itertools.islice(file, self._rows + 1) if row.endswith(b"\n")]
        numbers = [row.split(b" ||| ")[0] if row.count(b" ||| ") >= 3 else None for row in begun]
        as_lists = [*[b"0"] * self._rows, b"1"][: len(numbers)]
        if numbers != as_lists if self._lists else numbers[:1] == [b"0"]:
            kind = f"lists of --nbest {self._rows}" if self._lists else "a translation a line"
            raise InputError(f"--resume: {output} was not written as {kind}, as it would be now")

    def write(self, first: int, translations: Sequence["Translation"]) -> None:
        """What the wishes say of lines that were translated together, the first of this number, counted from 1.

        The output comes last, by which a resume counts: what goes with a line must not be lost behind it.
        """
        chosen = [self._chosen(translation) for translation in translations]
        for number, translation in enumerate(chosen, start=first):
            for warning in translation.warnings:
                tqdm.write(f"warning: line {number}: {warning}", file=sys.stderr)  # above the progress
        if self._suspicious:
            self._write(self._suspicious, _suspicious(first, chosen))
        if self._alignments and self._align:
            self._write(self._alignments, self._aligned(self._align, chosen))
        self._write(self._output, (row for n, one in enumerate(chosen, start=first) for row in self._shown(n, one)))

    def _chosen(self, translation: "Translation") -> "Translation":
        """Of many hypotheses the one most like the others, where that is wished."""
        from transformer_jax.translation.risk import minimum_bayes_risk

        if self._wishes.mbr is None or not translation.hypotheses:
            return translation
        texts = [hypothesis.text for hypothesis in translation.hypotheses]
        best = translation.hypotheses[minimum_bayes_risk(texts, self._wishes.mbr)]
        return dataclasses.replace(translation, hypotheses=(best,))

    def _aligned(self, align: "Align", translations: Sequence["Translation"]) -> Iterable[str]:
        """The word alignments of the best hypotheses."""
        from transformer_jax.translation.alignment import pharaoh

        layer, head = self._wishes.align_layer, self._wishes.align_head
        layer = layer - 1 if layer is not None and layer > 0 else layer
        best = [hypothesis for translation in translations for hypothesis in translation.hypotheses[:1]]
        aligned = iter(align(best, layer, None if head is None else head - 1))
        return [pharaoh(next(aligned)) if translation.hypotheses else "" for translation in translations]

    def _shown(self, number: int, translation: "Translation") -> Iterable[str]:
        if self._lists:
            for hypothesis in translation.hypotheses:
                yield f"{number - 1} ||| {hypothesis.text} ||| {hypothesis.score:.6f} ||| {hypothesis.log_prob:.6f}"
            for _ in range(self._rows - len(translation.hypotheses)):
                yield f"{number - 1} |||  ||| -inf ||| -inf"
        elif self._wishes.scores:
            score = translation.hypotheses[0].score if translation.hypotheses else float("-inf")
            yield f"{score:.6f}\t{translation.text}"
        else:
            yield translation.text

    def _write(self, file: _Bytes, lines: Iterable[str]) -> None:
        file.write("".join(f"{line}\n" for line in lines).encode())
        file.flush()


def _suspicious(first: int, translations: Sequence["Translation"]) -> Iterable[str]:
    """Number, reasons, line and translation of what looks wrong."""
    from transformer_jax.translation.suspicion import suspicions

    for number, translation in enumerate(translations, start=first):
        if reasons := suspicions(translation):
            fields = (str(number), "; ".join(reasons), translation.source, translation.text)
            yield "\t".join(field.replace("\t", " ") for field in fields)


def _has_content(path: Path | None) -> bool:
    return path is not None and path.is_file() and path.stat().st_size > 0


def _whole_lines(path: Path | None) -> int:
    """Lines of a file that have an end; of a file that is not there none."""
    if path is None or not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(line.endswith(b"\n") for line in file)


def _opened(path: Path, lines: int, resume: bool) -> io.BufferedWriter | io.BufferedRandom:
    """A file to be written; to go on with it, cut behind so many lines."""
    if not resume or not path.exists():
        return path.open("wb")
    file = path.open("r+b")
    for _ in range(lines):
        file.readline()
    file.truncate(file.tell())
    return file


def _rows_before(path: Path, number: int) -> int:
    """Lines of a file, each of which begins with a number, up to the last whole one that is no greater.

    Raises:
        InputError: on a file that is something else.
    """
    kept = 0
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            start = line.partition(b"\t")[0]
            if line.endswith(b"\n") and not start.isdigit():
                raise InputError(
                    f"--suspicious {path}, line {kept + 1}: begins with no number: not written by --suspicious"
                )
            if not line.endswith(b"\n") or int(start) > number:
                break
            kept += 1
    return kept
