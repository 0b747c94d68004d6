"""n lines in, n lines out, in order, whatever is in them; and what becomes of a line depends on the line alone."""

import contextlib
import io
import sys

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import MODEL, parameters

from transformer_jax import sharding
from transformer_jax.cli.translate import translate_lines
from transformer_jax.cli.writer import Files, Wishes
from transformer_jax.config import DecodingConfig, MeshConfig
from transformer_jax.errors import InputError
from transformer_jax.translation import Line, Translator

LONGEST = 12


@pytest.fixture(scope="module")
def small(translator):
    """Splits lines of more than LONGEST tokens."""
    return translator(batch_size=32, beam=1, longest=LONGEST)


@pytest.fixture(scope="module")
def through(small):
    """Bytes in, bytes out, as `translate` does it."""
    patch = pytest.MonkeyPatch()

    def run(content, translator=small, files=None, wishes=None):
        out = io.TextIOWrapper(io.BytesIO())
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", io.StringIO())
        try:
            with contextlib.ExitStack() as stack:
                translate_lines(translator, files or Files(), wishes or Wishes(), stack)
            return out.buffer.getvalue()
        finally:
            patch.undo()

    return run


def lines_of(content):
    """What is between line feeds, with the carriage return before one and without a byte order mark."""
    *lines, last = content.removeprefix("\ufeff".encode()).split(b"\n")
    return [*lines, last] if last or (content.startswith("\ufeff".encode()) and not lines) else lines


ODD = st.sampled_from(
    [
        "",
        " ",
        "\t",
        "\r",
        "\x00",
        "\u2028",
        "\u0085",
        "\u2029",
        "\x0b",
        "\ufeff",
        "😀",
        "👩‍👩‍👧",
        "שלום",
        "e\u0301",
        "ﬁ",
        "\u200f",
    ]
)
KNOWN = st.text(alphabet="abcde .,", max_size=30)
ANY = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=12)
LINES = st.lists(st.lists(KNOWN | ANY | ODD, max_size=3).map("".join), max_size=9)


@pytest.fixture(scope="module")
def seen():
    """What became of every line so far."""
    return {}


@pytest.mark.parametrize("files", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_any_text(through, seen, files):
    @settings(max_examples=files, deadline=None)
    @given(LINES, st.booleans(), st.sampled_from(["\n", "\r\n"]))
    def check(lines, ends, end):
        content = (end.join(lines) + (end if ends else "")).encode()
        out = through(content)
        assert out.count(b"\n") == len(lines_of(content))
        assert out.endswith(b"\n") or not out
        outputs = out.decode().split("\n")[:-1]
        assert not any(len(output.splitlines()) > 1 for output in outputs)
        for line, output in zip(lines_of(content), outputs, strict=True):
            assert seen.setdefault(line.removesuffix(b"\r"), output) == output

    check()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes(through, content):
    assert through(content, files=Files(invalid="replace")).count(b"\n") == len(lines_of(content))
    try:
        content.decode()
    except UnicodeDecodeError:
        with pytest.raises(InputError, match="invalid UTF-8"):
            through(content)


def test_blank_lines_stay_blank(through):
    assert through(b"\n \n\t\n\r\n\n").decode() == "\n\n\n\n\n"


@pytest.mark.parametrize("size", [10**4, pytest.param(10**6, marks=pytest.mark.slow)])
def test_a_line_of_a_megabyte(through, small, translator, size):
    many = translator(batch_size=512, beam=1, longest=30) if size == 10**6 else small
    content = "bad cab, bead ace. " * (size // 19)
    before, out, after = through(f"abc\n{content}\nace\n".encode(), many).decode().splitlines()
    assert (before, after) == tuple(many.translate(["abc", "ace"]))
    (translation,) = many.stream([Line(content)])
    assert translation.text == out
    read = many.tokenizers.source.decode(part.source for part in translation.hypotheses[0].parts)
    assert " ".join(read).split() == many.tokenizers.source.decode(many.tokenizers.source.encode([content]))[0].split()


def test_a_long_line_is_its_parts(small):
    parts = ["bad cab ", "bead ace abc ", "add bee"]
    (whole,) = small.stream([Line("".join(parts))])
    read = [part.source for part in whole.hypotheses[0].parts]
    assert len(read) > 1
    assert all(len(source) <= LONGEST for source in read)
    assert whole.warnings[0] == f"longer than the {LONGEST} tokens read at once: translated in {len(read)} parts"
    texts = small.tokenizers.source.decode(read)
    assert " ".join(texts).split() == "".join(parts).split()
    assert whole.text.split() == " ".join(small.translate(texts)).split()


SENTENCES = [
    "abc",
    "dead bee",
    "a",
    "cab e d",
    "bad cab bead ace add",
    "e",
    "abc",
    "b b b",
    "",
    "dab",
    "ace",
    "ebb",
    "a b",
]


@pytest.mark.parametrize(
    "fields",
    [{"sampling": True, "temperature": 4.0}, pytest.param({"beam": 2, "nbest": 2}, marks=pytest.mark.slow)],
)
def test_slots_that_are_filled_again_change_nothing(translator, fields):
    """26 lines through 8 slots, 2 at a time, and each alone."""
    lines = [Line(f"{one} {SENTENCES[n % 7]}") for n, one in enumerate(SENTENCES * 2)]
    few = translator(batch_size=8, **fields)
    together = list(few.stream(lines))
    for number, (line, translation) in enumerate(zip(lines, together, strict=True)):
        (alone,) = few.stream([line], first=number)
        assert alone.text == translation.text
        assert [h.log_prob for h in alone.hypotheses] == pytest.approx([h.log_prob for h in translation.hypotheses])
    assert len({translation.text for translation in together}) > 10


@pytest.mark.parametrize("order", [1, -1])
def test_neighbours_and_order_change_nothing(small, order):
    alone = [small.translate([sentence])[0] for sentence in SENTENCES]
    assert small.translate(SENTENCES[::order]) == alone[::order]
    assert len(set(alone)) > 5


@pytest.mark.parametrize(("beam", "groups"), [(1, 1), (4, 2)])
def test_eight_devices_change_nothing(translator, tokenizers, beam, groups):
    """Nor do the slots in which other sentences were before: there are 16."""
    mesh = sharding.make_mesh(MeshConfig(data=4, fsdp=2), jax.devices())
    single = translator(batch_size=16, beam=beam, groups=groups, nbest=beam)
    sharded = Translator(MODEL, parameters(), tokenizers, single.decoding, mesh)
    together = list(single.stream(map(Line, SENTENCES)))
    assert [same.text for same in sharded.stream(map(Line, SENTENCES))] == [one.text for one in together]
    for sentence, translation in zip(SENTENCES[::5], together[::5], strict=True):
        (alone,) = single.stream([Line(sentence)])
        assert [h.text for h in alone.hypotheses] == [h.text for h in translation.hypotheses]


def test_lines_that_arrive_one_by_one_come_out_the_same(small):
    def slowly():
        for sentence in SENTENCES:
            yield from small.stream([Line(sentence)])

    assert [translation.text for translation in slowly()] == small.translate(SENTENCES)


@pytest.mark.parametrize(
    ("batch_size", "beam", "sizes"),
    [(8, 1, 2), pytest.param(1, 1, 1, marks=pytest.mark.slow), pytest.param(8, 3, 2, marks=pytest.mark.slow)],
)
def test_few_programs(tokenizers, batch_size, beam, sizes):
    """500 lines of all lengths, and a few: one search for each of two shapes, in a full batch and in a part of one.

    Nothing is compiled that warming up did not.
    """
    random = np.random.default_rng(7)
    sentences = [" ".join(random.choice(list("abcde"), random.integers(0, 30))) for _ in range(500)]
    fresh = Translator(MODEL, parameters(), tokenizers, DecodingConfig(beam=beam, batch_size=batch_size, longest=32))
    compiled = []

    def count(event, duration, fun_name="", **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        fresh.warm_up()
        assert compiled.count("jit(_advance_batch)") == 2 * sizes
        assert len(compiled) <= 24
        compiled.clear()
        fresh.translate(sentences)
        fresh.translate(sentences[::7])
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert compiled == []
