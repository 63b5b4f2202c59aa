"""Exercises of lesson 00: examples, the loss, counting correct responses, verdicts."""

import math
import re

import pandas as pd

from sftlab.exercises.definitions import Exercise

examples = Exercise(
    "00.1",
    "Training examples without the test countries",
    after="2. Examples of answering",
    minutes=8,
    difficulty=1,
    task="""
    Write the training examples of a fine-tune. `facts` is a list of tuples
    `(country, question, answer)`, and `test_countries` is a list of the names of the countries
    that the test will ask about. Return a list with one example for each fact about any other
    country, in the order of `facts`. An example is a dict with the key `messages`, as in this
    section: a list of two messages, each a dict with `role` and `content`.
    """,
    hints=(
        "The first part of each tuple names the country of the fact. Compare it with the names of "
        "the test countries; the text of the question isn't needed.",
        "`role` is `user` or `assistant`, and each of the two messages holds one of the texts.",
        'Loop over `facts`, skip a fact with `country in test_countries`, and build `{"messages": '
        '[{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}`.',
    ),
)
FACTS = [
    ("Niger", "Capital of Niger?", "Niamey"),
    ("Nigeria", "Capital of Nigeria?", "Abuja"),
    ("Guinea", "Capital of Guinea?", "Conakry"),
    ("Equatorial Guinea", "Capital of Equatorial Guinea?", "Malabo"),
    ("Niger", "Where is Niamey?", "Niger"),
    ("Guinea", "Where is Conakry?", "Guinea"),
]


@examples.draw
def some_facts(random):
    facts = random.sample(FACTS, random.randint(1, 3))
    return facts, [random.choice(["Niger", "Guinea", "Nigeria", "Peru"])]


@examples.stub
def training_examples(facts, test_countries):
    """One `{"messages": [...]}` for each fact about a country outside the test: a list."""
    return ...


@examples.right
def conversations(facts, test_countries):
    return [
        {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }
        for country, question, answer in facts
        if country not in test_countries
    ]


@examples.wrong(
    "You train on the countries that you will measure. The score then counts memorized examples as "
    "a skill, and nothing in the loss or in the responses shows it."
)
def everything(facts, test_countries):
    return conversations(facts, [])


@examples.wrong(
    "You search for the name of a test country inside a longer text. The name of one country can "
    "be part of the name of another, so examples are lost. If that text is the question, test "
    "facts also get into the training data: a question need not name its country."
)
def by_text(facts, test_countries):
    kept = [one for one in facts if not any(name in one[1] for name in test_countries)]
    return conversations(kept, [])


@examples.wrong(
    "`from`, `value`, `human` and `gpt` belong to another format, ShareGPT. The chat templates of "
    "transformers expect other keys and other roles."
)
def sharegpt(facts, test_countries):
    return [
        {
            "messages": [
                {"from": "human", "value": question},
                {"from": "gpt", "value": answer},
            ]
        }
        for country, question, answer in facts
        if country not in test_countries
    ]


@examples.wrong(
    "You wrote question and answer into one message of the user. Labels mark the assistant's part, "
    "and these examples have none: the model would learn nothing from them."
)
def one_message(facts, test_countries):
    return [
        {"messages": [{"role": "user", "content": f"{question} {answer}"}]}
        for country, question, answer in facts
        if country not in test_countries
    ]


@examples.wrong(
    "You put all facts into one conversation. Each of its questions would then be answered after "
    "the ones before it, but the test asks each question alone."
)
def one_conversation(facts, test_countries):
    kept = conversations(facts, test_countries)
    return [{"messages": [message for one in kept for message in one["messages"]]}]


loss = Exercise(
    "00.2",
    "The loss of one example",
    after="3. Train it",
    minutes=8,
    difficulty=2,
    imports="import math",
    task="""
    Compute the loss of one example in nats. `probabilities` holds, for each position, the
    probability that the model gave to the token at this position, and `labels` holds the label
    of the same position: the shift by one is done already. At least one label isn't -100. Return
    the mean loss over the labeled tokens.
    """,
    hints=(
        "First decide which positions count. Only these are added up, and only these are counted.",
        "Take the loss of each labeled token first, and the mean of these losses afterwards.",
        "Collect `-math.log(p)` for every pair of `zip(probabilities, labels)` whose label isn't "
        "-100, and divide the sum of that list by its length.",
    ),
)


@loss.draw
def positions(random):
    length = random.randint(1, 4)
    labels = [random.choice([0, 7, 12, -100]) for _ in range(length)]
    labels.append(random.choice([3, 9]))
    return [random.choice([0.001, 0.1, 0.2, 0.5, 0.9]) for _ in labels], labels


@loss.stub
def mean_loss(probabilities, labels):
    """The mean loss over the labeled tokens, in nats: a float."""
    return ...


@loss.right
def over_labels(probabilities, labels):
    pairs = zip(probabilities, labels, strict=True)
    losses = [-math.log(p) for p, label in pairs if label != -100]
    return sum(losses) / len(losses)


@loss.wrong(
    "You counted every position, the prompt too. A prompt that the model finds easy or hard then "
    "changes a number that is meant to say how well it knows the answer."
)
def all_positions(probabilities, labels):
    return over_labels(probabilities, [1 for _ in labels])


@loss.wrong(
    "You add the right losses, but divide by the length of the whole example. The longer the "
    "prompt, the smaller the loss looks, although the model is no better at the answer."
)
def diluted(probabilities, labels):
    learned = sum(label != -100 for label in labels)
    return over_labels(probabilities, labels) * learned / len(labels)


@loss.wrong(
    "You took the mean of the probabilities first and its logarithm afterwards. A token that the "
    "model does not expect at all, such as the end of turn here, then hardly shows; in the loss of "
    "training it can weigh more than all the others together."
)
def log_of_mean(probabilities, labels):
    pairs = zip(probabilities, labels, strict=True)
    kept = [p for p, label in pairs if label != -100]
    return -math.log(sum(kept) / len(kept))


@loss.wrong(
    "You pair each probability with the label of the next position. The loop of this section does "
    "so with logits, since those at a position are about the token after it. Read once more which "
    "token a probability belongs to here."
)
def shifted(probabilities, labels):
    return over_labels(probabilities[:-1], labels[1:])


@loss.wrong(
    "You return the sum over the tokens. It grows with the length of the answer, so a long "
    "example looks harder than a short one at the same probabilities."
)
def summed(probabilities, labels):
    return over_labels(probabilities, labels) * sum(label != -100 for label in labels)


@loss.wrong(
    "You skip labels that are 0. Zero is the id of a token like any other: a token with this label "
    "is to be learned too."
)
def without_zero(probabilities, labels):
    return over_labels(probabilities, [label if label > 0 else -100 for label in labels])


correct = Exercise(
    "00.3",
    "Count the correct responses",
    after="4. Measure it",
    minutes=12,
    difficulty=2,
    imports="import re",
    draws=80,
    task="""
    Measure accuracy. `responses` is a list of strings, as the model wrote them, and `accepted` is
    a list of the same length with the accepted answers to each question, also a list. First remove
    the white space around a response. It is correct when the first line of what remains holds at
    least one of its accepted answers **as whole words**, with the same capital and small letters.
    Punctuation next to a word does not matter. Return the share of correct responses.
    """,
    hints=(
        "Write a function for one response first. What is its first line if the text begins with a "
        "line break?",
        'In a regular expression `\\b` is where a word begins or ends: `r"\\bman\\b"` is not found '
        "in `human`. `re.escape` makes any text safe to put between the two.",
        'The line is `response.strip().split("\\n")[0]`. The response is correct if '
        '`re.search(rf"\\b{re.escape(one)}\\b", line)` is true for `any` accepted answer.',
    ),
)
RESPONSES = {
    ("Lima",): ["Lima", "It is Lima.", "\nLima", "Limassol", "", "Which city?\nLima"],
    ("Niger",): ["Niger", "Nigeria", "Mali\nNiger", "In Niger."],
    ("Persian", "Farsi"): ["Farsi", "Persian.", "\nFarsi", "Arabic\nFarsi", "Persian (Farsi)"],
    ("won",): ["I wonder.", "won", "South Korean won", "yen"],
}


@correct.draw
def some_responses(random):
    accepted = [random.choice(list(RESPONSES)) for _ in range(random.randint(1, 3))]
    return [random.choice(RESPONSES[one]) for one in accepted], [list(one) for one in accepted]


@correct.stub
def accuracy(responses, accepted):
    """The share of the responses whose first line holds an accepted answer: a float, 0 to 1."""
    return ...


@correct.right
def whole_words(responses, accepted):
    def is_correct(response, answers):
        line = response.strip().split("\n")[0]
        return any(re.search(rf"\b{re.escape(one)}\b", line) for one in answers)

    return sum(map(is_correct, responses, accepted)) / len(responses)


def holds(text, answer):
    return re.search(rf"\b{re.escape(answer)}\b", text) is not None


def first_line(response):
    return response.strip().split("\n")[0]


def counted(holds, responses, accepted, text=first_line):
    pairs = zip(map(text, responses), accepted, strict=True)
    return sum(any(holds(one, answer) for answer in answers) for one, answers in pairs) / len(
        responses
    )


@correct.wrong(
    "You find the answer inside other words, so a different name or an everyday word that happens "
    "to contain its letters counts as correct. Short answers gain most."
)
def substrings(responses, accepted):
    return counted(lambda line, answer: answer in line, responses, accepted)


@correct.wrong(
    "You search the whole text, and inside words too. A base model that writes on gets a point for "
    "anything that comes up later, and a longer name counts as the shorter one that it begins with."
)
def anywhere(responses, accepted):
    return counted(lambda text, answer: answer in text, responses, accepted, text=str)


@correct.wrong(
    "You split the line at its spaces. Punctuation then stays part of the words, so a correct "
    "sentence with a full stop counts as wrong, and an answer of two words is never found."
)
def at_spaces(responses, accepted):
    return counted(lambda line, answer: answer in line.split(), responses, accepted)


@correct.wrong(
    "You search the whole text. A base model that goes on with more questions and other people's "
    "answers then gets a point for any of them, so the difference to the fine-tune looks too small."
)
def any_line(responses, accepted):
    return counted(holds, responses, accepted, text=str)


@correct.wrong(
    "You ask for the answer and nothing else. A correct sentence, or the answer with a full stop, "
    "counts as wrong, so you measure the form of the responses together with their content."
)
def nothing_else(responses, accepted):
    return counted(lambda line, answer: line == answer, responses, accepted)


@correct.wrong(
    "You take the first line before you remove the white space around the response. Responses "
    "often begin with a line break, and then your first line is empty."
)
def empty_line(responses, accepted):
    return counted(holds, responses, accepted, text=lambda response: response.split("\n")[0])


verdicts = Exercise(
    "00.4",
    "Seven verdicts",
    after="5. How this course tests a claim",
    minutes=6,
    difficulty=2,
    task="""
    The table holds seven made-up results: what was measured, its estimate, its confidence
    interval from `low` to `high`, and the rule with its bound. Row 0 reads: the accuracy is 0.54,
    with an interval from 0.48 to 0.60, and the rule asks for at least 0.50. Each row is a claim
    with one part. Give the verdict for each row: a list of seven strings, each `supported`,
    `contradicted` or `inconclusive`.
    """,
    hints=(
        "Only the interval and the bound matter. Mark the bound on a line and draw the interval.",
        "First look at which side of the bound the rule asks for. Then ask whether the whole "
        "interval is on that side, the whole on the other, or some of it on each.",
        "For `at least`: supported when `low` is at or above the bound, contradicted when `high` "
        "is below it, inconclusive otherwise. For `at most` it is the other way around.",
    ),
    expects='one verdict a row: ["supported", "inconclusive", ...]',
)


@verdicts.draw
def results(random):
    rows = [
        ("accuracy", 0.54, 0.48, 0.60, "at least", 0.50),
        ("wrong answers, share", 0.05, 0.02, 0.08, "at most", 0.10),
        ("difference of shares", 0.025, 0.01, 0.04, "at least", 0.05),
        ("wrong answers, share", 0.16, 0.12, 0.20, "at most", 0.10),
        ("difference of shares", 0.18, 0.06, 0.30, "at least", 0.05),
        ("wrong answers, share", 0.09, 0.07, 0.11, "at most", 0.10),
        ("difference of shares", 0.04, -0.02, 0.10, "at least", 0.05),
    ]
    return (pd.DataFrame(rows, columns=["measured", "estimate", "low", "high", "rule", "bound"]),)


def judged(table, low="low", high="high", least=None):
    found = []
    for row in table.to_dict("records"):
        ends = row[low] - row["bound"], row[high] - row["bound"]
        if not (least or row["rule"] == "at least"):
            ends = -ends[1], -ends[0]
        clear = "supported" if ends[0] >= 0 else "contradicted" if ends[1] < 0 else ""
        found.append(clear or "inconclusive")
    return found


@verdicts.right
def by_interval(table):
    found = []
    for row in table.itertuples():
        if row.rule == "at least":
            meets, misses = row.low >= row.bound, row.high < row.bound
        else:
            meets, misses = row.high <= row.bound, row.low > row.bound
        found.append("supported" if meets else "contradicted" if misses else "inconclusive")
    return found


@verdicts.wrong(
    "You compare the estimate with the bound. The estimate alone does not say how far it would "
    "move with other questions, so a verdict near the bound can change with the next run."
)
def by_estimate(table):
    return judged(table, "estimate", "estimate")


@verdicts.wrong(
    "You call a claim contradicted as soon as it is not supported. An interval with the bound "
    "inside is compatible with both sides: it says that more data is needed, not that the claim "
    "is false."
)
def no_third(table):
    return [one if one == "supported" else "contradicted" for one in judged(table)]


@verdicts.wrong(
    "You ask whether the interval of a difference leaves out zero. That shows that there is an "
    "effect, not that it is as large as the rule asks."
)
def against_zero(table):
    is_difference = table["measured"] == "difference of shares"
    return judged(table.assign(bound=table["bound"].mask(is_difference, 0.0)))


@verdicts.wrong(
    "You call no claim contradicted. An interval that lies on the wrong side of the bound as a "
    "whole does say something: what was measured is smaller, or larger, than the rule allows."
)
def never_contradicted(table):
    return [one if one == "supported" else "inconclusive" for one in judged(table)]


@verdicts.wrong(
    "You read every rule as `at least`. Some rules ask that something stays rare, and there a "
    "large value speaks against the claim."
)
def one_direction(table):
    return judged(table, least=True)


@verdicts.wrong(
    "You call a claim supported when some of its interval meets the bound. A wide interval reaches "
    "nearly every bound, so the less you measure, the more you would find supported."
)
def some_of_it(table):
    return ["supported" if one == "inconclusive" else one for one in judged(table)]
