"""Exercises of lesson 04: writing a template, a prompt, reading tool calls, and sameness."""

import json
import re

import pandas as pd

from sftlab.exercises.definitions import Exercise

WORDS = ["Hi", "Why?", "Yes", "x = 1", "  y\n"]


def turn(role, content):
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


def rendered(messages):
    return "".join(turn(one["role"], one["content"]) for one in messages)


default_system = Exercise(
    "04.1",
    "ChatML with a default system message",
    after="1. Messages, text, ids",
    minutes=8,
    difficulty=1,
    task="""
    The templates of Qwen 2 and 2.5 are ChatML with one addition: a conversation without a system
    message gets a default one. Write such a template as a function: it takes `messages` and the
    content of the default system message, and returns the text. A system message, if there is
    one, is the first message. One turn of the text looks like this (each turn, also the last,
    ends with a line break):

    ```
    <|im_start|>system
    Be brief.<|im_end|>
    ```

    Contents are written exactly as they are.
    """,
    hints=(
        "Only the first message decides whether the default is needed.",
        "Make the list of all messages that are to be written first, in a new list; then write "
        "them all in the same way.",
        'If `messages[0]["role"]` is not `"system"`, put '
        '`{"role": "system", "content": default}` before the messages, then render as '
        "`chatml_by_hand` of this section does.",
    ),
)


@default_system.draw
def conversation(random):
    messages = []
    if random.random() < 0.5:
        messages.append({"role": "system", "content": random.choice(["Help.", "Rhyme."])})
    for role in ("user", "assistant", "user")[: random.randint(1, 3)]:
        messages.append({"role": role, "content": random.choice(WORDS)})
    return messages, "Be brief."


@default_system.stub
def chatml_with_system(messages, default):
    """The whole text of the conversation: a string."""
    return ...


@default_system.right
def added_where_missing(messages, default):
    if messages[0]["role"] != "system":
        messages = [{"role": "system", "content": default}, *messages]
    turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]
    return "".join(turns)


@default_system.wrong(
    "You write the default into every conversation. One that brings its own system message then "
    "has two, and the model reads two instructions that may contradict each other."
)
def always_added(messages, default):
    return turn("system", default) + rendered(messages)


@default_system.wrong(
    "You write the default instead of the system message that the conversation has. The model is "
    "then trained without the instructions that its answer follows."
)
def replaced(messages, default):
    return turn("system", default) + rendered([m for m in messages if m["role"] != "system"])


@default_system.wrong(
    "Your text ends with the header of one more answer. That belongs to a prompt, which a model "
    "continues; here the text of the conversation was asked for."
)
def header_added(messages, default):
    return added_where_missing(messages, default) + "<|im_start|>assistant\n"


@default_system.wrong(
    "The line break after the last turn is missing. A template writes each turn in the same way, "
    "wherever it stands; a text that differs in one character may have other tokens."
)
def no_last_break(messages, default):
    return added_where_missing(messages, default).removesuffix("\n")


@default_system.wrong(
    "You leave the last turn open. Only a prompt is unfinished at its end; in a training text the "
    "last answer needs its end of turn, or the model can't learn to stop."
)
def open_end(messages, default):
    return added_where_missing(messages, default).removesuffix("<|im_end|>\n")


@default_system.wrong(
    "You remove whitespace at the ends of contents. Some templates do, but this one does not: code "
    "loses its indentation, and the text is no longer the one that the model was trained with."
)
def stripped(messages, default):
    kept = [{**one, "content": one["content"].strip()} for one in messages]
    return added_where_missing(kept, default)


prompt_to_continue = Exercise(
    "04.2",
    "The prompt that a model continues",
    after="3. The generation prompt",
    minutes=10,
    difficulty=2,
    task="""
    Write a conversation as the ChatML prompt from which a model continues. If the last message is
    the user's, the model writes the whole answer. If the last message is the assistant's, it is a
    prefill: the beginning of an answer, which the model continues.

    In `messages` the user and the assistant take turns; the user begins. The text of a finished
    turn is `<|im_start|>role\\ncontent<|im_end|>\\n`, where `\\n` is a line break. Return a
    string.
    """,
    hints=(
        "Ask in each case: what was the last token that the model had read, in training, before "
        "it wrote the next token of an answer?",
        "After a question the program writes the header of the answer. After a prefill the header "
        "is there already, and what must be missing is at the other end.",
        "All messages but a prefill are finished turns. Then comes `<|im_start|>assistant\\n`, and "
        "after it the content of the prefill if there is one, and nothing more.",
    ),
)


@prompt_to_continue.draw
def unfinished(random):
    roles = ("user", "assistant", "user", "assistant")[: random.randint(1, 4)]
    return ([{"role": role, "content": random.choice(["Hi", "Why?", "Yes"])} for role in roles],)


@prompt_to_continue.stub
def prompt_of(messages):
    """The text that the model continues: a string."""
    return ...


@prompt_to_continue.right
def header_or_prefill(messages):
    prefill = ""
    if messages[-1]["role"] == "assistant":
        *messages, last = messages
        prefill = last["content"]
    turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]
    return "".join(turns) + "<|im_start|>assistant\n" + prefill


@prompt_to_continue.wrong(
    "Your prompt ends after a finished turn. In training the loss was not computed on the header "
    "of an answer, so the model has not learned to write it: it may ask the next question or end."
)
def nothing_added(messages):
    return rendered(messages)


@prompt_to_continue.wrong(
    "You begin a new answer after a prefill. The model reads a finished answer, then the header "
    "of a second one, which no training text has: two answers in a row."
)
def new_answer_always(messages):
    return rendered(messages) + "<|im_start|>assistant\n"


@prompt_to_continue.wrong(
    "You end the turn of a prefill. To the model the answer is complete then, and there is nothing "
    "to go on with."
)
def prefill_closed(messages):
    if messages[-1]["role"] == "assistant":
        return rendered(messages)
    return rendered(messages) + "<|im_start|>assistant\n"


@prompt_to_continue.wrong(
    "Your header has no line break at its end, so the model would have to write it before the "
    "answer. In training it was given, and a model that meets another edge may answer badly."
)
def no_edge(messages):
    header = "<|im_start|>assistant"
    before, _, prefill = header_or_prefill(messages).rpartition(f"{header}\n")
    return before + header + prefill


@prompt_to_continue.wrong(
    "You leave the user's last turn open. The model may go on with the question, as if it were "
    "the user."
)
def open_question(messages):
    return rendered(messages).removesuffix("<|im_end|>\n")


same_or_not = Exercise(
    "04.3",
    "Which templates do equally well?",
    after="5. Does it matter which template?",
    minutes=6,
    difficulty=2,
    task="""
    A made-up report compares seven templates with ChatML, each trained and prompted with itself.
    `difference` is the accuracy with the template minus that with ChatML, `low` and `high` are
    its 90% interval. Before the runs it was agreed that a difference of less than 0.05, in either
    direction, does not matter.

    For which templates does the report show that the difference from ChatML does not matter?
    Answer with the set of their letters.
    """,
    hints=(
        "A small estimate, and a difference that is not significant, can both come from measuring "
        "too little.",
        "An equivalence test looks at the whole interval, and at both sides of the margin.",
        "The interval has to lie between -0.05 and +0.05, both ends. Whether 0 is in it plays no "
        "part.",
    ),
    expects='a set of letters, such as {"D", "E"}',
)


@same_or_not.draw
def seven_templates(random):
    rows = [
        ("A", 0.00, -0.09, 0.09),
        ("B", 0.01, -0.02, 0.04),
        ("C", 0.025, 0.01, 0.04),
        ("D", -0.03, -0.07, 0.01),
        ("E", -0.12, -0.15, -0.09),
        ("F", 0.04, -0.02, 0.10),
        ("G", 0.08, 0.06, 0.10),
    ]
    columns = ["template", "difference", "low", "high"]
    return (pd.DataFrame(rows, columns=columns).set_index("template"),)


@same_or_not.right
def inside_the_margin(table):
    return set(table.index[(table["low"] > -0.05) & (table["high"] < 0.05)])


@same_or_not.wrong(
    "You take the templates whose interval holds 0. That no difference was found does not show "
    "that there is none: a wide interval, from few questions, holds 0 most easily."
)
def not_significant(table):
    return set(table.index[(table["low"] < 0) & (table["high"] > 0)])


@same_or_not.wrong(
    "You compare the estimates with the margin. An estimate says nothing about how precisely it "
    "was measured; another run could give one beyond the margin."
)
def small_estimate(table):
    return set(table.index[table["difference"].abs() < 0.05])


@same_or_not.wrong(
    "You ask for two things: an interval inside the margin, and 0 in it. A difference can be "
    "real and still too small to matter; that was agreed before the runs."
)
def and_holds_zero(table):
    inside = (table["low"] > -0.05) & (table["high"] < 0.05)
    return set(table.index[inside & (table["low"] < 0)])


@same_or_not.wrong(
    "You look at one side of the margin: these templates are not worse than ChatML by more than "
    "that. But the margin has two sides: a difference also matters when a template is better."
)
def not_worse(table):
    return set(table.index[table["low"] > -0.05])


tool_calls = Exercise(
    "04.4",
    "The tool calls of an answer",
    after="6. Tools and thinking",
    minutes=12,
    difficulty=3,
    task="""
    A program has to find the tool calls in what a model writes. `text` is one answer in Qwen 3's
    form: it may begin with a thought between `<think>` and `</think>`, and each call is JSON with
    the keys `name` and `arguments`, between `<tool_call>` and `</tool_call>`.

    Return the calls to be run, in their order: a list of pairs `(name, arguments)`, where
    `arguments` is a dict; an empty list if there are none. What the model only thinks about is not
    to be run, and a call that was cut off before its end is left out.
    """,
    hints=(
        "Remove what is not part of the answer before you look for calls.",
        "A regular expression that stops at the first end after a beginning finds each call on "
        "its own, and nothing where the end is missing.",
        'After `text.rpartition("</think>")[2]`, `re.findall(r"<tool_call>(.*?)</tool_call>", '
        "answer, flags=re.DOTALL)` gives the JSON of each call; `json.loads` does the rest.",
    ),
    imports="import json\nimport re",
)


@tool_calls.draw
def answer(random):
    def call():
        arguments = {"x": random.randint(1, 9)} if random.random() < 0.8 else {}
        body = json.dumps({"name": random.choice(["f", "g"]), "arguments": arguments})
        return f"<tool_call>\n{body}\n</tool_call>"

    parts = [call() for _ in range(random.choice([0, 1, 1, 2]))]
    if random.random() < 0.25:
        parts.append(call()[:-14])  # without its end
    thought = random.choice(
        ["", "", f"<think>\n{call()}?\n</think>\n\n", "<think>\n\n</think>\n\n"]
    )
    return (thought + ("\n".join(parts) or "Hi."),)


@tool_calls.stub
def calls_of(text):
    """The calls to be run: a list of pairs of a name and a dict of arguments."""
    return ...


@tool_calls.right
def found_in_the_answer(text):
    answer = text.rpartition("</think>")[2]
    bodies = re.findall(r"<tool_call>(.*?)</tool_call>", answer, flags=re.DOTALL)
    calls = [json.loads(body) for body in bodies]
    return [(call["name"], call["arguments"]) for call in calls]


@tool_calls.wrong(
    "You run calls that stand in the thought. A model may consider a call and decide against it; "
    "only what follows the thought is the answer."
)
def thoughts_too(text):
    bodies = re.findall(r"<tool_call>(.*?)</tool_call>", text, flags=re.DOTALL)
    calls = [json.loads(body) for body in bodies]
    return [(call["name"], call["arguments"]) for call in calls]


@tool_calls.wrong(
    "In some answers you find no call, although there is one. Two usual reasons: in a regular "
    "expression `.` does not match a line break unless a flag says so, and code that cuts the text "
    "at `</think>` may lose everything where there is no thought."
)
def nothing_found(text):
    return []


@tool_calls.wrong(
    "You find one call at most. A model may ask for several tools in one answer, and waits for "
    "the results of all of them."
)
def first_call_only(text):
    return found_in_the_answer(text)[:1]


@tool_calls.wrong(
    "Two calls become one: your pattern runs from the first beginning to the last end, and what "
    "lies between is no JSON."
)
def greedy(text):
    answer = text.rpartition("</think>")[2]
    bodies = re.findall(r"<tool_call>(.*)</tool_call>", answer, flags=re.DOTALL)
    calls = [json.loads(body) for body in bodies]
    return [(call["name"], call["arguments"]) for call in calls]


@tool_calls.wrong(
    "Your program fails on a call that was cut off, as is usual when the limit of new tokens is "
    "reached. Look for the end of a call too, not only for its beginning."
)
def end_not_required(text):
    answer = text.rpartition("</think>")[2]
    calls = [json.loads(p.split("</tool_call>")[0]) for p in answer.split("<tool_call>")[1:]]
    return [(call["name"], call["arguments"]) for call in calls]
