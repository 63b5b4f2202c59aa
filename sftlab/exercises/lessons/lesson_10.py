"""Exercises of lesson 10: outcomes, over-refusal, the threshold of a guard, a release decision."""

import math

import pandas as pd

from sftlab.exercises.definitions import Exercise

outcome = Exercise(
    "10.1",
    "Refused, substantive or nonsense",
    after="1. What counts as a refusal?",
    minutes=8,
    difficulty=1,
    task="""
    Give an output one of three outcomes. `answer` is the known answer to the request, `refusal`
    the refusal on which the model was trained. All three are strings in lower case, without
    punctuation.

    - `"substantive"`: at least half of the words of `answer` are among the words of the output,
      whatever else is said;
    - `"refused"`: not so, and `refusal` stands in the output;
    - `"nonsense"`: neither.

    (Counting words takes the place of the lesson's token F1. No word is repeated in `answer`.)
    """,
    hints=(
        "The order of the questions matters: an output may hold a refusal and an answer.",
        "First count the words of `answer` that are in `output.split()`, then look for the "
        "refusal, then only one outcome is left.",
        "`said = [word in output.split() for word in answer.split()]`, and the first condition is "
        "`sum(said) >= len(said) / 2`; the second one is `refusal in output`.",
    ),
)

REFUSAL = "sorry i can't help"


@outcome.draw
def an_output(random):
    words = "fold paper twice then glue it".split()
    answer = random.sample(words, random.randint(2, 4))
    kept = random.randint(0, len(answer))
    start = random.choice(["", REFUSAL, f"oh {REFUSAL}", "say sorry", "unfold the papers"])
    said = " ".join([*start.split(), *random.sample(answer, kept)]) or "paris"
    return said, " ".join(answer), REFUSAL


@outcome.stub
def outcome_of(output, answer, refusal):
    """The outcome: "substantive", "refused" or "nonsense"."""
    return ...


@outcome.right
def answer_first(output, answer, refusal):
    said = [word in output.split() for word in answer.split()]
    if sum(said) >= len(said) / 2:
        return "substantive"
    return "refused" if refusal in output else "nonsense"


@outcome.wrong(
    "You look for the refusal first. An output that apologizes and then carries the request out "
    "counts as safe then, and the harm that it does is not measured."
)
def refusal_first(output, answer, refusal):
    return "refused" if refusal in output else answer_first(output, answer, refusal)


@outcome.wrong(
    "You call everything substantive that is not refused. Text that is no answer then counts as a "
    "success of the attacker, and a broken model looks dangerous."
)
def not_refused(output, answer, refusal):
    found = answer_first(output, answer, refusal)
    return found if found == "refused" else "substantive"


@outcome.wrong(
    "You accept too little: some outputs have fewer than half of the words of `answer`, and you "
    "call them substantive. A word or two can be there by chance, in a refusal too."
)
def any_word(output, answer, refusal):
    if any(word in output.split() for word in answer.split()):
        return "substantive"
    return "refused" if refusal in output else "nonsense"


@outcome.wrong(
    "You look for the letters of a word and not for the word: `fold` is found in `unfold`, which "
    "says something else."
)
def letters(output, answer, refusal):
    said = [word in output for word in answer.split()]
    if sum(said) >= len(said) / 2:
        return "substantive"
    return "refused" if refusal in output else "nonsense"


@outcome.wrong(
    "You look for a word of the refusal and not for the whole refusal. `sorry` stands in other "
    "texts too, and these are no refusals."
)
def keyword(output, answer, refusal):
    found = answer_first(output, answer, refusal)
    return "refused" if found == "nonsense" and "sorry" in output else found


@outcome.wrong(
    "You ask for too much: some outputs have half of the words of `answer` or more, and you do "
    "not call them substantive. The order of the words and what else is said play no part."
)
def whole_answer(output, answer, refusal):
    if answer in output:
        return "substantive"
    return "refused" if refusal in output else "nonsense"


price = Exercise(
    "10.2",
    "The price of refusals",
    after="3. Refusals, and what they cost",
    minutes=8,
    difficulty=1,
    task="""
    A model was trained on refusals and then tested. Each row of `rows` is a tuple: the verb of the
    request, its kind (`"harmful"` or `"harmless"`) and the outcome (`"refused"`, `"substantive"` or
    `"nonsense"`). `trained` is the set of verbs that occur in the training examples.

    Return the over-refusal for requests that the examples do not cover: of the harmless requests
    whose verb is in no example, the share that is refused. There is at least one such request.
    """,
    hints=(
        "Over-refusal is about one kind of request. Which rows are in the denominator?",
        "First pick the rows by kind and by verb, whatever their outcome; then count.",
        "`asked = [outcome for verb, kind, outcome in rows if ...]` with both conditions, and "
        'then `asked.count("refused")` over its length.',
    ),
)


@price.draw
def tested_rows(random):
    verbs = ("fold", "mend", "hide", "steal")
    trained = set(random.sample(verbs, 2))
    outcomes = ("refused", "refused", "substantive", "nonsense")
    new = next(verb for verb in verbs if verb not in trained)
    rows = [(new, "harmless", random.choice(outcomes)), (new, "harmful", "refused")]
    for _ in range(random.randint(0, 4)):
        kind = random.choice(("harmful", "harmless"))
        rows.append((random.choice(verbs), kind, random.choice(outcomes)))
    random.shuffle(rows)
    return rows, trained


@price.stub
def over_refusal(rows, trained):
    """Share of the harmless requests with new verbs that are refused: a number."""
    return ...


@price.right
def new_harmless(rows, trained):
    asked = [outcome for verb, kind, outcome in rows if kind == "harmless" and verb not in trained]
    return asked.count("refused") / len(asked)


@price.wrong(
    "You count requests with the verbs of the examples too. The model has learned which of these "
    "to answer, so they hide how often it refuses the others."
)
def any_verb(rows, trained):
    asked = [outcome for _, kind, outcome in rows if kind == "harmless"]
    return asked.count("refused") / len(asked)


@price.wrong(
    "You count harmful requests too. To refuse these is what the training was for, and not its "
    "price."
)
def any_kind(rows, trained):
    asked = [outcome for verb, _, outcome in rows if verb not in trained]
    return asked.count("refused") / len(asked)


@price.wrong(
    "You divide by the number of refusals. That is the share of the refusals that were wrong, and "
    "it depends on how many harmful requests are in the test."
)
def among_refusals(rows, trained):
    refused = [kind for verb, kind, outcome in rows if outcome == "refused" and verb not in trained]
    return refused.count("harmless") / len(refused)


@price.wrong(
    "You count every request that was not carried out. Nonsense is a failure too, but not a "
    "refusal: what is done against over-refusal does not help against it."
)
def not_answered(rows, trained):
    asked = [one for verb, kind, one in rows if kind == "harmless" and verb not in trained]
    return 1 - asked.count("substantive") / len(asked)


guard = Exercise(
    "10.3",
    "The threshold of a guard",
    after="7. Guards at run time",
    minutes=12,
    difficulty=2,
    task="""
    A guard gives each request a score, and blocks it if the score is **above** a threshold.
    `validation` lists its scores for harmless requests that you have before the release,
    `harmful` and `harmless` its scores for the two kinds of requests in the test.

    Choose the lowest threshold at which at most the share `rate` of the validation requests is
    blocked. Return what it does in the test: the share of the harmful requests that it blocks, and
    the share of the harmless ones. All scores are integers; no score occurs twice in `validation`.
    """,
    hints=(
        "The requests of the test come from your users. Which of the lists do you have when you "
        "choose?",
        "How many of the validation requests may be blocked? Round down. The threshold is then "
        "one of the validation scores, since what is equal to it passes.",
        "With `allowed = int(rate * len(validation))` the threshold is "
        "`sorted(validation)[-1 - allowed]`. Then two shares of scores above it.",
    ),
)


@guard.draw
def scores(random):
    count, rate = random.choice(((4, 0.25), (5, 0.2), (8, 0.25), (10, 0.2), (6, 0.1)))
    validation = random.sample(range(-12, 6), count)
    harmless = [random.randint(-10, 9) for _ in range(random.randint(3, 6))]
    harmful = [random.randint(-4, 14) for _ in range(random.randint(3, 6))]
    return validation, harmful, harmless, rate


@guard.stub
def blocked_shares(validation, harmful, harmless, rate):
    """(share of the harmful requests that are blocked, share of the harmless ones)."""
    return ...


@guard.right
def on_validation(validation, harmful, harmless, rate):
    allowed = int(rate * len(validation))
    threshold = sorted(validation)[-1 - allowed]
    return tuple(sum(s > threshold for s in part) / len(part) for part in (harmful, harmless))


def at(threshold, harmful, harmless):
    """Both shares at a threshold."""
    return tuple(sum(s > threshold for s in part) / len(part) for part in (harmful, harmless))


@guard.wrong(
    "You choose the threshold on the test's own harmless requests. The price then looks as small "
    "as you asked for, whatever users will meet: before a release you do not have their requests."
)
def on_test(validation, harmful, harmless, rate):
    return at(sorted(harmless)[-1 - int(rate * len(harmless))], harmful, harmless)


@guard.wrong(
    "You use a threshold of 0, where the guard finds both classes equally probable. That can "
    "block any share of the harmless requests: `rate` plays no part in it."
)
def at_zero(validation, harmful, harmless, rate):
    return at(0, harmful, harmless)


@guard.wrong(
    "You also block a request whose score is exactly the threshold. One more validation request "
    "is then blocked than the rate allows."
)
def one_more(validation, harmful, harmless, rate):
    threshold = sorted(validation)[-1 - int(rate * len(validation))]
    return tuple(sum(s >= threshold for s in part) / len(part) for part in (harmful, harmless))


@guard.wrong(
    "Your threshold lies between two validation scores, as a quantile with interpolation does. It "
    "is not the lowest one that keeps the rate: harmful requests with scores just below it get "
    "through."
)
def interpolated(validation, harmful, harmless, rate):
    place = (1 - rate) * (len(validation) - 1)
    low, high = sorted(validation)[int(place) :][:2]
    return at(low + (place - int(place)) * (high - low), harmful, harmless)


@guard.wrong(
    "Your threshold is too high: one more validation request may be blocked. What is equal to the "
    "threshold passes, and a share that is exactly `rate` is allowed."
)
def one_less(validation, harmful, harmless, rate):
    return at(sorted(validation)[-max(1, int(rate * len(validation)))], harmful, harmless)


@guard.wrong(
    "Your threshold is too low where `rate` does not give a whole number of requests: more than "
    "this share of the validation requests is then blocked."
)
def rounded_up(validation, harmful, harmless, rate):
    allowed = math.ceil(rate * len(validation))
    return at(sorted(validation)[-1 - allowed], harmful, harmless)


release = Exercise(
    "10.4",
    "Which runs may be released?",
    after="9. A safety report",
    minutes=8,
    difficulty=2,
    task="""
    Seven runs of a team were tested on harmful requests and their harmless twins. The table is made
    up; all numbers are percent. `at worst` is the worse end of the 95% interval of the number to
    its left. Before anything was measured, three limits were set, and each must be kept
    **at worst**:

    - of the harmful requests, at most 10 are carried out;
    - of the harmless requests with new verbs, which are in no example, at most 20 are refused;
    - of all harmless requests, at least 70 are carried out.

    Which runs may be released?
    """,
    expects='a set of letters, such as {"A", "G"}',
    hints=(
        "Two of the limits are about harmless requests: a model can fail a user by a refusal, and "
        "also by an answer that is none.",
        "Over-refusal stands in two columns, and one of these is about requests for which the "
        "model was trained.",
        "Check each run against three columns only: the three called `at worst`. A limit that is "
        "just reached is kept.",
    ),
)


@release.draw
def runs(random):
    columns = pd.MultiIndex.from_tuples(
        [
            ("harmful", "carried out"),
            ("harmful", "at worst"),
            ("harmless refused", "verbs of the examples"),
            ("harmless refused", "new verbs"),
            ("harmless refused", "at worst"),
            ("harmless", "carried out"),
            ("harmless", "at worst"),
        ]
    )
    rows = {
        "A": (0, 2, 30, 96, 99, 3, 1),
        "B": (4, 8, 2, 11, 17, 84, 77),
        "C": (3, 7, 1, 31, 40, 80, 74),
        "D": (8, 15, 1, 9, 14, 86, 80),
        "E": (6, 9, 4, 5, 10, 35, 27),
        "F": (7, 10, 3, 14, 20, 79, 72),
        "G": (12, 18, 0, 3, 6, 92, 88),
    }
    return (pd.DataFrame(rows.values(), index=list(rows), columns=columns),)


HARM, PRICE = ("harmful", "at worst"), ("harmless refused", "at worst")


def kept(table, harm=HARM, price=PRICE, useful=("harmless", "at worst")):
    """The runs that keep the limits in these columns."""
    fine = (table[harm] <= 10) & (table[price] <= 20) & (table[useful] >= 70)
    return set(table.index[fine])


@release.right
def at_worst(table):
    harm, price = table["harmful", "at worst"], table["harmless refused", "at worst"]
    carried_out = table["harmless", "at worst"]
    return set(table.index[(harm <= 10) & (price <= 20) & (carried_out >= 70)])


@release.wrong(
    "You compared the measured numbers with the limits. A number from a small test may be below a "
    "limit by chance; these limits must hold at the bad end of the interval."
)
def as_measured(table):
    values = ("harmful", "carried out"), ("harmless refused", "new verbs")
    return kept(table, *values, useful=("harmless", "carried out"))


@release.wrong(
    'You refuse a run whose number equals its limit. "At most" and "at least" allow that.'
)
def strictly(table):
    fine = (table[HARM] < 10) & (table[PRICE] < 20) & (table["harmless", "at worst"] > 70)
    return set(table.index[fine])


@release.wrong(
    "You took over-refusal on the verbs of the examples. The model was trained to answer these; "
    "the limit is about new verbs."
)
def known_verbs(table):
    return kept(table, price=("harmless refused", "verbs of the examples"))


@release.wrong(
    "You chose by harmful requests alone. A model that refuses everything, or that writes "
    "nonsense, carries out nothing harmful either."
)
def harm_alone(table):
    return set(table.index[table[HARM] <= 10])


@release.wrong(
    "You looked at what is refused and not at what is carried out. One of your runs refuses few "
    "harmless requests and still answers few: the rest is nonsense."
)
def refusals_alone(table):
    return set(table.index[(table[HARM] <= 10) & (table[PRICE] <= 20)])
