r"""Whether the text of training is the text that a model meets when it is asked.

    asked           <|im_start|>user\nQuestionOne<|im_end|>\n<|im_start|>assistant\n
    short, trained  <|im_start|>user\nQuestionOne<|im_end|>\n<|im_start|>assistant\nAnswerOne ...
    long, trained   <|im_start|>user\nQuestionOne<|im_end|>\n<|im_start|>assistant\nAnswerOne ...

Each should begin with the one above it. Where one does not, the model answers from a text that it
was not trained on, or is trained on one that it will not meet.
"""

from collections.abc import Iterator
from itertools import takewhile

from sftlab.chat.case import ASK, LONG, Case
from sftlab.chat.diagnosis import Finding
from sftlab.data import shown


def prompt(case: Case) -> Iterator[Finding]:
    """Whether an answer is trained behind the very text that the model is asked with."""
    asked = case.render(ASK, add_generation_prompt=True)
    if asked is None:
        yield Finding(
            level="error",
            code="not-rendered",
            what="the template refuses a conversation that ends with a question, so a model "
            "trained with it could never be asked anything",
            remedy="let the template render messages without an answer, then the generation prompt",
        )
        return
    text, start = case.short.text, case.short.spans[0].start
    if not text.startswith(asked):
        same = shared(asked, text)
        yield Finding(
            level="warning",
            code="prompt-differs",
            what=f"the model is asked with {_or_nothing(asked[same:])} where training shows "
            f"{_or_nothing(text[same:start])} before the answer, so it answers from a text that it "
            "was not trained on",
            remedy="train with answers that are complete from the generation prompt on (the "
            "thinking included), or make the two texts of the template equal",
        )
        return
    between = text[len(asked) : start]
    if not between.strip():
        return
    if asked == case.render(ASK):
        yield Finding(
            level="warning",
            code="no-generation-prompt",
            what=f"add_generation_prompt adds nothing, although {shown(between)} stands before "
            "each answer, so the model must write that itself and is not trained to",
            remedy=f"add to the template: `{{% if add_generation_prompt %}}"
            f"{{{{ {between!r} }}}}{{% endif %}}`",
        )
        return
    yield Finding(
        level="warning",
        code="text-before-answer",
        what=f"training shows {shown(between)} between the generation prompt and the answer, but "
        "a model that is asked must write that itself, and is not trained to",
        remedy='mask with start="generation", so that this text is supervised as well',
    )


def history(case: Case) -> Iterator[Finding]:
    """Whether a conversation that goes on begins with the one that it was."""
    before, after = case.short.text, case.long.text
    if after.startswith(before):
        return
    span = case.short.spans[0]
    end = span.end if len(set(case.endings)) == 1 else span.start + len("AnswerOne")
    if after.startswith(before[:end]):
        if not before[span.end :].strip():  # A line break, or nothing, is missing at the end.
            return
        yield Finding(
            level="note",
            code="closing-text",
            what=f"a finished conversation is closed with {shown(before[span.end :])}, which is "
            "not there while it goes on; it is no part of the answer and not supervised",
            remedy="nothing, when generation stops at the end of turn",
        )
        return
    same = shared(before, after)
    yield Finding(
        level="warning",
        code="history-changes",
        what=f"once a conversation goes on, its earlier part is written differently: "
        f"{shown(before[same:])} becomes {shown(after[same : same + len(before) - same])}, so one "
        "text of several turns does not show what the model saw at each",
        remedy='train on the last answer only (turns="last"), with a row for each turn',
    )


def thinking(case: Case) -> Iterator[Finding]:
    """Whether what a model thought is taken out of its answers, or of the earlier ones."""
    inline = [dict(m) for m in LONG]
    inline[1]["content"] = "<think>\nThought\n</think>\n\nAnswerOne"
    apart = [dict(m) for m in LONG]
    apart[1]["reasoning_content"] = "Thought"
    for messages in (inline, apart):
        now, later = (case.render(part) or "" for part in (messages[:2], messages))
        if "Thought" in now and "Thought" not in later:
            yield Finding(
                level="warning",
                code="thinking-stripped",
                what="what a model thinks stands in its newest answer and is taken out of the "
                "earlier ones, so a text of several turns trains answers without the thinking",
                remedy='train on the last answer only (turns="last"), with a row for each turn',
            )
            return
    if "Thought" not in (case.render(inline[:2]) or ""):
        yield Finding(
            level="warning",
            code="thinking-dropped",
            what="what stands between <think> and </think> is taken out of every answer, the "
            "newest too, so no thinking is ever trained",
            remedy="take a template that keeps it, if your answers think",
        )


def shared(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


def _or_nothing(text: str) -> str:
    return shown(text) if text else "nothing"
