"""Exercises of lesson 08: reading old skills, replay, a control, and a choice by two numbers."""

import pandas as pd

from sftlab.exercises.definitions import Exercise

reading = Exercise(
    "08.1",
    "How much of this answer would the model write?",
    after="1. A meter for old skills",
    minutes=8,
    difficulty=2,
    task="""
    A text, a prompt followed by its correct answer, was read in one forward pass. Say how many
    tokens of the answer greedy decoding would write correctly after the prompt, before its first
    wrong token. (If these are all tokens of the answer, the meter counts the item as correct.)

    - `ids`: the token ids of the whole text, prompt and answer;
    - `start`: the number of tokens of the prompt;
    - `likeliest`: as long as `ids`; at each position the token that the model finds most likely to
      come *next*, after it has read everything up to and including this position.
    """,
    hints=(
        "Go through the tokens of the answer. At which position was each of them predicted?",
        "The first token of the answer is predicted at the last position of the prompt. The "
        "prediction at the last position of the text is for a token that is not there.",
        "Compare `likeliest[start - 1 : -1]` with the answer, `ids[start:]`, token by token, and "
        "stop at the first difference.",
    ),
)


@reading.draw
def read_text(random):
    start, length = random.randint(1, 4), random.randint(1, 4)
    ids = [random.randint(5, 9) for _ in range(start + length)]
    likeliest = [*ids[1:], random.randint(5, 9)]  # all correct
    kind = random.choice(["all", "one", "some", "shifted"])
    if kind == "shifted":  # what a model would give that copies the token it has just read
        return ids, start, list(ids)
    spoiled = {"all": 0, "one": 1, "some": 3}[kind]
    for place in random.sample(range(start + length), min(spoiled, start + length)):
        likeliest[place] = random.randint(1, 4)
    return ids, start, likeliest


@reading.stub
def tokens_written(ids, start, likeliest):
    """How many tokens of the answer are written before the first wrong one: a number."""
    return ...


@reading.right
def until_the_first_wrong(ids, start, likeliest):
    count = 0
    for predicted, token in zip(likeliest[start - 1 : -1], ids[start:], strict=True):
        if predicted != token:
            break
        count += 1
    return count


@reading.wrong(
    "You compare the prediction at a position with the token at the same position. But what the "
    "model predicts there is the token that follows, so a model that knows the answer looks wrong."
)
def same_position(ids, start, likeliest):
    return until_the_first_wrong(ids, start, likeliest[1:] + likeliest[-1:])


@reading.wrong(
    "You compare in the prompt as well. The prompt is given, and nobody expects the model to guess "
    "the question: only tokens of the answer count, from the first of them on."
)
def prompt_too(ids, start, likeliest):
    return until_the_first_wrong(ids, 1, likeliest)


@reading.wrong(
    "You count all predictions that are correct, also those after a wrong one. They were made "
    "after the correct text. Greedy decoding would go on from its own wrong token, and could "
    "write something else from there."
)
def all_that_match(ids, start, likeliest):
    return sum(a == b for a, b in zip(likeliest[start - 1 :], ids[start:], strict=False))


@reading.wrong(
    "The first token of the answer is missing in your comparison. It is predicted too: at the last "
    "position of the prompt."
)
def without_the_first(ids, start, likeliest):
    return until_the_first_wrong(ids, start + 1, likeliest)


@reading.wrong(
    "You say only whether the whole answer would be written. The task asks for the number of "
    "tokens before the first wrong one, which may be a part of the answer."
)
def all_or_nothing(ids, start, likeliest):
    count = until_the_first_wrong(ids, start, likeliest)
    return count if count == len(ids) - start else 0


@reading.wrong(
    "An answer that is correct from the first to the last token counts as 0 here. It has no first "
    "wrong token to look for; `argmin` and `index` need a case of their own for it."
)
def none_wrong(ids, start, likeliest):
    count = until_the_first_wrong(ids, start, likeliest)
    return 0 if count == len(ids) - start else count


replay = Exercise(
    "08.2",
    "Mix in general examples",
    after="4. Replay",
    minutes=10,
    difficulty=2,
    task="""
    Write the mixture for a run with replay. It holds all examples of the task, and after them as
    many general ones as make up the given share of the *whole mixture*, rounded to a whole number.
    A general text that contains one of the names in `avoid` is left out, because old skills are
    measured with these names. Of the others take the first ones.

    - `task`, `general`: lists of texts; there are always enough general ones;
    - `share`: the share of general examples, from 0 to below 1;
    - `avoid`: a list of names.
    """,
    hints=(
        "Two questions come before the count: a share of what, and which texts may be used?",
        "The task's examples are the rest of the mixture: with a share of one half there is a "
        "general example for each of them. Leave texts out before you count.",
        "The number of general examples is `round(len(task) * share / (1 - share))`, and a text is "
        "usable if `not any(name in text for name in avoid)`.",
    ),
)


@replay.draw
def texts(random):
    size, share = random.choice([(2, 0.5), (3, 0.4), (3, 0.5), (6, 0.4), (4, 0.2), (2, 0.0)])
    general = ["Snow in Peru", "Rain in Chile", "Two and two", "A red fox", "Old songs"]
    general += ["Blue paint", "Long roads", "Warm bread"]
    random.shuffle(general)
    avoid = random.choice([["Peru"], ["Chile"], ["Peru", "Chile"]])
    return [f"Q{n}" for n in range(size)], general, share, avoid


@replay.stub
def mixture(task, general, share, avoid):
    """The examples of the task, followed by the general ones: a list of texts."""
    return ...


@replay.right
def mixed(task, general, share, avoid):
    usable = [text for text in general if not any(name in text for name in avoid)]
    return task + usable[: round(len(task) * share / (1 - share))]


@replay.wrong(
    "You take the share of the task's examples. The share is one of the mixture, which grows with "
    "every example that you add, so this is less replay than you report."
)
def share_of_task(task, general, share, avoid):
    usable = [text for text in general if not any(name in text for name in avoid)]
    return task + usable[: round(len(task) * share)]


@replay.wrong(
    "General examples take the place of examples of the task here. If accuracy on the task then "
    "falls, you cannot say whether replay did that or the missing examples. "
    "`interleave_datasets` drops examples in this way when it stops early."
)
def replaces(task, general, share, avoid):
    usable = [text for text in general if not any(name in text for name in avoid)]
    count = round(len(task) * share)
    return task[: len(task) - count] + usable[:count]


@replay.wrong(
    "General texts with names to avoid are in the mixture. The meter would then ask about what was "
    "just practiced, and report it as kept. (A name stands within a text; it is not the "
    "whole text.)"
)
def not_filtered(task, general, share, avoid):
    return task + general[: round(len(task) * share / (1 - share))]


@replay.wrong(
    "You choose the general texts first and leave some out afterwards. The share is then smaller "
    "than the one that was asked for, and it differs from run to run."
)
def filtered_late(task, general, share, avoid):
    first = general[: round(len(task) * share / (1 - share))]
    return task + [text for text in first if not any(name in text for name in avoid)]


hidden_skills = Exercise(
    "08.3",
    "Hidden, compared with a control",
    after="6. Gone, or only hidden?",
    minutes=10,
    difficulty=2,
    task="""
    Which skills were only hidden? For each skill `skills` has four accuracies in whole percent:
    `(after, later, control, control_later)`. The first two are those of the fine-tuned model,
    before and after eight steps on general examples. The other two are those of the control, a
    model that never had the whole skill, before and after the same eight steps.

    A skill is shown to have been hidden if it meets both conditions of this section. Only
    differences of *more* than `noise` count.

    - `skills`: a dict from names to these four numbers;
    - `noise`: a number, in the same unit.
    """,
    hints=(
        "What would eight steps have taught a model that never had the skill? That is what the "
        "control is for.",
        "Two comparisons with the control: how far each of them rises, and where each of them "
        "ends.",
        "The rises are `later - after` and `control_later - control`; the ends are `later` and "
        "`control_later`. Both differences have to exceed `noise`.",
    ),
)


@hidden_skills.draw
def four_readings(random):
    def four():
        after, start = random.choice([10, 30, 50]), random.choice([10, 30, 60])
        back, learned = random.choice([0, 2, 20, 40]), random.choice([0, 2, 15, 25])
        return after, after + back, start, start + learned

    names = random.sample(["facts", "stories", "sums", "nature", "poems"], random.choice([1, 5]))
    return {name: four() for name in names}, random.choice([3, 10])


@hidden_skills.stub
def shown_hidden(skills, noise):
    """The names of the skills that are shown to have been hidden: a list, in the given order."""
    return ...


@hidden_skills.right
def beyond_the_control(skills, noise):
    found = []
    for name, (after, later, control, control_later) in skills.items():
        back, learned = later - after, control_later - control
        if back - learned > noise and later - control_later > noise:
            found.append(name)
    return found


@hidden_skills.wrong(
    "You look at the fine-tuned model alone. Its rise does not tell whether the skill was still "
    "there or was learned anew in these steps."
)
def rises(skills, noise):
    return [name for name, (after, later, *_) in skills.items() if later - after > noise]


@hidden_skills.wrong(
    "You compare where the two models end. The fine-tuned one may have ended above the control "
    "because it stood above it before, without anything coming back."
)
def ends_above(skills, noise):
    return [name for name, (_, later, _, end) in skills.items() if later - end > noise]


@hidden_skills.wrong(
    "You compare how far the two models rise. A model that starts low has more to gain, and a "
    "control that has the skill already can hardly rise at all, so a larger rise alone does not "
    "show anything."
)
def rises_more(skills, noise):
    return [
        name
        for name, (after, later, control, end) in skills.items()
        if (later - after) - (end - control) > noise
    ]


@hidden_skills.wrong(
    "You compare with the control before its eight steps. What eight steps can teach then counts "
    "as a skill that was hidden: compare both models after as many steps."
)
def control_before(skills, noise):
    return [
        name
        for name, (after, later, control, _) in skills.items()
        if later - after > noise and later - control > noise
    ]


@hidden_skills.wrong(
    "You ask whether the fine-tuned model rises at all, and ends above the control. But the "
    "control may rise as far in its eight steps, so as much could have been learned from nothing."
)
def rises_and_ends_above(skills, noise):
    above = ends_above(skills, noise)
    return [name for name in rises(skills, noise) if name in above]


@hidden_skills.wrong(
    "You count differences that may be noise. Both conditions ask for a difference that exceeds "
    "it: among several skills one or two are always a little ahead by chance."
)
def without_noise(skills, noise):
    return beyond_the_control(skills, 0)


setting = Exercise(
    "08.4",
    "Choose a setting from a map",
    after="7. Choose a setting",
    minutes=6,
    difficulty=1,
    task="""
    A made-up map of learning rate and replay for a larger model, written as a table. Accuracy on
    the task and the old skills kept are in percent (99 for the base). Which row do you choose by
    the rule of this section? (With real runs you would then confirm it on other questions.)
    """,
    expects="a row number, such as 6",
    hints=(
        "The rule has two steps, and each of them looks at one column only.",
        "The first step does not choose a row. It leaves all rows that are near enough to the "
        "best accuracy on the task.",
        "The best accuracy on the task is 97, so rows with 94 or more remain. Of these take the "
        "one that keeps most.",
    ),
)


@setting.draw
def settings_map(random):
    rows = [
        ("1e-5", "none", 86, 99),
        ("1e-5", "20%", 92, 98),
        ("2e-5", "none", 95, 90),
        ("2e-5", "20%", 94, 95),
        ("5e-5", "none", 97, 61),
        ("5e-5", "20%", 94, 84),
        ("1e-4", "none", 92, 22),
        ("1e-4", "20%", 90, 40),
    ]
    return (pd.DataFrame(rows, columns=["learning rate", "replay", "task", "old skills"]),)


@setting.right
def near_the_best(table):
    near = table[table["task"] >= table["task"].max() - 3]
    return int(near["old skills"].idxmax())


@setting.wrong(
    "You took the best accuracy on the task. The largest of several noisy numbers is partly luck, "
    "and here this luck costs more than a third of what the base could do."
)
def best_task(table):
    return int(table["task"].idxmax())


@setting.wrong(
    "You took the row that keeps most. A model that hardly trains keeps everything: this one is "
    "clearly worse at the task, which is what the fine-tune is for."
)
def most_kept(table):
    return int(table["old skills"].idxmax())


@setting.wrong(
    "This row has the largest sum of both numbers. But in a sum a point of one is worth a point of "
    "the other, which nobody decided. By the rule of the section, this row is too far from the "
    "best accuracy on the task."
)
def largest_sum(table):
    return int((table["task"] + table["old skills"]).idxmax())


@setting.wrong(
    "This row is near enough to the best accuracy on the task. But it is not the only one, and "
    "another of them keeps more of the old skills. Among these rows a point on the task no longer "
    "counts."
)
def task_again(table):
    near = table[table["task"] >= table["task"].max() - 3]
    return int(near[near["old skills"] >= 90]["task"].idxmax())
