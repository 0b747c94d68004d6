"""Scores are sacrebleu's own, and a loss over batches is the mean over all tokens, however they were packed."""

import json
import math
import re
import subprocess
import sys
from unittest.mock import Mock

import jax
import numpy as np
import pytest
import sacrebleu

from transformer_jax.config import (
    BatchConfig,
    Experiment,
    ModelConfig,
    Numerals,
    TokenizerConfig,
    TrainingConfig,
)
from transformer_jax.data.batches import batches_of
from transformer_jax.data.sources import Pairs
from transformer_jax.data.tokenizer import EOS_ID, train_tokenizers
from transformer_jax.errors import InputError
from transformer_jax.initialisation import init_parameters
from transformer_jax.models import Transformer
from transformer_jax.sharding import data_mesh
from transformer_jax.training import evaluation
from transformer_jax.training.losses import LossSums
from transformer_jax.training.step import Trainer
from transformer_jax.translation import Translator

TRANSLATIONS = ["the cat sat on a mat .", "it's raining", "drei", "", "a dog, a bone"]
REFERENCES = ["the cat sat on the mat .", "it's raining", "vier", "so", "a dog, a bone"]
MODEL = ModelConfig(encoder_layers=1, decoder_layers=1, width=6, num_heads=3, ffn_width=11, vocab_size=13, dropout=0.3)
LENGTHS = (17, 19)


def test_the_command_line_of_sacrebleu_gives_the_same_on_the_written_files(tmp_path):
    scores = evaluation.score(TRANSLATIONS, REFERENCES)
    text = evaluation.write_translations(tmp_path, "test", TRANSLATIONS, scores)
    references = tmp_path / "references"
    references.write_text("".join(f"{line}\n" for line in REFERENCES))
    command = [sys.executable, "-m", "sacrebleu", references, "-i", text, "-m", "bleu", "chrf", "ter", "-b", "-w", "10"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [float(number) for number in json.loads(told)] == [
        round(score, 10) for score in (scores.bleu, scores.chrf, scores.ter)
    ]
    assert 0 < scores.bleu < 100


class TestScore:
    @pytest.mark.parametrize("tokenizer", ["13a", "char", "intl"])
    def test_it_is_sacrebleu_s(self, tokenizer):
        scores = evaluation.score(TRANSLATIONS, REFERENCES, bleu_tokenizer=tokenizer)
        assert scores.bleu == sacrebleu.corpus_bleu(TRANSLATIONS, [REFERENCES], tokenize=tokenizer).score > 0
        assert scores.chrf == sacrebleu.corpus_chrf(TRANSLATIONS, [REFERENCES]).score > 0
        assert f"|tok:{tokenizer}|" in scores.bleu_signature
        assert sacrebleu.__version__ in scores.bleu_signature
        assert scores.ter == sacrebleu.corpus_ter(TRANSLATIONS, [REFERENCES]).score > 0
        assert sacrebleu.__version__ in scores.chrf_signature
        assert sacrebleu.__version__ in scores.ter_signature
        without = evaluation.score(TRANSLATIONS, REFERENCES, bleu_tokenizer=tokenizer, edits=False)
        assert (without.bleu, without.ter, without.ter_signature) == (scores.bleu, None, None)
        assert "TER" in str(scores)
        assert "TER" not in str(without)

    def test_case_counts(self):
        assert evaluation.score(["A B C D"], ["a b c d"]).bleu < evaluation.score(["a b c d"], ["a b c d"]).bleu

    def test_exact_matches_are_counted_overall_and_by_group(self):
        scores = evaluation.score(TRANSLATIONS, REFERENCES, ["b", "a", "b", "b", "a"])
        assert scores.sentences == 5
        assert scores.exact_match == 40.0
        assert scores.exact_match_by_group == {"a": 100.0, "b": 0.0}
        assert list(scores.exact_match_by_group) == ["a", "b"]

    @pytest.mark.parametrize("groups", [None, []])
    def test_pairs_without_groups_have_no_groups(self, groups):
        assert evaluation.score(TRANSLATIONS, REFERENCES, groups).exact_match_by_group == {}

    def test_another_number_of_references_is_refused(self):
        with pytest.raises(ValueError, match="zip"):
            evaluation.score(TRANSLATIONS, REFERENCES[:-1])

    def test_the_line_shown_names_what_was_counted_and_how(self):
        scores = evaluation.score(TRANSLATIONS, REFERENCES, ["b", "a", "b", "b", "a"])
        line = str(scores)
        assert "\n" not in line
        for part in (f"BLEU {scores.bleu:.2f}", scores.bleu_signature, "exact match 40.00% of 5", "a 100.00%"):
            assert part in line


class TestCompare:
    REFERENCES = tuple(f"sentence {number} of so many words" for number in range(60))

    def spoiled(self, every, first):
        """The references, of which some have two words wrong."""
        chosen = range(first, 60, every)
        return [one.replace("so many", "x y") if n in chosen else one for n, one in enumerate(self.REFERENCES)]

    def compared(self, ours, other):
        """Scores of both and the probability that they are of one quality, by metric."""
        pattern = r"(\w+): this run ([\d.]+), the other ([\d.]+), p = ([\d.]+) \(nrefs:1\|bs:1000\|seed:12345\|.*\)"
        rows = [re.fullmatch(pattern, line) for line in evaluation.compare(ours, other, self.REFERENCES)]
        return {row[1]: tuple(map(float, row.groups()[1:])) for row in rows}

    def test_a_better_system_is_told_from_a_worse_one(self):
        ours, other = self.spoiled(9, 2), self.spoiled(2, 1)
        for metric, (score, baseline, p) in self.compared(ours, other).items():
            field = {"BLEU": "bleu", "chrF2": "chrf", "TER": "ter"}[metric]
            for value, translations in ((score, ours), (baseline, other)):
                assert value == round(getattr(evaluation.score(translations, self.REFERENCES), field), 2)
            assert p < 0.01

    def test_two_that_are_as_good_are_not(self):
        compared = self.compared(self.spoiled(4, 1), self.spoiled(4, 3))
        assert compared.keys() == {"BLEU", "chrF2", "TER"}
        assert all(p > 0.1 for _, _, p in compared.values())

    def test_the_same_translations_are_called_so(self):
        """Where nothing differs, sacrebleu gives the least p there is."""
        same = evaluation.compare(TRANSLATIONS, TRANSLATIONS, REFERENCES)
        assert same == ["the other's translations are the same, every one"]


@pytest.mark.parametrize(("limit", "count"), [(None, 5), (3, 3), (7, 5)])
def test_a_limit_takes_the_first_pairs(limit, count):
    pairs = Pairs(sources=["u", "v", "w", "x", "y"], targets=REFERENCES, groups=["b", "a", "b", "b", "c"])
    translator = Mock(spec=Translator)
    translator.translate.side_effect = lambda sources, warn: TRANSLATIONS[: len(sources)]
    translations, scores = evaluation.translate_and_score(translator, pairs, limit)
    translator.translate.assert_called_once_with(pairs.sources[:count], warn=False)
    assert translations == TRANSLATIONS[:count]
    assert scores == evaluation.score(TRANSLATIONS[:count], REFERENCES[:count], pairs.groups[:count])


def test_translations_are_written_a_line_each_with_their_scores_and_signatures(tmp_path):
    scores = evaluation.score(TRANSLATIONS, REFERENCES, ["ä", "a", "b", "b", "a"])
    file = evaluation.write_translations(tmp_path / "new" / "folder", "test", TRANSLATIONS, scores, step=31)
    assert file.read_text() == "".join(f"{line}\n" for line in TRANSLATIONS)
    record = json.loads(file.with_suffix(".json").read_text())
    assert record["step"] == 31
    assert record["bleu"] == scores.bleu
    assert record["bleu_signature"] == scores.bleu_signature
    assert record["chrf_signature"] == scores.chrf_signature
    assert record["exact_match_by_group"] == {"a": 100.0, "b": 0.0, "ä": 0.0}


def test_perplexity_is_e_to_the_loss():
    sums = LossSums(*(np.float32(value) for value in (99.0, 26.0, 13.0)))
    assert evaluation.loss_metrics(sums, "test") == {"test/loss": 2.0, "test/perplexity": math.exp(2.0)}


def test_perplexity_stays_a_number_that_json_can_hold():
    sums = LossSums(*(np.float32(value) for value in (0.0, 1e6, 1.0)))
    assert math.isfinite(evaluation.loss_metrics(sums, "test")["test/perplexity"])


def one_by_one(params, tokenizers, pairs):
    """The negative log-likelihood and the number of tokens of each pair, alone in its row."""

    @jax.jit
    def log_probs(source, target):
        return jax.nn.log_softmax(Transformer(MODEL).apply({"params": params}, source, target)[0])

    source, target = np.zeros((1, LENGTHS[0]), np.int32), np.zeros((1, LENGTHS[1]), np.int32)
    for pair in zip(pairs.sources, pairs.targets, strict=True):
        ours, theirs = ([*tokenizers.source.encode([text])[0], EOS_ID] for text in pair)
        source[:], target[:] = 0, 0
        source[0, : len(ours)], target[0, 1 : len(theirs)] = ours, theirs[:-1]
        yield -float(log_probs(source, target)[0, np.arange(len(theirs)), np.array(theirs)].sum()), len(theirs)


def test_the_loss_over_batches_is_the_mean_over_the_tokens_of_all_sentences_one_by_one(tmp_path):
    words = np.random.default_rng(5).choice(["ab", "c", "dab"], (13, 5))
    lines = [" ".join(line[: 1 + number % 5]) for number, line in enumerate(words)]
    pairs = Pairs(lines, [line[::-1][: 1 + number] for number, line in enumerate(lines)])
    tokenizers = train_tokenizers(TokenizerConfig(), MODEL, pairs.sources, pairs.targets)
    mesh = data_mesh()
    batch = BatchConfig(rows=2, source_length=LENGTHS[0], target_length=LENGTHS[1])
    experiment = Experiment(data=Numerals(), model=MODEL, batch=batch, training=TrainingConfig(steps=1))
    eval_step = Trainer(experiment, mesh, 1).eval_step
    params = jax.tree.map(lambda leaf: 3 * leaf, init_parameters(MODEL, jax.random.key(2), mesh))
    batches = list(batches_of(pairs, tokenizers, batch, mesh, 0, tmp_path).one_epoch())
    assert len(batches) > 2

    sums = evaluation.evaluate_loss(eval_step, params, batches)
    losses, tokens = zip(*one_by_one(params, tokenizers, pairs), strict=True)
    assert sums.tokens == sum(tokens)
    mean = evaluation.loss_metrics(sums, "test")["test/loss"]
    assert mean == pytest.approx(sum(losses) / sum(tokens), rel=1e-5)
    of_batches = [float(one.log_loss) / float(one.tokens) for one in (eval_step(params, batch) for batch in batches)]
    assert abs(mean - np.mean(of_batches)) > 1e-3  # a mean of means would show


def test_no_sentence_is_one_line():
    with pytest.raises(InputError, match="no sentence to score"):
        evaluation.score([], [])
