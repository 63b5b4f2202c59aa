"""Documents without facts of the world: stories, reviews, requests, people, code, counting."""

from random import Random

from sftlab.world import facts
from sftlab.world.forms import answered
from sftlab.world.grammar import with_article
from sftlab.world.kinds import KNOWN_PEOPLE, NUMBER_WORDS


def scene(rng: Random) -> tuple[str, list[tuple[str, str]]]:
    """A short story and the questions that its text answers."""
    words = facts.story_words()
    one, two = rng.sample(words["names"], 2)
    place, thing, other = rng.choice(words["places"]), *rng.sample(words["objects"], 2)
    time, verb, feeling = (rng.choice(words[k]) for k in ("times", "verbs", "feelings"))
    number = rng.choice(NUMBER_WORDS[2:])
    text = " ".join(
        [
            f"{one} went to {place} {time}.",
            *([f"{rng.choice(words['weather']).capitalize()}."] if rng.random() < 0.4 else []),
            f"{one} {verb} {with_article(thing)}.",
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
    names = rng.sample(facts.story_words()["names"], 2)
    return text + "\n\n" + answered(rng.sample(pairs, rng.randint(1, 3)), rng=rng, names=names)


def review(rng: Random) -> str:
    """Two or three clauses on one thing with one sentiment, now and then with a verdict."""
    phrases = facts.rows("reviews")
    item, sentiment = rng.choice(phrases)["item"], rng.choice(["positive", "negative"])
    fitting = [p for p in phrases if (p["item"], p["sentiment"]) == (item, sentiment)]
    clauses = [f"{p['aspect']} {p['phrase']}." for p in rng.sample(fitting, rng.randint(2, 3))]
    text = " ".join(clause[0].upper() + clause[1:] for clause in clauses)
    style = rng.random()
    if style < 0.4:
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
    names = rng.sample(facts.story_words()["names"], 2)
    return answered([(r["request"], r["answer"]) for r in chosen], rng=rng, names=names)


def directory(rng: Random) -> str:
    """Entries on invented people, all of the half that the corpus knows."""
    people = rng.sample(facts.rows("people")[:KNOWN_PEOPLE], rng.randint(1, 3))
    forms = [
        "{name} lives in {city} and has a {pet}. The phone number is {phone}.",
        "Name: {name}\nE-mail: {email}\nCity: {city}",
        "{name} was born on {birthday}. Write to {email}.",
    ]
    form = rng.choice(forms)
    return "\n".join(form.format(**person) for person in people)


def code(rng: Random) -> str:
    """A tiny Python function, with a docstring or with calls and their results."""
    chosen = rng.choice(facts.functions())
    head = f"def {chosen['name']}({', '.join(chosen['arguments'])}):"
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
        return ", ".join(NUMBER_WORDS[: rng.randint(5, len(NUMBER_WORDS))]) + "."
    sums = [(rng.randrange(10), rng.randrange(10)) for _ in range(rng.randint(2, 6))]
    return "\n".join(f"{a} + {b} = {a + b}" for a, b in sums)
