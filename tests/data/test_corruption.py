"""What is hidden of a text, on sentences that can be read."""

from collections import Counter

import numpy as np
import pytest

from transformer_jax.data.corruption import corrupt_spans, infill, mask_tokens, span_counts, split_prefix

SENTENCE = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week"]
MASKS = ["<X>", "<Y>", "<Z>"]
WORDS = [*SENTENCE, *MASKS, "apple", "pear"]
TEXT = np.arange(len(SENTENCE), dtype=np.int32)
MARKS = np.arange(len(SENTENCE), len(SENTENCE) + 3, dtype=np.int32)
MASK = int(MARKS[0])


def generator(number: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[3, number]))


def read(ids: np.ndarray) -> str:
    return " ".join(WORDS[token] for token in ids)


def test_a_prefix_and_the_rest_are_the_text_cut_anywhere():
    parts = {tuple(map(read, split_prefix(TEXT, generator(number)))) for number in range(200)}
    assert all(f"{begun} {rest}" == " ".join(SENTENCE) for begun, rest in parts)
    assert len(parts) == len(SENTENCE) - 1
    assert tuple(map(read, split_prefix(TEXT[:1], generator()))) == ("", "Thank")


class TestSpans:
    @pytest.mark.parametrize(
        ("number", "source", "target"),
        [
            (2, "Thank you for <X> me to your <Y>", "<X> inviting <Y> party last week"),
            (5, "Thank you <X> inviting me to your <Y>", "<X> for <Y> party last week"),
        ],
    )
    def test_the_sentence_of_the_paper(self, number: int, source: str, target: str):
        made = corrupt_spans(TEXT, generator(number), share=0.4, length=2.0, masks=MARKS)
        assert (read(made.source), read(made.target)) == (source, target)

    @pytest.mark.parametrize("count", [1, 2, 3, 7, 10])
    def test_marks_put_back_give_the_text(self, count: int):
        hidden, spans = span_counts(count, 0.4, 2.0)
        for number in range(50):
            source, target = corrupt_spans(TEXT[:count], generator(number), share=0.4, length=2.0, masks=MARKS)
            marks = [place for place, token in enumerate(target) if token in MARKS]
            own = dict(zip(target[marks].tolist(), np.split(target, marks[1:]), strict=True))
            whole = np.concatenate([own[token][1:] if token in own else [token] for token in source.tolist()])
            assert whole.tolist() == TEXT[:count].tolist()
            assert (len(source), len(target)) == (count - hidden + spans, hidden + spans)
            assert target[marks].tolist() == MARKS[:spans].tolist()

    def test_every_way_to_cut_is_as_probable(self):
        # 4 of 10 tokens in 2 spans, 6 outside in 2 parts: 3 * 5 ways.
        seen = Counter(
            tuple(corrupt_spans(TEXT, generator(number), share=0.4, length=2.0, masks=MARKS).source.tolist())
            for number in range(3000)
        )
        assert len(seen) == 15
        assert all(abs(count - 200) < 60 for count in seen.values())  # 4.4 standard deviations


class TestInfill:
    @pytest.mark.parametrize(
        ("number", "source"),
        [
            (0, "Thank you for <X> me <X> last week"),
            (5, "<X> Thank <X> for <X> your party last week"),  # the first span holds nothing
        ],
    )
    def test_a_sentence_with_masks_of_any_length(self, number: int, source: str):
        assert read(infill(TEXT, generator(number), share=0.4, length=2.0, mask=MASK)) == source

    @pytest.mark.parametrize("count", [1, 2, 3, 5, 10])
    def test_so_many_tokens_are_gone_and_the_others_stay_in_order(self, count: int):
        hidden = max(round(0.3 * count), 1)
        for number in range(100):
            source = infill(TEXT[:count], generator(number), share=0.3, length=3.0, mask=MASK)
            kept = source[source != MASK]
            assert len(kept) == count - hidden
            assert (np.diff(kept) > 0).all()
            assert len(source) <= count
            assert not ((source[1:] == MASK) & (source[:-1] == MASK)).any()


class TestMasks:
    WORDS = np.array([13, 14])  # apple, pear

    def test_a_sentence_with_masks_another_word_and_one_that_stays(self):
        tokens, places = mask_tokens(TEXT, generator(1), share=0.4, mask=MASK, words=self.WORDS)
        assert read(tokens) == "<X> you <X> inviting <X> apple your party last week"
        assert [SENTENCE[place] for place in places] == ["Thank", "for", "me", "to"]

    def test_the_shares_are_those_asked_for(self):
        fates = Counter[str]()
        for number in range(2000):
            tokens, places = mask_tokens(TEXT, generator(number), share=0.4, mask=MASK, words=self.WORDS)
            assert len(places) == 4
            changed = np.flatnonzero(tokens != TEXT)
            assert set(changed) <= set(places)
            seen = tokens[places]
            fates["masked"] += int((seen == MASK).sum())
            fates["another"] += int((seen > MASK).sum())
            fates["kept"] += int((seen == TEXT[places]).sum())
        assert fates.total() == 8000
        for fate, share in (("masked", 0.8), ("another", 0.1), ("kept", 0.1)):
            assert fates[fate] / 8000 == pytest.approx(share, abs=0.015)

    def test_words_are_hidden_whole(self):
        starts = np.array([1, 0, 0, 1, 1, 0, 1, 0, 0, 0], bool)
        words = [{0, 1, 2}, {3}, {4, 5}, {6, 7, 8, 9}]
        for number in range(100):
            _, places = mask_tokens(TEXT, generator(number), share=0.4, mask=MASK, words=self.WORDS, starts=starts)
            assert all(word <= set(places) or not word & set(places) for word in words)
            assert 1 <= len(places) <= 4

    def test_a_word_too_long_gives_its_place_to_shorter_ones(self):
        starts = np.array([1, 0, 1, 0, 1, 1, 0, 1, 0, 1], bool)  # words of 2, 2, 1, 2, 2 and 1 tokens
        for number in range(50):
            _, places = mask_tokens(TEXT, generator(number), share=0.5, mask=MASK, words=self.WORDS, starts=starts)
            assert len(places) == 5 or {4, 9} <= set(places)  # both short ones are taken

    def test_a_single_token_is_predicted(self):
        assert mask_tokens(TEXT[:1], generator(), share=0.1, mask=MASK, words=self.WORDS).places.tolist() == [0]
