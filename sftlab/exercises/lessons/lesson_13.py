"""Exercises of lesson 13: beyond SFT."""

import math
import statistics

import pandas as pd
import torch

from sftlab.exercises.definitions import Exercise

dpo = Exercise(
    "13.1",
    "The DPO loss of a pair",
    after="2. Preferences and rewards",
    minutes=8,
    difficulty=2,
    imports="import math",
    task="""
    Write the DPO loss of one pair. `policy` and `reference` are dicts with the keys `"chosen"` and
    `"rejected"`. Each value is a list with the log-probability of every token of that answer, under
    the model that is trained and under the frozen reference model. The two answers may differ in
    length. `beta` is a number.

    Return the loss, a number.
    """,
    hints=(
        "The log-probability of an answer comes from those of its tokens: the probability of an "
        "answer is the product of the probabilities of its tokens.",
        "When the policy equals the reference, the loss is log 2, whatever the answers are. Does "
        "your function give that?",
        "With `gain = sum(policy[side]) - sum(reference[side])` for each side, the margin is the "
        "gain of the chosen minus that of the rejected answer, and the loss is "
        "`math.log(1 + math.exp(-beta * margin))`.",
    ),
)


@dpo.draw
def pair(random):
    policy, reference = {}, {}
    for side in ("chosen", "rejected"):
        count = random.randint(1, 3)
        policy[side] = [-random.randint(1, 30) / 10 for _ in range(count)]
        reference[side] = [-random.randint(1, 30) / 10 for _ in range(count)]
    return policy, reference, random.choice([0.1, 0.5, 1.0])


@dpo.stub
def dpo_loss(policy, reference, beta):
    """The loss of the pair, a number."""
    return ...


@dpo.right
def by_formula(policy, reference, beta):
    gain = {side: sum(policy[side]) - sum(reference[side]) for side in policy}
    margin = gain["chosen"] - gain["rejected"]
    return math.log(1 + math.exp(-beta * margin))


@dpo.wrong(
    "You average over the tokens of an answer. The log-probability of an answer is not the mean of "
    "those of its tokens. Some losses divide by the length on purpose; the one of this lesson does "
    "not."
)
def averaged(policy, reference, beta):
    def means(model):
        return {side: [statistics.mean(logs)] for side, logs in model.items()}

    return by_formula(means(policy), means(reference), beta)


@dpo.wrong(
    "The reference model plays no part in your loss. A gap between the answers that was there "
    "before training then counts as well, and nothing keeps the model near to where it started."
)
def no_reference(policy, reference, beta):
    return by_formula(policy, {"chosen": [], "rejected": []}, beta)


@dpo.wrong(
    "The sign of the margin is wrong: your loss falls when the model comes to prefer the rejected "
    "answer. Chosen and rejected, or policy and reference, have changed places."
)
def sign(policy, reference, beta):
    return by_formula(reference, policy, beta)


@dpo.wrong(
    "Your loss is negative, and it falls when the margin does: training would make the rejected "
    "answer more probable. The logarithm of a probability is negative; what makes a loss of it?"
)
def no_minus(policy, reference, beta):
    return -by_formula(policy, reference, beta)


@dpo.wrong(
    "`beta` plays no part in your loss. It decides how large a margin is enough, and so how far "
    "the model moves away from the reference."
)
def without_beta(policy, reference, beta):
    return by_formula(policy, reference, 1.0)


@dpo.wrong(
    "You multiply the finished loss by `beta`. That only scales the gradient, like another "
    "learning rate. `beta` has to act on the margin: it decides how large a margin is enough."
)
def beta_outside(policy, reference, beta):
    return beta * by_formula(policy, reference, 1.0)


pass_at = Exercise(
    "13.2",
    "Is a right answer among k?",
    after="3. A learned reward, and best of n",
    minutes=10,
    difficulty=2,
    imports="import math",
    task="""
    Best of k can only be right if one of the k answers is. A model answered a question `n` times,
    and `c` of these answers are right. If k of the n answers are picked at random, each at most
    once, how probable is it that at least one of them is right? Averaged over questions, this is
    the estimate called pass@k. It uses all n answers instead of the first k.

    Return that probability, a number from 0 to 1; k is at most n.
    """,
    hints=(
        "Ask for the opposite: that all k picked answers are wrong.",
        "After a wrong answer is picked, one fewer wrong answer is left, and one fewer answer in "
        "all. With fewer than k wrong answers, what is the probability that all k are wrong?",
        "`math.comb(n, k)` counts the ways to pick k of n answers. Among them, "
        "`math.comb(n - c, k)` have wrong ones only; that is 0 when there are too few of these.",
    ),
)


@pass_at.draw
def counts(random):
    n = random.randint(2, 8)
    return n, random.randint(0, n), random.randint(1, n)


@pass_at.stub
def pass_at_k(n, c, k):
    """The probability that at least one of k picked answers is right."""
    return ...


@pass_at.right
def exact(n, c, k):
    return 1 - math.comb(n - c, k) / math.comb(n, k)


@pass_at.wrong(
    "You pick with replacement: each of the k answers is wrong with the same probability, however "
    "many wrong ones were picked before it. As an estimate from few answers, this is too low on "
    "average."
)
def with_replacement(n, c, k):
    return 1 - (1 - c / n) ** k


@pass_at.wrong(
    "Your result is 1 as soon as one of all n answers is right. With fewer picks than answers it "
    "can be among those that were not picked."
)
def any_of_all(n, c, k):
    return float(c > 0)


@pass_at.wrong(
    "This is the probability that **all** k picked answers are right. It falls as k grows. It "
    "measures how reliable a model is; here one right answer is enough."
)
def all_right(n, c, k):
    return math.comb(c, k) / math.comb(n, k)


@pass_at.wrong(
    "This is the probability that **no** picked answer is right. It falls as k grows, and a "
    "question without a right answer gets 1."
)
def none_right(n, c, k):
    return math.comb(n - c, k) / math.comb(n, k)


@pass_at.wrong(
    "You add up the chances of the k picks. Two of them can be right at the same time, and you "
    "count that case twice, even where the sum is not above 1."
)
def added_up(n, c, k):
    return min(1.0, k * c / n)


soft = Exercise(
    "13.3",
    "A loss for soft labels",
    after="4. Distillation",
    minutes=15,
    difficulty=3,
    imports="import torch",
    tolerance=1e-3,
    task="""
    A teacher can give more than the token that it writes: its probabilities of all tokens, its
    **soft labels**. Write the loss with which a student learns them. `student` and `teacher` hold
    the logits of the two models for the same text: lists with one list for each position and in it
    one number for each token of the vocabulary. As in any causal model, the logits at a position
    are about the **next** token. `labels` has one number for each position, as in lesson 05: -100
    in the prompt, else the token that stands at this position itself.

    Return the **Kullback-Leibler divergence** of the student from the teacher, in nats, as a
    number: the mean over those positions whose next token belongs to the answer. At one position it
    is the sum over all tokens of p_teacher * (log p_teacher - log p_student).
    """,
    hints=(
        "Three decisions: which logits predict a token of the answer, whose probabilities are the "
        "weights, and what the sum is divided by. Check each with a text of two tokens by hand.",
        "The last position predicts nothing that stands in the text, and no position predicts the "
        "first token: drop one at each end. `log_softmax(-1)` makes log-probabilities of logits.",
        "With log-probabilities `s` and `t`, `kl = (t.exp() * (t - s)).sum(-1)[:-1]` has a number "
        "for each position, and `torch.tensor(labels)[1:] != -100` says which of them count.",
    ),
)


@soft.draw
def logits(random):
    count, size = random.randint(2, 4), random.choice([2, 3])
    models = [[[random.randint(0, 3) for _ in range(size)] for _ in range(count)] for _ in "12"]
    for mine, theirs in zip(*models, strict=True):
        mine[0] = theirs[0] + random.choice([1, 2])  # so that no two are equal
        mine[-1] = theirs[-1]
    start = random.randint(1, count - 1)
    tokens = [random.randrange(size) for _ in range(count)]
    return *[[[float(x) for x in at] for at in one] for one in models], [
        -100 if n < start else token for n, token in enumerate(tokens)
    ]


@soft.stub
def soft_label_loss(student, teacher, labels):
    """The mean divergence over the answer, a number in nats."""
    return ...


@soft.right
def next_tokens(student, teacher, labels):
    s = torch.tensor(student).log_softmax(-1)
    t = torch.tensor(teacher).log_softmax(-1)
    kl = (t.exp() * (t - s)).sum(-1)
    return kl[:-1][torch.tensor(labels)[1:] != -100].mean().item()


@soft.wrong(
    "You take the logits at the tokens of the answer, and these are about the tokens **after** "
    "them. So the first token of the answer is never learned, and a token after its end is. A "
    "model that gets `labels` shifts them itself; a loss of your own has to do it, too."
)
def unshifted(student, teacher, labels):
    s, t = (torch.tensor(one).log_softmax(-1) for one in (student, teacher))
    return (t.exp() * (t - s)).sum(-1)[torch.tensor(labels) != -100].mean().item()


@soft.wrong(
    "The divergence has the wrong direction: the student's own probabilities are the weights. Then "
    "a token that the teacher finds likely and the student does not costs little, and the "
    "student may drop it. With `kl_div` of torch, the first argument is the student."
)
def reversed_direction(student, teacher, labels):
    return next_tokens(teacher, student, labels)


@soft.wrong(
    "The prompt is in the mean. The student then also learns how the teacher would continue the "
    "user's words, and in a long prompt that is most of the loss."
)
def prompt_too(student, teacher, labels):
    return next_tokens(student, teacher, [0] * len(labels))


@soft.wrong(
    "You divide by the number of tokens in the vocabulary as well. That is what `kl_div` does by "
    "default: with a vocabulary of 150,000 almost nothing of the loss is left."
)
def over_vocabulary(student, teacher, labels):
    return next_tokens(student, teacher, labels) / len(student[0])


@soft.wrong(
    "You add up over the positions. A text with a long answer then moves the weights more than one "
    "with a short answer, and the best learning rate depends on the length."
)
def summed(student, teacher, labels):
    return next_tokens(student, teacher, labels) * sum(one != -100 for one in labels[1:])


@soft.wrong(
    "`kl_div` of torch takes the **logarithm** of the student's probabilities as its first "
    "argument, and you gave it the probabilities. It does not complain, but the result is no "
    "divergence: it can be negative, and training does not bring the two models together."
)
def without_logarithm(student, teacher, labels):
    s, t = (torch.tensor(one).softmax(-1) for one in (student, teacher))
    kl = (t * (t.log() - s)).sum(-1)
    return kl[:-1][torch.tensor(labels)[1:] != -100].mean().item()


controls = Exercise(
    "13.4",
    "Which reports hold?",
    after="5. A small tuned model against a larger raw one",
    minutes=10,
    difficulty=2,
    task="""
    The made-up table has sentences from eight reports. Each sentence rests on one comparison: the
    table says with what the new model was compared, who judged, and by how many points it was
    ahead, with the 95% interval. Methods that train had equal samples and steps. The exact judge
    knows the truth; the reward model is the one that chose the best answer.

    Which sentences are supported by their comparison? Answer with the set of their row numbers.
    """,
    hints=(
        "Read a sentence and ask what else could have brought the difference. Does the comparison "
        "have that on both sides?",
        "What a judge knows, more rows of any kind, the form of a prompt, a choice by the same "
        "score, and chance: each of these alone can explain one of the rows.",
        "Five rows are not supported: one is compared with a model trained without the judge, one "
        "has zero in its interval, one is judged by the score that chose, one is compared with no "
        "teacher at all, and one with a model that was only asked zero-shot.",
    ),
    expects="a set of row numbers, such as {1, 2}",
)


@controls.draw
def reports(random):
    rows = [
        ("The loss of DPO adds something", "the SFT model", "exact", "15 (11 to 19)"),
        ("The loss of DPO adds something", "SFT on the chosen answers", "exact", "4 (1 to 7)"),
        ("GRPO is better than plain SFT", "SFT on the chosen answers", "exact", "3 (-2 to 8)"),
        ("Best of 16 gives better answers", "one sample", "reward model", "21 (19 to 23)"),
        ("Best of 4 gives better answers", "one sample", "exact", "6 (2 to 10)"),
        ("A stronger teacher adds something", "no rows of a teacher", "exact", "12 (8 to 16)"),
        (
            "A stronger teacher adds something",
            "the student's base as teacher",
            "exact",
            "5 (1 to 9)",
        ),
        ("Small and tuned beats large", "the large one, zero-shot", "exact", "60 (55 to 65)"),
    ]
    return (pd.DataFrame(rows, columns=["sentence", "compared with", "judge", "points ahead"]),)


@controls.right
def supported(table):
    return {1, 4, 6}


def ahead(table):
    """The rows whose interval is above zero."""
    return set(table.index[~table["points ahead"].str.contains("-")])


@controls.wrong(
    "You accept every difference that is not noise. An interval above zero says that two models "
    "differ, not why: look at what the other side of each comparison lacks."
)
def all_ahead(table):
    return ahead(table)


@controls.wrong(
    "One of your rows has an interval on both sides of zero. The control is a good one, but these "
    "runs do not show on which side the difference is."
)
def noise_too(table):
    return supported(table) | {2}


@controls.wrong(
    "You trust the reward model about answers that it chose itself. The highest of 16 scores is "
    "higher than one score even if the scores are random."
)
def own_judge(table):
    return supported(table) | {3}


@controls.wrong(
    "DPO is compared with a model that was trained without the judge. The gain can come from what "
    "the judge knows, and plain SFT on the answers that it approves of would have that, too."
)
def no_control(table):
    return supported(table) | {0}


@controls.wrong(
    "You accept a teacher that is compared with no teacher. More answered questions, or answers in "
    "the form of the task, may help whoever writes them."
)
def any_teacher(table):
    return supported(table) | {5}


@controls.wrong(
    "You accept the largest difference of the table. Zero-shot, a raw model can know an answer and "
    "fail at the form; a few examples in its prompt may change which model is ahead."
)
def zero_shot(table):
    return supported(table) | {7}
