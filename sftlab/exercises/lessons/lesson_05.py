"""Exercises of lesson 05: labels and masks."""

from sftlab.exercises.definitions import Exercise

labels = Exercise(
    "05.1",
    "Labels of a conversation",
    after="1. What a label is",
    minutes=8,
    difficulty=1,
    task="""
    Write the labels of one conversation by hand, as a `transformers` model expects them.
    `ids` are its tokens, `is_answer` says for each token whether the assistant wrote it.
    """,
    hints=(
        "A label stands at the position of its own token.",
        "What is not learned has the label -100, which the loss skips.",
        "One line is enough: a list comprehension over `zip(ids, is_answer)`.",
    ),
)


@labels.draw
def conversation(random):
    ids = [random.randint(5, 99) for _ in range(random.randint(1, 8))]
    return ids, [random.random() < 0.5 for _ in ids]


@labels.stub
def labels_of(ids, is_answer):
    """The label of each token: a list of integers as long as `ids`."""
    return ...


@labels.right
def masked(ids, is_answer):
    return [one if answer else -100 for one, answer in zip(ids, is_answer, strict=True)]


@labels.wrong("These labels are shifted: the model shifts them itself, so it would skip a token.")
def shifted(ids, is_answer):
    return [*masked(ids, is_answer)[1:], -100]


@labels.wrong("Every token is supervised here, the prompt too.")
def everything(ids, is_answer):
    return list(ids)


@labels.wrong("0 is the id of a token; the loss skips another number.")
def zeros(ids, is_answer):
    return [one if answer else 0 for one, answer in zip(ids, is_answer, strict=True)]
