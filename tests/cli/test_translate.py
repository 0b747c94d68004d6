"""One line in, one line out."""

import gzip
import io
import subprocess

import numpy as np
import pytest

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
    assert errors == ["error: standard input, line 2, byte 4: invalid UTF-8: invalid start byte"]
    _, _, errors = piped(["translate", trained], b"\xef\xbb\xbf\xc3")
    assert errors[0].startswith("error: standard input, line 1, byte 4: invalid UTF-8: unexpected end of data")
    assert piped(["translate", trained, "--invalid", "replace"], b"a\xff\n") == (0, "\ufffda\n".encode(), [])


def test_flags(piped, trained, asked, tmp_path):
    usual = open_run(trained).decoding
    assert (usual.beam, usual.length_penalty, usual.batch_size) == (2, 0.6, 64)
    (tmp_path / "words").write_text("a\nb c\n")
    piped(["translate", trained], b"")
    flags = "--step 2 3 --ensemble RUN --weights 1 2 3 4 --mean log_probabilities --devices 3 --draft RUN --beam 1 "
    flags += f"--length-penalty 0 --batch-size 7 --guesses 2 --vocabulary {tmp_path / 'words'}"
    piped(["translate", trained, *flags.replace("RUN", str(trained)).split()], b"")
    (first, unflagged), (second, flagged) = asked
    assert (first, second) == ([trained], [trained, trained])
    assert (unflagged.pop("mesh").size, flagged.pop("mesh").size) == (1, 3)
    alone = {"weights": None, "mean": "probabilities"}
    assert unflagged == {"step": None, "decoding": usual, "draft": None, "vocabulary": None, **alone}
    decoding = flagged.pop("decoding")
    assert (decoding.beam, decoding.length_penalty, decoding.batch_size, decoding.guesses) == (1, 0.0, 7, 2)
    assert decoding.extra_length == usual.extra_length == 5
    together = {"weights": (1.0, 2.0, 3.0, 4.0), "mean": "log_probabilities"}
    assert flagged == {"step": (2, 3), "draft": trained, "vocabulary": ["a", "b c"], **together}


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


TEXT = b"abc abc\n\nd d\ncab bad\nabc\n"


@pytest.fixture
def translated(piped, trained, tmp_path, kept):
    """Translates TEXT with these flags; the lines that come out."""

    def run(*flags, content=TEXT):
        code, out, errors = piped(["translate", trained, *flags], content)
        assert code == 0, errors
        assert all("is cut there" in line for line in errors)  # this model knows little
        return out.decode().split("\n")[:-1]

    return run


class TestWhatIsWritten:
    def test_scores(self, translated):
        plain, scored = translated(), translated("--scores")
        assert [line.split("\t")[1] for line in scored] == plain
        assert all(float(line.split("\t")[0]) <= 0 for line in scored)

    def test_lists(self, translated):
        lists = [line.split(" ||| ") for line in translated("--nbest", "2")]
        assert [number for number, *_ in lists] == [str(number) for number in range(5) for _ in range(2)]
        assert [fields[1] for fields in lists[::2]] == translated()
        for first, second in zip(lists[::2], lists[1::2], strict=True):
            assert float(first[2]) >= float(second[2])
        assert lists[2:4] == [["1", "", "0.000000", "0.000000"], ["1", "", "-inf", "-inf"]]

    def test_the_least_risk_is_one_of_the_draws(self, translated):
        draws = ["--sampling", "--nbest", "5", "--seed", "3"]
        lists, chosen = translated(*draws), translated(*draws, "--mbr", "chrf")
        assert len(chosen) == 5
        for number, line in enumerate(chosen):
            assert line in [one.split(" ||| ")[1] for one in lists if one.startswith(f"{number} ")]

    def test_alignments_and_suspicions(self, translated, tmp_path):
        alignments, suspicious = tmp_path / "alignments", tmp_path / "suspicious"
        texts = translated("--alignments", alignments, "--suspicious", suspicious, "--align-layer", "-1")
        rows = alignments.read_text().split("\n")[:-1]
        assert [len(row.split()) for row in rows] == [len(text.split()) for text in texts]
        numbers = [int(row.split("\t")[0]) for row in suspicious.read_text().splitlines()]
        assert numbers == sorted(numbers)
        assert all(len(row.split("\t")) == 4 for row in suspicious.read_text().splitlines())

    def test_what_must_and_must_not_stand_there(self, translated, tmp_path):
        prefixes, phrases = tmp_path / "prefixes", tmp_path / "phrases"
        prefixes.write_text("cab\n\n\n\nabc\n")
        phrases.write_text("\n\nb\td\n\ndd\n")
        texts = translated("--prefix-file", prefixes, "--constraints-file", phrases)
        assert texts[0].startswith("cab")
        assert texts[4].startswith("abc")
        assert "dd" in texts[4]
        assert {"b", "d"} <= set(texts[2])
        longer = ("--min-length", "3")
        word = translated(*longer, content=b"abc\n")[0].split()[0]
        assert word not in translated(*longer, "--forbid", word, content=b"abc\n")[0].split()

    def test_an_ensemble_of_one_run_twice_is_that_run(self, translated, trained):
        assert translated("--ensemble", trained, "--weights", "1", "2") == translated()

    def test_packed_files_and_warming_up(self, translated, tmp_path):
        source, target = tmp_path / "in.gz", tmp_path / "out"
        source.write_bytes(gzip.compress(TEXT))
        assert translated("--input", source, "--output", target, "--warmup", "--batch-size", "4", content=b"") == []
        assert target.read_text().split("\n")[:-1] == translated()


@pytest.mark.usefixtures("kept")
def test_a_prefix_or_phrases_for_each_line(piped, trained, tmp_path):
    beside = tmp_path / "beside"
    beside.write_text("a\n" * 3)
    for flag in ("--prefix-file", "--constraints-file"):
        for lines, path, message in (
            (2, beside, f"{flag} {beside}: more than the 2 lines of standard input"),
            (4, beside, f"{flag} {beside}: too few lines: there are more to translate"),
            (1, tmp_path / "none", "cannot be read: No such file"),
        ):
            code, _, (error,) = piped(["translate", trained, flag, path], b"abc\n" * lines)
            assert code == 2
            assert message in error


@pytest.mark.slow
def test_models_that_work_together(piped, trained, tmp_path):
    """The checkpoint of step 2 is nothing but zeros: beside it every translation is less probable."""
    greedy = ["translate", trained, "--beam", "1", "--min-length", "4", "--no-repeated-ngram", "1", "--scores"]

    def translated(*flags):
        code, out, _ = piped([*greedy, *flags], TEXT)
        assert code == 0
        rows = [line.split("\t") for line in out.decode().splitlines()]
        return [float(row[0]) for row in rows], [row[1] for row in rows]

    scores, texts = translated("--step", "3")
    for flags in (["--draft", trained, "--guesses", "2"], ["--devices", "-1"], ["--ensemble", trained]):
        found, same = translated(*flags)
        assert same == texts
        np.testing.assert_allclose(found, scores, atol=1e-4)
    arithmetic, same = translated("--step", "2", "3", "--weights", "1", "2")
    geometric, likewise = translated("--step", "2", "3", "--weights", "1", "2", "--mean", "log_probabilities")
    assert same == likewise == texts
    for line, plain in enumerate(scores):
        if plain:
            assert arithmetic[line] < plain
            assert abs(arithmetic[line] - geometric[line]) > 1e-4


def test_a_vocabulary(piped, trained, tmp_path):
    (tmp_path / "words").write_text("a\nb\n")
    code, out, _ = piped(["translate", trained, "--min-length", "3", "--vocabulary", tmp_path / "words"], TEXT)
    assert code == 0
    assert set("".join(out.decode().split())) <= set("ab")
    assert len(out.split()) > 4


def test_closed_streams_are_one_line(spawn, command, trained):
    for closed, message in (("<&-", "standard input is closed: --input FILE"), (">&-", "standard output is closed")):
        shell = f'exec "$@" {closed}'
        process = spawn(["bash", "-c", shell, "bash", *command, "translate", str(trained)], stdin=subprocess.DEVNULL)
        _, error = process.communicate()
        assert process.returncode == 2
        assert error.startswith(f"error: {message}")
        assert error.count("\n") == 1


def test_what_comes_before_a_mistake_is_written(piped, trained, tmp_path):
    (tmp_path / "phrases").write_text("\n\n?\n")
    (tmp_path / "prefixes").write_text("\n\n")
    expected = piped(["translate", trained], b"abc\nd d\n")[1]
    for flag, name, message in (
        ("--constraints-file", "phrases", "line 3: '?' cannot be written"),
        ("--prefix-file", "prefixes", "too few lines: there are more to translate"),
    ):
        code, out, errors = piped(["translate", trained, flag, tmp_path / name], b"abc\nd d\nabc\nd\n")
        assert (code, out) == (2, expected)
        assert message in errors[-1]


def test_to_a_device(piped, trained):
    assert piped(["translate", trained, "--output", "/dev/null", "--suspicious", "/dev/stderr"], b"\n")[:2] == (0, b"")


def test_more_mistakes(refused, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"abc\n")))
    for arguments, message in (
        (["--nbest", "3"], "nbest=3 must be at most beam=2"),
        (["--top-p", "1.5"], "top_p=1.5 must be at most 1"),
        (["--groups", "2", "--beam", "3"], "groups=2 must divide beam=3"),
        (["--align-layer", "1"], "say which --alignments FILE holds"),
        (["--alignments", tmp_path / "a", "--align-layer", "2"], "--align-layer 2: the decoder has the layers 1 to 1"),
        (["--alignments", tmp_path / "a", "--align-head", "4"], "--align-head 4: a layer has the heads 1 to 3"),
        (["--output", tmp_path / "a", "--alignments", tmp_path / "a"], "files that are written must differ"),
        (["--output", tmp_path / "a.gz"], "what is written is plain; leave out .gz"),
        (["--mbr", "chrf"], "--mbr chrf chooses among several: --nbest says how many"),
        (["--weights", "1"], "--weights and --mean are those of an ensemble"),
        (["--mean", "log_probabilities"], "--weights and --mean are those of an ensemble"),
        (["--draft", trained], "--draft helps a beam of one alone: --beam 1"),
        (["--draft", tmp_path, "--beam", "1"], "not a run folder"),
        (["--draft", trained, "--beam", "1", "--constraints-file", "f"], "phrases of a --constraints-file take a beam"),
        (["--devices", "9"], "--devices 9: 1 to 8, as many as there are, or -1 for all"),
        (["--devices", "0"], "--devices 0: 1 to 8"),
        (["--vocabulary", tmp_path / "none"], "cannot be read: No such file"),
        (["--output", tmp_path / "no" / "where"], "no such folder"),
        (["--input", tmp_path / "none"], "cannot be read: No such file"),
        (["--ensemble", tmp_path], "not a run folder"),
        (["--ensemble", trained, "--weights", "1"], "--weights: 1 of them, for 2 models"),
        (["--step", "2", "3", "--weights", "1", "2", "3"], "--weights: 3 of them, for 2 models"),
    ):
        refused(["translate", trained, *arguments], message)


def test_another_tokenizer_is_no_ensemble(refused, run, trained, foreign):
    foreign.save(run / "tokenizer")
    environment = run / "environment.json"
    environment.unlink()
    refused(["translate", trained, "--ensemble", run], f"{run}: another tokenizer than the first run")


def test_output_comes_as_lines_do(spawn, command, trained):
    """A line that is written to the pipe is answered before the next one comes."""
    expected = Translator.from_run(trained)
    process = spawn([*command, "translate", str(trained)], stdin=subprocess.PIPE)
    for line in ("abc abc", "", "d d"):
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        assert answer == f"{expected.translate([line])[0]}\n"
    process.stdin.close()
    assert process.wait() == 0
    process.stdout.close()
    process.stderr.close()


def test_a_closed_pipe_ends_quietly(spawn, command, trained):
    process = spawn([*command, "translate", str(trained)], stdin=subprocess.PIPE)
    process.stdout.close()
    process.stdin.write("abc\n")
    process.stdin.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141
    process.stderr.close()


@pytest.mark.usefixtures("kept")
def test_score(piped, trained, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("abc\n\nd d\n")
    target.write_text("cba\na\n\n")
    code, out, errors = piped(["score", trained, source, target, "--tokens"], b"")
    assert (code, errors) == (0, [])
    expected = Translator.from_run([trained]).score([("abc", "cba"), ("", "a"), ("d d", "")])
    for row, scored in zip(out.decode().splitlines(), expected, strict=True):
        total, *pieces = row.split("\t")
        assert float(total) == pytest.approx(scored.log_prob, abs=1e-5)
        assert [piece.rpartition(" ")[0] for piece in pieces] == scored.pieces
        assert sum(float(piece.rpartition(" ")[2]) for piece in pieces) == pytest.approx(float(total), abs=1e-4)
    target.write_text("cba\n")
    for arguments, message in (
        ([trained, source, target], f"{source} has 3 lines, {target} has 1"),
        ([trained, source], "TARGET"),
        ([], "the run folder comes first"),
    ):
        code, out, (error,) = piped(["score", *arguments], b"")
        assert (code, out) == (2, b"")
        assert message in error
