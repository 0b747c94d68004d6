"""What looks wrong in a translation, without knowing the language."""

from collections.abc import Iterator, Sequence

from transformer_jax.translation.results import Hypothesis, Translation

RATIO = 2.5  # tokens of one side for each of the other, from so many tokens on
FROM_TOKENS = 10
REPEATS = 4  # times that the same tokens come one behind the other
LOW = -2.0  # mean log-probability of a token, in nats


def suspicions(translation: Translation) -> list[str]:
    """What is suspicious about a translation, as reasons in a few words; of most there are none."""
    best = translation.hypotheses[:1]
    return [*translation.best_warnings, *(reason for hypothesis in best for reason in _reasons(hypothesis))]


def _reasons(hypothesis: Hypothesis) -> Iterator[str]:
    if not hypothesis.num_tokens:
        return
    source = sum(len(part.source) for part in hypothesis.parts)
    target = hypothesis.num_tokens
    if max(source, target) >= FROM_TOKENS and not 1 / RATIO <= target / source <= RATIO:
        yield f"length: {target} tokens of {source}"
    repeated = max(_repeats(part.target) for part in hypothesis.parts)
    if repeated >= REPEATS:
        yield f"repetition: the same tokens {repeated} times"
    mean = hypothesis.log_prob / target
    if mean < LOW:
        yield f"score: {mean:.2f} a token"


def _repeats(tokens: Sequence[int]) -> int:
    """How often the same one to four tokens come one behind the other, at most."""
    most = 1
    for size in range(1, 5):
        run = 0  # tokens that equal those `size` before them
        for place in range(size, len(tokens)):
            run = run + 1 if tokens[place] == tokens[place - size] else 0
            most = max(most, run // size + 1)
    return most
