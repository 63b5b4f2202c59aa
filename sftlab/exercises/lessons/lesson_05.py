"""Exercises of lesson 05: the loss over labels, the mask of a conversation, batches."""

import math

import pandas as pd

from sftlab.exercises.definitions import Exercise

loss_by_hand = Exercise(
    "05.1",
    "The loss, by hand",
    after="1. Labels",
    minutes=10,
    difficulty=2,
    task="""
    Compute the loss of one row as a `transformers` model does it: in nats per token, from labels
    that are not shifted yet. `labels[t]` is the label of token t: its id, or -100.

    `probabilities[t][v]` is the probability that the model, having read the tokens 0 to t, gives
    to token `v` as the next one; the vocabulary has three tokens, 0, 1 and 2. `labels` is as long
    as `probabilities`, and at least one label after the first is not -100. Return a number. Plain
    Python is enough (`math.log`).
    """,
    hints=(
        "Which of the predictions is about the token at position 1?",
        "The prediction at the last position has no label, and the first label has no prediction. "
        "A masked token counts neither in the sum nor in the number that you divide by.",
        "Go through `zip(probabilities, labels[1:])`, which ends with the shorter one; collect "
        "`-math.log(p[label])` where `label != -100`; return the mean of what was collected.",
    ),
    imports="import math",
    tolerance=1e-5,  # torch computes in 32 bits
)


@loss_by_hand.draw
def one_row(random):
    length = random.randint(2, 5)
    rows = [[0.2, 0.3, 0.5], [0.1, 0.3, 0.6], [0.25, 0.35, 0.4], [0.05, 0.15, 0.8]]
    probabilities = [random.sample(random.choice(rows), 3) for _ in range(length)]
    labels = [random.choice([-100, random.randint(0, 2)]) for _ in range(length)]
    labels[random.randint(1, length - 1)] = random.randint(0, 2)
    return probabilities, labels


@loss_by_hand.stub
def mean_loss(probabilities, labels):
    """The mean loss in nats per token: a number."""
    return ...


@loss_by_hand.right
def shifted_once(probabilities, labels):
    losses = [
        -math.log(p[label])
        for p, label in zip(probabilities, labels[1:], strict=False)  # the last p predicts nothing
        if label != -100
    ]
    return sum(losses) / len(losses)


def losses_at(probabilities, labels, shift):
    pairs = zip(probabilities, labels[shift:], strict=False)
    return [-math.log(p[label]) for p, label in pairs if label != -100]


@loss_by_hand.wrong(
    "You score each prediction against the token that the model has just read. A model that is "
    "trained with this loss learns to copy its input."
)
def not_shifted(probabilities, labels):
    losses = losses_at(probabilities, labels, 0)
    return sum(losses) / len(losses)


@loss_by_hand.wrong(
    "Your loss is about the token after the next one: the two lists are shifted twice. This "
    "happens when the data is shifted already and the model shifts once more."
)
def shifted_twice(probabilities, labels):
    losses = losses_at(probabilities, labels, 2)
    return sum(losses) / len(losses)


@loss_by_hand.wrong(
    "You divide by the number of all positions, also of those that have no loss. The loss of a row "
    "then falls with the length of its question, and so does the weight of its answer in the "
    "gradient."
)
def over_all_tokens(probabilities, labels):
    return sum(losses_at(probabilities, labels, 1)) / len(labels)


@loss_by_hand.wrong(
    "Your first label is scored too, with the prediction at position -1, which in Python is the "
    "last one. The first token has no prediction: nothing precedes it."
)
def first_label_wraps(probabilities, labels):
    places = [t for t, label in enumerate(labels) if label != -100]
    return sum(-math.log(probabilities[t - 1][labels[t]]) for t in places) / len(places)


@loss_by_hand.wrong(
    "You treat probabilities as logits. `cross_entropy` of torch expects logits and applies a "
    "softmax to what it gets; here that is done already."
)
def softmax_again(probabilities, labels):
    again = [[math.exp(one) / sum(map(math.exp, row)) for one in row] for row in probabilities]
    return shifted_once(again, labels)


@loss_by_hand.wrong(
    "You look up the probability of the token -100. There is no such token: the number marks a "
    "place that the loss skips, and your code has to skip it before it looks anything up."
)
def nothing_skipped(probabilities, labels):
    pairs = zip(probabilities, labels[1:], strict=False)
    losses = [-math.log(p[label]) for p, label in pairs]
    return sum(losses) / len(losses)


conversation_mask = Exercise(
    "05.2",
    "The labels of a conversation",
    after="2. The mask of a conversation, by hand",
    minutes=8,
    difficulty=1,
    task="""
    Write the labels of a conversation for a loss on answers, as this section does for ChatML.
    `turns` is a list of dicts, one per message. Each holds the ids of the parts of its message, in
    the order in which they stand in the text:

    `{"role": "user", "header": [1, 5], "content": [40, 41], "end": [2], "after": [3]}`

    `role` is `system`, `user`, `assistant` or `tool`; `header` is what the template writes before
    the content, `end` the end of turn, `after` the line break after it. Return one list with a
    label for each token of the conversation, as `transformers` expects them.
    """,
    hints=(
        "Which of the four parts does the model have to write itself, and in whose turns?",
        "Go through the parts of a turn in their order, and add for each as many labels as it has "
        "ids: its ids, or -100 that many times.",
        "Of the assistant's turns, `content` and `end` are learned; all else is "
        "`[-100] * len(part)`.",
    ),
)


@conversation_mask.draw
def some_turns(random):
    roles = random.choice(
        [
            ["user", "assistant"],
            ["system", "user", "assistant"],
            ["user", "assistant", "user", "assistant"],
            ["user", "assistant", "tool", "assistant"],
        ]
    )
    headers = {"system": [1, 4], "user": [1, 5], "assistant": [1, 6], "tool": [1, 7]}
    turns = []
    for role in roles:
        content = [random.randint(10, 99) for _ in range(random.randint(1, 3))]
        parts = {"header": list(headers[role]), "content": content, "end": [2], "after": [3]}
        turns.append({"role": role, **parts})
    return (turns,)


@conversation_mask.stub
def labels_of(turns):
    """The label of each token of the conversation: a list of integers."""
    return ...


@conversation_mask.right
def content_and_end(turns):
    labels = []
    for turn in turns:
        for part in ("header", "content", "end", "after"):
            learned = turn["role"] == "assistant" and part in ("content", "end")
            labels += turn[part] if learned else [-100] * len(turn[part])
    return labels


def labels_where(turns, learned):
    """Labels of the parts for which `learned(role, part)`."""
    labels = []
    for turn in turns:
        for part in ("header", "content", "end", "after"):
            kept = learned(turn["role"], part)
            labels += turn[part] if kept else [-100] * len(turn[part])
    return labels


@conversation_mask.wrong(
    "The end of turn is masked. The model learns each answer and never that it is over, so it runs "
    "on when it is used."
)
def end_masked(turns):
    return labels_where(turns, lambda role, part: role == "assistant" and part == "content")


@conversation_mask.wrong(
    "The assistant's turns are supervised as a whole. Their header is written by the program that "
    "asks, as the generation prompt, and what follows the end of turn is never written, since "
    "generation has stopped."
)
def whole_turn(turns):
    return labels_where(turns, lambda role, part: role == "assistant")


@conversation_mask.wrong(
    "You supervise the line break after the end of turn as well. That does little harm, and some "
    "trainers do it; but generation has stopped before it, so the model never has to write it, and "
    "the mask of this section leaves it out."
)
def line_break_learned(turns):
    return labels_where(turns, lambda role, part: role == "assistant" and part != "header")


@conversation_mask.wrong(
    "You supervise the end of every turn, also of those that the model does not write. Those ends "
    "come from the program, as the rest of their turns does."
)
def every_end(turns):
    return labels_where(
        turns, lambda role, part: part == "end" or (role == "assistant" and part == "content")
    )


@conversation_mask.wrong(
    "You supervise turns that are neither the user's nor the assistant's. System messages and tool "
    "results are written by the program; a model that is trained on results learns to invent them."
)
def other_roles(turns):
    return labels_where(turns, lambda role, part: role != "user" and part in ("content", "end"))


@conversation_mask.wrong(
    "These labels are shifted by one place. The model shifts them itself, inside its loss, so it "
    "would be trained to skip a token."
)
def shifted_by_hand(turns):
    return [*content_and_end(turns)[1:], -100]


pieces = Exercise(
    "05.3",
    "Which pieces are learned?",
    after="4. Tool results and thinking",
    minutes=6,
    difficulty=1,
    task="""
    A made-up conversation with a tool is cut into the pieces of this table (`↵` is a line break).
    Its form is like that of Qwen 3, but only the first answer has a thought. Which pieces should
    be supervised, so that the model learns all that it has to write itself, and nothing else?
    Answer with the set of their numbers. The line breaks after the ends of turn, which may be
    learned or not, are not in the table.
    """,
    hints=(
        "Ask for each piece who writes it when the model is used: the model, or the program around "
        "it?",
        "The model begins to write after the header of its turn, and a tool's answer comes from "
        "the program even though it stands in the middle.",
        "Both of the assistant's turns, each from what follows its header to its end of turn; that "
        "makes five pieces.",
    ),
    expects="a set of numbers, such as {0, 1}",
)


@pieces.draw
def cut_conversation(random):
    end, begin = "<|im_end|>", "<|im_start|>"
    texts = [
        f"{begin}user↵",
        "How many people live in Chad?",
        end,
        f"{begin}assistant↵",
        "<think>↵Look it up.↵</think>↵↵",
        '<tool_call>↵{"name": "population"}↵</tool_call>',
        end,
        f"{begin}user↵",
        "<tool_response>↵18 million↵</tool_response>",
        end,
        f"{begin}assistant↵",
        "18 million.",
        end,
    ]
    return (pd.DataFrame({"piece": texts}),)


@pieces.right
def written_by_the_model(table):
    # A thought, a call and its end of turn; then an answer and its end of turn.
    return {4, 5, 6, 11, 12}


@pieces.wrong(
    "The tool's result is among your pieces. The program writes it; a model that is trained on "
    "results learns to invent them instead of waiting for the tool."
)
def with_the_result(table):
    return {4, 5, 6, 8, 11, 12}


@pieces.wrong(
    "You leave out the end of a turn that holds a call. After a call the model has to stop, or it "
    "goes on and writes the result itself."
)
def call_not_ended(table):
    return {4, 5, 11, 12}


@pieces.wrong(
    "You supervise the final answer alone. The first turn of the assistant is the model's own text "
    "too, and the tool is never called without it."
)
def final_answer_only(table):
    return {11, 12}


@pieces.wrong(
    "You leave out ends of turn. After a call the model has to stop and wait, and after the answer "
    "too; where no end is learned, it goes on, with an invented result for example."
)
def without_the_ends(table):
    return {4, 5, 11}


@pieces.wrong(
    "You leave out the thought. The user may not see it, but the model writes it like the rest of "
    "its turn; where no thought is learned, nothing teaches the model to think before it acts."
)
def without_the_thought(table):
    return {5, 6, 11, 12}


@pieces.wrong(
    "You supervise the headers of the assistant's turns. The program writes them as the generation "
    "prompt; the model begins after them."
)
def with_the_headers(table):
    return {3, 4, 5, 6, 10, 11, 12}


collator = Exercise(
    "05.4",
    "A collator",
    after="7. What if the end of turn is not learned?",
    minutes=12,
    difficulty=2,
    task="""
    Write a collator that pads the rows of a batch on the right. `rows` is a list of dicts with the
    lists `input_ids` and `labels`, which have the same length within a row. `pad` is the id of the
    padding token; it may be the same token as the end of turn.

    Return a dict with three lists of rows, all as long as the longest row: `input_ids`, `labels`
    and `attention_mask` (the integer 1 where the model is to look, 0 at padding). Lists are enough,
    no tensors are needed. Leave the rows that you are given as they are.
    """,
    hints=(
        "How does your code know which places are padding? Think of a row that holds the padding "
        "token itself.",
        "The length of a row says which of its places are real. Each of the three lists is filled "
        "up with its own number.",
        "With `missing = width - len(row['input_ids'])`: the ids get `[pad] * missing`, the labels "
        "`[-100] * missing`, and the mask is `[1] * len(row['input_ids']) + [0] * missing`.",
    ),
)


@collator.draw
def batch(random):
    pad, rows = random.choice([0, 2, 2]), []
    for _ in range(random.randint(1, 3)):
        ids = [random.randint(5, 99) for _ in range(random.randint(1, 3))] + [2]
        question = random.randint(0, len(ids) - 1)
        rows.append({"input_ids": ids, "labels": [-100] * question + ids[question:]})
    return rows, pad


@collator.stub
def collate(rows, pad):
    """A dict of the lists `input_ids`, `labels` and `attention_mask`."""
    return ...


@collator.right
def by_length(rows, pad):
    width = max(len(row["input_ids"]) for row in rows)
    batch = {"input_ids": [], "labels": [], "attention_mask": []}
    for row in rows:
        length = len(row["input_ids"])
        missing = width - length
        batch["input_ids"].append(row["input_ids"] + [pad] * missing)
        batch["labels"].append(row["labels"] + [-100] * missing)
        batch["attention_mask"].append([1] * length + [0] * missing)
    return batch


@collator.wrong(
    "You mask labels wherever the id is that of the padding token. Where padding and the end of "
    "turn are one token, no end of turn is learned any more, and the model runs on."
)
def masked_by_token(rows, pad):
    batch = by_length(rows, pad)
    pairs = zip(batch["input_ids"], batch["labels"], strict=True)
    labels = [
        [-100 if i == pad else label for i, label in zip(*pair, strict=True)] for pair in pairs
    ]
    return batch | {"labels": labels}


@collator.wrong(
    "You recognize padding by its token, for the labels and for the attention mask. Where padding "
    "and the end of turn are one token, no end is learned, and none is seen."
)
def all_by_token(rows, pad):
    batch = by_length(rows, pad)
    mask = [[int(one != pad) for one in ids] for ids in batch["input_ids"]]
    return masked_by_token(rows, pad) | {"attention_mask": mask}


@collator.wrong(
    "Your labels are made from the ids: all that is not padding is supervised, the questions too. "
    "The mask that the rows brought along is lost, without an error."
)
def labels_from_ids(rows, pad):
    return by_length([row | {"labels": row["input_ids"]} for row in rows], pad)


@collator.wrong(
    "You fill up the labels with the padding token. That is a token to be learned: most of the "
    "loss of a short row is then about writing padding after its end."
)
def padding_learned(rows, pad):
    width = max(len(row["labels"]) for row in rows)
    labels = [row["labels"] + [pad] * (width - len(row["labels"])) for row in rows]
    return by_length(rows, pad) | {"labels": labels}


@collator.wrong(
    "Your attention mask is 0 wherever the id is that of the padding token. An end of turn that is "
    "the same token is hidden then, and in a conversation the model can't see where a turn ends."
)
def hidden_by_token(rows, pad):
    batch = by_length(rows, pad)
    mask = [[int(one != pad) for one in ids] for ids in batch["input_ids"]]
    return batch | {"attention_mask": mask}


@collator.wrong(
    "Your attention mask is 1 everywhere. On the right no real token looks at padding, so the loss "
    "may be the same here; but whoever uses the mask, to find the last real token for example, "
    "takes padding for text."
)
def all_visible(rows, pad):
    batch = by_length(rows, pad)
    return batch | {"attention_mask": [[1] * len(ids) for ids in batch["input_ids"]]}
