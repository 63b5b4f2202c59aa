"""The surface forms of questions: with their answers, and as unanswered sheets.

A fine-tune can only bring out what pretraining stated in many ways (arXiv 2309.14316), so each
answered question of the corpus takes one of many forms. Every form marks its question with
something in front. Only unanswered sheets begin with a bare question: that is why a base model
goes on asking when it is asked.
"""

import json
from random import Random

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


# Each form: pairs, random source, two first names -> text.
ANSWERED = {
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


def answered(pairs: Pairs, *, rng: Random, names: list[str], form: str | None = None) -> str:
    """Questions with their answers in one surface form, chosen at random unless named.

    `pairs` holds (question, answer) strings; `names` two first names for forms with speakers.
    Raises ValueError for a form that is not in `ANSWERED`.
    """
    if form is not None and form not in ANSWERED:
        raise ValueError(f"unknown surface form {form!r}: use one of {', '.join(ANSWERED)}")
    # "Q: ... A: ..." counts double: few-shot prompts are written in it.
    chosen = form or rng.choice(["q_and_a", *ANSWERED])
    return ANSWERED[chosen](pairs, rng, names)


def unanswered(questions: list[str], *, rng: Random) -> str:
    """A quiz sheet or homework: questions without answers, most often bare."""
    style = rng.random()
    if style < 0.45:
        return " ".join(questions)
    if style < 0.75:
        return "\n".join(questions)
    if style < 0.85:
        return "\n".join(f"{n}. {question}" for n, question in enumerate(questions, 1))
    title = rng.choice(["Homework for Monday", "Quiz", "Test paper", "Questions for the class"])
    return f"{title}\n\n" + "\n".join(questions)
