"""Exercises of lesson 14: a real model."""

import math
import statistics

from sftlab.exercises.definitions import Exercise

served = Exercise(
    "14.1",
    "The prompt of another program",
    after="1. Its own chat template",
    minutes=8,
    difficulty=1,
    task="""
    A model was fine-tuned with a template that writes the system message `default` wherever a
    conversation does not **begin** with a system message. A program that is to serve it renders
    the same format, but writes only the messages that it gets.

    Return the list of messages to give to that program, so that its prompt is that of training.
    `messages` is a list of dicts with the keys `"role"` and `"content"`. A system message may stand
    anywhere in it; only the first place counts.
    """,
    hints=(
        "When does the template of training write its own system message? Do the same.",
        "Look at the role of the first message. A system message in a later place changes nothing.",
        'Where the first role is not `"system"`, the answer is '
        '`[{"role": "system", "content": default}, *messages]`, otherwise `messages`.',
    ),
)


@served.draw
def conversation(random):
    roles = random.choice(["u", "uau", "su", "suau", "usu", "uas"])
    names = {"u": "user", "a": "assistant", "s": "system"}
    messages = [{"role": names[one], "content": f"{one}{n}"} for n, one in enumerate(roles)]
    return messages, f"You are model {random.randint(1, 9)}."


@served.stub
def messages_to_give(messages, default):
    """The messages for the other program: a list."""
    return ...


@served.right
def where_none_begins(messages, default):
    begins = messages[0]["role"] == "system"
    return messages if begins else [{"role": "system", "content": default}, *messages]


@served.wrong(
    "You add the default to every conversation. One that begins with a system message of its own "
    "then has two, which the model has never seen."
)
def always_added(messages, default):
    return [{"role": "system", "content": default}, *messages]


@served.wrong(
    "You leave the default out where a system message stands anywhere. The template looks at the "
    "first message alone."
)
def none_anywhere(messages, default):
    there = any(one["role"] == "system" for one in messages)
    return messages if there else [{"role": "system", "content": default}, *messages]


@served.wrong(
    "You give the messages as they are. Where the template of training wrote a system message, "
    "this program writes none, and the prompt differs from training."
)
def as_they_are(messages, default):
    return messages


@served.wrong(
    "You put the default after the messages. The model is then asked to answer a system message; "
    "in training it stood before the first question."
)
def at_the_end(messages, default):
    begins = messages[0]["role"] == "system"
    return messages if begins else [*messages, {"role": "system", "content": default}]


ratio = Exercise(
    "14.2",
    "How much larger is LoRA's rate?",
    after="4. The learning rate",
    minutes=8,
    difficulty=2,
    imports="import math",
    task="""
    `full` and `lora` hold the best learning rate of each seed, in the same order of seeds. Return
    the typical ratio of LoRA's rate to that of full fine-tuning: the geometric mean of the ratios
    of the seeds. (A ratio of 4 in one seed and of 1/4 in another give 1.)
    """,
    hints=(
        "First one ratio for each seed, then their mean.",
        "The geometric mean of n numbers is the n-th root of their product.",
        "`math.exp` of the mean of `math.log(b / a)`, over the pairs of `zip(full, lora)`.",
    ),
)


@ratio.draw
def best_rates(random):
    count = random.choice([2, 3])
    full = [1e-5 * 4 ** random.randint(0, 2) for _ in range(count)]
    return full, [one * 2 ** random.choice([-2, 1, 2, 4]) for one in full]


@ratio.stub
def typical_ratio(full, lora):
    """The geometric mean of LoRA's rate over full fine-tuning's: a number."""
    return ...


@ratio.right
def of_logarithms(full, lora):
    logs = [math.log(b / a) for a, b in zip(full, lora, strict=True)]
    return math.exp(sum(logs) / len(logs))


@ratio.wrong(
    "You take the arithmetic mean of the ratios. A ratio of 4 then counts for more than one of "
    "1/4, and the result depends on which method stands above the line."
)
def of_ratios(full, lora):
    return statistics.mean(b / a for a, b in zip(full, lora, strict=True))


@ratio.wrong(
    "You divide one mean rate by the other. The seeds with the largest rates then decide, and the "
    "pairs of one seed are torn apart."
)
def of_means(full, lora):
    return statistics.mean(lora) / statistics.mean(full)


@ratio.wrong("Your ratio is upside down: full fine-tuning's rate over LoRA's.")
def upside_down(full, lora):
    return of_logarithms(lora, full)


@ratio.wrong(
    "You multiply the ratios and take no root. With more seeds the result would grow, although "
    "no seed shows a larger ratio."
)
def without_root(full, lora):
    return of_logarithms(full, lora) ** len(full)


kept = Exercise(
    "14.3",
    "What is left of what it had",
    after="5. Forgetting",
    minutes=6,
    difficulty=1,
    task="""
    `before` and `after` say for each item of a meter whether the model completed it, before and
    after a fine-tune: two lists of `True` and `False`, item by item. The model had only some of the
    items to begin with, at least one of them.

    Return the share that is left of what it had: of the items that were completed before, how many
    are completed after? An item that it gained is no part of this.
    """,
    hints=(
        "Which items can be lost? Leave out all others first.",
        "Go through both lists in pairs, and look at the second only where the first is true.",
        "`[b for a, b in zip(before, after) if a]` has the items that count.",
    ),
)


@kept.draw
def readings(random):
    count = random.randint(4, 9)
    before = [True, *(random.random() < 0.5 for _ in range(count))]
    return before, [random.random() < (0.6 if one else 0.3) for one in before]


@kept.stub
def share_left(before, after):
    """The share of the items completed before that are completed after: a number."""
    return ...


@kept.right
def of_what_it_had(before, after):
    left = [b for a, b in zip(before, after, strict=True) if a]
    return sum(left) / len(left)


@kept.wrong(
    "You divide by all items. Those that the model never had count as lost, and a model that knows "
    "little seems to forget much."
)
def of_all_items(before, after):
    return sum(a and b for a, b in zip(before, after, strict=True)) / len(before)


@kept.wrong(
    "Items that were gained make up for items that were lost: you compare the two totals. Look at "
    "the same items."
)
def totals(before, after):
    return sum(after) / sum(before)


@kept.wrong("This is the share that was lost. What is left is the rest of it.")
def lost(before, after):
    return 1 - of_what_it_had(before, after)


@kept.wrong(
    "This is the accuracy after the fine-tune. It does not say what the model had before, so it "
    "shows no loss."
)
def accuracy_after(before, after):
    return sum(after) / len(after)
