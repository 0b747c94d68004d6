"""Small data sets: words of up to three letters, and the same words backwards."""

import random
from pathlib import Path


def write_pairs(folder: Path, split: str, count: int, seed: int) -> None:
    """Files of `count` pairs, `split`.a and `split`.b."""
    generator = random.Random(seed)
    words = ["".join(generator.choices("abcd", k=generator.randint(1, 3))) for _ in range(count)]
    (folder / f"{split}.a").write_text("".join(f"{word} {word}\n" for word in words))
    (folder / f"{split}.b").write_text("".join(f"{word[::-1]} {word[::-1]}\n" for word in words))
