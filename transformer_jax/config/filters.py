"""Which pairs of a corpus are trained on."""

from typing import Literal

import regex

from transformer_jax.checked import config, require


@config
class FilterConfig:
    """Filters of the training pairs, tasks of a mixture included, in their order; by default there is none.

    Plain text is one side, the target; what compares two sides, or is of the source, leaves it alone.
    """

    unit: Literal["words", "characters"] = "words"  # what lengths are counted in; white space parts words
    min_length: int | None = None  # least length of a side
    max_length: int | None = None  # greatest length of a side
    max_ratio: float | None = None  # how many times as long one side may be as the other
    identical: bool = False  # drop pairs whose sides are the same
    source_scripts: tuple[str, ...] = ()  # Unicode scripts of the source's letters, such as Latin, or Han Hiragana
    target_scripts: tuple[str, ...] = ()  # the same of the target's
    min_script_share: float = 0.5  # least share of the letters of a side that are of its scripts
    source_language: str | None = None  # language that the source is taken for by py3langid, such as en
    target_language: str | None = None  # the same of the target
    duplicates: Literal["keep", "pair", "source", "target", "either"] = "keep"  # drop what a kept pair has already had

    def __post_init__(self) -> None:
        for name in ("min_length", "max_length"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{name}={value} must be above 0")
        if self.min_length is not None and self.max_length is not None:
            require(
                self.min_length <= self.max_length,
                f"min_length={self.min_length} is above max_length={self.max_length}",
            )
        require(self.max_ratio is None or self.max_ratio >= 1, f"max_ratio={self.max_ratio} must be 1 or above")
        require(0 < self.min_script_share <= 1, f"min_script_share={self.min_script_share} must be in (0, 1]")
        for name in ("source_scripts", "target_scripts"):
            for script in getattr(self, name):
                require(
                    _is_script(script),
                    f"{name}={script!r} must be a script of Unicode, such as Latin, Cyrillic or Han",
                )


def _is_script(name: str) -> bool:
    try:
        return name.isidentifier() and bool(regex.compile(rf"\p{{Script={name}}}"))
    except regex.error:
        return False
