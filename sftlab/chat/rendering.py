"""A chat template: the Jinja text that turns messages into the one string that a model reads.

One object, the `Template`, serves training, evaluation and serving, so that a model is asked in the
form in which it was trained:

    messages                                  text, by ChatML
    [{"role": "user", "content": "Hi"},       <|im_start|>user
     {"role": "assistant", "content": "Ho"}]  Hi<|im_end|>
                                              <|im_start|>assistant
                                              Ho<|im_end|>
"""

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from sftlab.chat.sandbox import Refusal, compiled, plain_messages, plain_tools


class TemplateError(ValueError):
    """A template that can't be had or rendered; names it, the line where known, and a remedy."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """A chat template and what its variables render as.

    Raises:
        TemplateError: the text is no Jinja; the message names the line.
    """

    name: str
    "What messages call it: a family's name, a file's, or `(given text)`."
    text: str
    "The Jinja source."
    bos_token: str = ""
    "What `bos_token` renders as."
    eos_token: str = ""
    "What `eos_token` renders as."
    variables: tuple[tuple[str, Any], ...] = ()
    "Names and values of other variables, such as `enable_thinking`."

    def __post_init__(self) -> None:
        for field in ("name", "text", "bos_token", "eos_token"):
            if not isinstance(value := getattr(self, field), str):
                raise TemplateError(f"{field} of a template is {value!r}; give a string")
        try:
            compiled(self.text)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"the chat template {self.name} is not sound Jinja: line {error.lineno}: "
                f"{error.message}{_quoted(self.text, error.lineno)}; correct that line"
            ) from None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = False,
        **variables: Any,
    ) -> str:
        """The conversation as one string, as `apply_chat_template(tokenize=False)` gives it.

        Args:
            messages: role and content each, and what else the template reads.
            tools: JSON schemas, or functions with type hints and a docstring.
            add_generation_prompt: end with the header of the answer that is to come.
            variables: what else the template reads; they go before the template's own.

        Raises:
            TemplateError: the template refuses the conversation or fails; the line is named.
        """
        given = self.variables_for(
            plain_messages(messages), tools=tools, add_generation_prompt=add_generation_prompt
        )
        return self.run(compiled(self.text), {**given, **variables})

    def names(self) -> dict[str, Any]:
        """The variables that the template itself brings."""
        return {**dict(self.variables), "bos_token": self.bos_token, "eos_token": self.eos_token}

    def variables_for(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = False,
    ) -> dict[str, Any]:
        """All variables of a render of plain messages."""
        return {
            **self.names(),
            "messages": messages,
            "tools": plain_tools(tools),
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }

    def run(self, program: jinja2.Template, variables: Mapping[str, Any]) -> str:
        """What a program compiled from this text renders; its errors name template and line."""
        try:
            return program.render(variables)
        except Exception as error:
            line = next(
                (
                    frame.lineno
                    for frame in reversed(traceback.extract_tb(error.__traceback__))
                    if frame.filename == "<template>"
                ),
                None,
            )
            at = f" at line {line}{_quoted(self.text, line)}" if line else ""
            if isinstance(error, Refusal):
                raise TemplateError(
                    f"the chat template {self.name} refuses this conversation{at}: {error}; "
                    "change the messages as it says, or use another template"
                ) from None
            raise TemplateError(
                f"the chat template {self.name} fails{at}: {type(error).__name__}: {error}; it "
                "may need messages of another form (a list of content parts, a tool's name), or "
                "a variable that it reads"
            ) from error


def has_text(message: Mapping[str, Any]) -> bool:
    """Whether a message's content is more than white space."""
    content = message.get("content")
    return bool(content.strip() if isinstance(content, str) else content)


def _quoted(text: str, line: int) -> str:
    """`` (`the line`)``, shortened."""
    lines = text.splitlines()
    if not 0 < line <= len(lines):
        return ""
    source = " ".join(lines[line - 1].split())
    return f" (`{source[:80]}{'...' if len(source) > 80 else ''}`)"
