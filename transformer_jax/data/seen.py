"""Which texts came before, by hashes alone."""

import array
import hashlib

_SLOTS = 1024  # of a new table; a power of two


class Seen:
    """A set of texts or pairs of texts, of which only hashes are kept: 16 to 32 bytes each, however long they are.

    Two texts with the same 64 bits are taken for the same: among a hundred million that happens once in 3,700 corpora.
    """

    def __init__(self) -> None:
        self._slots = array.array("Q", bytes(8 * _SLOTS))  # 0 is a free one
        self._count = 0

    def __contains__(self, texts: tuple[str, ...]) -> bool:
        return bool(self._slots[self._place(_key(texts))])

    def add(self, texts: tuple[str, ...]) -> None:
        """Remembers texts, which may have come before."""
        key = _key(texts)
        place = self._place(key)
        self._count += not self._slots[place]
        self._slots[place] = key
        if 2 * self._count > len(self._slots):
            self._grow()

    def _place(self, key: int) -> int:
        """The slot of a key, or the free one in which it would be."""
        slots, mask = self._slots, len(self._slots) - 1
        place = key & mask
        while slots[place] and slots[place] != key:
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        keys = self._slots
        self._slots = array.array("Q", bytes(16 * len(keys)))
        for key in keys:
            if key:
                self._slots[self._place(key)] = key


def _key(texts: tuple[str, ...]) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        data = text.encode()
        digest.update(b"%d:%b" % (len(data), data))  # the length, so that no two pairs look alike
    return int.from_bytes(digest.digest(), "little") or 1
