"""A translation that was killed goes on behind what it has written."""

import contextlib

import pytest

from transformer_jax.cli.writer import Files, Wishes, Writer
from transformer_jax.translation import Hypothesis, Translation

TEXT = b"abc abc\n\nd d\ncab bad\nabc\n"


@pytest.mark.usefixtures("kept")
class TestResume:
    @pytest.fixture
    def whole(self, piped, trained, tmp_path):
        return self.files(piped, trained, tmp_path / "whole", TEXT)

    def files(self, piped, trained, folder, content, *flags):
        """What is written to the three files of a folder."""
        folder.mkdir(exist_ok=True)
        names = ("output", "alignments", "suspicious")
        arguments = [part for name in names for part in (f"--{name}", folder / name)]
        code, _, errors = piped(["translate", trained, *arguments, *flags], content)
        assert code == 0, errors
        return [(folder / name).read_bytes() for name in names]

    @pytest.mark.parametrize("lines", [0, 1, 3, 5])
    @pytest.mark.parametrize("torn", [b"", b"half a li"])
    def test_goes_on_where_it_stopped(self, piped, trained, tmp_path, whole, lines, torn):
        self.files(piped, trained, tmp_path, b"".join(TEXT.splitlines(keepends=True)[:lines]))
        for name in ("output", "alignments"):
            with (tmp_path / name).open("ab") as file:
                file.write(torn)
        assert self.files(piped, trained, tmp_path, TEXT, "--resume") == whole

    def test_files_that_are_not_equally_far(self, piped, trained, tmp_path, whole):
        self.files(piped, trained, tmp_path, TEXT)
        alignments = (tmp_path / "alignments").read_bytes()
        (tmp_path / "alignments").write_bytes(b"".join(alignments.splitlines(keepends=True)[:2]))
        assert self.files(piped, trained, tmp_path, TEXT, "--resume") == whole

    def test_a_file_that_is_not_there_or_is_another(self, piped, trained, tmp_path):
        before = self.files(piped, trained, tmp_path, TEXT)
        for name in ("alignments", "suspicious"):
            content = (tmp_path / name).read_bytes()
            (tmp_path / name).unlink()
            with pytest.raises(AssertionError, match=f"--resume: .*output is there, but --{name} .* is not"):
                self.files(piped, trained, tmp_path, TEXT, "--resume")
            (tmp_path / name).write_bytes(content)
        (tmp_path / "suspicious").write_text("words\n")
        with pytest.raises(AssertionError, match="suspicious, line 1: begins with no number"):
            self.files(piped, trained, tmp_path, TEXT, "--resume")
        assert (tmp_path / "suspicious").read_text() == "words\n"
        assert (tmp_path / "output").read_bytes() == before[0]

    def test_what_goes_with_a_line_is_on_disk_before_it(self, tmp_path, monkeypatch):
        """When something is written to the output, the rows of its lines are in the other files."""
        names = ("suspicious", "alignments", "output")
        files = Files(**{name: tmp_path / name for name in names})
        translation, order = Translation("x", (Hypothesis("y", 0.0, 0.0),), ("odd",)), []
        write = Writer._write

        def watched(self, file, lines):
            write(self, file, lines)
            order.append([(tmp_path / name).read_text().count("\n") for name in names])

        monkeypatch.setattr(Writer, "_write", watched)

        def align(hypotheses, layer, head):
            return [[]] * len(hypotheses)

        with contextlib.ExitStack() as stack:
            writer = Writer(1, files, Wishes(), stack, align)
            writer.write(1, [translation] * 3)
            writer.write(4, [translation] * 2)
        assert order == [[3, 0, 0], [3, 3, 0], [3, 3, 3], [5, 3, 3], [5, 5, 3], [5, 5, 5]]

    def test_a_kill_between_the_files(self, piped, trained, tmp_path, whole):
        """Rows of lines whose output was not written any more are there: they are made again, once."""
        self.files(piped, trained, tmp_path, TEXT)
        output = tmp_path / "output"
        output.write_bytes(b"".join(output.read_bytes().splitlines(keepends=True)[:2]))
        with (tmp_path / "suspicious").open("ab") as file:
            file.write(b"4\ttorn")
        assert self.files(piped, trained, tmp_path, TEXT, "--resume") == whole

    def test_draws_are_those_of_their_lines(self, piped, trained, tmp_path):
        flags = ("--sampling", "--temperature", "4", "--nbest", "3")
        whole = self.files(piped, trained, tmp_path / "whole", TEXT, *flags)
        self.files(piped, trained, tmp_path, b"".join(TEXT.splitlines(keepends=True)[:2]), *flags)
        assert self.files(piped, trained, tmp_path, TEXT, "--resume", *flags) == whole

    def test_mistakes(self, piped, trained, tmp_path):
        self.files(piped, trained, tmp_path, TEXT)
        output = tmp_path / "output"
        for flags, message in (
            (["--resume"], "--resume goes on with a file: it needs --output FILE"),
            (
                ["--output", output],
                f"--output {output}: stands there already; --resume goes on with it, or take it away",
            ),
            (["--output", output, "--resume"], "has 5 translations, but standard input only 1 lines"),
            (["--output", output, "--resume", "--nbest", "2"], "was not written as lists of --nbest 2"),
        ):
            code, out, (error,) = piped(["translate", trained, *flags], b"abc\n")
            assert (code, out) == (2, b"")
            assert message in error
        assert output.read_bytes().count(b"\n") == 5

    def test_lists_and_lines_are_not_mixed(self, piped, trained, tmp_path):
        output = tmp_path / "lists"
        flags = ["translate", trained, "--output", output]
        assert piped([*flags, "--nbest", "2"], TEXT)[0] == 0
        whole = output.read_bytes()
        for others, kind in (
            ([], "a translation a line"),
            (["--nbest", "2", "--mbr", "chrf"], "a translation a line"),
            (["--nbest", "3", "--beam", "3"], "lists of --nbest 3"),
        ):
            code, _, (error,) = piped([*flags, "--resume", *others], TEXT)
            assert code == 2
            assert error.endswith(f"was not written as {kind}, as it would be now")
            assert output.read_bytes() == whole
        assert piped([*flags, "--nbest", "2", "--resume"], TEXT)[0] == 0
        assert output.read_bytes() == whole
