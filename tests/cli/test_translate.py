"""One line in, one line out."""

import io

import pytest

from transformer_jax.cli.main import main
from transformer_jax.config import DecodingConfig
from transformer_jax.runs import open_run
from transformer_jax.translation import Hypothesis, Translation, Translator


class Backwards:
    """Stands for a translator: the letters backwards."""

    decoding = DecodingConfig()

    def stream(self, lines, *, first=0):
        for line in lines:
            yield Translation(line.text, (Hypothesis(line.text[::-1], 0.0, 0.0),))


@pytest.fixture
def piped(monkeypatch, capfdbinary):
    """Runs the command line with bytes on standard input; returns exit code, bytes out, and lines of errors."""

    def run(arguments, content):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        capfdbinary.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfdbinary.readouterr()
        return code, out, err.decode().splitlines()

    return run


@pytest.fixture
def asked(monkeypatch):
    """What the translator was asked for, which is a stand-in."""
    calls = []

    def from_run(path, **flags):
        calls.append((path, flags))
        return Backwards()

    monkeypatch.setattr(Translator, "from_run", from_run)
    return calls


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", b""),
        (b"\n", b"\n"),
        (b"ab\ncde\n", b"ba\nedc\n"),
        (b"ab\n\n  \ncde", b"ba\n\n  \nedc\n"),
        (b"ab\r\ncd\r\n", b"ba\ndc\n"),
        ("ab\u2028\x0b\x85c\n".encode(), "c\x85\x0b\u2028ba\n".encode()),
        ("\ufeffüß\n".encode(), "ßü\n".encode()),
    ],
)
def test_lines_in_order(content, expected, piped, trained, asked):
    assert piped(["translate", trained], content) == (0, expected, [])


def test_what_is_no_utf8_is_named_behind_what_came_before(piped, trained, asked):
    code, out, errors = piped(["translate", trained], b"ab\nc\xc3\xbc\xff\nde\n")
    assert (code, out) == (2, b"ba\n")
    assert errors == [
        "error: standard input, line 2, byte 4: invalid UTF-8: invalid start byte; --invalid replace puts U+FFFD there"
    ]
    _, _, errors = piped(["translate", trained], b"\xef\xbb\xbf\xc3")
    assert errors[0].startswith("error: standard input, line 1, byte 4: invalid UTF-8: unexpected end of data")
    assert piped(["translate", trained, "--invalid", "replace"], b"a\xff\n") == (0, "\ufffda\n".encode(), [])


def test_flags(piped, trained, asked):
    usual = open_run(trained).decoding
    assert (usual.beam, usual.length_penalty, usual.batch_size) == (2, 0.6, 64)
    piped(["translate", trained], b"")
    piped("translate RUN --step 2 --beam 3 --length-penalty 0 --batch-size 7".replace("RUN", str(trained)).split(), b"")
    (first, unflagged), (second, flagged) = asked
    assert (first, second) == ([trained], [trained])
    assert unflagged == {"step": None, "decoding": usual, "weights": None}
    assert flagged["step"] == 2
    decoding = flagged["decoding"]
    assert (decoding.beam, decoding.length_penalty, decoding.batch_size) == (3, 0.0, 7)
    assert decoding.extra_length == usual.extra_length == 5


def test_mistakes(refused, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    refused(["translate", tmp_path / "none"], f"{tmp_path / 'none'}: no such run folder")
    refused(["translate", tmp_path], "not a run folder")
    refused(["translate", trained, "--beam", "0"], "beam=0 must be above 0")
    refused(["translate", trained, "--bem", "3"], "--bem", "Perhaps you meant: --beam")
    refused(["translate", trained, "--step", "5"], "no checkpoint of step 5; there are [2, 3]")


def test_for_real(piped, trained):
    sentences = ["abc abc", "", "d d"]
    code, out, errors = piped(["translate", trained], "".join(f"{line}\n" for line in sentences).encode())
    assert (code, errors) == (0, [])
    assert out.decode() == "".join(f"{line}\n" for line in Translator.from_run(trained).translate(sentences))
