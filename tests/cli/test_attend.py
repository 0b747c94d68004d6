"""The picture of a sentence."""

import pytest

from transformer_jax.cli.main import main
from transformer_jax.translation import Translator


def test_prints_the_translation_and_the_path_of_the_picture(trained, tmp_path, capsys):
    picture = tmp_path / "heads.png"
    assert main(["attend", str(trained), "abc abc", "--layer", "1", "--output", str(picture)]) == 0
    (translation,) = Translator.from_run(trained).translate(["abc abc"])
    assert capsys.readouterr().out == f"{translation}\n{picture}\n"
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("layer", [0, 2, -2])
def test_layers_that_are_not_there(layer, trained, refused):
    arguments = ["attend", trained, "abc", "--layer", layer]
    refused(arguments, f"--layer {layer}: encoder and decoder have the layers 1 to 1, or -1 to -1")


def test_mistakes(trained, tmp_path, refused):
    refused(["attend", trained, "abc", "--output", tmp_path / "heads.pdf"], "the picture is a .png file")
    refused(["attend", trained, "abc", "--output", tmp_path / "none" / "heads.png"], "no such folder")
    refused(["attend", trained, " "], "the sentence is blank")
    refused(["attend", trained], "Missing", "SENTENCE")
