from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftlab.data.duplicates import (
    Duplicate,
    bands,
    drop_duplicates,
    exact_duplicates,
    jaccard,
    near_duplicates,
)
from sftlab.data.rows import RowsError, part_of, pieces
from sftlab.world import country_examples, example


def rows_of(*texts):
    return [example(text, "Yes.") for text in texts]


def test_exact_duplicates_name_the_first():
    rows = rows_of("One?", "Two?", "One?", "one? ", "One?")
    assert exact_duplicates(rows) == [Duplicate(2, 0, 1.0), Duplicate(4, 0, 1.0)]
    assert [one.row for one in exact_duplicates(rows, normalised=True)] == [2, 3, 4]


def test_prompt_and_conversation_are_different_parts():
    rows = [example("One?", "Yes."), example("One?", "No.")]
    assert not exact_duplicates(rows)
    assert exact_duplicates(rows, part="prompt") == [Duplicate(1, 0, 1.0)]


def test_the_same_words_by_another_role_are_another_conversation():
    said, asked = example("A", "B"), example("A", "B")
    asked["messages"][1]["role"] = "user"
    assert not exact_duplicates([said, asked])


def test_similarity_is_the_jaccard_index_computed_by_hand():
    # "abcdefgh" has the pieces abcde bcdef cdefg defgh, "abcdefghi" one more: efghi
    rows = [example("abcdefgh", ""), example("abcdefghi", "")]
    assert near_duplicates(rows, part="prompt", threshold=0.7) == [Duplicate(1, 0, 4 / 5)]
    assert not near_duplicates(rows, part="prompt", threshold=0.81)


def test_case_space_and_order_of_reading():
    rows = rows_of("What is the capital of France?", "what is  the capital of FRANCE?")
    assert near_duplicates(rows, threshold=1.0) == [Duplicate(1, 0, 1.0)]
    assert near_duplicates(rows_of("", ""), part="prompt") == [Duplicate(1, 0, 1.0)]


def test_a_chain_does_not_drop_what_is_unlike_the_kept_row():
    a, b, c = "abcdefghijkl", "abcdefghijklmnop", "efghijklmnop"
    near = lambda *texts: near_duplicates(rows_of(*texts), part="prompt", threshold=0.6)  # noqa: E731
    assert near(a, b)[0].similarity == near(b, c)[0].similarity == 8 / 12
    assert not near(a, c)
    assert near(a, b, c) == [Duplicate(1, 0, 8 / 12)]


texts = st.lists(st.text("ab c", max_size=14), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(texts, st.sampled_from([0.5, 0.8, 1.0]))
def test_every_repeat_is_what_it_says(texts, threshold):
    rows = rows_of(*texts)
    options = {"part": "prompt", "threshold": threshold}
    sets = [set(pieces(text, size=5, unit="characters")) for text in texts]
    repeats = near_duplicates(rows, **options)
    for repeat in repeats:
        assert repeat.of < repeat.row
        assert repeat.similarity == jaccard(sets[repeat.row], sets[repeat.of]) >= threshold
    kept, dropped = drop_duplicates(rows, **options)
    assert dropped == repeats
    gone = {repeat.row for repeat in dropped}
    assert [row for n, row in enumerate(rows) if n not in gone] == kept
    assert not gone & {repeat.of for repeat in dropped}, "what is kept is not dropped"


def test_candidates_find_what_comparing_every_pair_finds():
    rows = country_examples(150)
    sets = [set(pieces(part_of(row, "prompt"), size=5, unit="characters")) for row in rows]
    for threshold in (0.6, 0.8):
        firsts, expected = [], set()
        for row, own in enumerate(sets):
            if any(jaccard(own, sets[first]) >= threshold for first in firsts):
                expected.add(row)
            else:
                firsts.append(row)
        found = near_duplicates(rows, part="prompt", threshold=threshold)
        assert {repeat.row for repeat in found} == expected
        assert expected or threshold == 0.8
    pairs = combinations(firsts, 2)
    assert all(jaccard(sets[a], sets[b]) < threshold for a, b in pairs)


def test_bands_keep_their_promise_with_the_longest_bands():
    for threshold in (0.3, 0.5, 0.8, 0.95, 1.0):
        count, length = bands(threshold)
        assert count * length <= 128
        assert (1 - threshold**length) ** count <= 1e-3
        longer = length + 1
        assert longer > 64 or (1 - threshold**longer) ** (128 // longer) > 1e-3


@pytest.mark.parametrize("threshold", [0, -1, 1.01, 0.01])
def test_threshold_out_of_reach_is_an_error(threshold):
    with pytest.raises(RowsError, match=f"threshold={threshold}"):
        near_duplicates(rows_of("a"), threshold=threshold)
