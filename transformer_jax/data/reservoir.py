"""A sample of what is too much to hold."""

import random
from collections.abc import Iterable
from typing import TypeVar

_Item = TypeVar("_Item")


def sample(items: Iterable[_Item], count: int | None) -> list[_Item]:
    """So many of the items, each as probable as any other, in their order; all where there are no more, or of None.

    The same items give the same sample (algorithm R; Vitter, 1985).
    """
    if count is None:
        return list(items)
    generator = random.Random(0)
    kept: list[tuple[int, _Item]] = []
    for number, item in enumerate(items):
        if number < count:
            kept.append((number, item))
        elif (place := generator.randrange(number + 1)) < count:
            kept[place] = (number, item)
    return [item for _, item in sorted(kept, key=lambda own: own[0])]
