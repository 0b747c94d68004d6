"""How sentences are translated."""

from typing import Literal

from transformer_jax.checked import config, placement, require, require_positive


@config
class DecodingConfig:
    """How sentences are translated; the defaults are the paper's."""

    beam: int = 4  # hypotheses kept; 1 is greedy
    nbest: int = 1  # translations given of each sentence, best first; so many draws, with sampling
    length_penalty: float = 0.6  # alpha of ((5 + length) / 6)^alpha
    length_offset: float = 5.0  # 0 makes that length^alpha, as other toolkits have it
    narrow_ends: bool = False  # an end counts among the best `beam` continuations only, as in other toolkits
    stopping: Literal["settled", "patience"] = "settled"  # when nothing can win any more, or when enough have ended
    patience: float = 1.0  # ended hypotheses that are enough, as a multiple of the beam
    groups: int = 1  # groups of a diverse beam, each avoiding the tokens of those before it
    diversity: float = 0.5  # what a token of a group before costs, in nats
    sampling: bool = False  # draw translations instead of searching for the best
    temperature: float = 1.0  # of sampling; below 1 the probable becomes more so
    top_k: int | None = None  # sampling draws from so many tokens, the most probable; None is all
    top_p: float = 1.0  # sampling draws from the fewest tokens with so much of the mass
    min_p: float = 0.0  # sampling draws from tokens at least so many times as probable as the first
    seed: int = 0  # of sampling
    guesses: int = placement(default=4)  # tokens that a draft model says ahead, where there is one
    extra_length: int = 50  # a translation is at most this many tokens longer than its source
    min_length: int = 0  # tokens of a translation at least, its end not counted
    no_repeated_ngram: int = 0  # no so many tokens side by side stand twice in a translation; 0 is no such rule
    repetition_penalty: float = 1.0  # log-probabilities of tokens that stand there already are multiplied by it
    suppressed: tuple[int, ...] = ()  # ids of tokens that stand in no translation
    longest: int | None = None  # source tokens translated at once: longer lines are split; None is as in training
    batch_size: int = placement(default=64)  # sentences translated at once

    def __post_init__(self) -> None:
        require_positive(self, "beam", "nbest", "patience", "groups", "temperature", "top_p", "repetition_penalty")
        require_positive(self, "guesses", "extra_length", "batch_size")
        require(self.length_penalty >= 0, f"length_penalty={self.length_penalty} must not be negative")
        for name in ("length_offset", "diversity"):
            require(getattr(self, name) >= 0, f"{name}={getattr(self, name)} must not be negative")
        require(self.min_length >= 0, f"min_length={self.min_length} must not be negative")
        require(self.no_repeated_ngram >= 0, f"no_repeated_ngram={self.no_repeated_ngram} must not be negative")
        require(self.top_p <= 1, f"top_p={self.top_p} must be at most 1")
        require(0 <= self.min_p <= 1, f"min_p={self.min_p} must be 0 to 1")
        require(self.top_k is None or self.top_k > 0, f"top_k={self.top_k} must be above 0")
        require(0 <= self.seed < 2**32, f"seed={self.seed} must be 0 to 2^32 - 1")
        require(min(self.suppressed, default=0) >= 0, f"suppressed={self.suppressed} must be ids, 0 or above")
        require(self.longest is None or self.longest > 1, f"longest={self.longest} must be above 1")
        if not self.sampling:
            require(self.nbest <= self.beam, f"nbest={self.nbest} must be at most beam={self.beam}, or with sampling")
            require(self.beam % self.groups == 0, f"groups={self.groups} must divide beam={self.beam}")
