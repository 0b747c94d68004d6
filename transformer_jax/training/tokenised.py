"""BLEU on the tokens of Moses, with and without hyphenated compounds split: what papers reported before sacrebleu."""

import dataclasses
import html
import re
from collections.abc import Sequence

import sacrebleu

from transformer_jax.errors import InputError
from transformer_jax.extras import load_extra

_COMPOUND = re.compile(r"(\S)-(\S)")


@dataclasses.dataclass(frozen=True)
class TokenisedScores:
    """Two BLEU scores on tokens, and how each was counted; neither can be compared with one of sacrebleu's."""

    bleu: float
    split_bleu: float  # with hyphenated compounds split
    bleu_signature: str
    split_bleu_signature: str

    def __str__(self) -> str:
        return (
            f"BLEU on Moses tokens {self.bleu:.2f} ({self.bleu_signature}), "
            f"with compounds split {self.split_bleu:.2f} ({self.split_bleu_signature})"
        )


class TokenisedBleu:
    """BLEU on tokens, of a corpus with one reference a sentence.

    Both sides are treated alike. Entities such as &quot; become their characters, low double quotation marks ", and
    other punctuation of Unicode what Moses' replace-unicode-punctuation.perl makes of it; tokens are those of its
    tokenizer.perl, without -a, by sacremoses; BLEU is that of its multi-bleu.perl: mixed case, up to four tokens, no
    smoothing. Where compounds are split, each hyphen between two characters is a token of its own before that.

    By all that is known the English-German scores of Vaswani et al. (2017) are split ones, by tensor2tensor's
    get_ende_bleu.sh. That replaces punctuation in the translations alone, and reads a reference whose quotation marks
    had been replaced elsewhere: where they differ, scores here are not quite those.

    Args:
        language: of the translations, such as de.

    Raises:
        InputError: where sacremoses is missing, and on a language that it does not know.
    """

    def __init__(self, language: str) -> None:
        sacremoses = load_extra("sacremoses", "moses", f"--tokenised {language}")
        known = {*sacremoses.corpus.NonbreakingPrefixes().available_langs.values()}
        if language not in known:  # it would be taken for English
            raise InputError(f"--tokenised {language}: Moses knows {', '.join(sorted(known))}")
        self._replace = sacremoses.MosesPunctNormalizer().replace_unicode_punct
        self._tokenise = sacremoses.MosesTokenizer(language).tokenize
        self._tokenizer = f"moses-{language}-sacremoses-{sacremoses.__version__}"

    def score(self, translations: Sequence[str], references: Sequence[str]) -> TokenisedScores:
        """Both scores."""
        ours, theirs = ([self.tokens(text) for text in texts] for texts in (translations, references))
        bleu, signature = _multi_bleu(ours, theirs, self._tokenizer)
        split = [[split_compounds(text) for text in texts] for texts in (ours, theirs)]
        split_bleu, split_signature = _multi_bleu(split[0], split[1], f"{self._tokenizer}-split")
        return TokenisedScores(bleu, split_bleu, signature, split_signature)

    def tokens(self, text: str) -> str:
        """The tokens of a text, with spaces between them; &, |, <, >, [, ] and quotes as Moses escapes them."""
        plain = self._replace(html.unescape(text).replace("„", '"'))
        joined: str = self._tokenise(plain, return_str=True)
        return joined


def split_compounds(tokens: str) -> str:
    """Tokens whose inner hyphens are tokens of their own; no character is on both sides of a hyphen, as in Perl."""
    return _COMPOUND.sub(r"\1 ##AT##-##AT## \2", tokens)


def _multi_bleu(translations: Sequence[str], references: Sequence[str], tokenizer: str) -> tuple[float, str]:
    """BLEU of tokens with spaces between them, and a signature that names their tokenizer."""
    bleu = sacrebleu.BLEU(tokenize="none", smooth_method="none", force=True)
    found = bleu.corpus_score(list(translations), [list(references)])
    return found.score, str(bleu.get_signature()).replace("tok:none", f"tok:{tokenizer}")
