"""Exercises of lesson 12: classification."""

import json

import pandas as pd

from sftlab.exercises.definitions import Exercise

honest = Exercise(
    "12.1",
    "Which scores may stand in the report?",
    after="1. The article's recipe",
    minutes=6,
    difficulty=1,
    task="""
    The made-up table lists seven classifiers. Each row says what was chosen, on which texts the
    choice was made, and on which texts the accuracy of the chosen one was then measured. All splits
    are random and share no text.

    Which of these accuracies may a report give as the accuracy on **new** texts, because the texts
    on which it was measured had no part in any choice? Answer with the set of their row numbers.
    """,
    hints=(
        "For each row ask one question: if the texts on which the accuracy was measured had other "
        "labels, could another checkpoint, seed or setting have been chosen?",
        "It does not matter what the set of texts is called, or whether the choice changes a "
        "weight. It matters whether the texts of the score were used to choose.",
        "Four rows are fine: the one without a choice, the two that chose on validation texts or "
        "on folds of the training texts, and the one that chose on other texts of the test file.",
    ),
    expects="a set of row numbers, such as {1, 2}",
)


@honest.draw
def classifiers(random):
    rows = [
        ("nothing: epoch and rate were fixed beforehand", "", "test"),
        ("the best of 5 epochs", "test", "test"),
        ("the best of 5 epochs", "validation", "test"),
        ("the best of 5 epochs", "validation", "validation"),
        ("the best of 20 rates", "one half of the test", "the other half of the test"),
        ("the best of 5 random seeds, at one rate", "test", "test"),
        ("C of a regression", "five folds of the training texts", "test"),
    ]
    return (pd.DataFrame(rows, columns=["what was chosen", "chosen on", "accuracy on"]),)


@honest.right
def untouched(table):
    return set(table.index[table["chosen on"] != table["accuracy on"]])


@honest.wrong(
    "These are the rows whose accuracy is too good, since its own texts were used to choose. The "
    "question is which accuracies may be reported."
)
def too_good_ones(table):
    return set(table.index) - untouched(table)


@honest.wrong(
    "You trust a score because it was measured on the test split. The name does not protect it: "
    "where the same texts chose the epoch or the seed, a part of the score is luck."
)
def on_a_test(table):
    return set(table.index[table["accuracy on"] == "test"])


@honest.wrong(
    "Keeping the best of several seeds is a choice like that of an epoch: the more runs are "
    "compared on some texts, the more the best one owes to luck with these texts."
)
def seed_is_no_choice(table):
    return untouched(table) | {5}


@honest.wrong(
    "You leave out the row in which nothing was chosen. Validation texts are needed where there is "
    "a choice; without one, no luck can get into the score."
)
def a_choice_is_needed(table):
    return untouched(table) - {0}


@honest.wrong(
    "Validation texts are not used for training, but here they chose the checkpoint. The score of "
    "that checkpoint on the same texts is too good, as it would be on a test set that chose."
)
def validation_is_new(table):
    return untouched(table) | {3}


@honest.wrong(
    "You leave out a row because its choice was made with a part of the test. What counts is "
    "whether the texts of the score took part, and in this row they did not."
)
def by_name_of_the_file(table):
    return {n for n in untouched(table) if "half" not in table["chosen on"][n]}


calibration = Exercise(
    "12.2",
    "How far off is the confidence?",
    after="2. Five ways to classify",
    minutes=12,
    difficulty=2,
    task="""
    Write the expected calibration error of a classifier with two labels. `p` is a list with the
    probability of label 1 for each text, `labels` a list of the true labels, 0 or 1. The predicted
    label is 1 where `p` is above 0.5, and the confidence is the probability of the **predicted**
    label. Use ten bins of equal width from 0 to 1. No `p` lies at the border of a bin.

    Return a number: the distance between mean confidence and accuracy in a bin, averaged over the
    bins that have texts, each weighted by its number of texts.
    """,
    hints=(
        "Make two lists first, as long as `p`: the confidence of each text, which is never below "
        "one half, and whether its predicted label is the true one.",
        "The bin of a confidence is `int(10 * confidence)`. Inside a bin confidence and accuracy "
        "are averaged before they are compared: at a confidence of 75%, three of four texts should "
        "be right.",
        "The weight of a bin times its distance is `abs(sum(confidence) - sum(right)) / len(p)`, "
        "with the sums over its texts. Add that up over the bins.",
    ),
)


@calibration.draw
def probabilities(random):
    count = random.randint(1, 8)
    near = [0.04, 0.08, 0.12, 0.33, 0.44, 0.53, 0.57, 0.66, 0.81, 0.86, 0.93, 0.97]
    p = [random.choice(near) for _ in range(count)]
    return p, [int(random.random() < 0.3 + 0.4 * one) for one in p]


@calibration.stub
def calibration_error(p, labels):
    """The expected calibration error with ten bins, a number from 0 to 1."""
    return ...


@calibration.right
def by_bins(p, labels):
    gaps = [0.0] * 10  # of each bin: sum of confidence minus number of right labels
    for one, label in zip(p, labels, strict=True):
        confidence, right = max(one, 1 - one), (one > 0.5) == (label == 1)
        gaps[int(10 * confidence)] += confidence - right
    return sum(abs(gap) for gap in gaps) / len(p)


@calibration.wrong(
    "You take the probability of label 1 as the confidence. Where the classifier predicts label 0 "
    "with p = 0.04, it is very sure; counted as 4% sure and right, it looks badly calibrated."
)
def of_label_one(p, labels):
    gaps = [0.0] * 10
    for one, label in zip(p, labels, strict=True):
        gaps[int(10 * one)] += one - ((one > 0.5) == (label == 1))
    return sum(abs(gap) for gap in gaps) / len(p)


@calibration.wrong(
    "In your bins, texts that are probably 0 and texts that are probably 1 are apart, as for the "
    "calibration of label 1 alone. The question here is how far to trust the label that was "
    "predicted, so a sure 0 and a sure 1 belong in the same bin."
)
def of_one_class(p, labels):
    gaps = [0.0] * 10
    for one, label in zip(p, labels, strict=True):
        gaps[int(10 * one)] += one - label
    return sum(abs(gap) for gap in gaps) / len(p)


@calibration.wrong(
    "Each bin has the same weight in your average. A bin with one text then counts as much as one "
    "with a thousand, and chance in the small bins decides the result."
)
def bins_alike(p, labels):
    bins = {}
    for one, label in zip(p, labels, strict=True):
        confidence, right = max(one, 1 - one), (one > 0.5) == (label == 1)
        bins.setdefault(int(10 * confidence), []).append(confidence - right)
    return sum(abs(sum(one)) / len(one) for one in bins.values()) / len(bins)


@calibration.wrong(
    "You compare confidence and accuracy over all texts at once. A classifier that is too sure of "
    "some texts and not sure enough of others then looks calibrated: the two errors cancel."
)
def without_bins(p, labels):
    pairs = zip(p, labels, strict=True)
    gap = sum(max(one, 1 - one) - ((one > 0.5) == (label == 1)) for one, label in pairs)
    return abs(gap) / len(p)


@calibration.wrong(
    "You take the distance for each text and then average. One text is right or wrong, never 80% "
    "right, so a perfectly calibrated classifier has a large error by this measure. Distances are "
    "taken after averaging over the texts of a bin."
)
def text_by_text(p, labels):
    pairs = zip(p, labels, strict=True)
    return sum(
        abs(max(one, 1 - one) - ((one > 0.5) == (label == 1))) for one, label in pairs
    ) / len(p)


@calibration.wrong(
    "This is the Brier score, the mean squared distance between probability and label. It is also "
    "high for a calibrated classifier that cannot tell the labels apart. Here only the distance "
    "between confidence and accuracy counts."
)
def brier(p, labels):
    return sum((one - label) ** 2 for one, label in zip(p, labels, strict=True)) / len(p)


rows = Exercise(
    "12.3",
    "From marked names to a training row",
    after="3. Other tasks are the same training",
    minutes=10,
    difficulty=2,
    task="""
    Annotators marked the names in a text. Make the SFT row of it. `text` is a string, `spans` a
    list of `(start, end, kind)`: the name is `text[start:end]`. The annotators clicked in any
    order, and some texts have no name in them.

    Return `{"messages": [...]}` with two turns. The user's content is the text, a space and
    `Who and where?`. The assistant's content is a string: a JSON list with the names in the order
    of the text, as `json.dumps` formats it. A list with one name looks like this:
    `[{"kind": "person", "name": "Ann"}]`. Each letter of a name stands there as it does in the
    text.
    """,
    hints=(
        "Look at the assistant's content with `print`, letter by letter, for a text with an accent "
        "in a name, for one with two persons, and for one without names.",
        "`sorted` puts tuples in the order of their first element. `json.dumps` has an option that "
        "decides what becomes of letters outside ASCII.",
        'Make `{"kind": kind, "name": text[start:end]}` of each `start, end, kind` in '
        "`sorted(spans)`, and write the list with `json.dumps(names, ensure_ascii=False)`. An "
        "empty list is an answer, too.",
    ),
    draws=60,
)


@rows.draw
def marked_text(random):
    names = random.sample(["Ann", "Tom", "Zoë", "José"], 2)
    place = random.choice(["Rome", "Köln"])
    text = random.choice(["{0} saw {1}.", "{0} left {2}.", "In {2} {0} met {1}.", "It rained."])
    text = text.format(*names, place)
    marks = [(name, "person") for name in names] + [(place, "place")]
    spans = [(text.find(name), text.find(name) + len(name), kind) for name, kind in marks]
    spans = [one for one in spans if one[0] >= 0]
    return text, random.sample(spans, len(spans))


@rows.stub
def entity_row(text, spans):
    """A training row: a dict with `messages`."""
    return ...


@rows.right
def as_json(text, spans):
    names = [{"kind": kind, "name": text[start:end]} for start, end, kind in sorted(spans)]
    answer = json.dumps(names, ensure_ascii=False)
    user = {"role": "user", "content": f"{text} Who and where?"}
    return {"messages": [user, {"role": "assistant", "content": answer}]}


def with_answer(text, answer):
    """The row with another answer."""
    asked = as_json(text, [])["messages"][0]
    return {"messages": [asked, {"role": "assistant", "content": answer}]}


@rows.wrong(
    "The answer is how Python writes a list, with single quotes. A model trained on it writes what "
    "`json.loads` refuses, and each program that reads its answers needs a repair."
)
def as_python(text, spans):
    names = [{"kind": kind, "name": text[start:end]} for start, end, kind in sorted(spans)]
    return with_answer(text, str(names))


@rows.wrong(
    "Letters outside ASCII become codes with a backslash. The JSON is valid, but the model learns "
    "to write several rare tokens where the text has one letter, instead of copying the name."
)
def escaped(text, spans):
    names = [{"kind": kind, "name": text[start:end]} for start, end, kind in sorted(spans)]
    return with_answer(text, json.dumps(names))


@rows.wrong(
    "Only one name of each kind is left: a dict with the kind as its key keeps the last one. The "
    "model would learn to leave out the second person of a text."
)
def one_of_a_kind(text, spans):
    found = {kind: text[start:end] for start, end, kind in sorted(spans)}
    names = [{"kind": kind, "name": name} for kind, name in found.items()]
    return with_answer(text, json.dumps(names, ensure_ascii=False))


@rows.wrong(
    "The names stand in the order in which somebody clicked on them. The text does not show this "
    "order, so the model is trained to guess it."
)
def as_clicked(text, spans):
    names = [{"kind": kind, "name": text[start:end]} for start, end, kind in spans]
    return with_answer(text, json.dumps(names, ensure_ascii=False))


@rows.wrong(
    "The assistant's content is a list of Python, and a chat template renders strings. Some "
    "templates write such a list with single quotes, others raise an error."
)
def not_a_string(text, spans):
    names = [{"kind": kind, "name": text[start:end]} for start, end, kind in sorted(spans)]
    return with_answer(text, names)


@rows.wrong(
    "You leave out texts without a name. A model that has never seen an empty list finds a name in "
    "every text, since each of its examples has one."
)
def no_empty_ones(text, spans):
    return as_json(text, spans) if spans else None


threshold = Exercise(
    "12.4",
    "A threshold that loses few good messages",
    after="4. Real text",
    minutes=12,
    difficulty=3,
    task="""
    Spam is rare, and a lost message is expensive. You promise that of the messages that your
    filter calls spam, at least the share `precision` is spam. With this promise kept, the filter
    should find as much spam as possible. Of the validation messages you have a list `p` with the
    probabilities of spam and a list `is_spam` of booleans. A message is called spam when its
    probability is **at least** the threshold.

    Return the best threshold among the values in `p`. If several find equally much spam, return
    the highest of them. Return `None` when no value keeps the promise.
    """,
    hints=(
        "For one threshold, count the messages that are called spam, and those of them that are "
        "spam. The messages that are not called spam play no part in precision.",
        "Try every value in `p` as a threshold. Precision may fall and rise again as the threshold "
        "goes down, so do not stop at the first one that fails.",
        "Keep `(spam found, threshold)` of each value whose `spam found / called spam` is at least "
        "`precision`; the `max` of these tuples has the answer, and `max(..., default=...)` or an "
        "`if` takes care of none.",
    ),
    draws=80,
)


@threshold.draw
def messages(random):
    count = random.randint(2, 7)
    p = [random.choice([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]) for _ in range(count)]
    is_spam = [random.random() < 0.2 + 0.5 * one for one in p]
    return p, is_spam, random.choice([0.5, 0.6, 0.75, 1.0])


@threshold.stub
def spam_threshold(p, is_spam, precision):
    """The threshold, one of the values in `p`, or None."""
    return ...


@threshold.right
def most_spam(p, is_spam, precision):
    kept = []
    for candidate in p:
        called = [spam for one, spam in zip(p, is_spam, strict=True) if one >= candidate]
        if sum(called) / len(called) >= precision:
            kept.append((sum(called), candidate))
    return max(kept)[1] if kept else None


def counted(p, is_spam):
    """(threshold, called spam, spam among them) for each value, the highest first."""
    for one in sorted(set(p), reverse=True):
        called = [spam for other, spam in zip(p, is_spam, strict=True) if other >= one]
        yield one, len(called), sum(called)


def best(kept):
    """The threshold that finds most spam, of (spam found, threshold)."""
    return max(kept, default=(0, None))[1]


@threshold.wrong(
    "You apply the promise to recall, the share of the spam that is found. Precision is about the "
    "messages that are called spam: the good ones among these are lost."
)
def recall_instead(p, is_spam, precision):
    spam = sum(is_spam)
    kept = [(-n, one) for one, n, hits in counted(p, is_spam) if spam and hits / spam >= precision]
    return best(kept)


@threshold.wrong(
    "You take the threshold with the best F1. It weighs precision and recall alike; asked for is "
    "as much spam as the promise allows, and no more lost messages than that."
)
def best_f1(p, is_spam, precision):
    spam = sum(is_spam)
    return max((2 * hits / (n + spam), one) for one, n, hits in counted(p, is_spam))[1]


@threshold.wrong(
    "You take the highest threshold that keeps the promise. A lower one keeps it too, and finds "
    "spam that gets through at yours."
)
def most_careful(p, is_spam, precision):
    rows = counted(p, is_spam)
    return max((one for one, n, hits in rows if hits / n >= precision), default=None)


@threshold.wrong(
    "You go down from the top and stop at the first threshold that fails. Precision does not fall "
    "steadily: one good message with a high probability breaks it there, and more spam further "
    "down can bring it back."
)
def stops_early(p, is_spam, precision):
    kept = []
    for one, n, hits in counted(p, is_spam):
        if hits / n < precision:
            break
        kept.append((hits, one))
    return best(kept)


@threshold.wrong(
    "You take the lowest threshold that keeps the promise. A higher one can find as much spam: all "
    "messages between the two are then good ones, and they would be lost for nothing."
)
def lowest_of_equals(p, is_spam, precision):
    rows = counted(p, is_spam)
    kept = [(hits, -one) for one, n, hits in rows if hits / n >= precision]
    return -max(kept)[1] if kept else None


@threshold.wrong(
    "You ask for more than the promise. A threshold with exactly this precision keeps it, since it "
    "says **at least**."
)
def strictly(p, is_spam, precision):
    return best([(hits, one) for one, n, hits in counted(p, is_spam) if hits / n > precision])
