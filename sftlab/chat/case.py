r"""A template on the doctor's table: small conversations rendered with it, and their answers.

No template is read; each is tried out. The short conversation, and the long one that goes on:

    user  QuestionOne        user  QuestionOne        user  QuestionTwo
    assistant  AnswerOne     assistant  AnswerOne     assistant  AnswerTwo
"""

import re
from dataclasses import dataclass

from sftlab.chat.diagnosis import Finding
from sftlab.chat.rendering import Template, TemplateError
from sftlab.chat.spans import Spans, assistant_spans

Message = dict[str, str]


def conversation(**contents: str) -> list[Message]:
    """Messages of the roles that the names begin with: `user`, `user2`, `assistant`, `system`."""
    return [{"role": name.rstrip("0123456789"), "content": c} for name, c in contents.items()]


ASK = conversation(user="QuestionOne")
SHORT = conversation(user="QuestionOne", assistant="AnswerOne")
LONG = SHORT + conversation(user="QuestionTwo", assistant="AnswerTwo")
SYSTEM = conversation(system="SystemText")

MARKER = re.compile(r"<[|｜][^<>\s]{1,40}?[|｜]>|</?[A-Za-z][\w-]{0,30}>|\[/?[A-Z][A-Z_]{2,}\]")
"""What looks like a token that structures a conversation: `<|im_end|>`, `</s>`, `[INST]`."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A template that renders the long conversation, and what that looks like."""

    template: Template
    """The template."""
    short: Spans
    """The short conversation, and where its answer is with what ends it."""
    long: Spans
    """The long one."""

    def render(self, messages: list[Message], **options) -> str | None:
        """The text, or None where the template refuses."""
        try:
            return self.template.render(messages, **options)
        except TemplateError:
            return None

    @property
    def endings(self) -> tuple[str, str]:
        """What ends the first answer, which a user follows, and what ends the last."""
        first, last = (self.long.text[span.start : span.end] for span in self.long.spans)
        return first.removeprefix("AnswerOne").strip(), last.removeprefix("AnswerTwo").strip()

    @property
    def end_of_turn(self) -> str | None:
        """What ends an answer (the last one, where that differs), None where nothing does."""
        return self.endings[1] or self.endings[0] or None

    @property
    def markers(self) -> tuple[str, ...]:
        """The tokens that the template itself writes, in the order in which they come."""
        texts = [self.long.text, self.render(ASK, add_generation_prompt=True) or ""]
        texts.append(self.render(SYSTEM + LONG) or "")
        return tuple(dict.fromkeys(MARKER.findall("\n".join(texts))))


def open_case(template: Template) -> Case | Finding:
    """Render the two conversations and find their answers; or say why nothing can be examined."""
    for messages in (SHORT, LONG):
        try:
            text = template.render(messages)
        except TemplateError as error:
            return _parts_wanted(template) or unsound(error)
        lost = [message for message in messages if message["content"] not in text]
        if lost:
            if wanted := _parts_wanted(template):
                return wanted
            roles = " and ".join(sorted({message["role"] for message in lost}))
            return Finding(
                level="error",
                code="content-lost",
                what=f"the template leaves out what the {roles} said when that is a plain text, "
                "so a model would be trained on conversations with holes",
                remedy="look how the template chooses what it writes (by other names of roles, "
                "say), or take another template",
            )
    try:
        short, long = (assistant_spans(template, messages) for messages in (SHORT, LONG))
    except TemplateError as error:
        return Finding(
            level="error",
            code="answers-not-found",
            what=f"the lab cannot tell which characters of the text are the answers: {error}",
            remedy="take another template: with this one every mask would be a guess",
        )
    return Case(template=template, short=short, long=long)


def _parts_wanted(template: Template) -> Finding | None:
    """The finding about a template that takes contents as lists of parts only, as for images."""
    parts = [m | {"content": [{"type": "text", "text": m["content"]}]} for m in LONG]
    try:
        text = template.render(parts)
    except TemplateError:
        return None
    if not all(message["content"] in text for message in LONG):
        return None
    return Finding(
        level="error",
        code="parts-wanted",
        what="the template renders contents only when they are lists of parts, as for images, and "
        "not when they are plain texts",
        remedy="take the template of a model for text: the lab's messages are plain texts",
    )


def unsound(error: TemplateError) -> Finding:
    """The finding about a template that does not render even a plain chat."""
    return Finding(
        level="error",
        code="not-rendered",
        what=f"the template does not render a plain chat of questions and answers: {error}",
        remedy="correct the template where the message says, or take the model's own template or "
        "a built-in one",
    )
