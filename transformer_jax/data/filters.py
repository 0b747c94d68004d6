"""Filters of a corpus: functions that tell which examples to drop, and the report of what they dropped."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import regex

from transformer_jax.config import FilterConfig
from transformer_jax.data.seen import Seen
from transformer_jax.data.sources import Example, Pairs
from transformer_jax.errors import InputError
from transformer_jax.extras import load_extra

Filters: TypeAlias = Mapping[str, Callable[[Example], bool]]  # by reason: whether it is one to drop an example

_SideName: TypeAlias = Literal["source", "target"]

_SIDES: tuple[_SideName, ...] = ("source", "target")
_SHOWN = 3  # examples of a reason in the report


@dataclasses.dataclass(frozen=True)
class Dropped:
    """How many examples a filter dropped, and the first of them."""

    count: int = 0
    examples: tuple[Example, ...] = ()

    def __add__(self, example: Example) -> "Dropped":
        return Dropped(self.count + 1, (*self.examples, example)[:_SHOWN])


@dataclasses.dataclass
class Report:
    """How many examples were kept, and what was dropped, by reason in the order of the filters."""

    kept: int
    dropped: dict[str, Dropped]

    @property
    def total(self) -> int:
        """All examples there were."""
        return self.kept + sum(dropped.count for dropped in self.dropped.values())

    def __str__(self) -> str:
        reasons = "".join(f"; {dropped.count:,} {reason}" for reason, dropped in self.dropped.items())
        return f"filters: {self.kept:,} of {self.total:,} pairs kept{reasons}"

    def to_json(self) -> str:
        """The report as indented JSON."""
        tree = {"total": self.total, **dataclasses.asdict(self)}
        return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


def filtered(pairs: Pairs, config: FilterConfig) -> tuple[Pairs, Report]:
    """The pairs that all filters keep, in their order, and the report.

    Raises:
        InputError: where languages are told apart and the library for it is missing, or does not know one.
    """
    filters = filters_of(config)
    report = Report(0, dict.fromkeys(filters, Dropped()))
    kept = [index for index, example in enumerate(pairs.examples()) if _keeps(filters, example, report)]

    def of_kept(texts: Sequence[str]) -> list[str]:
        return [texts[index] for index in kept]

    sources, groups = (texts and of_kept(texts) for texts in (pairs.sources, pairs.groups))
    return Pairs(sources, of_kept(pairs.targets), groups), report


def iterate_filtered(examples: Iterable[Example], config: FilterConfig) -> tuple[Iterator[Example], Report]:
    """The examples that all filters keep, one by one, and the report, which is whole when they have passed.

    Raises:
        InputError: as `filtered`.
    """
    filters = filters_of(config)
    report = Report(0, dict.fromkeys(filters, Dropped()))
    return (example for example in examples if _keeps(filters, example, report)), report


def reason_to_drop(filters: Filters, example: Example) -> str | None:
    """Why an example is dropped: the first reason that holds; None where it is kept."""
    return next((reason for reason, drops in filters.items() if drops(example)), None)


def _keeps(filters: Filters, example: Example, report: Report) -> bool:
    reason = reason_to_drop(filters, example)
    if reason is None:
        report.kept += 1
    else:
        report.dropped[reason] += example
    return reason is None


def filters_of(config: FilterConfig) -> Filters:
    """The filters that a config turns on, in their order.

    The last one is for duplicates: it alone has a memory, of what all others have kept.

    Raises:
        InputError: as `filtered`.
    """
    return {
        **_by_length(config),
        **({"with the same text on both sides": lambda example: example[0] == example[1]} if config.identical else {}),
        **_by_script("source", config.source_scripts, config.min_script_share),
        **_by_script("target", config.target_scripts, config.min_script_share),
        **_by_language("source", config.source_language),
        **_by_language("target", config.target_language),
        **_by_memory(config.duplicates),
    }


def _by_length(config: FilterConfig) -> Filters:
    least, most, ratio = config.min_length, config.max_length, config.max_ratio

    def lengths(example: Example) -> list[int]:
        sides = (side for side in example if side is not None)
        return [len(side.split()) if config.unit == "words" else len(side) for side in sides]

    filters: dict[str, Callable[[Example], bool]] = {}
    if least is not None:
        filters[f"with a side below {least} {config.unit}"] = lambda example: min(lengths(example)) < least
    if most is not None:
        filters[f"with a side above {most} {config.unit}"] = lambda example: max(lengths(example)) > most
    if ratio is not None:
        filters[f"with a side over {ratio:g} times as long as the other"] = lambda example: (
            max(lengths(example)) > ratio * min(lengths(example))
        )
    return filters


def _by_script(side: _SideName, scripts: tuple[str, ...], share: float) -> Filters:
    if not scripts:
        return {}
    letters = regex.compile(r"\p{L}+")
    own = regex.compile(r"(?V1)[\p{L}&&[" + "".join(rf"\p{{Script={script}}}" for script in scripts) + "]]+")

    def drops(example: Example) -> bool:
        text = example[_SIDES.index(side)] or ""
        return sum(map(len, own.findall(text))) < share * sum(map(len, letters.findall(text)))

    return {f"with a {side} not in {' or '.join(scripts)} letters": drops}


def _by_language(side: _SideName, language: str | None) -> Filters:
    if language is None:
        return {}
    langid = load_extra("py3langid", "langid", f"filters.{side}_language={language!r}")
    known = sorted(code for code, _ in langid.rank(""))
    if language not in known:
        raise InputError(f"filters.{side}_language={language!r}: py3langid knows {', '.join(known)}")

    def drops(example: Example) -> bool:
        text = example[_SIDES.index(side)]
        return text is not None and any(map(str.isalpha, text)) and langid.classify(text)[0] != language

    return {f"with a {side} not in the language {language}": drops}


def _by_memory(duplicates: str) -> Filters:
    """Drops a pair of which something came before; of plain text there is but the target."""
    if duplicates == "keep":
        return {}
    seen = {"source": Seen(), "target": Seen(), "pair": Seen()}
    watched = ("source", "target") if duplicates == "either" else (duplicates,)

    def drops(example: Example) -> bool:
        source, target = example
        texts = {"source": () if source is None else (source,), "target": (target,), "pair": (source or "", target)}
        keys = [(seen[name], texts[name]) for name in watched if texts[name]]
        if any(key in memory for memory, key in keys):
            return True
        for memory, key in keys:
            memory.add(key)
        return False

    return {f"with a {' or '.join(watched)} that came before": drops}
