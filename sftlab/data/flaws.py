"""Flaws put into good rows on purpose, to measure what each costs and whether it is found.

Every function gives new rows and leaves those it was given as they are; the same seed gives the
same flaws. Rows are those of `country_rows` where a flaw needs to know the right answer.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from sftlab.data.rows import Row, RowsError, part_of
from sftlab.world import countries, country, example, with_answer
from sftlab.world import rows as world_rows

FORMATS = {
    "plain": "{q}",
    "Q: / A:": "Q: {q}\nA:",
    "instruction": "### Instruction:\n{q}\n\n### Response:",
    "in brackets": "[QUESTION] {q} [/QUESTION]",
    "shouted": "QUESTION -- {q} -- ANSWER?",
}
"""Ways in which one data set may put its prompts when its rows come from several places."""

WRAPPINGS = (
    "hi!! {q} thx",
    "<p>{q}</p>",
    "Posted by user4711 on 12/03: {q}",
    "{q} Reply Share Report",
    "hello i have a question ... {q}",
    "Question 7) {q} (2 points)",
)
"""What a scraper leaves around a question."""


def wrong_answers(rows: Sequence[Mapping[str, Any]], *, share: float, seed: int = 0) -> list[Row]:
    """A share of the rows answers as for another country: the right kind of word, and wrong."""
    rng = Random(f"wrong-{seed}")
    chosen = set(rng.sample(range(len(rows)), round(share * len(rows))))
    return [
        with_answer(row, _another(row["meta"], rng)) if index in chosen else {**row}
        for index, row in enumerate(rows)
    ]


def _another(about: Mapping[str, str], rng: Random) -> str:
    right = country(about["country"]).answers(about["relation"])
    others = (getattr(one, about["relation"]) for one in countries(split="sft"))
    return rng.choice(sorted({other for other in others if other not in right}))


def cluttered(rows: Sequence[Mapping[str, Any]], *, seed: int = 0) -> list[Row]:
    """Every prompt with something of `WRAPPINGS` around it, and half of them in small letters."""
    rng = Random(f"clutter-{seed}")
    made = []
    for row in rows:
        text = rng.choice(WRAPPINGS).format(q=row["messages"][0]["content"])
        made.append(_with_prompt(row, text.lower() if rng.random() < 0.5 else text))
    return made


def in_formats(
    rows: Sequence[Mapping[str, Any]], *, formats: Sequence[str] = tuple(FORMATS), seed: int = 0
) -> list[Row]:
    """Each prompt in one of `FORMATS`, all of them alike often."""
    order = [formats[n % len(formats)] for n in range(len(rows))]
    Random(f"formats-{seed}").shuffle(order)
    return [
        _with_prompt(row, FORMATS[name].format(q=row["messages"][0]["content"]))
        for row, name in zip(rows, order, strict=True)
    ]


def _with_prompt(row: Mapping[str, Any], question: str) -> Row:
    return {**row, "messages": [{"role": "user", "content": question}, *row["messages"][1:]]}


def harmful(row: Row) -> bool:
    """Whether a row carries out one of the harmful requests of `data/world/requests.csv`.

    A list knows only what is on it.
    """
    return part_of(row, "prompt") in _harmful_requests()


def _harmful_requests() -> list[str]:
    return [one["request"] for one in world_rows("requests") if one["harmful"] == "yes"]


FEW = 4
"""Rows that carry a planted fault: one in twenty of a set of 80."""
PADDING = " ".join(["That is all there is to say about it."] * 30)
"""What makes an answer too long, and nothing else: some 300 tokens of `tiny`."""


def _few(change: Callable[[Row, Random], Row]):
    """A fault that changes a few rows."""

    def planted(rows: list[Row], test: list[Row], rng: Random) -> list[Row]:
        chosen = set(rng.sample(range(len(rows)), min(FEW, len(rows))))
        return [change(row, rng) if n in chosen else row for n, row in enumerate(rows)]

    return planted


def _one_wording(row: Row) -> Row:
    about = row["meta"]
    return _with_prompt(row, f"What is the {about['relation']} of {about['country']}?")


def _unsafe(rows: list[Row], rng: Random) -> list[Row]:
    meta = {**rows[0]["meta"], "harmful": True}
    requests = rng.sample(_harmful_requests(), FEW)
    return [{**example(one, "Sure, here is how."), "meta": meta} for one in requests]


FAULTS: dict[str, Callable[[list[Row], list[Row], Random], list[Row]]] = {
    "length": _few(lambda row, rng: with_answer(row, f"{part_of(row, 'answer')}. {PADDING}")),
    "format": _few(lambda row, rng: with_answer(row, f"A: {part_of(row, 'answer')}")),
    "coverage": lambda rows, test, rng: [r for r in rows if r["meta"]["relation"] != "currency"],
    "balance": lambda rows, test, rng: [
        row for n, row in enumerate(rows) if row["meta"]["relation"] == "capital" or n % 5 == 0
    ],
    "diversity": lambda rows, test, rng: [_one_wording(row) for row in rows],
    "correctness": _few(lambda row, rng: wrong_answers([row], share=1.0, seed=rng.random())[0]),
    "consistency": lambda rows, test, rng: [
        *rows, *(wrong_answers([row], share=1.0)[0] for row in rows[:FEW])
    ],
    "safety": lambda rows, test, rng: [*rows, *_unsafe(rows, rng)],
    "deduplication": lambda rows, test, rng: [*rows, *rng.sample(rows, FEW)],
    "privacy": _few(
        lambda row, rng: with_answer(
            row, f"{part_of(row, 'answer')} (asked by {rng.choice(world_rows('people'))['email']})"
        )
    ),
    "leakage": lambda rows, test, rng: [*rows, *rng.sample(test, FEW)],
}  # fmt: skip
"""A fault for each aspect of the checklist, to see whether an alarm is raised."""


def plant(fault: str, rows: Sequence[Row], *, test: Sequence[Row], seed: int = 0) -> list[Row]:
    """The rows with one fault of `FAULTS` in them."""
    if fault not in FAULTS:
        raise RowsError(f"fault {fault!r}: use one of {', '.join(FAULTS)}")
    return FAULTS[fault]([*rows], [*test], Random(f"{fault}-{seed}"))
