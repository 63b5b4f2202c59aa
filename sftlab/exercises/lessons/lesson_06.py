"""Exercises of lesson 06: the loop, accumulation, packing, and what to choose a run by."""

import pandas as pd

from sftlab.exercises.definitions import Exercise

loop = Exercise(
    "06.1",
    "A training loop for one weight",
    after="1. The loop",
    minutes=12,
    difficulty=2,
    tolerance=1e-4,  # PyTorch computes in float32
    task="""
    A model has a single weight and predicts `weight * x`. Its loss on a batch is the mean of
    `(weight * x - y) ** 2`, so the gradient is the mean of `2 * x * (weight * x - y)` over the
    pairs of the batch.

    Write its training loop. Each batch makes one step, in the given order, and the optimizer is
    plain gradient descent: it subtracts the learning rate times the gradient from the weight. As
    in `train_by_hand`, the gradient is clipped to a norm of 1, and the learning rate falls along a
    straight line from `rate` towards zero. Python's own numbers are enough; PyTorch works too.

    - `weight`: the weight at the start, a number;
    - `batches`: a list of batches, each a list of pairs `(x, y)`;
    - `rate`: the learning rate of the first step.
    """,
    hints=(
        "Write the four parts of a step in their order: the gradient of this batch, clipping, the "
        "learning rate of this step, the move.",
        "With one weight, the gradient norm is the absolute value of the gradient. The first step "
        "is made at the whole `rate`; a step after the last would be made at zero.",
        "`for step, batch in enumerate(batches):` the learning rate is "
        "`rate * (1 - step / len(batches))`, and clipping is `max(-1, min(1, gradient))`. Compute "
        "the gradient anew from this batch and the present weight.",
    ),
)


@loop.draw
def batches(random):
    def pair():
        return random.randint(1, 2), random.choice([0.5, 1.0, 1.5, 2.0, 4.0])

    count = random.randint(1, 3)
    data = [[pair() for _ in range(random.randint(1, 2))] for _ in range(count)]
    return random.choice([0.0, 1.0]), data, random.choice([0.1, 0.2])


@loop.stub
def train_weight(weight, batches, rate):
    """The weight after the last step, a number."""
    return ...


@loop.right
def trained(weight, batches, rate):
    for step, batch in enumerate(batches):
        gradient = sum(2 * x * (weight * x - y) for x, y in batch) / len(batch)
        gradient = max(-1, min(1, gradient))  # clipping
        weight -= rate * (1 - step / len(batches)) * gradient  # schedule and move
    return weight


def descend(weight, batches, rate, *, clip=1, early=0, falls=1, last=0, keep=0, unit=False):
    """The same loop, with parts that can be wrong."""
    gradient = 0
    for step, batch in enumerate(batches):
        errors = [2 * x * (weight * x - y) for x, y in batch]
        gradient = keep * gradient + sum(errors) / len(batch)
        gradient = max(-clip, min(clip, gradient))
        gradient /= abs(gradient) if unit and gradient else 1
        steps = max(1, len(batches) - last)
        weight -= rate * (1 - falls * (step + early) / steps) * gradient
    return weight


@loop.wrong(
    "The gradients of earlier batches are still in this one: you add to them and never reset them. "
    "In PyTorch `backward()` adds as well, which is what makes gradient accumulation possible, and "
    "what a loop without accumulation has to undo before each step."
)
def not_reset(weight, batches, rate):
    return descend(weight, batches, rate, keep=1)


@loop.wrong(
    "Every step is made at the same learning rate, so the schedule is missing. With a constant "
    "rate the weight may jump back and forth around the best value, also at the end."
)
def constant(weight, batches, rate):
    return descend(weight, batches, rate, falls=0)


@loop.wrong(
    "You lower the learning rate before the step that it belongs to. The first step is then too "
    "small, and the last one is made at a rate of zero and learns nothing. PyTorch warns of this "
    "when `scheduler.step()` is called before `optimizer.step()`."
)
def lowered_too_early(weight, batches, rate):
    return descend(weight, batches, rate, early=1)


@loop.wrong(
    "The gradient is not clipped when the weight moves. One batch with a large error then makes a "
    "very large step. (Clipping before the gradient is computed, or after the move, does nothing.)"
)
def not_clipped(weight, batches, rate):
    return descend(weight, batches, rate, clip=float("inf"))


@loop.wrong(
    "Small gradients are scaled up here: every step has the same length. Clipping is a limit and "
    "leaves shorter gradients alone, so that steps become smaller where the loss is flat."
)
def always_one(weight, batches, rate):
    return descend(weight, batches, rate, unit=True)


@loop.wrong(
    "The learning rate is already zero at the last step, so the last batch changes nothing. Which "
    "step should be the first one at a rate of zero: the last, or one after it?"
)
def zero_at_the_last(weight, batches, rate):
    return descend(weight, batches, rate, last=1)


accumulation = Exercise(
    "06.2",
    "The loss of an accumulated step",
    after="4. Batch size and gradient accumulation",
    minutes=8,
    difficulty=1,
    task="""
    One optimizer step accumulates several small batches. Compute its loss so that it equals the
    loss of one large batch with the same rows.

    `batches` is a list of small batches. A small batch is a list of rows, and a row is the list of
    the losses of its supervised tokens: `[[[0.5, 2.0], [1.0]], [[3.0]]]` is two small batches, the
    first with two rows.
    """,
    hints=(
        "What would the large batch do? It has one loss, a mean, and does not know of small "
        "batches.",
        "A mean is a sum divided by a count. Which two numbers do you need of all small batches "
        "together, before you divide?",
        "Put the losses of all tokens into one list, `[loss for batch in batches for row in batch "
        "for loss in row]`, and take its mean.",
    ),
)


@accumulation.draw
def small_batches(random):
    def row():
        return [random.randint(1, 8) / 2 for _ in range(random.randint(1, 3))]

    count = random.randint(2, 3)
    return ([[row() for _ in range(random.randint(1, 2))] for _ in range(count)],)


@accumulation.stub
def step_loss(batches):
    """The loss of the step, a number."""
    return ...


@accumulation.right
def over_tokens(batches):
    losses = [loss for batch in batches for row in batch for loss in row]
    return sum(losses) / len(losses)


@accumulation.wrong(
    "You take the mean of each small batch, and then the mean of these. A token in a small batch "
    "with few supervised tokens then counts more than one in a batch with many. This is how "
    "trainers computed it for years, and why accumulation was not the same as a large batch."
)
def mean_of_batch_means(batches):
    flat = [[loss for row in batch for loss in row] for batch in batches]
    return sum(sum(losses) / len(losses) for losses in flat) / len(flat)


@accumulation.wrong(
    "You weigh every row alike. A token of a short answer then counts more than one of a long "
    "answer. That is a loss one can choose, but a large batch computes another one."
)
def mean_of_row_means(batches):
    rows = [sum(row) / len(row) for batch in batches for row in batch]
    return sum(rows) / len(rows)


@accumulation.wrong(
    "You divide the sum of all losses by the number of small batches, which is not the number of "
    "losses. Steps with long answers then get a larger gradient than steps with short ones."
)
def over_batches(batches):
    return sum(loss for batch in batches for row in batch for loss in row) / len(batches)


@accumulation.wrong(
    "You divide the sum of all losses by the number of rows. A row has several losses, one for "
    "each supervised token, so this is not their mean: it grows with the length of the answers."
)
def over_rows(batches):
    rows = [row for batch in batches for row in batch]
    return sum(map(sum, rows)) / len(rows)


@accumulation.wrong(
    "You take a mean three times: over the tokens of a row, over the rows of a small batch, and "
    "over the small batches. A token then counts more where its row or its batch is small, and a "
    "large batch would not do that."
)
def three_means(batches):
    means = [mean_of_row_means([batch]) for batch in batches]
    return sum(means) / len(means)


@accumulation.wrong(
    "That is a sum. It grows with the number of tokens, so a step with long answers would move "
    "the weights further, and the learning rate of a single batch would no longer fit."
)
def total(batches):
    return sum(loss for batch in batches for row in batch for loss in row)


packing = Exercise(
    "06.3",
    "What a packed token may see",
    after="6. What costs less",
    minutes=10,
    difficulty=2,
    task="""
    Several examples are packed into one row. Say for each token of the row to which tokens it may
    attend, so that training gives the same as with one example in each row. In a causal model a
    token attends to itself and to tokens before it.

    `lengths` are the numbers of tokens of the examples, in their order in the row. Tokens are
    named by their place in the row, counted from 0. The result has a list of places for each token;
    it is not a matrix of zeros and ones.
    """,
    hints=(
        "Which tokens would this one see if its example stood alone in a row?",
        "Keep the place at which the present example begins. No token before it may be seen.",
        "`for length in lengths:` the token at `start + n`, for `n` in `range(length)`, sees "
        "`list(range(start, start + n + 1))`. After each example add its length to `start`.",
    ),
)


@packing.draw
def lengths(random):
    return ([random.randint(1, 3) for _ in range(random.randint(1, 3))],)


@packing.stub
def may_attend(lengths):
    """For each token of the row the list of places that it may attend to, in rising order."""
    return ...


@packing.right
def apart(lengths):
    seen, start = [], 0
    for length in lengths:
        seen += [list(range(start, start + n + 1)) for n in range(length)]
        start += length
    return seen


@packing.wrong(
    "These tokens also see the examples in front of their own: that is the mask of one long text. "
    "An answer would be learned after the question of another example, and no error message "
    "would say so."
)
def one_text(lengths):
    return [list(range(n + 1)) for n in range(sum(lengths))]


@packing.wrong(
    "Each token sees its whole example, also what comes after it. It would be trained to predict "
    "a next token that it can read, which it cannot do when it writes an answer."
)
def both_ways(lengths):
    seen, start = [], 0
    for length in lengths:
        seen += [list(range(start, start + length))] * length
        start += length
    return seen


@packing.wrong(
    "These tokens do not see themselves. Only labels are about the next token: to predict it, the "
    "model reads everything up to and including the present one. The first token of each example "
    "would see nothing at all."
)
def not_itself(lengths):
    return [places[:-1] for places in apart(lengths)]


@packing.wrong(
    "You count the places anew in each example. That is right for the position ids, which have to "
    "restart. But here a place is one in the packed row, and these places belong to the first "
    "example."
)
def position_ids(lengths):
    return [list(range(n + 1)) for length in lengths for n in range(length)]


choice = Exercise(
    "06.4",
    "Which run, and which number?",
    after="7. What a loss can tell",
    minutes=6,
    difficulty=1,
    task="""
    A made-up table of five runs on the same examples. The validation questions and the test
    questions are of one kind, and nothing was trained on either of them. Which run do you take,
    and which accuracy do you report for it? Go by the rule at the end of this section.
    """,
    expects='the run and its accuracy, such as ("E", 0.31)',
    hints=(
        "A loss averages over tokens; what the model is for is correct answers.",
        "One set of questions chooses, and another one gives the number to report. Why not the "
        "same one for both?",
        "Take the highest validation accuracy, and report the test accuracy in the same row.",
    ),
)


@choice.draw
def runs(random):
    rows = [
        ("A", 0.05, 1.10, 0.78, 0.80),
        ("B", 0.21, 0.92, 0.86, 0.81),
        ("C", 0.34, 0.61, 0.72, 0.74),
        ("D", 0.28, 0.80, 0.83, 0.85),
        ("E", 0.90, 1.90, 0.31, 0.28),
    ]
    losses, scores = ["training loss", "validation loss"], ["validation accuracy", "test accuracy"]
    return (pd.DataFrame(rows, columns=["run", *losses, *scores]),)


@choice.right
def chosen(runs):
    best = runs.loc[runs["validation accuracy"].idxmax()]
    return best["run"], best["test accuracy"]


@choice.wrong(
    "You chose by the test accuracy, and report the same number. The highest of several measured "
    "values is partly luck: on other questions this run will probably have a lower accuracy. A "
    "test set that chooses is a validation set."
)
def by_test(runs):
    best = runs.loc[runs["test accuracy"].idxmax()]
    return best["run"], best["test accuracy"]


@choice.wrong(
    "The run is well chosen. But the number that you report is the one that chose it: it was the "
    "highest of five, and is partly luck."
)
def reports_what_chose(runs):
    best = runs.loc[runs["validation accuracy"].idxmax()]
    return best["run"], best["validation accuracy"]


@choice.wrong(
    "You chose by the lowest validation loss. A very high loss shows that a run failed, but among "
    "the other runs the lowest loss need not have the most correct answers: compare the accuracies "
    "of this run with those of its neighbors in the table."
)
def by_validation_loss(runs):
    best = runs.loc[runs["validation loss"].idxmin()]
    return best["run"], best["test accuracy"]


@choice.wrong(
    "You chose by the lowest validation loss, and you report an accuracy on questions of the set "
    "that chose. Both are about the validation set, but the loss counts tokens and the accuracy "
    "counts answers: they need not agree on the best run."
)
def all_on_validation(runs):
    best = runs.loc[runs["validation loss"].idxmin()]
    return best["run"], best["validation accuracy"]


@choice.wrong(
    "You let the test questions choose, and report the validation questions. The two sets have "
    "changed their roles. A test set is kept for the number that you report."
)
def roles_changed(runs):
    best = runs.loc[runs["test accuracy"].idxmax()]
    return best["run"], best["validation accuracy"]


@choice.wrong(
    "You chose by the lowest training loss. It says how well the model repeats the examples that "
    "it saw, and cannot tell learning from memorizing."
)
def by_training_loss(runs):
    best = runs.loc[runs["training loss"].idxmin()]
    return best["run"], best["test accuracy"]
