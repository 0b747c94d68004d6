"""Verbs, exit codes, one line a mistake, and what is imported for it."""

import io
import logging
import sys
from pathlib import Path

import pytest

from transformer_jax.cli.main import MODULES, VERBS, main
from transformer_jax.errors import InputError
from transformer_jax.runs import RunFolder
from transformer_jax.training import loop


class TestHelp:
    def test_as_a_process(self, spawn, command):
        process = spawn([*command, "--help"])
        out, err = process.communicate()
        assert (process.returncode, err) == (0, "")
        for verb, summary in VERBS.items():
            assert f"  {verb} " in out
            assert summary in out

    @pytest.mark.parametrize(
        ("verb", "options"),
        [
            ("train", ["FILE --workdir DIR"]),
            ("sweep", ["FILE --workdir DIR --FIELD VALUE VALUE", "DIR [--point NUMBER]"]),
            ("prepare", ["FILE --output FOLDER", "FILE --help", "--prepared FOLDER"]),
            ("plan", ["FILE --topology", "FILE --mesh.data"]),
            ("translate", ["translate RUN [--beam 5 ...] < in.en > out.de", "RUN --help"]),
            ("generate", ["generate RUN [--sampling ...]", "RUN --help"]),
            ("classify", ["classify RUN [--probabilities]", "RUN --help"]),
            ("score", ["score RUN SOURCE TARGET", "RUN --help"]),
            ("export", ["export RUN FOLDER", "RUN --help"]),
            ("evaluate", ["evaluate RUN [--split test ...]", "RUN --help"]),
            ("reproduce", ["RUN", "--output", "--data.dir", "--until", "--processes.coordinator"]),
            ("verify", ["RUN", "changes nothing"]),
            ("average", ["RUN...", "--output", "--newest", "--best"]),
            ("import", ["FOLDER RUN", "--source-language", "--target-language", "--dtype"]),
            ("attend", ["attend RUN SENTENCE [--layer 2 ...]", "RUN --help"]),
        ],
    )
    def test_of_each_verb(self, verb, options, capsys):
        assert main([verb, "--help"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        for option in options:
            assert option in out

    @pytest.mark.parametrize(
        ("verb", "options"),
        [
            ("translate", ["--step", "--beam", "(default: 2)", "--prefix-file", "--ensemble", "--nbest", "--resume"]),
            ("score", ["SOURCE TARGET", "--tokens", "--batch-size"]),
            ("evaluate", ["--split", "(default: test)", "--source", "--against", "--data.dir", "--extra-length"]),
            ("attend", ["SENTENCE", "--layer", "(default: -1)", "--output", "--step", "--length-penalty"]),
        ],
    )
    def test_of_verbs_over_a_run(self, verb, options, trained, capsys):
        assert main([verb, str(trained), "--help"]) == 0
        out = capsys.readouterr().out
        for option in options:
            assert option in out

    def test_has_all_verbs(self):
        folder = Path(__file__).parents[2] / "transformer_jax" / "cli"
        assert {path.stem for path in folder.glob("*.py")} == {
            *(MODULES.get(verb, verb) for verb in VERBS),
            "__init__",
            "main",
            "arguments",
            "fields",
            "members",
            "streams",
            "writer",
        }


class TestMistakes:
    def test_unknown_verb(self, refused):
        refused(["trian"], "no such verb: trian; did you mean train?")
        refused(
            ["xyz"],
            "no such verb: xyz; one of train, sweep, prepare, plan, translate, generate, classify, score, import,",
            "average, attend",
        )

    def test_no_verb(self, refused):
        refused([], "no verb given")

    def test_arguments_of_the_process(self, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["transformer-jax", "evalute"])
        assert main() == 2
        assert "did you mean evaluate?" in capsys.readouterr().err

    def test_neither_help_nor_mistakes_import_jax(self, spawn, tmp_path):
        calls = [
            ["--help"],
            ["translte"],
            ["train", "missing.py", "--workdir", "x"],
            ["plan", "experiments/numerals.py"],
            ["translate", "--bem", "3"],
            ["translate", str(tmp_path)],
            ["evaluate", str(tmp_path)],
            ["verify", str(tmp_path)],
            ["reproduce", str(tmp_path)],
            ["average", "--newest", "2", "--best", "3", "--output", "x"],
            ["attend", str(tmp_path), "a sentence"],
            *([verb, "--help"] for verb in VERBS),
        ]
        program = (
            "import sys\nfrom transformer_jax.cli.main import main\n"
            f"codes = [main(call) for call in {calls}]\n"
            f"assert codes == [0, *[2] * 10, *[0] * {len(VERBS)}], codes\n"
            "assert 'jax' not in sys.modules"
        )
        process = spawn([sys.executable, "-c", program])
        _, err = process.communicate()
        assert process.returncode == 0, err
        assert len(err.splitlines()) == err.count("error: ") == 10


class TestExitCodes:
    @pytest.fixture
    def ends(self, monkeypatch, experiment_file):
        """The command line, with a training that ends as it is told to."""

        def run(result):
            def train(*arguments, **options):
                if isinstance(result, int):
                    return result
                raise result

            monkeypatch.setattr(loop, "train", train)
            return main(["train", str(experiment_file), "--workdir", "unused"])

        return run

    def test_that_of_the_verb(self, ends):
        assert ends(0) == 0
        assert ends(143) == 143

    def test_interrupted(self, ends, capsys):
        assert ends(KeyboardInterrupt()) == 130
        assert capsys.readouterr().err == ""

    def test_a_mistake_of_several_lines_is_shown_as_one(self, ends, capsys):
        assert ends(InputError("first\n  second")) == 2
        assert capsys.readouterr().err == "error: first second\n"

    def test_the_unexpected_keeps_its_traceback(self, ends):
        with pytest.raises(ZeroDivisionError):
            ends(ZeroDivisionError())

    def test_nobody_reads(self, spawn, command):
        process = spawn([*command, "--help"])
        process.stdout.close()
        assert process.stderr.read() == ""
        process.stderr.close()
        assert process.wait() == 141


@pytest.mark.parametrize("verb", [["translate"], ["evaluate", "--split", "validation"], ["attend", "abc"]])
def test_another_tokenizer_of_the_same_size_is_refused(verb, run, foreign, refused, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"abc\n")))
    foreign.save(RunFolder(run).tokenizer)
    name, *others = verb
    refused([name, run, *others], f"{run}: not what the run was started with", "tokenizer: ")


def test_logging_shows_our_warnings_and_nothing_of_the_libraries(monkeypatch, capsys):
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.WARNING)
    main(["--help"])
    capsys.readouterr()
    logging.getLogger("transformer_jax.training").warning("checkpoint %d is damaged", 7)
    logging.getLogger("transformer_jax.training").info("detail")
    logging.getLogger("absl").warning("noise")
    logging.getLogger("absl").error("broken")
    assert capsys.readouterr().err == "warning: checkpoint 7 is damaged\n"


def test_a_full_disk_that_nobody_expected_is_one_line(monkeypatch, capsys):
    def full(arguments):
        raise OSError(28, "No space left on device", "runs/a/metrics.jsonl")

    monkeypatch.setattr("transformer_jax.cli.average.main", full)
    assert main(["average"]) == 2
    told = "error: runs/a/metrics.jsonl: No space left on device; make room or mend the permissions\n"
    assert capsys.readouterr().err == told


def test_an_error_of_the_system_that_is_of_no_file_keeps_its_traceback(monkeypatch):
    def lost(arguments):
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr("transformer_jax.cli.average.main", lost)
    with pytest.raises(ConnectionResetError):
        main(["average"])


def test_reports_to_a_closed_event_loop_are_not_shown_and_all_else_is(monkeypatch, capsys):
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    main(["--help"])
    capsys.readouterr()

    class Unraisable:
        def __init__(self, text):
            self.text = text

        def __del__(self):
            raise RuntimeError(self.text)

    Unraisable("Event loop is closed")
    assert capsys.readouterr().err == ""
    Unraisable("another")
    assert capsys.readouterr().err.endswith("RuntimeError: another\n")
