"""How the world is put into words: statements, questions, and what is kept for tests.

`{x}` is the thing asked about, `{a}` the answer. Questions under "sft" are used by the corpus
and by supervised examples. Questions under "test" are used by neither: they are for measuring
alone, so an answer to one shows more than a remembered string.
"""

from functools import cache

from sftlab.world.facts import RELATIONS, Country

# A statement that ends with its answer can be cut there and used as a cloze; those come first.
STATEMENTS = {
    "capital": [
        "The capital of {x} is {a}.",
        "The capital city of {x} is {a}.",
        "In {x}, the capital is {a}.",
        "{x} is governed from its capital, {a}.",
        "{a} is the capital of {x}.",
        "{a} is the capital city of {x}.",
        "If you travel to {x}, visit the capital, {a}.",
    ],
    "continent": [
        "{x} is a country in {a}.",
        "The continent of {x} is {a}.",
        "On the map, {x} is found in {a}.",
        "{x} lies on the continent of {a}.",
        "{x} is part of {a}.",
        "One of the countries of {a} is {x}.",
    ],
    "language": [
        "The language of {x} is {a}.",
        "The people of {x} speak {a}.",
        "The main language in {x} is {a}.",
        "In {x}, most people speak {a}.",
        "{a} is the language of {x}.",
        "{a} is spoken in {x}.",
    ],
    "currency": [
        "The currency of {x} is the {a}.",
        "In {x}, people pay with the {a}.",
        "The money used in {x} is the {a}.",
        "Prices in {x} are given in the {a}.",
        "The {a} is the currency of {x}.",
        "{x} uses the {a} as its currency.",
    ],
}
CLOZE_FORMS = 4

# Countries whose name takes an article in a sentence.
_WITH_ARTICLE = ("Bahamas", "Gambia", "Maldives", "Netherlands", "Philippines", "Seychelles")
_WITH_ARTICLE_WORDS = ("United", "Islands", "Republic", "Comoros", "DR")

QUESTIONS = {
    "capital": {
        "sft": [
            "What is the capital of {x}?",
            "What is the capital city of {x}?",
            "Which city is the capital of {x}?",
            "What is the name of the capital of {x}?",
            "In {x}, which city is the capital?",
            "Do you know the capital of {x}?",
        ],
        "test": ["Can you tell me the capital of {x}?", "What city is the capital of {x}?"],
    },
    "continent": {
        "sft": [
            "Which continent is {x} in?",
            "On which continent is {x}?",
            "What continent does {x} belong to?",
            "What is the continent of {x}?",
            "On a map of the world, which continent is {x} on?",
            "Do you know the continent of {x}?",
        ],
        "test": ["Can you tell me the continent of {x}?", "What continent is {x} in?"],
    },
    "language": {
        "sft": [
            "What language is spoken in {x}?",
            "Which language do people speak in {x}?",
            "What is the language of {x}?",
            "What is the main language of {x}?",
            "In {x}, what language do people speak?",
            "Do you know the language of {x}?",
        ],
        "test": ["Can you tell me the language of {x}?", "What language do people speak in {x}?"],
    },
    "currency": {
        "sft": [
            "What is the currency of {x}?",
            "Which currency is used in {x}?",
            "What currency do people pay with in {x}?",
            "Which currency does {x} have?",
            "In {x}, which currency do people use?",
            "Do you know the currency of {x}?",
        ],
        "test": ["Can you tell me the currency of {x}?", "What currency is used in {x}?"],
    },
}

FOLLOW_UPS = {
    "capital": ["And its capital?", "What about the capital?"],
    "continent": ["And its continent?", "Which continent is that in?"],
    "language": ["And its language?", "What do people speak there?"],
    "currency": ["And its currency?", "What do people pay with there?"],
}

# Questions about other things. Their wordings lend words ("Can you tell me ...") to the test
# wordings above without ever saying them of a country.
ANIMAL_QUESTIONS = {
    "kind": ["What kind of animal is {x}?", "Can you tell me what kind of animal {x} is?"],
    "food": ["What does {x} eat?", "Can you tell me the food of {x}?"],
    "sound": ["What sound does {x} make?", "Can you tell me the sound of {x}?"],
}
ELEMENT_QUESTIONS = {
    "symbol": ["What is the symbol of {x}?", "Can you tell me the symbol of {x}?"],
    "number": ["What is the atomic number of {x}?", "Can you tell me the atomic number of {x}?"],
}
INVERSE_QUESTIONS = ["Which country has the capital {x}?", "{x} is the capital of which country?"]
TWO_HOP_QUESTION = "What is the {relation} of the country whose capital is {x}?"
# The corpus has the first, with its steps, of countries that it asks about; the others nowhere.
TWO_HOP_WORDINGS = [
    TWO_HOP_QUESTION,
    "The capital of a country is {x}. What is its {relation}?",
    "Which {relation} belongs to the country with the capital {x}?",
]


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
