"""What a template does to conversations: found by comparing small ones that it renders."""

import re
from collections.abc import Iterator

from sftlab.chat.case import ASK, LONG, MARKER, SHORT, SYSTEM, Case, conversation
from sftlab.chat.continuity import history, prompt, shared, thinking
from sftlab.chat.diagnosis import Finding
from sftlab.data import shown

WORD = re.compile(r"[^\W\d_]{2,}")


def symptoms(case: Case) -> Iterator[Finding]:
    """Everything that can be said about a template alone."""
    for check in (
        end_of_turn, prompt, history, thinking, system, alternation, own_text, trimming, date,
        marks,
    ):  # fmt: skip
        yield from check(case)


def end_of_turn(case: Case) -> Iterator[Finding]:
    """Whether something ends an answer, also the last one."""
    middle, last = case.endings
    if last:
        yield Finding(
            level="ok",
            code="end-of-turn",
            what=f"an answer ends with {shown(last)}, and training supervises it, so a model "
            "can learn to stop",
        )
        if middle and middle != last:
            yield Finding(
                level="note",
                code="ends-differ",
                what=f"the last answer ends with {shown(last)}, and one that a message follows "
                f"with {shown(middle)}",
                remedy="let generation stop at both",
            )
    elif middle:
        yield Finding(
            level="warning",
            code="last-turn-open",
            what=f"{shown(middle)} ends an answer that a message follows, but nothing ends the "
            "last one, so in data of one turn no answer has an end and the model learns none",
            remedy="mask with append_eos=True, which writes the tokenizer's eos after the last "
            f"answer, and let generation stop at {shown(middle)} too",
        )
    else:
        yield Finding(
            level="error",
            code="no-end-of-turn",
            what="nothing ends an answer, so a model trained with this template cannot learn to "
            "stop and will go on to write the user's next message",
            remedy="write the tokenizer's eos after each answer in the template: `{{ "
            "message['content'] + eos_token }}`; or mask with append_eos=True",
        )


def system(case: Case) -> Iterator[Finding]:
    """What becomes of a system message."""
    if case.render(SYSTEM + SHORT) is None:
        yield Finding(
            level="note",
            code="system-refused",
            what="the template refuses a system message",
            remedy="put such a text at the start of the user's first message, in training and in "
            "use alike",
        )
        return
    parts = {
        "a question": case.render(SYSTEM + ASK, add_generation_prompt=True),
        "a finished turn": case.render(SYSTEM + SHORT),
        "a longer conversation": case.render(SYSTEM + LONG),
    }
    parts = {name: text for name, text in parts.items() if text is not None}
    dropped = [name for name, text in parts.items() if "SystemText" not in text]
    if dropped:
        where = "" if len(dropped) == len(parts) else f" from {' and '.join(dropped)}"
        yield Finding(
            level="warning",
            code="system-dropped",
            what=f"the template drops a system message{where} without a word, so training never "
            "shows the instructions that it is meant to teach",
            remedy="put such a text at the start of the user's first message, or take a template "
            "that renders it",
        )
    else:
        yield Finding(level="ok", code="system", what="a system message is rendered")


def alternation(case: Case) -> Iterator[Finding]:
    """Whether two messages of one role may follow each other."""
    twice = conversation(user="QuestionOne", user2="QuestionTwo", assistant="AnswerTwo")
    text = case.render(twice)
    if text is None:
        yield Finding(
            level="note",
            code="alternation-required",
            what="the template refuses two messages of one role in a row",
            remedy="join such messages into one before training",
        )
    elif not all(message["content"] in text for message in twice):
        yield Finding(
            level="warning",
            code="message-dropped",
            what="of two messages of one role in a row the template drops one without a word",
            remedy="join such messages into one before training",
        )


def own_text(case: Case) -> Iterator[Finding]:
    """Whether the template says something of its own before the first message."""
    before = case.long.text.partition("QuestionOne")[0]
    between = case.long.text[case.long.spans[0].end :].partition("QuestionTwo")[0]
    header = shared(before[::-1], between[::-1])
    added = before[: len(before) - header]
    if len(WORD.findall(MARKER.sub("", added))) >= 4:
        yield Finding(
            level="note",
            code="adds-text",
            what=f"the template begins with a text of its own when no system message is given: "
            f"{shown(added.strip())}",
            remedy="use the same template when the model is served, or give a system message of "
            "your own",
        )


def trimming(case: Case) -> Iterator[Finding]:
    """Whether white space around a content survives."""
    padded = [message | {"content": f"\t {message['content']} \t"} for message in SHORT]
    text = case.render(padded)
    lost = [message["role"] for message in padded if message["content"] not in (text or "")]
    if text is not None and lost:
        yield Finding(
            level="note",
            code="content-trimmed",
            what=f"white space around what the {' and the '.join(lost)} said is cut off",
            remedy="nothing, unless answers begin with an indentation that matters (code)",
        )


def date(case: Case) -> Iterator[Finding]:
    """Whether the text depends on the day on which it is made."""
    days = [case.render(SHORT, strftime_now=lambda form, day=day: day) for day in ("Mon", "Tue")]
    if days[0] != days[1]:
        yield Finding(
            level="warning",
            code="date-dependent",
            what="the template writes today's date, so the same data gives another training text "
            "each day, and one date only, that of the training, is ever seen",
            remedy="fix the date where the text is made (`date_string` in many templates) or "
            "remove it from the template",
        )


def marks(case: Case) -> Iterator[Finding]:
    """Whether the template itself says which part an assistant wrote."""
    if not re.search(r"\{%[-+]?\s*generation\s*[-+]?%\}", case.template.text):
        yield Finding(
            level="note",
            code="no-generation-marks",
            what="the template does not mark the answers with {% generation %}: the lab finds "
            "them without, but TRL's assistant_only_loss and transformers' assistant mask need "
            "the marks",
            remedy="train with the labels of the lab, or take a template with the marks",
        )
