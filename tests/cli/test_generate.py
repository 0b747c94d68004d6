"""Beginnings in, texts out."""

import json

from transformer_jax.cli.main import main


def lines_of(out):
    return out.decode().split("\n")[:-1]


def test_a_line_begins_each_text(piped, language_model):
    code, out, errors = piped(["generate", language_model], b"ab ab\n\nc\n")
    assert (code, errors) == (0, [])
    assert [text[:n] for text, n in zip(lines_of(out), (5, 0, 1), strict=True)] == ["ab ab", "", "c"]


def test_what_is_drawn_depends_on_the_line_and_the_seed_alone(piped, language_model):
    flags = ["generate", language_model, "--sampling"]
    content = b"ab\nab\nab\ncd d\n"
    _, out, _ = piped(flags, content)
    assert piped([*flags, "--batch-size", 2], content)[1] == out
    assert piped([*flags, "--seed", 1], content)[1] != out
    assert len(set(lines_of(out)[:3])) > 1


def test_lists_and_files(piped, language_model, tmp_path):
    _, out, _ = piped(["generate", language_model, "--nbest", 2], b"ab\nc\n")
    rows = [row.split(" ||| ") for row in lines_of(out)]
    assert [row[0] for row in rows] == ["0", "0", "1", "1"]
    assert all(row[1].startswith("ab") for row in rows[:2])
    (tmp_path / "in").write_bytes(b"ab\nc\n")
    flags = ["generate", language_model, "--input", tmp_path / "in", "--output", tmp_path / "out"]
    assert piped(flags, b"") == (0, b"", [])
    whole = (tmp_path / "out").read_bytes()
    assert whole == piped(["generate", language_model], b"ab\nc\n")[1]
    (tmp_path / "out").write_bytes(whole[: whole.index(b"\n") + 2])
    assert piped([*flags, "--resume"], b"")[0] == 0
    assert (tmp_path / "out").read_bytes() == whole


def test_of_a_language_model_evaluate_says_loss_and_bits_a_byte(language_model, tmp_path, refused, capfd):
    assert main(["evaluate", str(language_model), "--split", "validation"]) == 0
    out = capfd.readouterr().out
    assert "validation/bits_per_byte" in out
    assert "BLEU" not in out
    file = tmp_path / "text"
    file.write_text("ab\n\nabc\n")
    assert main(["evaluate", str(language_model), "--target", str(file)]) == 0
    written = json.loads((language_model / "evaluations" / "file-text.json").read_text())
    assert f"file-text/bits_per_byte {written['file-text/bits_per_byte']:.4f}" in capfd.readouterr().out
    evaluate = ["evaluate", language_model]
    refused([*evaluate, "--beam", 3], "--beam 3: a run of objective.kind='causal' translates nothing")
    refused([*evaluate, "--tokenised", "de"], "--tokenised de: a run of objective.kind='causal'")
    refused([*evaluate, "--against", file], f"--against {file}: a run of objective.kind='causal'")
    refused([*evaluate, "--source", file, "--target", file], f"--source {file}:", "give --target alone")


def test_models_with_other_halves_are_refused(refused, trained, language_model, classifier):
    refused(["generate", trained], "encoder_layers=1: what generates has no encoder")
    refused(["translate", language_model], "encoder_layers=0", "a translator needs both")
    refused(["generate", classifier], "what generates has no encoder")
    refused(["export", language_model, "folder"], "encoder_layers=0")
    refused(["attend", classifier, "ab"], "the model has an encoder or a decoder alone")


def test_a_missing_file_is_named(refused, language_model, tmp_path):
    refused(["generate", language_model, "--input", tmp_path / "no"], tmp_path / "no", "No such file")
