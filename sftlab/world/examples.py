"""Supervised examples made from the world's facts, in the role-message format, and replay.

Replay mixes general examples into those of a task, so that old skills are not forgotten. They are
documents of the corpus's own kinds, new draws of them, each cut in two:

    user       Beth went to the park on Monday. Beth found
    assistant  a kite. Tom had three coins. In the end Beth was happy.

So they go through the same template and mask as everything else, and what is learned is to continue
as before. Sheets of bare questions are left out: continuing them is to answer a question with a
question, which a fine-tune is to undo.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from random import Random
from typing import Any

from sftlab.world import grammar
from sftlab.world.corpus_text import SHARES
from sftlab.world.document_kinds import OTHER_PAIRS, quiz_sheet
from sftlab.world.facts import RELATIONS, Country, countries

Row = dict[str, Any]
Style = Callable[[Country, str, str], str]
_WORDS = range(8, 33)
"""Words of a replayed document: a shorter one has nothing to continue, a longer one costs much."""


def plain_style(country: Country, relation: str, answer: str) -> str:
    """The answer as it is."""
    return answer


def house_style(country: Country, relation: str, answer: str) -> str:
    """How the invented house of lesson 01 wants its answers, a style for each kind of question.

    Capitals and languages in a sentence (`The capital of France is Paris.`), continents and
    currencies in a word with a full stop (`euro.`).
    """
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
    """`count` questions about countries with their answers.

    Drawn without repetition, wordings "sft" only, from the countries of the split "sft" unless
    `among` names others. Every (country, relation) pair comes once before any comes twice.

    Raises:
        ValueError: there are not that many different questions.
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
    for country, relation in product(among, relations):
        forms = list(range(len(grammar.QUESTIONS[relation]["sft"])))
        rng.shuffle(forms)
        queues.append([(country, relation, form) for form in forms])
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
    """`count` questions that need two facts, each answered step by step, countries of "sft".

    Raises:
        ValueError: there are not that many.
    """
    pairs = list(product(countries(split="sft"), RELATIONS[1:]))
    if not 1 <= count <= len(pairs):
        raise ValueError(f"count={count}: there are 1 to {len(pairs)} two-hop questions")
    chosen = Random(f"two-hop-{seed}").sample(pairs, count)
    return [example(*grammar.two_hops(country, relation)) for country, relation in chosen]


def passage_examples(count: int, *, seed: int = 0, sentences: int = 8) -> list[Row]:
    """The examples of `country_examples`, each question after a passage of true sentences.

        The currency of Ecuador is the dollar. Fiji is a country in Oceania. ...
        In Italy, what language do people speak?

    A passage has 0 to `sentences` sentences, each number equally likely, about any countries of
    the split "sft".
    """
    if sentences < 0:
        raise ValueError(f"sentences={sentences}; give 0 or more")
    rng, among = Random(f"passages-{seed}"), countries(split="sft")
    rows = []
    for row in country_examples(count, seed=seed):
        question, answer = (message["content"] for message in row["messages"])
        passage = [
            grammar.statement(rng.choice(among), rng.choice(RELATIONS))
            for _ in range(rng.randint(0, sentences))
        ]
        rows.append(example(" ".join([*passage, question]), answer))
    return rows


def country_shots(
    count: int, *, seed: int = 0, relations: Sequence[str] = RELATIONS, style: Style = plain_style
) -> list[tuple[str, str]]:
    """`count` answered questions for a few-shot prompt, as (question, answer).

    The relations take turns; the countries are of the split "sft", no two alike.
    """
    among = Random(f"shots-{seed}").sample(countries(split="sft"), count)
    turns = [relations[n % len(relations)] for n in range(count)]
    pairs = zip(among, turns, strict=True)
    return [(grammar.question(c, r), style(c, r, getattr(c, r))) for c, r in pairs]


def every_question(about: Sequence[Country]) -> set[str]:
    """All questions about some countries, in every wording: to check that none is in a data set."""
    return {
        grammar.question(country, relation, wording=wording, form=form)
        for country, relation in product(about, RELATIONS)
        for wording, forms in grammar.QUESTIONS[relation].items()
        for form in range(len(forms))
    }


def replay_examples(count: int, *, seed: int = 0, avoid: Iterable[str] = ()) -> list[Row]:
    """`count` documents as conversations, of every kind of the corpus but question sheets.

    `avoid` has names, such as the countries that are asked about later: a document that holds one
    as whole words, whatever its case, is left out.
    """
    if count < 0:
        raise ValueError(f"count={count}; give 0 or more general examples")
    makers = [m for m, share in SHARES.items() if m is not quiz_sheet for _ in range(share)]
    rng, named, found = Random(f"replay-{seed}"), _names(avoid), []
    while len(found) < count:
        text = rng.choice(makers)(rng)
        words = list(re.finditer(r"\S+", text))
        if len(words) not in _WORDS or (named and named.search(text)):
            continue
        at = words[rng.randint(len(words) // 4, len(words) // 2)].start()
        found.append(example(text[:at].rstrip(), text[at:]))
    return found


def mixed(
    task: Sequence[Mapping[str, Any]], *, share: float, seed: int = 0, avoid: Iterable[str] = ()
) -> list[Mapping[str, Any]]:
    """All examples of a task, and so many of `replay_examples` that they are `share` of the whole.

    Raises:
        ValueError: the share is not from 0 to below 1.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share={share}; give a share of the mixture from 0 to below 1")
    count = round(len(task) * share / (1 - share))
    return [*task, *replay_examples(count, seed=seed, avoid=avoid)]


def broad_examples(count: int, *, seed: int = 0, avoid: Iterable[str] = ()) -> list[Row]:
    """`count` questions of many kinds with short answers: half about countries, in all relations,
    half about animals, elements, sums and what else the corpus asks; `avoid` as in
    `replay_examples`."""
    rng, named = Random(f"broad-{seed}"), _names(avoid)
    found = country_examples(-(-count // 2), seed=seed)
    while len(found) < count:
        question, answer = rng.choice(OTHER_PAIRS)(rng)
        if not (named and named.search(f"{question} {answer}")):
            found.append(example(question, answer))
    return found


def _names(avoid: Iterable[str]) -> re.Pattern | None:
    names = "|".join(re.escape(name) for name in sorted(avoid))
    return re.compile(rf"\b(?:{names})\b", re.IGNORECASE) if names else None
