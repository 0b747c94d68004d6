"""Lines in, labels out."""

import numpy as np

from transformer_jax.classification import Classifier


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
