"""In which shapes sentences are decoded: few, and a sentence's depends on the sentence, never on those beside it."""

import dataclasses
from collections.abc import Sequence

from transformer_jax.config import DecodingConfig
from transformer_jax.decoding import Edge

SHORTEST = 16  # lengths are padded to this times a power of two, so that few shapes are compiled
FULL_BATCH = 128  # up to this padded length a batch is full; longer ones hold fewer sentences, for the same memory
FEW_TOKENS, FEW_CHARACTERS, FEW_EDGES = 4, 16, 64  # what constraints have is padded to these, or a power of two
REFILLS = 4  # a batch is filled up again when one part in so many of it has ended


@dataclasses.dataclass(frozen=True)
class Request:
    """A sentence to be decoded, in ids."""

    source: Sequence[int]  # the end token last
    line: int = 0  # its number, and which part of its line it is: by these draws are seeded
    part: int = 0
    prefix: Sequence[int] = ()
    required: Sequence[Sequence[int]] = ()
    forbidden: Sequence[Sequence[Edge]] = ()


@dataclasses.dataclass(frozen=True)
class Shape:
    """What decides which programs a sentence runs through."""

    source: int  # padded length
    target: int  # tokens of the longest output
    prefix: int  # padded length; 0 is no prefix
    required: tuple[int, int]  # padded number and length of phrases; (0, 0) is none
    forbidden: tuple[int, int, int]  # padded number of texts, of edges of each, and of characters; zeros are none


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The shapes of sentences and of batches."""

    config: DecodingConfig
    positions: int  # tokens of a sentence at most
    shards: int = 1  # devices that share a batch

    def of(self, request: Request) -> Shape:
        """The shape of a sentence."""
        source = self.padded(len(request.source))
        prefix = _power_of_two(len(request.prefix), FEW_TOKENS)
        required = _phrases_shape(request.required)
        room = prefix + required[0] * required[1] + 1
        return Shape(
            source=source,
            target=min(max(source, room, self.config.min_length + 1) + self.config.extra_length, self.positions),
            prefix=prefix,
            required=required,
            forbidden=_texts_shape(request.forbidden),
        )

    def limit(self, request: Request) -> int:
        """Tokens of its longest output: some more than its source has, or than it must have, as far as there are."""
        must = len(request.prefix) + sum(map(len, request.required)) + 1
        least = max(len(request.source), must, self.config.min_length + 1)
        return min(least + self.config.extra_length, self.positions)

    def padded(self, length: int) -> int:
        """The length that a sequence is padded to."""
        return padded(length, self.positions)

    def part_size(self, padded: int) -> int:
        """Sentences that are taken in at once: a multiple of the devices that share a batch."""
        return -(-self._full(padded) // (REFILLS * self.shards)) * self.shards

    def slots(self, padded: int) -> int:
        """Sentences that are decoded at once: a multiple of those that are taken in."""
        part = self.part_size(padded)
        return max(self._full(padded) // part, 1) * part

    def _full(self, padded: int) -> int:
        return max(self.config.batch_size * min(FULL_BATCH, padded) // padded, 1)


def padded(length: int, positions: int) -> int:
    """The length that a sequence is padded to: one of few, as far as there are positions."""
    return min(SHORTEST * _power_of_two(-(-length // SHORTEST)), positions)


def _power_of_two(count: int, least: int = 1) -> int:
    """The least power of two, from `least` on, that is no less; 0 of 0."""
    return max(1 << (count - 1).bit_length(), least) if count else 0


def _phrases_shape(phrases: Sequence[Sequence[int]]) -> tuple[int, int]:
    return _power_of_two(len(phrases)), _power_of_two(max(map(len, phrases), default=0), FEW_TOKENS)


def _texts_shape(texts: Sequence[Sequence[Edge]]) -> tuple[int, int, int]:
    longest = max((edge.target for edges in texts for edge in edges), default=-1)
    return (
        _power_of_two(len(texts)),
        _power_of_two(max(map(len, texts), default=0), FEW_EDGES),
        _power_of_two(1 + longest, FEW_CHARACTERS),
    )
