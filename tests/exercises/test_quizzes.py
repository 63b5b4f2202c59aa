"""Quizzes: every file of the course, what a mistake in one says, and the card."""

import re

import pytest

from sftlab.exercises import QuizError, quiz, quizzes, read_quiz

FILES = sorted(quizzes.QUIZZES.glob("quiz_*.toml"))
OPTION = '[[question.option]]\ntext = "{}"\nsays = "Said {}."\n'
GOOD = '[[question]]\nask = "`<b>` or **x** & y?"\n'
GOOD += OPTION.format("no", 1) + OPTION.format("yes", 2) + "right = true\n"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_quiz_has_enough_questions_and_its_form_does_not_give_them_away(file):
    questions = read_quiz(file)
    assert 4 <= len(questions) <= 7
    assert all(3 <= len(one.option) <= 4 for one in questions)
    places, longest = set(), 0
    for one in questions:
        (right,) = (n for n, option in enumerate(one.option) if option.right)
        places.add(right)
        longest += max(one.option, key=lambda option: len(option.text)).right
    assert len(places) > 1, "the right option is always in the same place"
    assert longest <= len(questions) / 2, "the right option is mostly the longest"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("right = true\n", "", "question 2: 0 options have right = true"),
        ('"Said 1."', '"Said 1."\nright = true', "question 2: 2 options have right = true"),
        ('says = "Said 2."\n', "", r"question 2: .*option.1.says\n  Field required"),
        ('"Said 2."', '" "', "question 2: .*at least 1 character"),
        ("ask =", "asks =", r"question 2: .*\nask\n  Field required"),
    ],
)
def test_a_mistake_names_file_and_question(tmp_path, old, new, said):
    file = tmp_path / "quiz_77.toml"
    file.write_text(GOOD + GOOD)
    assert len(read_quiz(file)) == 2
    file.write_text(GOOD + GOOD.replace(old, new))
    with pytest.raises(QuizError, match=re.compile(f"^quiz_77.toml.*{said}", re.DOTALL)):
        read_quiz(file)


def test_the_card_answers_each_option_alone_and_its_text_gives_nothing_away(monkeypatch, tmp_path):
    monkeypatch.setattr(quizzes, "QUIZZES", tmp_path)
    (tmp_path / "quiz_77.toml").write_text(GOOD + GOOD)
    card, again = quiz("77"), quiz("77")
    assert card.text == "\n".join(
        line for n in (1, 2) for line in (f"{n}. `<b>` or **x** & y?", "   - no", "   - yes")
    )
    assert "<code>&lt;b&gt;</code> or <b>x</b> &amp; y?" in card.html
    groups = re.findall('<details name="(.+?)"', card.html)
    assert [groups.count(name) for name in groups] == [2] * 4
    assert not set(groups) & set(re.findall('<details name="(.+?)"', again.html))
    assert re.findall(r"<b>(.+?)\.</b> Said", card.html) == ["Not right", "Right"] * 2
    assert "script" not in card.html
    with pytest.raises(QuizError, match="no quiz for lesson '78'; there are 77"):
        quiz("78")
