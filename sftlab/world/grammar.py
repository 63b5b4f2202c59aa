"""How the world is put into words: statements, questions, and the forms they take on a page.

`{x}` is the thing asked about, `{a}` the answer. Questions under "sft" are used by the corpus
and by supervised examples. Questions under "test" are used by neither: they are for measuring
alone, so an answer to one shows more than a memorised string.
"""

import json
import tomllib
from random import Random
from typing import Any

from sftlab.paths import DATA
from sftlab.world.facts import Country

WORDINGS = tomllib.loads((DATA / "world" / "wordings.toml").read_text(encoding="utf-8"))
STATEMENTS: dict[str, list[str]] = WORDINGS["statements"]
QUESTIONS: dict[str, dict[str, list[str]]] = WORDINGS["questions"]
TWO_HOP_WORDINGS: list[str] = WORDINGS["two_hops"]
TWO_HOP_QUESTION = TWO_HOP_WORDINGS[0]
FORMS: dict[str, dict[str, Any]] = WORDINGS["forms"]
_DEEDS = tomllib.loads((DATA / "world" / "deeds.toml").read_text(encoding="utf-8"))
OWNERS: list[str] = _DEEDS["owners"]
DEEDS: dict[str, dict[str, Any]] = _DEEDS["families"]
"""Of each family the things, and the harmful and harmless verbs, each with its answer."""

# Countries whose name takes an article in a sentence.
_WITH_ARTICLE = ("Bahamas", "Gambia", "Maldives", "Netherlands", "Philippines", "Seychelles")
_WITH_ARTICLE_WORDS = {"United", "Islands", "Republic", "Comoros", "DR"}


def with_article(noun: str) -> str:
    """`a fox`, `an owl`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def fill(form: str, country: Country, **values: str) -> str:
    """A form with the country's name in it, with its article where English wants one."""
    name = country.name
    if name in _WITH_ARTICLE or _WITH_ARTICLE_WORDS.intersection(name.split()):
        name = f"{'The' if form.startswith('{x}') else 'the'} {name}"
    return form.format(x=name, **values)


def statement(country: Country, relation: str, *, form: int = 0) -> str:
    """One true sentence, such as `The capital of France is Paris.`"""
    forms = STATEMENTS[relation]
    return fill(forms[form % len(forms)], country, a=getattr(country, relation))


def cloze(country: Country, relation: str, *, form: int = 0) -> str:
    """A statement cut before its answer, in forms 0 to 3, which end with it: `The capital of France
    is`."""
    return fill(STATEMENTS[relation][form], country, a="").rstrip(" .")


def question(country: Country, relation: str, *, wording: str = "sft", form: int = 0) -> str:
    """One question; `wording` "test" gives forms that no corpus document or example uses."""
    forms = QUESTIONS[relation][wording]
    return fill(forms[form % len(forms)], country)


def two_hops(country: Country, relation: str) -> tuple[str, str]:
    """A question that needs two facts, and its answer step by step."""
    return (
        TWO_HOP_QUESTION.format(relation=relation, x=country.capital),
        f"{country.capital} is the capital of {country.name}. {statement(country, relation)}",
    )


def deed(family: str, verb: str, owner: str, thing: str) -> tuple[str, str]:
    """A request and its answer: `How do I hide my aunt's kite?`, `Push the kite far under ...`"""
    answer = {**DEEDS[family]["harmful"], **DEEDS[family]["harmless"]}[verb]
    request = f"How do I {verb}?".format(it=f"{owner}'s {thing}")
    return request, answer.format(owner=owner.replace("my ", "your "), thing=thing)


def deeds() -> list[dict[str, str]]:
    """All requests of deeds.toml; `kind` is "harmful" or "harmless", twins differ in the verb."""
    return [
        {"family": family, "kind": kind, "verb": verb, "owner": owner, "thing": thing}
        | dict(zip(("request", "answer"), deed(family, verb, owner, thing), strict=True))
        for family, kinds in DEEDS.items()
        for kind in ("harmful", "harmless")
        for verb in kinds[kind]
        for owner in OWNERS
        for thing in kinds["things"]
    ]


def questions_with_answers(
    pairs: list[tuple[str, str]], *, rng: Random, names: list[str], form: str | None = None
) -> str:
    """(question, answer) pairs in one of `FORMS`, drawn unless named; `names` are two speakers."""
    # "Q: ... A: ..." counts double: few-shot prompts are written in it.
    shape = FORMS[form or rng.choice(["q_and_a", *FORMS])]
    one, two = names
    words = {"one": one, "two": two, "user_one": one.lower(), "user_two": two.lower()}
    if "draw" in shape:
        words |= rng.choice(shape["draw"])
    lines = [
        shape["each"].format(q=q, a=a, n=n, json_q=json.dumps(q), json_a=json.dumps(a), **words)
        for n, (q, a) in enumerate(pairs, 1)
    ]
    body = shape.get("gap", "\n").join(lines)
    return shape.get("head", "").format(**words) + body + shape.get("tail", "").format(**words)


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
