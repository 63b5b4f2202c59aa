"""How the world is put into words: statements, questions, and the forms they take on a page.

`{x}` is the thing asked about, `{a}` the answer. Questions under "sft" are used by the corpus
and by supervised examples. Questions under "test" are used by neither: they are for measuring
alone, so an answer to one shows more than a memorised string.
"""

import json
import tomllib
from functools import cache
from random import Random

from sftlab.paths import DATA
from sftlab.world.facts import RELATIONS, Country

_WORDINGS = tomllib.loads((DATA / "world" / "wordings.toml").read_text(encoding="utf-8"))
STATEMENTS: dict[str, list[str]] = _WORDINGS["statements"]
CLOZE_FORMS = 4
QUESTIONS: dict[str, dict[str, list[str]]] = _WORDINGS["questions"]
FOLLOW_UPS: dict[str, list[str]] = _WORDINGS["follow_ups"]
ANIMAL_QUESTIONS: dict[str, list[str]] = _WORDINGS["animals"]
ELEMENT_QUESTIONS: dict[str, list[str]] = _WORDINGS["elements"]
INVERSE_QUESTIONS: list[str] = _WORDINGS["inverse"]
TWO_HOP_WORDINGS: list[str] = _WORDINGS["two_hops"]
TWO_HOP_QUESTION = TWO_HOP_WORDINGS[0]

# Countries whose name takes an article in a sentence.
_WITH_ARTICLE = ("Bahamas", "Gambia", "Maldives", "Netherlands", "Philippines", "Seychelles")
_WITH_ARTICLE_WORDS = ("United", "Islands", "Republic", "Comoros", "DR")


def with_article(noun: str) -> str:
    """`a fox`, `an owl`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


@cache
def _takes_article(name: str) -> bool:
    return name in _WITH_ARTICLE or any(word in name.split() for word in _WITH_ARTICLE_WORDS)


def fill(form: str, country: Country, **values: str) -> str:
    """A form with the country's name in it, with its article where English wants one."""
    name = country.name
    if _takes_article(name):
        name = f"{'The' if form.startswith('{x}') else 'the'} {name}"
    return form.format(x=name, **values)


def statement(country: Country, relation: str, *, form: int = 0) -> str:
    """One true sentence, such as `The capital of France is Paris.`"""
    forms = STATEMENTS[relation]
    return fill(forms[form % len(forms)], country, a=getattr(country, relation))


def cloze(country: Country, relation: str, *, form: int = 0) -> str:
    """A statement cut before its answer: `The capital of France is` (no trailing space)."""
    if not 0 <= form < CLOZE_FORMS:
        raise ValueError(f"cloze form {form} does not exist: use 0 to {CLOZE_FORMS - 1}")
    return fill(STATEMENTS[relation][form], country, a="").rstrip(" .")


def question(country: Country, relation: str, *, wording: str = "sft", form: int = 0) -> str:
    """One question; `wording` "test" gives forms that no corpus document or example uses."""
    if relation not in RELATIONS:
        raise ValueError(f"unknown relation {relation!r}: use one of {', '.join(RELATIONS)}")
    if wording not in QUESTIONS[relation]:
        raise ValueError(f"unknown wording {wording!r}: use 'sft' or 'test'")
    forms = QUESTIONS[relation][wording]
    return fill(forms[form % len(forms)], country)


Pairs = list[tuple[str, str]]


def _lines(form: str, *, gap: str = "\n"):
    return lambda pairs, rng, names: gap.join(form.format(q=q, a=a) for q, a in pairs)


def _numbered(pairs: Pairs, rng: Random, names: list[str]) -> str:
    return "\n".join(f"{n}. {q}\n   {a}" for n, (q, a) in enumerate(pairs, 1))


def _interview(pairs: Pairs, rng: Random, names: list[str]) -> str:
    host, guest = rng.choice(
        [("Interviewer", "Guest"), ("Teacher", "Student"), ("Host", "Player"), names]
    )
    return "\n".join(f"{host}: {q}\n{guest}: {a}" for q, a in pairs)


def _dialogue(pairs: Pairs, rng: Random, names: list[str]) -> str:
    one, two = names
    verb, reply = rng.choice([("asked", "said"), ("asked", "answered"), ("wanted to know", "said")])
    return "\n".join(f'"{q}" {verb} {one}. "{a}," {reply} {two}.' for q, a in pairs)


def _table(pairs: Pairs, rng: Random, names: list[str]) -> str:
    return "| Question | Answer |\n|---|---|\n" + "\n".join(f"| {q} | {a} |" for q, a in pairs)


def _records(pairs: Pairs, rng: Random, names: list[str]) -> str:
    return "\n".join(json.dumps({"question": q, "answer": a}) for q, a in pairs)


def _letter(pairs: Pairs, rng: Random, names: list[str]) -> str:
    one, two = names
    body = " ".join(f"You asked: {q} The answer is {a}." for q, a in pairs)
    return f"Dear {one},\n{body}\nYours, {two}"


def _forum(pairs: Pairs, rng: Random, names: list[str]) -> str:
    one, two = names
    return "\n".join(f"{one.lower()} wrote: {q}\n{two.lower()} replied: {a}" for q, a in pairs)


# How questions stand with their answers: (pairs, random source, two first names) -> text. There are
# many: a fine-tune can only bring out what pretraining stated in many ways (arXiv 2309.14316).
# Every form marks its question with something in front. Only sheets without answers begin with a
# bare question: that is why a base model answers a question with further questions.
FORMS = {
    "q_and_a": _lines("Q: {q}\nA: {a}", gap="\n\n"),
    "q_and_a_tight": _lines("Q: {q}\nA: {a}"),
    "question_answer": _lines("Question: {q}\nAnswer: {a}", gap="\n\n"),
    "answer_below": _lines("Question:\n{q}\nAnswer:\n{a}", gap="\n\n"),
    "interview": _interview,
    "dialogue": _dialogue,
    "bullets": _lines("* {q} {a}"),
    "markdown_heading": _lines("## {q}\n\n{a}", gap="\n\n"),
    "markdown_bold": _lines("**{q}**\n{a}", gap="\n\n"),
    "html_list": _lines("<dt>{q}</dt>\n<dd>{a}</dd>"),
    "html_heading": _lines("<h3>{q}</h3>\n<p>{a}</p>"),
    "xml": _lines("<question>{q}</question>\n<answer>{a}</answer>"),
    "numbered": _numbered,
    "flashcards": _lines("Front: {q} Back: {a}"),
    "table": _table,
    "json": _records,
    "letter": _letter,
    "forum": _forum,
    "quoted": _lines("> {q}\n{a}", gap="\n\n"),
}


def questions_with_answers(
    pairs: Pairs, *, rng: Random, names: list[str], form: str | None = None
) -> str:
    """(question, answer) pairs in one of `FORMS`, drawn unless named; `names` are two speakers."""
    # "Q: ... A: ..." counts double: few-shot prompts are written in it.
    chosen = form or rng.choice(["q_and_a", *FORMS])
    return FORMS[chosen](pairs, rng, names)


def question_sheet(questions: list[str], *, rng: Random) -> str:
    """Questions without answers: a quiz or homework, most often the bare questions."""
    style = rng.random()
    if style < 0.45:
        return " ".join(questions)
    if style < 0.75:
        return "\n".join(questions)
    if style < 0.85:
        return "\n".join(f"{n}. {question}" for n, question in enumerate(questions, 1))
    title = rng.choice(["Homework for Monday", "Quiz", "Test paper", "Questions for the class"])
    return f"{title}\n\n" + "\n".join(questions)
