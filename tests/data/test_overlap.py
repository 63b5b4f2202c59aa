import pytest

from sftlab.data.overlap import (
    Duplicate,
    drop_duplicates,
    exact_duplicates,
    jaccard,
    leaks,
    near_duplicates,
)
from sftlab.data.rows import part_of, pieces
from sftlab.data.splits import split
from sftlab.world import countries, country_examples, country_rows, example


def rows_of(*texts):
    return [example(text, "") for text in texts]


def cut(text):
    return set(pieces(text, size=5, unit="characters"))


def test_exact_duplicates_name_the_first():
    rows = rows_of("One?", "Two?", "One?", "one? ", "One?")
    assert exact_duplicates(rows) == [Duplicate(n, 0, 1.0) for n in (2, 3, 4)]
    assert drop_duplicates(rows)[0] == rows[:2]
    said, asked = example("A", "B"), example("A", "B")
    asked["messages"][1]["role"] = "user"
    assert not exact_duplicates([said, asked]), "by another role it is another conversation"


def test_similarity_is_the_jaccard_index_computed_by_hand():
    # "abcdefgh" has the pieces abcde bcdef cdefg defgh, "abcdefghi" one more: efghi
    rows = rows_of("abcdefgh", "ABCDEFGHI ")
    assert near_duplicates(rows, threshold=0.7) == [Duplicate(1, 0, 4 / 5)]
    assert not near_duplicates(rows, threshold=0.81)
    assert near_duplicates(rows_of("", "")) == [Duplicate(1, 0, 1.0)]


def test_a_chain_does_not_drop_what_is_unlike_the_kept_row():
    a, b, c = "abcdefghijkl", "abcdefghijklmnop", "efghijklmnop"
    near = lambda *texts: near_duplicates(rows_of(*texts), threshold=0.6)  # noqa: E731
    assert near(a, b)[0].similarity == near(b, c)[0].similarity == 8 / 12
    assert not near(a, c)
    assert near(a, b, c) == [Duplicate(1, 0, 8 / 12)]


def test_candidates_find_what_comparing_every_pair_finds():
    rows = country_examples(150)
    sets = [cut(part_of(row, "conversation")) for row in rows]
    for threshold in (0.6, 0.8):
        firsts, expected = [], set()
        for row, own in enumerate(sets):
            if any(jaccard(own, sets[first]) >= threshold for first in firsts):
                expected.add(row)
            else:
                firsts.append(row)
        assert {one.row for one in near_duplicates(rows, threshold=threshold)} == expected
        assert expected or threshold == 0.8


TRAIN = [
    example("What is the capital of France?", "Paris."),
    example("Tell me a story.", "Once upon a time there was a king who had three sons."),
    example("Name a river.", "The Seine."),
]


def found(test, train=TRAIN, **options):
    frame = leaks(train, test, **options)
    return [tuple(line) for line in frame[["test", "train", "kind"]].itertuples(index=False)]


def test_the_same_prompt_leaks_whatever_its_case_and_answer():
    test = [example("Name a lake.", "Como."), example("what is  the CAPITAL of france?", "Lyon.")]
    assert found(test, kinds=["prompt"]) == [(1, 0, "prompt")]
    systemed = {"messages": [{"role": "system", "content": "Brief."}, *TRAIN[0]["messages"]]}
    assert found([systemed], kinds=["prompt"]) == [(0, 0, "prompt")]


def test_words_in_a_row_leak_with_share_and_evidence():
    test = [example("Go on:", "a time there was a king who had, in the end, no sons at all")]
    frame = leaks(TRAIN, test)
    assert found(test) == [(0, 1, "ngram")]
    # 17 words with the prompt's two, and so 10 runs of 8; one of them stands in train
    assert frame["share"][0] == pytest.approx(1 / 10)
    assert frame["evidence"][0] == "a time there was a king who had"
    assert found(test, size=9) == []
    assert leaks(TRAIN, test, size=4)["evidence"][0] == "a time there was a king who had"
    # A text with fewer words leaks only whole.
    assert found([example("Name", "a river")], kinds=["ngram"]) == [(0, 2, "ngram")]
    assert found([example("Name", "a lake"), example("!", "?")], kinds=["ngram"]) == []


def test_a_phrase_of_the_template_is_no_copy():
    form = "please tell me what the name of the capital of {} is"
    train = rows_of(*(form.format(country.name) for country in countries()[:20]))
    test = rows_of(form.format("Atlantis"))
    assert found(test, train, size=6) == []
    assert len(found(test, train[:10], size=6)) == 10
    copied = train[:1] * 30
    assert len(found(train[:1], copied, kinds=["ngram"])) == 30, "copies of one text are no phrase"


def test_groups_leak_and_a_split_by_group_does_not():
    rows = country_rows(200)
    careless, careful = split(rows), split(rows, group="country")
    assert len(leaks(careless.train, careless.test, group="country", kinds=["group"]))
    assert leaks(careful.train, careful.test, group="country", kinds=["group", "prompt"]).empty
