"""The template doctor: what will go wrong with a template, a tokenizer and data, before training.

    template       does it render, end its turns, keep its history, system messages, white space?
    + tokenizer    is the end of turn one token, and a stop? is a token cut in two, bos doubled?
    + data         which conversations are refused, hold markers, lose their answer when cut?

Every finding was seen by trying it out on small conversations; no list of known templates is asked.
The ailments are those that people report when a fine-tune fails: a model that never stops, a loss
of zero, answers that begin with a header.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.chat.case import Case, open_case, unsound
from sftlab.chat.diagnosis import LEVELS, Diagnosis, Finding
from sftlab.chat.rendering import Template, TemplateError
from sftlab.chat.rows import row_symptoms
from sftlab.chat.symptoms import symptoms
from sftlab.chat.templates import find_template
from sftlab.chat.tokens import token_symptoms

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def examine(
    template: Template | str | None = None,
    *,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    conversations: Iterable[Any] | None = None,
    max_length: int | None = None,
) -> Diagnosis:
    """Try a template out, and tell what is sound and what is not.

    Args:
        template: whatever `find_template` knows: a built-in name, a file, a Jinja text; None is the
            tokenizer's own.
        tokenizer: a fast one; without it nothing is said about tokens, and a template that writes
            an eos of which nobody knows the name is shown with `<eos_token>`.
        conversations: lists of messages, or rows of `{"messages": [...]}`; all are looked at.
        max_length: the tokens that training keeps of a conversation.

    Raises:
        TemplateError: there is no such template. One that is no sound Jinja is a finding.
        ValueError: `max_length` is not positive, or was given without a tokenizer.
    """
    if max_length is not None and (tokenizer is None or max_length < 1):
        raise ValueError(
            f"max_length is {max_length} tokens"
            + (": give at least 1" if tokenizer else ", and only a tokenizer can count those")
        )
    rows = None
    if conversations is not None:
        rows = [list(row["messages"] if isinstance(row, Mapping) else row) for row in conversations]
    try:
        found = find_template(template, tokenizer=tokenizer)
    except TemplateError as error:
        if not _given(template):
            raise
        name, case = "(given text)" if "{" in str(template) else str(template), unsound(error)
    else:
        name, case = found.name, open_case(found if tokenizer else _named(found))
    whole = isinstance(case, Case)
    findings = _all(case, tokenizer, rows, max_length) if whole else [case]
    return Diagnosis(
        template=name,
        end_of_turn=case.end_of_turn if whole else None,
        rows=None if rows is None else len(rows),
        findings=tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level))),
    )


def _named(template: Template) -> Template:
    """The template with names in place of tokens that only a tokenizer could tell.

    Rendered as nothing, an `eos_token` that ends each turn would not be seen.
    """
    return replace(
        template,
        bos_token=template.bos_token or "<bos_token>",
        eos_token=template.eos_token or "<eos_token>",
    )


def _given(template: Template | str | None) -> bool:
    """Whether a template that can't be used is there at all: a text, or a file."""
    return "{" in str(template) or Path(str(template)).is_file()


def _all(case: Case, tokenizer, rows, max_length) -> Iterator[Finding]:
    yield from symptoms(case)
    if tokenizer is not None:
        yield from token_symptoms(case, tokenizer)
    if rows is not None and (tokenizer is None or tokenizer.is_fast):
        yield from row_symptoms(case, rows, tokenizer=tokenizer, max_length=max_length)
