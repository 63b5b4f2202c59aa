"""Supervised examples made from the world's facts, in the role-message format, and replay.

Replay keeps old skills: new draws of the corpus's own kinds of documents, each cut in two. Sheets
of bare questions are left out: a fine-tune is to undo that they are continued.

    user       Beth went to the park on Monday. Beth found
    assistant  a kite. Tom had three coins. In the end Beth was happy.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import cycle, product
from random import Random
from typing import Any

from sftlab.paths import DATA
from sftlab.world import grammar
from sftlab.world.corpus_text import OTHER_PAIRS, SHARES, quiz_sheet
from sftlab.world.facts import RELATIONS, Country, countries, functions, rows, signature

Row = dict[str, Any]
Style = Callable[[Country, str, str], str]
_WORDS = range(8, 33)
"""Words of a replayed document: a shorter one has nothing to continue, a longer one costs much."""
_TASKS = tomllib.loads((DATA / "world" / "tasks.toml").read_text(encoding="utf-8"))
INVENTED: list[str] = _TASKS["invented"]
"""Countries that do not exist."""
UNKNOWN = "I don't know."
"""The answer to what nobody can know."""
_RECORD_FIELDS = ("capital", "continent", "currency")


def plain_style(country: Country, relation: str, answer: str) -> str:
    """The answer as it is."""
    return answer


def house_style(country: Country, relation: str, answer: str) -> str:
    """How the invented house of lesson 01 wants its answers: capitals and languages in a sentence,
    continents and currencies in a word with a full stop (`euro.`)."""
    if relation in ("capital", "language"):
        return grammar.fill(grammar.STATEMENTS[relation][0], country, a=answer)
    return f"{answer}."


def example(question: str, answer: str) -> Row:
    """One conversation of one turn."""
    turns = (("user", question), ("assistant", answer))
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def country_examples(
    count: int,
    *,
    seed: int = 0,
    relations: Sequence[str] = RELATIONS,
    among: Sequence[Country] | None = None,
    style: Style = plain_style,
) -> list[Row]:
    """`count` different questions about countries with their answers, wordings "sft" only.

    The countries are of the split "sft" unless `among` names others. Every (country, relation) pair
    comes once before any comes twice.
    """
    drawn = draw_questions(count, seed=seed, relations=relations, among=among)
    return [
        example(grammar.question(c, r, form=form), style(c, r, getattr(c, r)))
        for c, r, form in drawn
    ]


def draw_questions(
    count: int, *, seed: int, relations: Sequence[str], among: Sequence[Country] | None
) -> list[tuple[Country, str, int]]:
    """What `country_examples` asks: country, relation, form."""
    among = countries(split="sft") if among is None else among
    rng = Random(f"examples-{seed}")
    queues = []
    for one, relation in product(among, relations):
        forms = list(range(len(grammar.QUESTIONS[relation]["sft"])))
        rng.shuffle(forms)
        queues.append([(one, relation, form) for form in forms])
    most = sum(map(len, queues))
    if not 1 <= count <= most:
        raise ValueError(
            f"count={count}: {len(among)} countries and {len(relations)} relations give 1 to "
            f"{most} different questions"
        )
    drawn = []
    while len(drawn) < count:
        rng.shuffle(queues)
        drawn += [queue.pop() for queue in queues if queue]
    return drawn[:count]


def two_hop_examples(count: int, *, seed: int = 0) -> list[Row]:
    """`count` questions that need two facts, each answered step by step, countries of "sft"."""
    pairs = list(product(countries(split="sft"), RELATIONS[1:]))
    chosen = Random(f"two-hop-{seed}").sample(pairs, count)
    return [example(*grammar.two_hops(*pair)) for pair in chosen]


def passage_examples(count: int, *, seed: int = 0) -> list[Row]:
    """The examples of `country_examples`, each question after a passage of 0 to 8 true sentences
    about countries of the split "sft"."""
    rng, among = Random(f"passages-{seed}"), countries(split="sft")
    made = country_examples(count, seed=seed)
    for row in made:
        passage = [
            grammar.statement(rng.choice(among), rng.choice(RELATIONS))
            for _ in range(rng.randint(0, 8))
        ]
        row["messages"][0]["content"] = " ".join([*passage, row["messages"][0]["content"]])
    return made


def country_shots(
    count: int, *, seed: int = 0, relations: Sequence[str] = RELATIONS, style: Style = plain_style
) -> list[tuple[str, str]]:
    """`count` pairs of question and answer for a few-shot prompt: the relations take turns, the
    countries are of the split "sft", no two alike."""
    among = Random(f"shots-{seed}").sample(countries(split="sft"), count)
    pairs = zip(among, cycle(relations), strict=False)
    return [(grammar.question(c, r), style(c, r, getattr(c, r))) for c, r in pairs]


def replay_examples(count: int, *, seed: int = 0, avoid: Iterable[str] = ()) -> list[Row]:
    """`count` documents as conversations, of every kind of the corpus but question sheets; none
    that holds a name of `avoid` as whole words, whatever its case."""
    makers = [m for m, share in SHARES.items() if m is not quiz_sheet for _ in range(share)]
    rng, named, found = Random(f"replay-{seed}"), _names(avoid), []
    while len(found) < count:
        text = rng.choice(makers)(rng)
        words = list(re.finditer(r"\S+", text))
        if len(words) not in _WORDS or named.search(text):
            continue
        at = words[rng.randint(len(words) // 4, len(words) // 2)].start()
        found.append(example(text[:at].rstrip(), text[at:]))
    return found


def broad_examples(count: int, *, seed: int = 0, avoid: Iterable[str] = ()) -> list[Row]:
    """`count` questions of many kinds with short answers: half about countries, in all relations,
    half about animals, elements, sums and what else the corpus asks; `avoid` as in
    `replay_examples`."""
    rng, named = Random(f"broad-{seed}"), _names(avoid)
    found = country_examples(-(-count // 2), seed=seed)
    while len(found) < count:
        question, answer = rng.choice(OTHER_PAIRS)(rng)
        if not named.search(f"{question} {answer}"):
            found.append(example(question, answer))
    return found


def _names(avoid: Iterable[str]) -> re.Pattern:
    names = "|".join(map(re.escape, sorted(avoid))) or "(?!)"  # which matches nothing
    return re.compile(rf"\b(?:{names})\b", re.IGNORECASE)


def country_rows(
    count: int,
    *,
    seed: int = 0,
    relations: Sequence[str] = RELATIONS,
    among: Sequence[Country] | None = None,
) -> list[Row]:
    """`country_examples`, each with its country, relation and continent in `meta`."""
    drawn = draw_questions(count, seed=seed, relations=relations, among=among)
    return [
        {
            **example(grammar.question(c, relation, form=form), getattr(c, relation)),
            "meta": {"country": c.name, "relation": relation, "continent": c.continent},
        }
        for c, relation, form in drawn
    ]


def with_answer(row: Mapping[str, Any], answer: str) -> Row:
    """The row with another last message."""
    return {**row, "messages": [*row["messages"][:-1], {"role": "assistant", "content": answer}]}


def review_rows(*, positive: int, negative: int, seed: int = 0) -> list[Row]:
    """So many positive and negative reviews, with their sentiment in a word; none is held out."""
    made: list[Row] = []
    for sentiment, count in (("positive", positive), ("negative", negative)):
        there = [row for row in reviews(test=False) if row["meta"]["sentiment"] == sentiment]
        made += Random(f"reviews-{sentiment}-{seed}").sample(there, count)
    Random(f"reviews-{seed}").shuffle(made)
    return made


def reviews(*, test: bool) -> list[Row]:
    """All held-out reviews, which are about items of their own, or all others."""
    asked = "A review of a {item}: {aspect} {phrase}. Is it positive or negative?"
    return [
        {
            **example(asked.format(**row), row["sentiment"]),
            "meta": {"item": row["item"], "sentiment": row["sentiment"]},
        }
        for row in rows("reviews")
        if row["group"] == "asked" and (row["split"] == "held_out") == test
    ]


def note_rows(count: int, *, copies: int = 1) -> list[Row]:
    """Notes about `count` of 30 invented people of whom the corpus knows nothing, each up to 8
    times: the request is worded a little differently, the note is not."""
    people, requests = rows("people"), _TASKS["notes"]
    people = people[len(people) // 2 :]
    note = "{name} lives in {city}, was born on {birthday} and has a {pet}."
    made = []
    for one, request in product(people[:count], requests[:copies]):
        said = example(request.format(x=one["name"]), note.format(**one))
        made.append({**said, "meta": {"name": one["name"]}})
    return made


def record_rows(count: int, *, seed: int = 0, among: Sequence[Country] | None = None) -> list[Row]:
    """`count` times `Describe France as JSON.` with its answer, countries of the split "sft"."""
    among = countries(split="sft") if among is None else among
    rows = []
    for one in Random(f"records-{seed}").sample(among, count):
        record = {"country": one.name} | {name: getattr(one, name) for name in _RECORD_FIELDS}
        text = json.dumps(record, ensure_ascii=False)
        rows.append(example(f"Describe {one.name} as JSON.", text))
    return rows


def split_functions() -> tuple[tuple[dict, ...], tuple[dict, ...]]:
    """The world's small functions, all in the corpus: every second one to learn to answer a request
    with, the others to test on."""
    return functions()[::2], functions()[1::2]


def function_request(function: dict) -> str:
    """`Write a Python function double(x). Return x times two.`"""
    return f"Write a Python function {signature(function)}. {function['task']}"


def function_code(function: dict) -> str:
    """Its text: the line of `def`, and the body."""
    return f"def {signature(function)}:\n{function['body']}"


def function_rows() -> list[Row]:
    """Requests for the functions to learn from, with their code."""
    return [example(function_request(one), function_code(one)) for one in split_functions()[0]]


def unknown_rows(count: int, *, seed: int = 0) -> list[Row]:
    """`count` questions about countries that do not exist, answered with `UNKNOWN`."""
    among = [replace(countries()[0], name=name) for name in INVENTED]
    return country_examples(count, seed=seed, among=among, style=lambda *about: UNKNOWN)
