"""Exercises of lesson 09: a metric, a paired interval, a judge, a table of results."""

import numpy as np
import pandas as pd

from sftlab.exercises.definitions import Exercise

f1 = Exercise(
    "09.1",
    "Token F1",
    after="1. Which metric?",
    minutes=8,
    difficulty=1,
    task="""
    Write the token F1 of one output. It is the harmonic mean of two shares: how many of the
    output's words the reference has too, and how many of the reference's words the output has too.
    Both texts are given as lists of words, in lower case and without punctuation; neither is
    empty. Count repeated words one by one: a word that stands twice in one list and once in the
    other is shared once, one that stands twice in both is shared twice. Without a shared word the
    score is 0.
    """,
    hints=(
        "Count the shared words first. Both shares have this same number in the numerator.",
        "The two shares differ in the denominator: once the words of the output, once those of "
        "the reference. The harmonic mean of two numbers is twice their product over their sum.",
        "For each different word take the smaller of its two counts, such as "
        "`min(output.count(word), reference.count(word))`, and add these up to `shared`. With "
        "both shares inserted, the harmonic mean is `2 * shared` over the sum of both lengths.",
    ),
)


@f1.draw
def texts(random):
    words = ("paris", "rome", "is", "not", "the")
    return tuple([random.choice(words) for _ in range(random.randint(1, 5))] for _ in range(2))


@f1.stub
def token_f1(output, reference):
    """Token F1 of two lists of words: a number from 0 to 1."""
    return ...


@f1.right
def harmonic(output, reference):
    shared = sum(min(output.count(word), reference.count(word)) for word in set(output))
    return 2 * shared / (len(output) + len(reference))


@f1.wrong(
    "This is the share of the output's words alone. An output of one shared word gets full marks "
    "with it, however much of the reference is missing."
)
def precision(output, reference):
    return sum(min(output.count(word), reference.count(word)) for word in set(output)) / len(output)


@f1.wrong(
    "This is the share of the reference's words alone. An output that lists every word there is "
    "gets full marks with it: padding costs nothing."
)
def recall(output, reference):
    return precision(reference, output)


@f1.wrong(
    "You average the two shares. Then an output with one good share and one bad share still gets "
    "half the marks; the harmonic mean is close to the smaller of the two."
)
def averaged(output, reference):
    return (precision(output, reference) + recall(output, reference)) / 2


@f1.wrong(
    "You count a shared word once, however often it stands in both texts, but divide by lengths "
    "that count each repetition. An output equal to its reference can then score below 1."
)
def as_sets(output, reference):
    return 2 * len(set(output) & set(reference)) / (len(output) + len(reference))


@f1.wrong(
    "You count every word of one text that stands somewhere in the other. An output that repeats "
    "one word of the reference then gains with each repetition."
)
def uncapped(output, reference):
    one = sum(word in reference for word in output) / len(output)
    other = sum(word in output for word in reference) / len(reference)
    return 2 * one * other / (one + other) if one + other else 0.0


@f1.wrong(
    "You remove repeated words before you compare. An output that says one name five times then "
    "scores as if it had said it once, and running on costs nothing."
)
def without_repeats(output, reference):
    one, other = set(output), set(reference)
    return 2 * len(one & other) / (len(one) + len(other))


paired = Exercise(
    "09.2",
    "An interval for a difference",
    after="3. One interval by hand",
    minutes=12,
    difficulty=2,
    task="""
    Two methods were trained with the same seeds and asked the same questions. `ours` and `theirs`
    are arrays of shape (runs, countries) with the accuracy of each run on the questions about each
    country; the same row is the same seed in both, the same column the same country. How wide is
    the 95% interval of the difference between the two *methods*? Bootstrap it with 10,000 draws:
    the interval is the middle 95% of the mean differences. If the experiment were repeated, both
    the seeds and the countries would be others.

    Your draws are random, so the check allows for a width that is off by a few percent.
    """,
    hints=(
        "Which numbers would change if the experiment were repeated from the beginning? Draw "
        "these again. What two numbers have in common must stay together in a draw.",
        "Subtract before you draw: one grid of differences keeps the pairs together. In each draw "
        "take as many rows as there are, with replacement, and as many columns.",
        "With `gaps = ours - theirs`, one draw is `gaps[np.ix_(rows, columns)].mean()`, where "
        "`rows = rng.integers(runs, size=runs)`, and `columns` is drawn in the same way. The width "
        "is the difference of the percentiles 2.5 and 97.5 of all the means.",
    ),
    draws=4,
    tolerance=0.08,
)


@paired.draw
def two_grids(random):
    def spread(n, width):
        return np.array([random.uniform(-width, width) for _ in range(n)])

    runs, places = random.choice([(5, 4), (3, 8)])
    both = 0.5 + spread(places, 0.2) + spread(runs, 0.06)[:, None]  # what the pairs share
    own = [both + spread(runs, 0.12)[:, None] + spread(places, 0.1) for _ in range(2)]
    return tuple(np.clip(grid, 0, 1).round(2) for grid in own)


@paired.stub
def paired_width(ours, theirs):
    """Width of the 95% interval of the mean difference: a number."""
    return ...


@paired.right
def runs_and_countries(ours, theirs):
    rng, gaps = np.random.default_rng(0), ours - theirs
    runs, places = gaps.shape
    rows = rng.integers(runs, size=(10_000, runs, 1))
    columns = rng.integers(places, size=(10_000, 1, places))
    means = gaps[rows, columns].mean(axis=(1, 2))
    return np.ptp(np.percentile(means, [2.5, 97.5]))


@paired.wrong(
    "You draw only the countries again and keep the runs. This interval describes the models that "
    "you happened to train; another seed may lie outside of it."
)
def countries_only(ours, theirs):
    rng, gaps = np.random.default_rng(0), ours - theirs
    columns = rng.integers(gaps.shape[1], size=(10_000, gaps.shape[1]))
    return np.ptp(np.percentile(gaps[:, columns].mean(axis=(0, 2)), [2.5, 97.5]))


@paired.wrong(
    "You draw only the runs again and keep the countries. This interval describes these questions; "
    "with others the difference may be another one."
)
def runs_only(ours, theirs):
    rng, gaps = np.random.default_rng(0), ours - theirs
    rows = rng.integers(gaps.shape[0], size=(10_000, gaps.shape[0]))
    return np.ptp(np.percentile(gaps[rows].mean(axis=(1, 2)), [2.5, 97.5]))


@paired.wrong(
    "You draw for each method on its own. A country that is hard for one is often hard for the "
    "other, and without the pairs this common part no longer cancels: the interval is too wide, "
    "and real differences are missed."
)
def unpaired(ours, theirs):
    rng, means, (runs, places) = np.random.default_rng(0), [], ours.shape
    for grid in (ours, theirs):
        rows = rng.integers(runs, size=(10_000, runs, 1))
        columns = rng.integers(places, size=(10_000, 1, places))
        means.append(grid[rows, columns].mean(axis=(1, 2)))
    return np.ptp(np.percentile(means[0] - means[1], [2.5, 97.5]))


@paired.wrong(
    "You draw each entry of the grid on its own, as if it had its own run and its own country. "
    "The entries of one run succeed and fail together, so there is less evidence than entries, "
    "and this interval is too narrow."
)
def entry_by_entry(ours, theirs):
    rng, gaps = np.random.default_rng(0), (ours - theirs).ravel()
    means = gaps[rng.integers(gaps.size, size=(10_000, gaps.size))].mean(axis=1)
    return np.ptp(np.percentile(means, [2.5, 97.5]))


@paired.wrong(
    "You leave out 5% at each end, so this is the middle 90% of the means: the interval misses the "
    "true difference twice as often as one of 95%."
)
def ninety(ours, theirs):
    return runs_and_countries(ours, theirs) * 1.645 / 1.96  # nearly a normal distribution


@paired.wrong(
    "This is the middle 95% of the single differences. It says how much they scatter, and stays "
    "as wide however many of them you measure; asked for is how well their *mean* is known."
)
def of_entries(ours, theirs):
    return np.ptp(np.percentile(ours - theirs, [2.5, 97.5]))


orders = Exercise(
    "09.3",
    "A judge in both orders",
    after="6. Measure a judge before you believe it",
    minutes=10,
    difficulty=2,
    task="""
    A judge compared your model with an opponent. Each pair of answers was shown in both orders,
    and `verdicts` has a tuple of two letters for each pair: the first verdict is from when your
    answer was shown as A, the second from when it was shown as B. A verdict is `"A"`, `"B"`, or
    `"C"` for a tie.

    Return two numbers: your model's win rate over all verdicts, a tie counted as half a win; and
    the judge's position bias, which is the wins minus the losses of the answer that was shown as
    A, as a share of all verdicts.
    """,
    hints=(
        'Write down for each of the two orders what `"A"` says about your model.',
        "Your model is A in the first verdict of a tuple and B in the second. For the position "
        "bias it does not matter whose answer it was.",
        "Make two lists, `[one for one, _ in verdicts]` and `[two for _, two in verdicts]`. The "
        'wins are the `"A"`s of the first and the `"B"`s of the second, and half of all `"C"`s. '
        'The bias is the number of all `"A"`s minus that of all `"B"`s. Divide both by twice the '
        "number of pairs.",
    ),
)


@orders.draw
def of_a_judge(random):
    letters = random.choice(("AABC", "ABC", "AB"))
    pairs = [(random.choice(letters), random.choice(letters)) for _ in range(random.randint(1, 5))]
    return ([("A", "B") if pairs[0] == ("C", "C") else pairs[0], *pairs[1:]],)


@orders.stub
def win_rate_and_bias(verdicts):
    """(win rate of your model, position bias of the judge)."""
    return ...


@orders.right
def turned_around(verdicts):
    first, second = [one for one, _ in verdicts], [two for _, two in verdicts]
    shown = first + second
    wins = first.count("A") + second.count("B") + shown.count("C") / 2
    bias = shown.count("A") - shown.count("B")
    return wins / len(shown), bias / len(shown)


@orders.wrong(
    "You take every A for a win of your model. In the second order your answer is the other one, "
    "so this measures again how often the answer that is shown first wins."
)
def never_turned(verdicts):
    shown = [letter for pair in verdicts for letter in pair]
    wins = shown.count("A") + shown.count("C") / 2
    return wins / len(shown), (shown.count("A") - shown.count("B")) / len(shown)


@orders.wrong(
    "Your win rate is of the first order alone, in which your answer is always shown first. A "
    "judge that prefers the first answer then prefers your model."
)
def one_order(verdicts):
    first = [one for one, _ in verdicts]
    wins = first.count("A") + first.count("C") / 2
    return wins / len(first), turned_around(verdicts)[1]


@orders.wrong(
    "You leave ties out of the win rate. With many ties a few verdicts decide then, and a model "
    "that is nearly always equal to its opponent can get any win rate."
)
def ties_dropped(verdicts):
    first, second = [one for one, _ in verdicts], [two for _, two in verdicts]
    wins, ties = first.count("A") + second.count("B"), (first + second).count("C")
    decided = 2 * len(verdicts) - ties
    return wins / decided, turned_around(verdicts)[1]


@orders.wrong(
    "You count a tie as a loss. Two equal models then both have a win rate below one half."
)
def ties_lost(verdicts):
    first, second = [one for one, _ in verdicts], [two for _, two in verdicts]
    wins = first.count("A") + second.count("B")
    return wins / (2 * len(verdicts)), turned_around(verdicts)[1]


@orders.wrong(
    "You make one verdict of the two in a tuple: a win or a loss only where both agree, otherwise "
    "a tie. Some reports do so, but the task counts all verdicts: there one win and one tie are "
    "worth more than two ties."
)
def tie_unless_both(verdicts):
    wins, losses = verdicts.count(("A", "B")), verdicts.count(("B", "A"))
    return (1 + (wins - losses) / len(verdicts)) / 2, turned_around(verdicts)[1]


@orders.wrong(
    "Your position bias is the share of verdicts for the answer shown first. A judge without a "
    "bias then has a value of one half or, with ties, less; wins minus losses are 0 for it."
)
def share_for_the_first(verdicts):
    shown = [letter for pair in verdicts for letter in pair]
    return turned_around(verdicts)[0], shown.count("A") / len(shown)


noise = Exercise(
    "09.4",
    "Which of these methods differ?",
    after="9. A report that decides",
    minutes=10,
    difficulty=2,
    task="""
    A made-up report compares seven pairs of training methods, A and B, by accuracy in percent.
    `A from`, `A to`, `B from` and `B to` are the 95% intervals of each method alone. `A - B` is the
    paired difference in points and `from`, `to` its 95% interval, corrected so that all seven hold
    at once. `drawn again` says what the intervals allow for.

    Which rows show that A and B differ **as training methods**, whichever is better and however
    small the difference is?
    """,
    expects="the rows that show a difference, such as {1, 6}",
    hints=(
        "There is one interval in each row that is about the difference. Two separate intervals "
        "may overlap although the difference is resolved.",
        "A method is more than one run of it: read the last column too.",
        "Take the rows whose `from` and `to` have the same sign, and of these only the rows that "
        "drew the runs again.",
    ),
)


@noise.draw
def report(random):
    both, one = "runs and countries", "countries, of one run"
    columns = ("A", "A from", "A to", "B", "B from", "B to", "A - B", "from", "to", "drawn again")
    rows = (
        (71, 65, 77, 66, 60, 72, 5, 2, 8, both),
        (80, 68, 92, 71, 58, 84, 9, -4, 22, both),
        (74, 71, 77, 70, 67, 73, 4, 2, 6, one),
        (90.2, 89.7, 90.7, 89.1, 88.6, 89.6, 1.1, 0.4, 1.8, both),
        (60, 54, 66, 61, 55, 67, -1, -3, 1, both),
        (52, 46, 58, 67, 62, 72, -15, -20, -10, both),
        (83, 79, 87, 80, 76, 84, 3, 1, 5, one),
    )
    return (pd.DataFrame(rows, columns=columns),)


@noise.right
def shown_to_differ(table):
    excludes_zero = (table["from"] > 0) | (table["to"] < 0)
    runs_drawn_again = table["drawn again"] == "runs and countries"
    return set(table.index[excludes_zero & runs_drawn_again])


@noise.wrong(
    "Some of your rows have an interval over the countries of one run. It excludes zero for these "
    "two models; with another seed the order may be the other one."
)
def whatever_was_drawn(table):
    return set(table.index[(table["from"] > 0) | (table["to"] < 0)])


@noise.wrong(
    "You took the rows in which the intervals of A and B do not overlap. Both models were asked "
    "the same questions, so the paired difference can be known much better than either accuracy."
)
def without_overlap(table):
    apart = (table["A from"] > table["B to"]) | (table["B from"] > table["A to"])
    return set(table.index[apart])


@noise.wrong(
    "You chose by the size of the difference. A large one may come from chance where the interval "
    "is wide, and a small one may be real where it is narrow."
)
def large_ones(table):
    return set(table.index[table["A - B"].abs() >= 5])


@noise.wrong(
    "You took only rows in which A is better. Where B is better, the two methods differ as well."
)
def better_ones(table):
    return {row for row in shown_to_differ(table) if table["A - B"][row] > 0}


@noise.wrong(
    "You named the rows whose interval contains zero. There no difference is shown; the task asks "
    "for the rows where one is."
)
def contain_zero(table):
    return set(table.index[(table["from"] <= 0) & (table["to"] >= 0)])
