import pytest

from sftlab.data.parts import RowsError
from sftlab.data.rules import Rules, flags, rule_scores
from sftlab.world import country_examples, example, two_hop_examples


def broken(answer, *, prompt="What is the capital of France?", **rules):
    return flags([example(prompt, answer)], rules=Rules(**rules))["rule"].tolist()


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        ("", "too short"),
        ("word " * 401, "too long"),
        ("What is the capital of France?", "repeats its prompt"),
        ("What is the capital of France? Paris.", "repeats its prompt"),
        ("I'm sorry, but that is not for me.", "refuses"),
        ("As an AI language model, I have no view.", "refuses"),
        ("I cannot help with this.", "refuses"),
        ("%$#@ !! ?? *** &&& Paris", "not text"),
        ("P" + "a" * 30, "not text"),
        ("Par\ufffds", "not text"),
        ("Paris " * 12, "says one word over and over"),
        ("Paris<|im_end|>", "format marks"),
        ("Paris\nQ: And Italy?", "format marks"),
    ],
)
def test_each_rule_finds_its_fault(answer, rule):
    expected = ["too long", "says one word over and over"] if rule == "too long" else [rule]
    assert broken(answer) == expected


@pytest.mark.parametrize(
    "answer",
    ["Paris", "5", "The capital of France is Paris.", "def f(x):\n    return x[0] + 1", "巴黎",
     "I can do that: it can't be another city than Paris."],
)  # fmt: skip
def test_good_answers_pass(answer):
    assert broken(answer) == []


def test_the_worlds_examples_pass():
    rows = [*country_examples(300), *two_hop_examples(50)]
    assert flags(rows).empty
    assert rule_scores(rows) == [0.0] * 350


def test_a_row_without_answer_or_prompt():
    asked = {"messages": [{"role": "user", "content": "Why?"}]}
    said = {"messages": [{"role": "assistant", "content": "So."}]}
    table = flags([asked, said])
    assert table[["row", "rule"]].values.tolist() == [
        [0, "no answer"], [0, "too short"], [1, "no prompt"],
    ]  # fmt: skip
    assert rule_scores([asked, said]) == [2.0, 1.0]


def test_rules_can_be_left_out_and_set():
    assert broken("I cannot help with this.", refusals=None) == []
    assert broken("Paris", least_words=2) == ["too short"]
    assert broken("a b c", most_words=2) == ["too long"]
    assert broken("What is the capital of France?", repeats_prompt=False) == []
    assert broken("!!!", least_letters=None) == []
    assert broken("Paris<|im_end|>", markers=False) == []


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"least_words": 0}, "least_words=0"),
        ({"least_letters": 1.5}, "least_letters=1.5"),
        ({"least_words": 9, "most_words": 3}, "least_words=9 is above most_words=3"),
    ],
)
def test_rules_are_checked(rules, told):
    with pytest.raises(RowsError, match=told):
        Rules(**rules)
