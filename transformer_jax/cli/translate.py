"""Translates standard input to standard output with a run: one line in, one line out, blank for blank, in order.

    transformer-jax translate RUN [--beam 5 ...] < in.en > out.de

transformer-jax translate RUN --help lists every option, with the values of the run's experiment.
"""

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tqdm import tqdm

from transformer_jax.cli.arguments import over_run
from transformer_jax.cli.members import Members
from transformer_jax.cli.streams import check_input, check_output, opened
from transformer_jax.cli.writer import Files, Wishes, Writer
from transformer_jax.config import DecodingConfig, Experiment, ModelConfig
from transformer_jax.errors import InputError

if TYPE_CHECKING:
    from transformer_jax.translation import Generator, Line, Translator


def main(arguments: Sequence[str]) -> int:
    """Translates; returns the exit code."""
    return over_run("translate RUN", __doc__, _translate_of, arguments)


def _translate_of(run: Path, experiment: Experiment) -> Callable[..., int]:
    def translate(
        files: Annotated[Files, tyro.conf.arg(name="")],
        wishes: Annotated[Wishes, tyro.conf.arg(name="")],
        members: Annotated[Members, tyro.conf.arg(name="")],
        decoding: Annotated[DecodingConfig, tyro.conf.arg(name="")] = experiment.decoding,
        draft: Path | None = None,
        warmup: bool = False,
    ) -> int:
        """Translates lines; n lines in, n lines out. With --nbest N, N lines each: number ||| text ||| score ||| log p.

        Args:
            files: what is read and written.
            wishes: what is written of each line.
            members: the models.
            decoding: how to translate.
            draft: run folder of a smaller model of the same vocabulary that says --guesses tokens ahead: with --beam 1,
                the same translations in fewer steps.
            warmup: compile for every length before the first line is read, but for prefixes, phrases and alignments.
        """
        check_streams(files)
        _check(wishes, files, decoding, experiment.model)
        if draft is not None:
            _check_draft(files, decoding)
        translator = members.translator(run, decoding, draft=draft, vocabulary=_words(files.vocabulary))
        if warmup:
            translator.warm_up(wishes.forbid)
        with contextlib.ExitStack() as stack:
            translate_lines(translator, files, wishes, stack)
        return 0

    return translate


def check_streams(files: Files) -> None:
    """Checks that there is something to read from and to write to."""
    check_input(files.input)
    if files.output is None:
        check_output()


def _check(wishes: Wishes, files: Files, decoding: DecodingConfig, model: ModelConfig) -> None:
    """What is known to be wrong before anything is read."""
    layer, head = wishes.align_layer, wishes.align_head
    if (layer is not None or head is not None) and files.alignments is None:
        raise InputError("--align-layer and --align-head say which --alignments FILE holds")
    if layer is not None and not 1 <= abs(layer) <= model.decoder_layers:
        raise InputError(f"--align-layer {layer}: the decoder has the layers 1 to {model.decoder_layers}")
    if head is not None and not 1 <= head <= model.num_heads:
        raise InputError(f"--align-head {head}: a layer has the heads 1 to {model.num_heads}")
    if wishes.mbr is not None and decoding.nbest < 2:
        raise InputError(f"--mbr {wishes.mbr} chooses among several: --nbest says how many")


def _check_draft(files: Files, decoding: DecodingConfig) -> None:
    if decoding.beam > 1 or decoding.sampling:
        raise InputError("--draft helps a beam of one alone: --beam 1, without --sampling")
    if files.constraints_file is not None:
        raise InputError("--draft: phrases of a --constraints-file take a beam search; leave one of the two out")


def _words(path: Path | None) -> list[str] | None:
    from transformer_jax.translation.lines import all_lines

    return None if path is None else all_lines(path)


def translate_lines(
    translator: "Translator | Generator", files: Files, wishes: Wishes, stack: contextlib.ExitStack
) -> None:
    """Chunk by chunk, as lines arrive."""
    from transformer_jax.translation import Translation, Translator
    from transformer_jax.translation.engine import WINDOW

    align = translator.align if isinstance(translator, Translator) else None
    writer = Writer(translator.decoding.nbest, files, wishes, stack, align)
    number = writer.done
    progress = stack.enter_context(tqdm(unit=" lines", initial=number, disable=None, file=sys.stderr))
    tokens = 0
    at_once = WINDOW * translator.decoding.batch_size
    for lines in _lines(files, wishes.forbid, number, at_once, stack):
        translations: list[Translation] = []
        try:
            for translation in translator.stream(lines, first=number):
                translations.append(translation)
        except InputError:
            writer.write(number + 1, translations)  # what comes before the mistake
            raise
        writer.write(number + 1, translations)
        number += len(lines)
        tokens += sum(one.hypotheses[0].num_tokens for one in translations if one.hypotheses)
        progress.update(len(lines))
        elapsed = progress.format_dict["elapsed"] if not progress.disable else 0
        progress.set_postfix_str(f"{tokens / elapsed:,.0f} tokens/s" if elapsed else "")


def _lines(
    files: Files, forbidden: Sequence[str], done: int, most: int, stack: contextlib.ExitStack
) -> Iterator[list["Line"]]:
    """The lines that are not done, as many at once as have arrived, each with what its translation must contain."""
    from transformer_jax.translation import Line
    from transformer_jax.translation.lines import arriving

    stream, name = opened(files.input, stack)
    prefixes = _Beside(files.prefix_file, "--prefix-file", stack)
    phrases = _Beside(files.constraints_file, "--constraints-file", stack)
    seen = 0
    for texts in arriving(stream, name, most, files.invalid):
        chunk: list[Line] = []
        for text in texts:
            try:
                prefix, required = prefixes.next(), phrases.next()
            except InputError:
                yield chunk  # the lines before it come first
                raise
            seen += 1
            if seen > done:
                chunk.append(Line(text, prefix, [phrase for phrase in required.split("\t") if phrase], forbidden))
        if chunk:
            yield chunk
    if seen < done:
        raise InputError(f"--resume: {files.output} has {done} translations, but {name} only {seen} lines")
    for beside in (prefixes, phrases):
        beside.check_end(name, seen)


class _Beside:
    """The lines of a file, one for each of the input; without a file, blank ones without end."""

    def __init__(self, path: Path | None, flag: str, stack: contextlib.ExitStack) -> None:
        from transformer_jax.translation.lines import arriving, open_lines

        self._name, self._endless = f"{flag} {path}", path is None
        self._lines: Iterator[str] = itertools.repeat("")
        if path is not None:
            chunks = arriving(stack.enter_context(open_lines(path)), str(path), 1024)
            self._lines = itertools.chain.from_iterable(chunks)

    def next(self) -> str:
        """The next one."""
        line = next(self._lines, None)
        if line is None:
            raise InputError(f"{self._name}: too few lines: there are more to translate")
        return line

    def check_end(self, name: str, seen: int) -> None:
        """Checks that there are no more."""
        if not self._endless and next(self._lines, None) is not None:
            raise InputError(f"{self._name}: more than the {seen} lines of {name}")
