"""Exercises of lesson 03: fair comparisons of data, a filter by loss, a teacher's answers."""

import math
from collections import Counter

import pandas as pd

from sftlab.exercises.definitions import Exercise

equal_steps = Exercise(
    "03.1",
    "The same number of steps",
    after="1. How many examples?",
    minutes=8,
    difficulty=1,
    task="""
    You compare a smaller data set with a larger one at equal steps. Write a function that
    returns two numbers:

    - the number of optimizer steps that `epochs` epochs of the *larger* set take, which will be
      `max_steps` in both runs;
    - the number of epochs of the *smaller* set that take the same number of steps (it may be a
      fraction).

    `smaller` and `larger` are numbers of examples. As in the `Trainer`, each epoch goes through
    all examples in batches of `batch_size`, with one step per batch. The last batch of an epoch
    may be smaller than the others.
    """,
    hints=(
        "How many batches does one epoch have when the number of examples is no multiple of "
        "`batch_size`?",
        "Use the batches of an epoch twice: once for the larger set, to get the steps, and once "
        "for the smaller set, to turn steps into epochs.",
        "`math.ceil(examples / batch_size)` is the number of batches in an epoch. The first number "
        "is `epochs` times that of the larger set, the second is the first divided by that of the "
        "smaller set.",
    ),
    imports="import math",
)


@equal_steps.draw
def two_sizes(random):
    batch_size = random.choice([2, 4, 8])
    smaller = batch_size + random.randint(0, 12)
    larger = random.choice([2, 4]) * smaller + random.randint(0, 3)
    return smaller, larger, batch_size, random.randint(1, 4)


@equal_steps.stub
def steps_and_epochs(smaller, larger, batch_size, epochs):
    """The steps of both runs, and the epochs of the smaller set: two numbers."""
    return ...


@equal_steps.right
def counted_in_batches(smaller, larger, batch_size, epochs):
    steps = epochs * math.ceil(larger / batch_size)
    return steps, steps / math.ceil(smaller / batch_size)


@equal_steps.wrong(
    "You drop the incomplete batch at the end of each epoch. The `Trainer` keeps it unless you set "
    "`dataloader_drop_last`, so your run would stop before its last epoch is complete."
)
def last_batch_dropped(smaller, larger, batch_size, epochs):
    steps = epochs * (larger // batch_size)
    return steps, steps / (smaller // batch_size)


@equal_steps.wrong(
    "You round once, over all epochs, as if a batch could hold the end of one epoch and the "
    "beginning of the next. Each epoch has an incomplete batch of its own."
)
def rounded_once(smaller, larger, batch_size, epochs):
    steps = math.ceil(epochs * larger / batch_size)
    return steps, steps / math.ceil(smaller / batch_size)


@equal_steps.wrong(
    "Your number of epochs is the ratio of the numbers of examples. What has to be equal is the "
    "number of steps, and an incomplete batch is a whole step."
)
def ratio_of_sizes(smaller, larger, batch_size, epochs):
    return epochs * math.ceil(larger / batch_size), epochs * larger / smaller


@equal_steps.wrong(
    "Your steps are right. To turn them into epochs of the smaller set you count `batch_size` "
    "examples for each step, but the last batch of an epoch may hold fewer."
)
def each_batch_full(smaller, larger, batch_size, epochs):
    steps = epochs * math.ceil(larger / batch_size)
    return steps, steps * batch_size / smaller


@equal_steps.wrong(
    "Your epochs are those of a comparison at equal epochs: the smaller set then gets fewer steps. "
    "More data is mixed with more training, and you can't say which part of the gain comes from "
    "the data."
)
def equal_epochs(smaller, larger, batch_size, epochs):
    return epochs * math.ceil(larger / batch_size), epochs


@equal_steps.wrong(
    "You never round to whole batches. There is no part of a step: what remains at the end of an "
    "epoch is a batch and takes a step, in the larger set and in the smaller one."
)
def nothing_rounded(smaller, larger, batch_size, epochs):
    return epochs * larger / batch_size, epochs * larger / smaller


what_is_shown = Exercise(
    "03.2",
    "What does a comparison show?",
    after="3. Bad data or a prompt?",
    minutes=10,
    difficulty=2,
    task="""
    Each row of this made-up table holds a sentence from a report, and the only comparison that
    was made for it: two runs, A and B, and the 95% interval (`low` to `high`) of the accuracy of A
    minus that of B. Runs differ only in what the table says.

    Which sentences does their comparison show to be true? Answer with the set of their row
    numbers.
    """,
    hints=(
        "Two questions for each row: does the interval leave the sign open, and do A and B differ "
        "in anything that the sentence does not name?",
        "For a sentence about the cause of a difference, ask which third run would have to be "
        "there to exclude another cause.",
        "Three sentences are shown to be true. One of them is about the number of steps itself; "
        "another one compares a filter with dropping the same number of rows at random.",
    ),
    expects="a set of row numbers, such as {4, 5}",
)


@what_is_shown.draw
def report(random):
    columns = ["sentence", "A", "steps of A", "B", "steps of B", "low", "high"]
    best = "best 350 by loss"
    rows = [
        ("clean rows are worth more than messy ones", "500 clean", 375, "500 messy", 375, 8, 19),
        ("the gain comes from more clean rows", "2,000 clean", 1500, "500 clean", 375, 6, 15),
        ("the gain comes from the choice of rows", best, 375, "all 500", 375, 5, 14),
        ("the gain comes from the choice of rows", best, 375, "350 at random", 375, 4, 13),
        ("a prompt wins because the rows are messy", "prompt", 0, "500 messy", 375, 5, 20),
        ("a teacher's rows help", "50 + 450 of a teacher", 375, "the 50 alone", 375, -2, 9),
        ("more epochs of the same rows help", "500 clean", 1125, "500 clean", 375, 3, 12),
    ]
    frame = pd.DataFrame(rows, columns=columns)
    return (frame.assign(low=frame["low"] / 100, high=frame["high"] / 100),)


@what_is_shown.right
def shown(table):
    # 1: more steps too. 2: fewer rows alone might do it; a random choice of as many is missing.
    # 4: a run on clean rows is missing, which might end below the prompt too. 5: 0 is inside.
    return {0, 3, 6}


@what_is_shown.wrong(
    "You take each comparison whose interval excludes 0. That says only that A and B differ, not "
    "why: where they differ in two things, or where a control is missing, the sentence names one "
    "of several possible causes."
)
def significant(table):
    return set(table.index[table["low"] > 0])


@what_is_shown.wrong(
    "One of your sentences is about more rows, and its run with more rows also took more steps. "
    "It may be the training and not the data that helped."
)
def more_steps_too(table):
    return {0, 1, 3, 6}


@what_is_shown.wrong(
    "One of your comparisons with a filter has no control. That filter changes which rows are "
    "trained on and also how many, so you can't say which of the two helped."
)
def no_control(table):
    return {0, 2, 3, 6}


@what_is_shown.wrong(
    "That the prompt beats training on messy rows is measured, its cause is not: nobody "
    "trained on clean rows, and such a run might end below the prompt as well."
)
def no_clean_run(table):
    return {0, 3, 4, 6}


@what_is_shown.wrong(
    "You refuse each comparison of different numbers of steps. That is correct where steps are a "
    "second difference; in one of the sentences they are the difference that it is about."
)
def steps_always_equal(table):
    return {0, 3}


@what_is_shown.wrong(
    "Equal steps and an interval without 0 are not enough, and equal steps are not always needed. "
    "Ask for each sentence what it names as the cause, and whether something else differs."
)
def two_rules(table):
    equal = table["steps of A"] == table["steps of B"]
    return set(table.index[equal & (table["low"] > 0)])


by_loss = Exercise(
    "03.3",
    "A filter by loss",
    after="4. Let the base model find the wrong answers",
    minutes=10,
    difficulty=2,
    task="""
    A base model has computed a loss for each token of each row. Write the filter: keep the
    `count` rows whose *answers* surprise the model least, in nats per token.

    `losses` holds a list of numbers for each row, one per token. `is_answer` has the same shape and
    is `True` where the token belongs to the answer. Return the numbers of the rows that are kept,
    in the order of the data: a list of `count` integers. No two rows have the same score, and each
    has an answer.
    """,
    hints=(
        "First write down one score for each row, a single number, then choose rows by it.",
        "Only some of the tokens count, and an answer must not get a worse score only because it "
        "is long.",
        "The score is the sum of the losses where `is_answer` is true, divided by the number of "
        "such tokens. `sorted(range(len(losses)), key=scores.__getitem__)[:count]` gives the rows "
        "by score; sort these numbers once more.",
    ),
)


@by_loss.draw
def scored_rows(random):
    while True:
        losses, is_answer = [], []
        for _ in range(random.randint(3, 5)):
            question, answer = random.randint(1, 2), random.choice([1, 1, 2, 4])
            losses.append([random.randint(1, 60) / 10 for _ in range(question + answer)])
            is_answer.append([False] * question + [True] * answer)
        count = random.randint(1, len(losses) - 1)
        scores = [of_answers(*row) for row in zip(losses, is_answer, strict=True)]
        if len(set(scores)) == len(scores):
            return losses, is_answer, count


def of_answers(row, flags):
    answer = [loss for loss, flag in zip(row, flags, strict=True) if flag]
    return round(sum(answer) / len(answer), 6)


def lowest(scores, count):
    return sorted(sorted(range(len(scores)), key=scores.__getitem__)[:count])


@by_loss.stub
def kept(losses, is_answer, count):
    """The numbers of the rows that are kept, in the order of the data: a list of integers."""
    return ...


@by_loss.right
def least_surprising(losses, is_answer, count):
    scores = []
    for row, flags in zip(losses, is_answer, strict=True):
        answer = [loss for loss, flag in zip(row, flags, strict=True) if flag]
        scores.append(sum(answer) / len(answer))
    best = sorted(range(len(losses)), key=scores.__getitem__)[:count]
    return sorted(best)


@by_loss.wrong(
    "You add up the losses of an answer. Each further token adds to the sum, so this filter drops "
    "long answers, wrong or not, and your model would learn to be brief."
)
def summed(losses, is_answer, count):
    rows = zip(losses, is_answer, strict=True)
    return lowest([sum(x for x, flag in zip(*row, strict=True) if flag) for row in rows], count)


@by_loss.wrong(
    "Your scores include the tokens of the question. An unusual question then costs a row its "
    "place, whatever its answer, and the data loses the questions that are rare."
)
def question_too(losses, is_answer, count):
    return lowest([sum(row) / len(row) for row in losses], count)


@by_loss.wrong(
    "You add up the losses of the answer and divide by the number of all tokens of the row. The "
    "longer the question, the better its answer looks then."
)
def divided_by_all(losses, is_answer, count):
    rows = zip(losses, is_answer, strict=True)
    return lowest(
        [sum(x for x, f in zip(*row, strict=True) if f) / len(row[0]) for row in rows], count
    )


@by_loss.wrong(
    "You keep the rows with the highest loss. Those are the ones that the base model finds least "
    "plausible: among them are the wrong answers that you want to drop."
)
def most_surprising(losses, is_answer, count):
    scores = [-of_answers(*row) for row in zip(losses, is_answer, strict=True)]
    return lowest(scores, count)


@by_loss.wrong(
    "These are the rows to keep, but in the order of their loss. A filter should change which rows "
    "are used and nothing else, so the order of the data stays."
)
def in_order_of_loss(losses, is_answer, count):
    scores = [of_answers(*row) for row in zip(losses, is_answer, strict=True)]
    return sorted(range(len(losses)), key=scores.__getitem__)[:count]


agreement = Exercise(
    "03.4",
    "A teacher's answers, filtered",
    after="5. Answers written by another model",
    minutes=8,
    difficulty=1,
    task="""
    A teacher model was sampled several times for each question. Keep the answers on which *all*
    its draws agree, as in this section.

    `draws` is a dict: question to the list of its outputs. Outputs that differ only in whitespace
    at their beginning or end are the same answer. An output of nothing but whitespace is no
    answer: a question with such an output is dropped. Return a dict with the questions that are
    kept: question to answer, without whitespace at the beginning and the end.
    """,
    hints=(
        "Bring the outputs of a question into one form before you compare them.",
        "Put the outputs of a question into a `set`: its size says whether they agree. Then one "
        "more condition is missing.",
        "For each question: `answers = {output.strip() for output in outputs}`. It is kept if the "
        'set has exactly one element and that element is not `""`.',
    ),
)


@agreement.draw
def sampled(random):
    draws, count = {}, random.choice([3, 4, 5])
    for question in ("Peru?", "Chad?")[: random.randint(1, 2)]:
        first, other = random.sample(["Lima", "Sarh", ""], 2)
        changed = random.choice([0, 0, 1, 2])
        outputs = [other] * changed + [first] * (count - changed)
        random.shuffle(outputs)
        around = ["{}", "{}", "{}", " {}", "{} "]
        draws[question] = [random.choice(around).format(one) for one in outputs]
    return (draws,)


@agreement.stub
def filtered_answers(draws):
    """The answers that are kept: a dict from question to answer."""
    return ...


@agreement.right
def all_the_same(draws):
    kept = {}
    for question, outputs in draws.items():
        answers = {output.strip() for output in outputs}
        if len(answers) == 1 and answers != {""}:
            kept[question] = answers.pop()
    return kept


@agreement.wrong(
    "You keep the most frequent answer of each question. That is self-consistency, which answers "
    "everything; this filter drops a question when its draws differ, since answers that change "
    "are often made up."
)
def most_frequent(draws):
    common = {q: Counter(map(str.strip, o)).most_common(1)[0][0] for q, o in draws.items()}
    return {question: answer for question, answer in common.items() if answer}


@agreement.wrong(
    "You keep an answer when more than half of the draws agree. The filter of this section is "
    "stricter: one different draw is a sign that the teacher does not know the answer."
)
def more_than_half(draws):
    kept = {}
    for question, outputs in draws.items():
        answer, times = Counter(map(str.strip, outputs)).most_common(1)[0]
        if answer and times > len(outputs) / 2:
            kept[question] = answer
    return kept


@agreement.wrong(
    "You compare the outputs as they were sampled. A space at one end makes equal answers look "
    "different, and you lose answers that the teacher knows."
)
def whitespace_counts(draws):
    return {q: outputs[0] for q, outputs in draws.items() if len(set(outputs)) == 1}


@agreement.wrong(
    "You keep the right questions, but an answer may still have the whitespace with which it was "
    "sampled. A student learns it as a part of the answer, in some rows and not in others."
)
def kept_as_sampled(draws):
    stripped = {q: {one.strip() for one in outputs} for q, outputs in draws.items()}
    return {q: draws[q][0] for q, found in stripped.items() if len(found) == 1 and found != {""}}


@agreement.wrong(
    "You leave empty outputs out before you compare. An empty draw is a draw too, and it is a sign "
    "that the teacher does not know the answer: not all draws agree."
)
def empty_ignored(draws):
    kept = {q: {one.strip() for one in outputs} - {""} for q, outputs in draws.items()}
    return {q: min(answers) for q, answers in kept.items() if len(answers) == 1}


@agreement.wrong(
    "Draws that are all empty agree too, and you keep them. A student that is trained on them "
    "learns to answer with nothing."
)
def empty_answers(draws):
    stripped = {q: {one.strip() for one in outputs} for q, outputs in draws.items()}
    return {q: min(answers) for q, answers in stripped.items() if len(answers) == 1}
