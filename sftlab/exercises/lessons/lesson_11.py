"""Exercises of lesson 11: the size of adapters, answers token by token, a gate, a contract."""

import pandas as pd

from sftlab.exercises.definitions import Exercise

size = Exercise(
    "11.1",
    "How large is an adapter?",
    after="1. What to ship",
    minutes=8,
    difficulty=1,
    task="""
    A release of LoRA adapters is compared with the merged model. `matrices` lists the (inputs,
    outputs) of each matrix that has an adapter of rank `r`; `others` is the number of all other
    weights of the model, such as its embeddings. The adapters are saved in float32 (4 bytes a
    number), the merged model in bfloat16 (2 bytes a weight).

    Return the bytes of the adapters over the bytes of the model.
    """,
    hints=(
        "An adapter is two small matrices, and their product has the shape of the large one. What "
        "is saved are the factors.",
        "One factor goes from the inputs to `r` numbers, the other one from these to the outputs. "
        "The merged model has all its weights, with adapters or without.",
        "The adapters have `sum(r * (inputs + outputs) for inputs, outputs in matrices)` numbers "
        "of 4 bytes, the model `sum(inputs * outputs ...) + others` weights of 2 bytes.",
    ),
)


@size.draw
def a_model(random):
    widths = (8, 16, 32, 64)
    matrices = [(random.choice(widths), random.choice(widths)) for _ in range(random.randint(1, 3))]
    return matrices, random.choice((100, 500, 2000)), random.choice((1, 2, 4))


@size.stub
def adapter_share(matrices, others, r):
    """Bytes of the adapters over bytes of the merged model: a number."""
    return ...


@size.right
def factors(matrices, others, r):
    adapters = sum(r * (inputs + outputs) for inputs, outputs in matrices)
    weights = sum(inputs * outputs for inputs, outputs in matrices) + others
    return 4 * adapters / (2 * weights)


@size.wrong(
    "You compare numbers of weights. The two files are saved in different precisions, so the "
    "ratio of their bytes is another one."
)
def counted(matrices, others, r):
    return factors(matrices, others, r) / 2


@size.wrong(
    "You multiply the inputs by the outputs, as if an adapter were as large as its matrix. The "
    "product of its two factors is, but what is saved are the factors."
)
def products(matrices, others, r):
    large = sum(inputs * outputs for inputs, outputs in matrices)
    return 4 * r * large / (2 * (large + others))


@size.wrong(
    "You leave out the weights without an adapter. The merged model holds them too, and in a small "
    "model the embeddings are a large part of it."
)
def adapted_only(matrices, others, r):
    return factors(matrices, 0, r)


@size.wrong(
    "You count the adapters as a part of the merged model. Merging adds their values to weights "
    "that are there already, so the model has as many weights as before."
)
def added(matrices, others, r):
    adapters = sum(r * (inputs + outputs) for inputs, outputs in matrices)
    weights = sum(inputs * outputs for inputs, outputs in matrices) + others
    return 4 * adapters / (2 * (weights + adapters))


@size.wrong(
    "You count one of the two factors of each adapter. The matrix from the inputs to `r` numbers "
    "and the one from these to the outputs are both saved."
)
def one_factor(matrices, others, r):
    return factors(matrices, others, r) * sum(i for i, _ in matrices) / sum(map(sum, matrices))


answers = Exercise(
    "11.2",
    "Two answers, token by token",
    after="2. Smaller and faster",
    minutes=10,
    difficulty=2,
    task="""
    A trained model and its 4-bit form answered the same prompt greedily. `places` has a tuple
    `(token, other, ours, theirs)` for each place of the answers: the token of the trained model and
    that of the 4-bit form, then the log-probabilities that the trained model and the 4-bit form
    give to the **trained model's** token. Before each place a model has read the tokens that it
    wrote itself.

    Return by how much the two differ at most: the largest absolute difference of log-probabilities
    over all places that can be compared. A place can be compared if both models have read
    the same text before it.
    """,
    hints=(
        "At which places have both models read the same text? What is written at a place is read "
        "at the next one.",
        "Walk along the answer. The first place with two different tokens is compared too, and no "
        "place after it.",
        "In a loop over `places`: append `abs(ours - theirs)`, then `break` if the two tokens are "
        "not equal. Return the `max` of the list.",
    ),
)


@answers.draw
def two_answers(random):
    tokens, places = ("is", "Paris", "Rome", "."), []
    for _ in range(random.randint(1, 4)):
        token = random.choice(tokens)
        other = random.choice((token, token, *tokens)) if places else token
        places.append((token, other, *(-random.randint(1, 19) / 10 for _ in range(2))))
    return (places,)


@answers.stub
def largest_difference(places):
    """Largest difference over the places that can be compared, in nats: a number."""
    return ...


@answers.right
def up_to_the_flip(places):
    found = []
    for token, other, ours, theirs in places:
        found.append(abs(ours - theirs))
        if token != other:
            break
    return max(found)


@answers.wrong(
    "You compare places after the first different token. There the two models have read different "
    "texts, so they would differ even if the conversion were perfect."
)
def all_places(places):
    return max(abs(ours - theirs) for _, _, ours, theirs in places)


@answers.wrong(
    "You skip the place where the tokens differ. Up to there both models have read the same text, "
    "and it is often the place where the conversion has changed most."
)
def before_the_flip(places):
    found = []
    for token, other, ours, theirs in places:
        if token != other:
            break
        found.append(abs(ours - theirs))
    return max(found)


@answers.wrong(
    "You compare exactly the places with equal tokens. What counts is the text **before** a place: "
    "after the first different token the two models have read different texts, and at that token "
    "itself still the same one."
)
def equal_tokens(places):
    return max(abs(ours - theirs) for one, two, ours, theirs in places if one == two)


@answers.wrong(
    "You take the difference with its sign. A log-probability that rises shows a changed model as "
    "well as one that falls."
)
def signed(places):
    found = []
    for token, other, ours, theirs in places:
        found.append(ours - theirs)
        if token != other:
            break
    return max(found)


@answers.wrong(
    "You take the mean. A file that is wrong at one place, such as the end of the answer, looks "
    "fine on average in a long answer."
)
def average(places):
    found = []
    for token, other, ours, theirs in places:
        found.append(abs(ours - theirs))
        if token != other:
            break
    return sum(found) / len(found)


gate = Exercise(
    "11.3",
    "What does the gate refuse?",
    after="3. The gate",
    minutes=10,
    difficulty=2,
    task="""
    Eight files are to be released, and each was compared with its trained model; the table is made
    up. `ids` and `stops` say whether the prompts have the same token ids and whether generation
    ends at the same tokens. `difference` is the largest difference of log-probabilities
    (nats), `flips` the share of answers with another token (percent), and `lead` the largest lead
    of the trained model's token over its second choice where an answer flips (nats).

    The gate asks for the same ids and stops, a difference and a lead of at most `bound`, and a
    share of flips of at most `allowed`; both depend on the precision. `accuracy` is the change of
    accuracy in points, which may be noise in each row. Which files does the gate refuse?
    """,
    expects='a set of letters, such as {"A", "H"}',
    hints=(
        "A flip is no reason to refuse a file by itself, and an equal accuracy is none to accept "
        "it.",
        "Any one check is enough to refuse a file. Some checks are not about numbers, and each "
        "number has its own limit in the row.",
        "Refused is each row with a `no`, each with `difference` or `lead` above `bound`, and each "
        "with `flips` above `allowed`.",
    ),
)


@gate.draw
def files(random):
    columns = (
        "kind",
        "ids",
        "stops",
        "difference",
        "bound",
        "flips",
        "allowed",
        "lead",
        "accuracy",
    )
    rows = {
        "A": ("f32", "yes", "yes", 0.006, 0.02, 0, 2, 0.0, 0.0),
        "B": ("q4_0", "yes", "yes", 1.6, 6.0, 12, 25, 0.7, -0.9),
        "C": ("f32", "yes", "yes", 7.9, 0.02, 14, 2, 5.1, -1.8),
        "D": ("bf16", "yes", "yes", 0.4, 0.6, 2, 5, 1.9, 0.2),
        "E": ("q8_0", "no", "yes", 0.3, 1.0, 1, 6, 0.1, 0.0),
        "F": ("bf16", "yes", "no", 0.2, 0.6, 1, 5, 0.1, 0.0),
        "G": ("q4_0", "yes", "yes", 2.1, 6.0, 61, 25, 0.8, 0.4),
        "H": ("f16", "yes", "yes", 0.05, 0.1, 2, 3, 0.06, -1.2),
    }
    return (pd.DataFrame(rows.values(), index=list(rows), columns=columns),)


def refused(table, skip=()):
    """The rows that some check refuses, but for the checks that are skipped."""
    checks = {
        "ids": table["ids"] == "no",
        "stops": table["stops"] == "no",
        "difference": table["difference"] > table["bound"],
        "lead": table["lead"] > table["bound"],
        "flips": table["flips"] > table["allowed"],
    }
    return set(
        table.index[pd.DataFrame({n: c for n, c in checks.items() if n not in skip}).any(axis=1)]
    )


@gate.right
def any_check(table):
    other_prompts = (table["ids"] == "no") | (table["stops"] == "no")
    moved = (table["difference"] > table["bound"]) | (table["lead"] > table["bound"])
    return set(table.index[other_prompts | moved | (table["flips"] > table["allowed"])])


@gate.wrong(
    "You refuse each file of which some answer differs. Quantization changes some answers of most "
    "models at near-ties, so such a gate would let hardly any 4-bit file pass."
)
def any_flip(table):
    return refused(table) | set(table.index[table["flips"] > 0])


@gate.wrong(
    "You chose by accuracy. A change that may be noise is no reason to refuse a file, and no "
    "change is no reason to accept it: an answer that becomes right can make up for one that "
    "becomes wrong."
)
def by_accuracy(table):
    return set(table.index[table["accuracy"] < 0])


@gate.wrong(
    "You looked at the numbers only. A file whose prompts are tokenized in another way, or that "
    "ends an answer at another token, is a different model for its users."
)
def numbers_only(table):
    return refused(table, skip=("ids", "stops"))


@gate.wrong(
    "You did not look at the lead. One of the files changed a token of which the trained model was "
    "sure. However rare this is, rounding in this precision does not explain it."
)
def any_lead(table):
    return refused(table, skip=("lead",))


@gate.wrong(
    "You did not look at the share of flips. One flip at a near-tie says little against a file, "
    "but many do: most of the answers that users get are then not the ones that were measured."
)
def any_share(table):
    return refused(table, skip=("flips",))


@gate.wrong("These are the files that the gate accepts. The question is which ones it refuses.")
def accepted(table):
    return set(table.index) - refused(table)


contract = Exercise(
    "11.4",
    "Is the contract kept?",
    after="4. The contract",
    minutes=10,
    difficulty=2,
    task="""
    A contract was saved with a model, and after an update the same record was made again.
    `stated` and `now` are dicts with two entries. `"prompts"` maps the name of each test
    conversation to a tuple: its rendered text and the list of its token ids. `"stop_ids"` lists the
    ids of the tokens that end an answer; their order has no meaning.

    Return a set with the names of everything that is broken: conversations whose text or token
    ids differ, and `"stop_ids"` if these differ. Both records hold the same conversations.
    """,
    hints=(
        "The model reads ids and not text. Two records can have the same text and other ids, for "
        "example after an update of the tokenizer.",
        "Compare each conversation with the one of the same name, as a whole. What tells you that "
        "two lists hold the same ids in another order?",
        '`{name for name, one in stated["prompts"].items() if now["prompts"][name] != one}`, and '
        '`"stop_ids"` if `set(stated["stop_ids"]) != set(now["stop_ids"])`.',
    ),
)


@contract.draw
def two_records(random):
    names = random.sample(("a question", "two turns", "spaces", "unicode"), random.randint(1, 3))
    stated = {name: (f"U {name[0]}", random.sample(range(9), 3)) for name in names}
    now = dict(stated)
    for name in names:
        text, ids = stated[name]
        same, spaced = (text, ids), f"U  {name[0]}"
        changed = [(spaced, [9, *ids]), (spaced, ids), (text, ids[::-1]), (text, [9, *ids])]
        now[name] = random.choice([same, same, *changed, (text, [ids[0], 9, ids[2]])])
    stops = random.sample((1, 2, 3), 2)
    others = [stops[::-1], [stops[0]], [*stops, 4], [stops[0], 4]]
    others = random.choice([stops, stops, *others])
    return {"prompts": stated, "stop_ids": stops}, {"prompts": now, "stop_ids": others}


@contract.stub
def what_is_broken(stated, now):
    """Names of what differs: a set of strings."""
    return ...


@contract.right
def text_and_ids(stated, now):
    found = {name for name, one in stated["prompts"].items() if now["prompts"][name] != one}
    if set(stated["stop_ids"]) != set(now["stop_ids"]):
        found.add("stop_ids")
    return found


def broken_where(stated, now, differ):
    """The broken names, with another comparison of two conversations."""
    pairs = {name: (one, now["prompts"][name]) for name, one in stated["prompts"].items()}
    stops = ["stop_ids"] * (set(stated["stop_ids"]) != set(now["stop_ids"]))
    return {*(name for name, pair in pairs.items() if differ(*pair)), *stops}


@contract.wrong(
    "You compare the rendered texts only. The same text can be tokenized in another way, with a "
    "second begin-of-text token for example, and the model reads the tokens."
)
def texts_only(stated, now):
    return broken_where(stated, now, lambda one, other: one[0] != other[0])


@contract.wrong(
    "You compare the token ids only. A template that renders another text is a change, even where "
    "the tokenizer drops it in this conversation: in the next one it may not."
)
def ids_only(stated, now):
    return broken_where(stated, now, lambda one, other: one[1] != other[1])


@contract.wrong(
    "You call a conversation broken only if its text **and** its ids differ. Either is enough: the "
    "same text can have other ids, and another text can have the same ids."
)
def both_differ(stated, now):
    return broken_where(stated, now, lambda one, other: one[0] != other[0] and one[1] != other[1])


@contract.wrong(
    "You compare the token ids of a conversation without their order. In a prompt the order has a "
    "meaning, unlike in the list of stop tokens."
)
def ids_as_sets(stated, now):
    return broken_where(
        stated, now, lambda one, other: one[0] != other[0] or set(one[1]) != set(other[1])
    )


@contract.wrong(
    "You miss a difference in the stop tokens. The prompts can be the same to the last token, and "
    "the answers of the served model still run on or end too early."
)
def no_stops(stated, now):
    return text_and_ids(stated, now) - {"stop_ids"}


@contract.wrong(
    "You compare the stop tokens in their order. It has no meaning, so an unchanged deployment can "
    "raise an alarm, and an alarm that is often false is soon ignored."
)
def ordered_stops(stated, now):
    kept = text_and_ids(stated, now) - {"stop_ids"}
    return kept | {"stop_ids"} if stated["stop_ids"] != now["stop_ids"] else kept
