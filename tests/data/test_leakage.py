import pytest

from sftlab.data.leakage import drop_leaks, leaks
from sftlab.data.rows import RowsError
from sftlab.data.splits import split
from sftlab.world import countries, country_examples, example

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


def test_a_short_text_leaks_only_whole():
    assert found([example("Name", "a river")], kinds=["ngram"]) == [(0, 2, "ngram")]
    assert found([example("Name", "a lake")], kinds=["ngram"]) == []
    assert found([example("!", "?")], kinds=["ngram"]) == []


def test_characters_serve_languages_without_spaces():
    train, test = [example("法国的首都是哪里?", "巴黎")], [example("请问法国的首都是哪里?", "巴黎")]
    assert found(test, train, size=6, unit="characters") == [(0, 0, "ngram")]
    assert leaks(train, test, size=6, unit="characters")["evidence"][0] == "法国的首都是哪里? 巴黎"


def test_a_phrase_of_the_template_is_no_copy():
    form = "please tell me what the name of the capital of {} is"
    train = [example(form.format(country.name), "") for country in countries()[:20]]
    test = [example(form.format("Atlantis"), "")]
    assert found(test, train, size=6) == []
    assert found(test, train, size=6, common=19) == []
    assert len(found(test, train, size=6, common=20)) == 20
    copied = train[:1] * 30
    assert len(found(train[:1], copied, kinds=["ngram"])) == 30, "copies of one text are no phrase"


def test_groups_leak_and_a_split_by_group_does_not():
    def country(row):
        return next(n for n in names if n in row["messages"][0]["content"])

    names = sorted((country.name for country in countries()), key=len, reverse=True)
    rows = country_examples(200)
    careless, careful = split(rows), split(rows, group=country)
    assert len(leaks(careless.train, careless.test, group=country, kinds=["group"]))
    assert not len(leaks(careful.train, careful.test, group=country, kinds=["group", "prompt"]))


def test_dropping_from_train_or_test_leaves_no_leak():
    test = [TRAIN[1], example("Name a lake.", "Como.")]
    frame = leaks(TRAIN, test)
    kept, told = drop_leaks(TRAIN, frame)
    assert kept == [TRAIN[0], TRAIN[2]]
    assert told["kind"].tolist() == ["ngram", "prompt"]
    assert leaks(kept, test).empty
    assert drop_leaks(test, frame, split="test")[0] == test[1:]
    same, none = drop_leaks(TRAIN, leaks(TRAIN, test[1:]))
    assert same == TRAIN
    assert none.empty


def test_errors_say_which_split_and_what_to_do():
    with pytest.raises(RowsError, match="test: the list is empty"):
        leaks(TRAIN, [])
    with pytest.raises(RowsError, match=r"train\[0\] has no 'country'"):
        leaks(TRAIN, TRAIN, group="country")
    with pytest.raises(RowsError, match="kind 'copy': use some of prompt, ngram, group"):
        leaks(TRAIN, TRAIN, kinds=["copy"])
    with pytest.raises(RowsError, match="say which, with `group`"):
        leaks(TRAIN, TRAIN, kinds=["group"])
    with pytest.raises(RowsError, match="not among the rows"):
        drop_leaks(TRAIN[:1], leaks(TRAIN, TRAIN))


def test_a_class_is_not_an_entity():
    rows = [example("Good?", "yes")] * 1001
    with pytest.raises(RowsError, match="too few to be entities"):
        leaks(rows, rows, group=lambda row: "yes", kinds=["group"])
