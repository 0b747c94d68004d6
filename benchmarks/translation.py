"""What translating promises, on trained runs: `python -m benchmarks.translation RUN RUN2 DRAFT SOURCE TARGET`.

RUN and RUN2 are two seeds of one experiment, DRAFT a smaller model with the same tokenizer; SOURCE and TARGET are the
lines of a test set, plain or .gz. On one device unless a row says otherwise:

    batches      batches of 1, 7 and 64 lines, and 64 on 8 devices (simulated on a CPU), give the same translations
    beam         a beam of 5 is better than greedy search
    ensemble     both runs together are not worse than the better of the two, by paired bootstrap
    constraints  a word of each reference stands in the translation, a word of the free translation does not, and it
                 begins as the reference does
    risk         the one of 16 samples that is most like the others is better than the first
    draft        greedy search with a draft model: the same translations, in how many steps, how much faster

`--rows` picks some. Exits with 1 where one of them does not hold.
"""

import argparse
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax import sharding
from transformer_jax.decoding import Sentences, SpeculativeGreedy
from transformer_jax.inference import decoding_parameters, start_cache, step_model
from transformer_jax.models import Parameters, Transformer
from transformer_jax.runs import open_run
from transformer_jax.training import evaluation
from transformer_jax.translation import Line, Translation, Translator, load_member
from transformer_jax.translation.lines import all_lines
from transformer_jax.translation.risk import minimum_bayes_risk

DEVICES = 8
CLOSE = 1e-5  # scores of two hypotheses, either of which may be taken for the better
BEAM, SAMPLES = 5, 16


class Bench:
    """The runs and the test set."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.runs, self.draft = [options.run, options.run2], options.draft
        self.sources, self.targets = (all_lines(path) for path in (options.source, options.target))
        self.decoding = dataclasses.replace(open_run(options.run).decoding, beam=BEAM)

    def translator(
        self, run: Path | Sequence[Path], devices: int = 1, draft: Path | None = None, **fields: Any
    ) -> Translator:
        """A translator that decodes as the first run says, but for these fields."""
        decoding = dataclasses.replace(self.decoding, **fields)
        return Translator.from_run(run, decoding=decoding, mesh=sharding.data_mesh(devices), draft=draft)

    @functools.cached_property
    def best(self) -> list[Translation]:
        """The first run's, by a beam of 5."""
        return self.translate(self.translator(self.runs[0]))

    def translate(self, translator: Translator, lines: Iterable[Line] | None = None) -> list[Translation]:
        """Translations of all lines."""
        return list(translator.stream(map(Line, self.sources) if lines is None else lines))

    def scores(self, texts: Sequence[str]) -> evaluation.Scores:
        """Against the references."""
        return evaluation.score(texts, self.targets, edits=False)


def texts(translations: Iterable[Translation]) -> list[str]:
    """The best of each."""
    return [translation.text for translation in translations]


def batches(bench: Bench) -> Iterator[tuple[str, bool]]:
    """Batches and devices change nothing; a line may differ where two hypotheses are equally good."""
    for size, devices in ((1, 1), (7, 1), (64, DEVICES)):
        found = bench.translate(bench.translator(bench.runs[0], devices, batch_size=size))
        on = f" on {devices} devices" if devices > 1 else ""
        line, holds = same(found, bench.best)
        yield f"batches of {size}{on}, beside batches of 64: {line}", holds


def same(found: Sequence[Translation], expected: Sequence[Translation]) -> tuple[str, bool]:
    """The lines that differ, and whether they are few and their hypotheses equally good."""
    differing = [
        (number, abs(ours.hypotheses[0].score - theirs.hypotheses[0].score))
        for number, (ours, theirs) in enumerate(zip(found, expected, strict=True), start=1)
        if ours.text != theirs.text
    ]
    listed = ", ".join(f"line {number} by {apart:.1e}" for number, apart in differing) or "none"
    few = len(differing) <= 2 * len(found) / 1_000
    return f"of {len(found):,} lines other ones: {listed}", few and all(apart <= CLOSE for _, apart in differing)


def beam(bench: Bench) -> Iterator[tuple[str, bool]]:
    """More hypotheses find better translations, by the model's own measure and by BLEU."""
    greedy = bench.translate(bench.translator(bench.runs[0], beam=1))
    of_model = [sum(one.hypotheses[0].score for one in found) / len(found) for found in (bench.best, greedy)]
    of_texts = [bench.scores(texts(found)) for found in (bench.best, greedy)]
    line = f"beam {BEAM}: BLEU {of_texts[0].bleu:.2f}, mean score {of_model[0]:.4f}; "
    line += f"greedy: BLEU {of_texts[1].bleu:.2f}, mean score {of_model[1]:.4f} ({of_texts[0].bleu_signature})"
    yield line, of_texts[0].bleu >= of_texts[1].bleu and of_model[0] >= of_model[1]


def ensemble(bench: Bench) -> Iterator[tuple[str, bool]]:
    """Two models know no less than one: not worse with p < 0.05."""
    alone = [texts(bench.best), texts(bench.translate(bench.translator(bench.runs[1])))]
    both = texts(bench.translate(bench.translator(bench.runs)))
    of_runs, of_both = [bench.scores(found).bleu for found in alone], bench.scores(both).bleu
    better = alone[0] if of_runs[0] >= of_runs[1] else alone[1]
    yield f"BLEU {of_runs[0]:.2f} and {of_runs[1]:.2f} alone, {of_both:.2f} together", True
    for line in evaluation.compare(both, better, bench.targets):
        if line.startswith("BLEU"):
            surely = float(line.split("p = ")[1].split()[0]) < 0.05
            yield (
                f"together (this run) beside the better alone (the other): {line}",
                of_both >= max(of_runs) or not surely,
            )


def constraints(bench: Bench) -> Iterator[tuple[str, bool]]:
    """What must stand there stands there; what must not does not."""
    translator = bench.translator(bench.runs[0])

    def writable(word: str) -> bool:
        return translator.tokenizers.target.knows(translator.tokenizers.target.encode([word])[0])

    longest = [max((w for w in target.split() if writable(w)), key=len, default="") for target in bench.targets]
    lines = [Line(source, required=[word]) for source, word in zip(bench.sources, longest, strict=True)]
    found = texts(bench.translate(translator, lines))
    free = sum(word in text for word, text in zip(longest, texts(bench.best), strict=True))
    held = sum(word in text for word, text in zip(longest, found, strict=True))
    bleu = bench.scores(found).bleu
    line = f"the longest word of each reference: in {held:,} of {len(found):,}, {free:,} without; BLEU {bleu:.2f}"
    yield line, held == len(found)

    unwanted = [max(text.split(), key=len, default="") for text in texts(bench.best)]
    lines = [Line(source, forbidden=[word]) for source, word in zip(bench.sources, unwanted, strict=True)]
    found = texts(bench.translate(translator, lines))
    held = sum(word not in text.split() for word, text in zip(unwanted, found, strict=True))
    bleu = bench.scores(found).bleu
    yield (
        f"without the longest word of each translation: {held:,} of {len(found):,}; BLEU {bleu:.2f}",
        held == len(found),
    )

    begun = [" ".join(target.split()[:2]) for target in bench.targets]
    begun = [beginning if writable(beginning) else "" for beginning in begun]
    lines = [Line(source, prefix=beginning) for source, beginning in zip(bench.sources, begun, strict=True)]
    found = texts(bench.translate(translator, lines))
    free = sum(text.startswith(beginning) for beginning, text in zip(begun, texts(bench.best), strict=True))
    held = sum(text.startswith(beginning) for beginning, text in zip(begun, found, strict=True))
    bleu = bench.scores(found).bleu
    line = f"the first two words of each reference begin {held:,} of {len(found):,}, {free:,} without; BLEU {bleu:.2f}"
    yield line, held == len(found)


def risk(bench: Bench) -> Iterator[tuple[str, bool]]:
    """Of many samples the one most like the others is better than any."""
    sampled = bench.translate(bench.translator(bench.runs[0], sampling=True, nbest=SAMPLES))
    draws = [[hypothesis.text for hypothesis in one.hypotheses] for one in sampled]
    first = bench.scores([own[0] for own in draws])
    chosen = bench.scores([own[minimum_bayes_risk(own, "chrf")] for own in draws])
    line = f"of {SAMPLES} samples by chrF: chrF {chosen.chrf:.2f}, BLEU {chosen.bleu:.2f}; "
    line += f"the first: chrF {first.chrf:.2f}, BLEU {first.bleu:.2f} ({first.chrf_signature})"
    yield line, chosen.chrf > first.chrf


def draft(bench: Bench) -> Iterator[tuple[str, bool]]:
    """The same translations, for less."""
    for size in (1, 64):
        fields = {"beam": 1, "batch_size": size}
        greedy = bench.translator(bench.runs[0], **fields)
        drafted = bench.translator(bench.runs[0], draft=bench.draft, **fields)
        expected, wall, cpu = timed(bench, greedy)
        found, quicker, cheaper = timed(bench, drafted)
        line, holds = same(found, expected)
        line += f"; wall {quicker:.1f} s for {wall:.1f} s, CPU {cheaper:.1f} s for {cpu:.1f} s"
        yield f"batches of {size}, beside greedy search: {line}", holds
    parts = [part for one in expected for hypothesis in one.hypotheses for part in hypothesis.parts]
    rounds, tokens = steps_of(bench, [part.source for part in parts]), sum(len(part.target) for part in parts)
    yield f"steps of the large model a token: {rounds / tokens:.2f}, with {bench.decoding.guesses} guesses", True


def timed(bench: Bench, translator: Translator) -> tuple[list[Translation], float, float]:
    """All translations, when everything has been compiled, with wall and CPU seconds."""
    bench.translate(translator)
    began, used = time.monotonic(), time.process_time()
    found = bench.translate(translator)
    return found, time.monotonic() - began, time.process_time() - used


def steps_of(bench: Bench, sources: Sequence[Sequence[int]]) -> int:
    """Steps of the large model for all of these, each alone."""
    mesh = sharding.data_mesh()
    translator = bench.translator(bench.runs[0], beam=1)
    loaded = [load_member(run, translator.tokenizers, mesh) for run in (bench.runs[0], bench.draft)]
    models = [Transformer(experiment.model) for experiment, _ in loaded]
    params = [jax.jit(decoding_parameters)(own) for _, own in loaded]
    width = max(map(len, sources))
    limits = [len(source) + bench.decoding.extra_length for source in sources]
    length = max(limits)

    @jax.jit
    def rounds(params: list[Parameters], source: jax.Array, limits: jax.Array) -> jax.Array:
        room = {"rows": len(source), "beams": 1, "capacity": length, "ahead": bench.decoding.guesses}
        pairs = list(zip(models, params, strict=True))
        caches = tuple(start_cache(model, own, source, **room) for model, own in pairs)
        large, small = (step_model(m, own) for m, own in pairs)
        strategy = SpeculativeGreedy(small, bench.decoding.guesses)
        state = strategy.start(large, Sentences(caches, limits, (), None, length))
        return strategy.advance_until(large, state, 0).rounds.sum()

    total = 0
    for start in range(0, len(sources), 50):
        chosen = [[*own, *[0] * (width - len(own))] for own in sources[start : start + 50]]
        total += int(rounds(params, jnp.array(chosen), jnp.array(limits[start : start + 50])))
    return total


ROWS: dict[str, Callable[[Bench], Iterator[tuple[str, bool]]]] = {
    row.__name__: row for row in (batches, beam, ensemble, constraints, risk, draft)
}


def parse() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("run", "run2", "draft", "source", "target"):
        parser.add_argument(name, type=Path, metavar=name.upper())
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    return parser.parse_args()


def main() -> int:
    """Prints a line for each thing that is promised."""
    options = parse()
    jax.config.update("jax_num_cpu_devices", DEVICES)
    bench, code = Bench(options), 0
    for name in options.rows:
        for line, holds in ROWS[name](bench):
            print(f"{name}: {line}{'' if holds else ': DOES NOT HOLD'}", flush=True)
            code = code if holds else 1
    return code


if __name__ == "__main__":
    sys.exit(main())
