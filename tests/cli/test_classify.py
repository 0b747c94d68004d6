"""Lines in, labels out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.classification import Classifier
from transformer_jax.errors import InputError
from transformer_jax.initialisation import init_parameters
from transformer_jax.models import Transformer
from transformer_jax.runs import RunFolder, open_run
from transformer_jax.translation import load_tokenizers


def test_each_line_gets_the_likeliest_label(piped, classifier):
    lines = ["ab ab", "", "c", "d " * 40]
    content = "".join(f"{line}\n" for line in lines).encode()
    code, out, errors = piped(["classify", classifier, "--probabilities"], content)
    assert code == 0
    assert errors == ["warning: line 4: longer than what is read; its end is left out"]
    rows = [row.split("\t") for row in out.decode().splitlines()]
    for row, found in zip(rows, Classifier.from_run(classifier).classify(lines), strict=True):
        shares = [float(field.split(" ")[1]) for field in row[1:]]
        assert [field.split(" ")[0] for field in row[1:]] == list("abcd")
        assert row[0] == found.label == "abcd"[int(np.argmax(shares))]
        np.testing.assert_allclose(shares, found.probabilities, atol=1e-6)
    assert piped(["classify", classifier], content)[1].decode().splitlines() == [row[0] for row in rows]


def test_a_line_depends_on_no_other(piped, classifier):
    flags = ["classify", classifier, "--probabilities"]
    alone = b"".join(piped(flags, line)[1] for line in (b"ab ab\n", b"c d\n", b"a\n"))
    together = piped(flags, b"ab ab\nc d\na\n")[1]
    assert together == alone


def test_what_is_no_classifier_is_refused(refused, trained, language_model):
    refused(["classify", trained], "a run of objective.kind='translation', not of a classifier")
    refused(["classify", language_model], "objective.kind='causal'")


def test_bad_lines_are_named(piped, classifier):
    code, out, errors = piped(["classify", classifier], b"ab\n\xff\n")
    assert (code, len(out.splitlines())) == (2, 1)
    assert errors == ["error: standard input, line 2, byte 1: invalid UTF-8: invalid start byte"]


def test_texts_as_long_as_the_table_of_positions_and_longer(classifier):
    """Which ends before the length that they would be padded to."""
    model = dataclasses.replace(open_run(classifier).model, positions="learned", max_positions=19)
    tokenizers, params = load_tokenizers(RunFolder(classifier)), init_parameters(model, jax.random.key(7))
    reader = Classifier(model, params, tokenizers, "abcd", longest=23)

    def ids(text):
        return tokenizers.source.framed(tokenizers.source.encode([text])[0])

    texts = [" ".join("a" * words) for words in (16, 18, 19)]
    assert [len(ids(text)) for text in texts] == [17, 19, 20]
    found = [one.probabilities for one in reader.classify(texts[:2])]
    tokens = jnp.array([ids(texts[0])])  # and no padding
    logits = Transformer(model).apply({"params": params}, tokens, method="encode_classes")
    np.testing.assert_allclose(found[0], jax.nn.softmax(logits[0, 0]), atol=1e-6)
    assert np.ptp(found[0]) > 0.01
    assert np.abs(np.subtract(*found)).max() > 1e-4
    with pytest.raises(InputError, match=r"^text 3 has 20 tokens, but the model has max_positions=19$"):
        list(reader.classify(texts))
