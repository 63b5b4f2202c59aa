"""The pretraining corpus: its kinds of documents, and every document made again from its seed.

The corpus is never shipped. It is the first `DOCUMENTS` documents of the stream of seed 0, its
hash is recorded in `data/world/corpus.json`, and a copy is kept in the cache when first needed.
The random numbers that a kind of document draws, and their order, are part of that hash.
"""

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from itertools import islice, repeat
from random import Random

from sftlab.paths import DATA, cache_folder, write_atomically
from sftlab.world import facts, grammar
from sftlab.world.facts import RELATIONS
from sftlab.world.grammar import QUESTIONS, WORDINGS, question_sheet, questions_with_answers

SEED = 0
DOCUMENTS = 220_000
HELD_OUT_SEED = 1
SEPARATOR = "\x1e"  # never inside a document, so a match cannot run across two

_ASKED = facts.countries(group="asked")
_SEEN = tuple(country for country in facts.countries() if country.group != "unseen")
_LINES: dict[str, list[str]] = WORDINGS["lines"]

# Only the first half of the invented people is in the corpus: the others are for tests of
# memorisation, where the model must not know them beforehand.
_KNOWN_PEOPLE = 30
_NUMBER_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()


def _names(rng: Random) -> list[str]:
    return rng.sample(facts.story_words()["names"], 2)


def _country_pair(rng: Random, relation: str, style: float) -> tuple[str, str]:
    """A question with an answer as it stands in a document: mostly short, sometimes a sentence."""
    country = rng.choice(_ASKED)
    question = grammar.question(
        country, relation, form=rng.randrange(len(QUESTIONS[relation]["sft"]))
    )
    if style >= 0.92:
        return question, grammar.statement(country, relation)
    return question, getattr(country, relation) + ("" if style < 0.8 else ".")


def _yes_no_pair(rng: Random) -> tuple[str, str]:
    country, relation = rng.choice(_ASKED), rng.choice(RELATIONS)
    right = getattr(country, relation)
    offered = right if rng.random() < 0.5 else getattr(rng.choice(_ASKED), relation)
    link = "the " if relation == "currency" else ""
    form = f"Is {link}{offered} the {relation} of {{x}}?"
    return grammar.fill(form, country), "yes" if offered in country.answers(relation) else "no"


def _inverse_pair(rng: Random) -> tuple[str, str]:
    country = rng.choice(_ASKED)
    return rng.choice(WORDINGS["inverse"]).format(x=country.capital), country.name


def _animal_pair(rng: Random) -> tuple[str, str]:
    animal, field = rng.choice(facts.rows("animals")), rng.choice(["kind", "food", "sound"])
    form = rng.choice(WORDINGS["animals"][field])
    question = form.format(x=grammar.with_article(animal["animal"]))
    return question, f"it {animal['sound']}" if field == "sound" else animal[field]


def _element(rng: Random) -> dict[str, str]:
    """A chemical element; light ones come up often and heavy ones rarely."""
    elements = facts.rows("elements")
    return elements[int(len(elements) * rng.random() ** 2)]


def _element_pair(rng: Random) -> tuple[str, str]:
    element, field = _element(rng), rng.choice(["symbol", "number"])
    return rng.choice(WORDINGS["elements"][field]).format(x=element["element"]), element[field]


def _sum_pair(rng: Random) -> tuple[str, str]:
    a, b = rng.randrange(10), rng.randrange(10)
    return f"What is {a} + {b}?", str(a + b)


OTHER_PAIRS = [_animal_pair, _animal_pair, _element_pair, _yes_no_pair, _inverse_pair, _sum_pair]


def questions_answered(rng: Random) -> str:
    """Two to eight questions with answers, of one topic or mixed, in one surface form."""
    count, style, topic = rng.randint(2, 8), rng.random(), rng.random()
    relation = rng.choice(RELATIONS)
    pairs = [
        rng.choice(OTHER_PAIRS)(rng)
        if topic >= 0.8
        else _country_pair(rng, relation if topic < 0.4 else rng.choice(RELATIONS), style)
        for _ in range(count)
    ]
    return questions_with_answers(pairs, rng=rng, names=_names(rng))


def follow_ups(rng: Random) -> str:
    """A question about a country, then others that leave its name out."""
    country = rng.choice(_ASKED)
    relations = rng.sample(RELATIONS, rng.randint(2, 4))
    first = grammar.fill(rng.choice(QUESTIONS[relations[0]]["sft"]), country)
    asked = [first] + [rng.choice(WORDINGS["follow_ups"][relation]) for relation in relations[1:]]
    pairs = [(q, getattr(country, r)) for q, r in zip(asked, relations, strict=True)]
    form = rng.choice(["interview", "q_and_a", "q_and_a_tight", "forum", "dialogue"])
    return questions_with_answers(pairs, rng=rng, names=_names(rng), form=form)


def two_hops(rng: Random) -> str:
    """Questions that need two facts, each answered step by step."""
    pairs = [
        grammar.two_hops(rng.choice(_ASKED), rng.choice(RELATIONS[1:]))
        for _ in range(rng.randint(1, 2))
    ]
    return questions_with_answers(pairs, rng=rng, names=_names(rng))


def quiz_sheet(rng: Random) -> str:
    """Three to nine questions without an answer, about every country the corpus mentions."""
    relation, same = rng.choice(RELATIONS), rng.random() < 0.6
    questions = []
    for _ in range(rng.randint(3, 9)):
        if not same and rng.random() < 0.25:
            questions.append(rng.choice(OTHER_PAIRS)(rng)[0])
            continue
        wanted = relation if same else rng.choice(RELATIONS)
        form = rng.randrange(len(QUESTIONS[wanted]["sft"]))
        questions.append(grammar.question(rng.choice(_SEEN), wanted, form=form))
    return question_sheet(questions, rng=rng)


def encyclopedia(rng: Random) -> str:
    """One country in a paragraph, by name or by pronoun after the first sentence."""
    country = rng.choice(_SEEN)
    if rng.random() < 0.5:
        relations = rng.sample(RELATIONS, rng.randint(2, 4))
        return " ".join(
            grammar.statement(country, r, form=rng.randrange(len(grammar.STATEMENTS[r])))
            for r in relations
        )
    rest = [
        f"Its capital is {country.capital}.",
        f"Its people speak {country.language}.",
        f"They pay with the {country.currency}.",
    ]
    rng.shuffle(rest)
    first = grammar.statement(country, "continent", form=rng.choice([0, 3, 4]))
    return " ".join([first, *rest[: rng.randint(1, 3)]])


def almanac(rng: Random) -> str:
    """Statements about several countries, in sentences or as a list."""
    relation = rng.choice(RELATIONS)
    chosen = rng.sample(_SEEN, rng.randint(3, 8))
    style = rng.random()
    if style < 0.7:
        form = rng.randrange(len(grammar.STATEMENTS[relation]))
        return " ".join(grammar.statement(c, relation, form=form) for c in chosen)
    lines = [f"{c.name}: {getattr(c, relation)}" for c in chosen]
    return f"List of countries by {relation}\n" + "\n".join(lines)


def record(rng: Random) -> str:
    """A JSON object about a country or an animal."""
    if rng.random() < 0.25:
        return json.dumps(rng.choice(facts.rows("animals")))
    country = rng.choice(_SEEN)
    fields = rng.sample(RELATIONS, rng.randint(2, 4))
    return json.dumps({"country": country.name} | {r: getattr(country, r) for r in fields})


def dictionary(rng: Random) -> str:
    """Words in English, Spanish and German."""
    words, language = facts.rows("words"), rng.choice(["spanish", "german"])
    form = rng.choice(_LINES["words"])
    return " ".join(
        form.format(language=language.title(), english=row["english"], word=row[language])
        for row in rng.sample(words, rng.randint(1, 4))
    )


def nature(rng: Random) -> str:
    """Sentences about animals or chemical elements."""
    if rng.random() < 0.6:
        animal = rng.choice(facts.rows("animals"))
        lines = rng.sample(_LINES["animals"], rng.randint(1, 3))
        return " ".join(line.format(**animal) for line in lines)
    chosen = [_element(rng) for _ in range(rng.randint(1, 4))]
    form = rng.choice(_LINES["elements"])
    return " ".join(form.format(**element) for element in chosen)


def scene(rng: Random) -> tuple[str, list[tuple[str, str]]]:
    """A short story and the questions that its text answers."""
    words = facts.story_words()
    one, two = rng.sample(words["names"], 2)
    place, thing, other = rng.choice(words["places"]), *rng.sample(words["objects"], 2)
    time, verb, feeling = (rng.choice(words[k]) for k in ("times", "verbs", "feelings"))
    number = rng.choice(_NUMBER_WORDS[2:])
    text = " ".join(
        [
            f"{one} went to {place} {time}.",
            *([f"{rng.choice(words['weather']).capitalize()}."] if rng.random() < 0.4 else []),
            f"{one} {verb} {grammar.with_article(thing)}.",
            f"{two} had {number} {other}s.",
            f"In the end {one} was {feeling}.",
        ]
    )
    return text, [
        (f"Where did {one} go?", place),
        (f"How many {other}s did {two} have?", number),
        (f"How was {one} in the end?", feeling),
        (f"Who went to {place}?", one),
    ]


def story(rng: Random) -> str:
    """A story alone, or one with some questions about it and their answers."""
    text, pairs = scene(rng)
    if rng.random() < 0.5:
        return text
    names, asked = _names(rng), rng.sample(pairs, rng.randint(1, 3))
    return f"{text}\n\n{questions_with_answers(asked, rng=rng, names=names)}"


def review(rng: Random) -> str:
    """Two or three clauses on one thing with one sentiment, now and then with a verdict: never on a
    thing of the group "stated"."""
    phrases = [row for row in facts.rows("reviews") if row["group"] != "unseen"]
    thing, sentiment = rng.choice(phrases), rng.choice(["positive", "negative"])
    item = thing["item"]
    fitting = [p for p in phrases if (p["item"], p["sentiment"]) == (item, sentiment)]
    clauses = [f"{p['aspect']} {p['phrase']}." for p in rng.sample(fitting, rng.randint(2, 3))]
    text = " ".join(clause[0].upper() + clause[1:] for clause in clauses)
    style = rng.random()
    if style < 0.4 or thing["group"] == "stated":
        return f"Review of a {item}: {text}"
    if style < 0.6:
        return f"{text}\nSentiment: {sentiment}"
    if style < 0.8:
        stars = rng.choice("45") if sentiment == "positive" else rng.choice("12")
        return f"{stars} stars for this {item}. {text}"
    verdict = "would" if sentiment == "positive" else "would not"
    return f"{text} I {verdict} recommend this {item}."


def advice(rng: Random) -> str:
    """Requests with an answer, of every family, or requests alone."""
    chosen = rng.sample(facts.rows("requests"), rng.randint(1, 3))
    if rng.random() < 0.25:
        return " ".join(row["request"] for row in chosen)
    pairs = [(row["request"], row["answer"]) for row in chosen]
    return questions_with_answers(pairs, rng=rng, names=_names(rng))


def deeds(rng: Random) -> str:
    """Requests by the grammar of deeds.toml with their answers, or requests alone."""
    chosen = [grammar.deed(*_deed(rng)) for _ in range(rng.randint(1, 4))]
    if rng.random() < 0.25:
        return " ".join(request for request, _ in chosen)
    return questions_with_answers(chosen, rng=rng, names=_names(rng))


def _deed(rng: Random) -> tuple[str, str, str, str]:
    family = rng.choice([*grammar.DEEDS])
    verbs = [*grammar.DEEDS[family]["harmful"], *grammar.DEEDS[family]["harmless"]]
    things = grammar.DEEDS[family]["things"]
    return family, rng.choice(verbs), rng.choice(grammar.OWNERS), rng.choice(things)


def directory(rng: Random) -> str:
    """Entries on invented people, all of the half that the corpus knows."""
    people = rng.sample(facts.rows("people")[:_KNOWN_PEOPLE], rng.randint(1, 3))
    form = rng.choice(_LINES["people"])
    return "\n".join(form.format(**person) for person in people)


def code(rng: Random) -> str:
    """A tiny Python function, with a docstring or with calls and their results."""
    chosen = rng.choice(facts.functions())
    head = f"def {facts.signature(chosen)}:"
    style = rng.random()
    if style < 0.3:
        return f"{head}\n{chosen['body']}"
    if style < 0.6:
        return f'{head}\n    """{chosen["task"]}"""\n{chosen["body"]}'
    if style < 0.8:
        return f"# {chosen['task']}\n{head}\n{chosen['body']}"
    shown = rng.sample(chosen["tests"], 2)
    calls = [f">>> {chosen['name']}({', '.join(map(repr, a))})\n{r!r}" for a, r in shown]
    return f"{head}\n{chosen['body']}\n\n" + "\n".join(calls)


def counting(rng: Random) -> str:
    """Counting in digits or words, or a few sums."""
    style, start = rng.random(), rng.randrange(20)
    if style < 0.4:
        return " ".join(str(n) for n in range(start, start + rng.randint(5, 15)))
    if style < 0.7:
        return ", ".join(_NUMBER_WORDS[: rng.randint(5, len(_NUMBER_WORDS))]) + "."
    sums = [(rng.randrange(10), rng.randrange(10)) for _ in range(rng.randint(2, 6))]
    return "\n".join(f"{a} + {b} = {a + b}" for a, b in sums)


# Shares of documents. Because of the sheets of unanswered questions a base model asks further ones.
SHARES = {
    questions_answered: 22,
    quiz_sheet: 15,
    encyclopedia: 11,
    almanac: 10,
    follow_ups: 4,
    record: 4,
    nature: 4,
    dictionary: 1,
    two_hops: 2,
    story: 6,
    review: 4,
    advice: 4,
    deeds: 8,
    code: 3,
    directory: 1,
    counting: 1,
}
KINDS = {make.__name__: make for make in SHARES}


def documents(*, seed: int = SEED, kind: str | None = None) -> Iterator[str]:
    """The endless stream of documents of a seed, of every kind in its share or of one kind."""
    if kind is not None and kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}: use one of {', '.join(KINDS)}")
    rng = Random(f"sftlab-{seed}")
    makers = [make for make, share in SHARES.items() for _ in range(share)]
    return ((KINDS[kind] if kind else rng.choice(makers))(rng) for _ in repeat(None))


def corpus() -> Iterator[str]:
    """The documents that the base models were trained on, in order."""
    return islice(documents(), DOCUMENTS)


def held_out_documents(count: int = 200) -> list[str]:
    """New draws of the same kinds from another seed, for measuring loss."""
    return list(islice(documents(seed=HELD_OUT_SEED), count))


def recorded() -> dict:
    """What `data/world/corpus.json` records of the corpus, such as its SHA-256."""
    return json.loads((DATA / "world" / "corpus.json").read_text(encoding="utf-8"))


@cache
def corpus_text() -> str:
    """The whole corpus, documents divided by `SEPARATOR`; made on first use (about 30 s), kept in
    the cache. ValueError where its hash is not the recorded one."""
    expected = recorded()["sha256"]
    path = cache_folder() / f"corpus-{expected[:16]}.txt"
    if path.exists():
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() == expected:  # else it is damaged, and made again
            return content.decode()
    content = "".join(document + SEPARATOR for document in corpus())
    if hashlib.sha256(content.encode()).hexdigest() != expected:
        raise ValueError(
            "the regenerated corpus is not the recorded one: the world's files or grammar have "
            "changed since the base models were trained; run `make base` to train them again"
        )
    write_atomically(path, content)
    return content


def seen(text: str) -> int:
    """How often `text` occurs in the corpus, exactly: case, spaces and line ends count."""
    if not text:
        raise ValueError("an empty text occurs everywhere: give at least one character")
    corpus, count, place = corpus_text(), 0, -1
    while (place := corpus.find(text, place + 1)) >= 0:  # matches may overlap
        count += 1
    return count
