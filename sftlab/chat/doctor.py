"""The template doctor: what will go wrong with a template, a tokenizer and data, before training.

    template       does it render, end its turns, keep its history, system messages, white space?
    + tokenizer    is the end of turn one token, and a stop? is a token cut in two, bos doubled?
    + data         which conversations are refused, hold markers, lose their answer when cut?

Each check renders small conversations and compares the texts; no list of known templates is used.
The problems are those that people report when a fine-tune fails: a model that never stops, a loss
of zero, answers that begin with a header. findings.toml has the words. The conversations are a
short one, and a long one that goes on:

    user  QuestionOne        user  QuestionOne        user  QuestionTwo
    assistant  AnswerOne     assistant  AnswerOne     assistant  AnswerTwo
"""

import json
import re
import string
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.chat.masking import labels
from sftlab.chat.spans import MARKER, Messages, Spans, assistant_spans, shared
from sftlab.chat.templates import Template, TemplateError, find_template
from sftlab.data import shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEVELS = ("error", "warning", "note", "ok")
"""The worst first."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was checked."""

    level: str
    'One of LEVELS; "ok" when it was checked and is right.'
    code: str
    "A stable name, for programs: `no-end-of-turn`."
    what: str
    "One sentence: what was seen, and why it matters."
    remedy: str = ""
    "One sentence: what to do. Empty when nothing has to be done."
    rows: tuple[int, ...] = ()
    "The rows of the data that it is about, counted from 1."


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Everything that `examine` found."""

    template: str
    end_of_turn: str | None
    "What ends an answer, or None where nothing does or the answers could not be found."
    rows: int | None
    "How many conversations were checked; None where none were given."
    findings: tuple[Finding, ...]
    "The worst first."

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that are not "ok"."""
        return tuple(finding for finding in self.findings if finding.level != "ok")

    @property
    def ok(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.level != "error" for finding in self.findings)

    def of(self, code: str) -> Finding:
        """The finding of that name; KeyError when there is none."""
        return {finding.code: finding for finding in self.findings}[code]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values with stable names, for JSON."""
        return asdict(self) | {"ok": self.ok}

    def __str__(self) -> str:
        lines = [f"template {self.template}"]
        for finding in self.findings:
            lines.append(f"{finding.level:8}{finding.code}: {finding.what}")
            lines += [f"        do: {finding.remedy}"] * bool(finding.remedy)
        return "\n".join(lines)


@cache
def _texts() -> dict[str, dict[str, str]]:
    file = Path(__file__).with_name("findings.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _finding(name: str, rows: Iterable[int] = (), **values: Any) -> Finding:
    """The finding of findings.toml with the values filled in."""
    texts = {"code": name} | _texts()[name]
    filled = {key: string.Template(text).substitute(values) for key, text in texts.items()}
    return Finding(**filled, rows=tuple(rows))


def _conversation(**contents: str) -> list[dict[str, str]]:
    """Messages of the roles that the names begin with: `user`, `user2`, `assistant`, `system`."""
    return [{"role": name.rstrip("0123456789"), "content": c} for name, c in contents.items()]


_QUESTION = _conversation(user="QuestionOne")
_SHORT = _conversation(user="QuestionOne", assistant="AnswerOne")
_LONG = _SHORT + _conversation(user="QuestionTwo", assistant="AnswerTwo")
_SYSTEM = _conversation(system="SystemText")


@dataclass(frozen=True, kw_only=True)
class _Case:
    """A template that renders the conversations, and what it is examined with."""

    template: Template
    short: Spans
    long: Spans
    tokenizer: Any = None
    rows: list[Messages] | None = None
    max_length: int | None = None

    def render(self, messages: Messages, **options: Any) -> str | None:
        """The text, or None where the template refuses."""
        try:
            return self.template.render(messages, **options)
        except TemplateError:
            return None

    @property
    def prompt(self) -> str | None:
        """The prompt of a question, or None where the template refuses one."""
        return self.render(_QUESTION, add_generation_prompt=True)

    @property
    def endings(self) -> tuple[str, str]:
        """What ends the first answer, which a message follows, and what ends the last."""
        first, last = (self.long.text[span.start : span.end] for span in self.long.spans)
        return first.removeprefix("AnswerOne").strip(), last.removeprefix("AnswerTwo").strip()

    @property
    def end_of_turn(self) -> str | None:
        return self.endings[1] or self.endings[0] or None

    @property
    def markers(self) -> list[str]:
        """The markers that the template itself writes, in the order in which they come."""
        texts = [self.long.text, self.prompt or "", self.render(_SYSTEM + _LONG) or ""]
        return list(dict.fromkeys(re.findall(MARKER, "\n".join(texts))))

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def count_of(self, ids: list[int]) -> str:
        """`3 tokens ('a' 'b' 'c')`, without the brackets where one is a piece of a letter."""
        texts = " ".join(repr(self.tokenizer.decode([i])) for i in ids[:6]) + " ..." * (
            len(ids) > 6
        )
        return f"{len(ids)} tokens" + (f" ({texts})" if "\ufffd" not in texts else "")


def examine(
    template: Template | str | None = None,
    *,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    conversations: Iterable[Any] | None = None,
    max_length: int | None = None,
) -> Diagnosis:
    """Check a template, and say what is right and what is not.

    Args:
        template: whatever `find_template` takes; None is the tokenizer's own.
        tokenizer: a fast one; without it nothing is said about tokens, and an eos that the template
            writes is shown as `<eos_token>` where its name is unknown.
        conversations: lists of messages, or rows of `{"messages": [...]}`; all are checked.
        max_length: the tokens that training keeps of a conversation.

    Raises:
        TemplateError: there is no such template. One that is not valid Jinja is a finding.
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
        if tokenizer is None:  # rendered as nothing, an eos that ends each turn would not be seen
            tokens = {key: getattr(found, key) or f"<{key}>" for key in ("bos_token", "eos_token")}
            found = replace(found, **tokens)
        name, case = found.name, _open(found)
    except TemplateError as error:
        name = str(template)
        if "{" not in name and not Path(name).is_file():
            raise
        name, case = "(given text)" if "{" in name else name, _finding("not-rendered", error=error)
    findings = [case]
    if isinstance(case, _Case):
        case = replace(case, tokenizer=tokenizer, rows=rows, max_length=max_length)
        findings = [finding for check in _checks(case) for finding in check(case)]
    return Diagnosis(
        template=name,
        end_of_turn=getattr(case, "end_of_turn", None),
        rows=None if rows is None else len(rows),
        findings=tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level))),
    )


def _open(template: Template) -> _Case | Finding:
    """Render the two conversations and find their answers; or say why nothing can be examined."""
    for messages in (_SHORT, _LONG):
        try:
            text = template.render(messages)
        except TemplateError as error:
            return _parts_wanted(template) or _finding("not-rendered", error=error)
        lost = {message["role"] for message in messages if message["content"] not in text}
        if lost:
            roles = " and ".join(sorted(lost))
            return _parts_wanted(template) or _finding("content-lost", roles=roles)
    try:
        short, long = (assistant_spans(template, messages) for messages in (_SHORT, _LONG))
    except TemplateError as error:
        return _finding("answers-not-found", error=error)
    return _Case(template=template, short=short, long=long)


def _parts_wanted(template: Template) -> Finding | None:
    parts = [m | {"content": [{"type": "text", "text": m["content"]}]} for m in _LONG]
    try:
        text = template.render(parts)
    except TemplateError:
        return None
    return _finding("parts-wanted") if all(m["content"] in text for m in _LONG) else None


def _checks(case: _Case) -> list[Callable[[_Case], Iterator[Finding]]]:
    checks = [
        _end_of_turn, _prompt, _history, _thinking, _system_message, _alternation, _added_text,
        _white_space, _date, _generation_marks,
    ]  # fmt: skip
    if case.tokenizer is not None and not case.tokenizer.is_fast:
        return [*checks, lambda case: iter([_finding("slow-tokenizer")])]
    if case.tokenizer is not None:
        checks += [_end_token, _marker_tokens, _bos, _padding, _straddling]
    return [*checks, _rows] if case.rows is not None else checks


# The template alone.


def _end_of_turn(case: _Case) -> Iterator[Finding]:
    """Does something end an answer, also the last one?"""
    middle, last = case.endings
    ends = {"middle": shown(middle), "last": shown(last)}
    name = "end-of-turn" if last else "last-turn-open" if middle else "no-end-of-turn"
    yield _finding(name, **ends)
    if last and middle and middle != last:
        yield _finding("ends-differ", **ends)


def _prompt(case: _Case) -> Iterator[Finding]:
    r"""Does the trained text begin with the prompt, and a longer conversation with a shorter one?

    Each of these should begin with the one above it; `_history` compares the second and third:

        prompt    <|im_start|>user\nQuestionOne<|im_end|>\n<|im_start|>assistant\n
        short     <|im_start|>user\nQuestionOne<|im_end|>\n<|im_start|>assistant\nAnswerOne ...
        long      <|im_start|>user\nQuestionOne<|im_end|>\n<|im_start|>assistant\nAnswerOne ...
    """
    prompt, text, start = case.prompt, case.short.text, case.short.spans[0].start
    if prompt is None:
        yield _finding("prompt-refused")
    elif not text.startswith(prompt):
        same = shared(prompt, text)
        ends = {"prompt": prompt[same:], "trained": text[same:start]}
        ends = {name: shown(end) if end else "nothing" for name, end in ends.items()}
        yield _finding("prompt-differs", **ends)
    elif (between := text[len(prompt) : start]).strip():
        added = prompt != case.render(_QUESTION)
        name = "text-before-answer" if added else "no-generation-prompt"
        yield _finding(name, between=shown(between), literal=repr(between))


def _history(case: _Case) -> Iterator[Finding]:
    before, after, span = case.short.text, case.long.text, case.short.spans[0]
    if after.startswith(before):
        return
    end = span.end if len(set(case.endings)) == 1 else span.start + len("AnswerOne")
    if not after.startswith(before[:end]):
        same = shared(before, after)
        texts = {"before": shown(before[same:]), "after": shown(after[same : len(before)])}
        yield _finding("history-changes", **texts)
    elif before[span.end :].strip():  # Not if only a line break is missing at the end.
        yield _finding("closing-text", closing=shown(before[span.end :]))


def _thinking(case: _Case) -> Iterator[Finding]:
    """Is a model's thinking removed from its answers, or from the earlier ones?"""
    question, answer, *rest = _LONG
    inline = {**answer, "content": "<think>\nThought\n</think>\n\nAnswerOne"}
    apart = {**answer, "reasoning_content": "Thought"}
    for thoughtful in (inline, apart):
        now = case.render([question, thoughtful]) or ""
        later = case.render([question, thoughtful, *rest]) or ""
        if "Thought" in now and "Thought" not in later:
            yield _finding("thinking-stripped")
            return
    if "Thought" not in (case.render([question, inline]) or ""):
        yield _finding("thinking-dropped")


def _system_message(case: _Case) -> Iterator[Finding]:
    texts = {
        "a question": case.render(_SYSTEM + _QUESTION, add_generation_prompt=True),
        "a finished turn": case.render(_SYSTEM + _SHORT),
        "a longer conversation": case.render(_SYSTEM + _LONG),
    }
    rendered = {name: text for name, text in texts.items() if text is not None}
    dropped = [name for name, text in rendered.items() if "SystemText" not in text]
    if texts["a finished turn"] is None:
        yield _finding("system-refused")
    elif dropped:
        some = len(dropped) < len(rendered)
        yield _finding("system-dropped", where=f" from {' and '.join(dropped)}" if some else "")
    else:
        yield _finding("system")


def _alternation(case: _Case) -> Iterator[Finding]:
    """May two messages of one role follow each other?"""
    twice = _conversation(user="QuestionOne", user2="QuestionTwo", assistant="AnswerTwo")
    text = case.render(twice)
    if text is None:
        yield _finding("alternation-required")
    elif not all(message["content"] in text for message in twice):
        yield _finding("message-dropped")


def _added_text(case: _Case) -> Iterator[Finding]:
    """Does the template write a text of its own before the first message?"""
    text = case.long.text
    before = text.partition("QuestionOne")[0]
    between = text[case.long.spans[0].end :].partition("QuestionTwo")[0]
    header = shared(before[::-1], between[::-1])
    added = before[: len(before) - header]
    if len(re.findall(r"[^\W\d_]{2,}", re.sub(MARKER, "", added))) >= 4:
        yield _finding("adds-text", added=shown(added.strip()))


def _white_space(case: _Case) -> Iterator[Finding]:
    padded = [message | {"content": f"\t {message['content']} \t"} for message in _SHORT]
    text = case.render(padded)
    lost = [message["role"] for message in padded if message["content"] not in (text or "")]
    if text is not None and lost:
        yield _finding("content-trimmed", roles=" and ".join(lost))


def _date(case: _Case) -> Iterator[Finding]:
    days = {case.render(_SHORT, strftime_now=lambda form, day=day: day) for day in ("Mon", "Tue")}
    if len(days) > 1:
        yield _finding("date-dependent")


def _generation_marks(case: _Case) -> Iterator[Finding]:
    if not re.search(r"\{%[-+]?\s*generation\s*[-+]?%\}", case.template.text):
        yield _finding("no-generation-marks")


# With a tokenizer.


def _end_token(case: _Case) -> Iterator[Finding]:
    """Is the end of turn one token, and does generation stop at it?"""
    end = case.end_of_turn
    if end is None:
        return
    markers = re.findall(MARKER, end)  # Cohere ends an answer and then the turn, each with a token.
    if len(markers) > 1 and "".join(markers) == end:
        end = markers[-1]
    ids, eos = case.ids(end), repr(case.tokenizer.eos_token)
    if len(ids) != 1:
        yield _finding("end-split", end=shown(end), tokens=case.count_of(ids))
    else:
        name = "end-stops" if ids[0] in _stops(case.tokenizer) else "end-not-stop"
        yield _finding(name, end=shown(end), eos=eos, id=ids[0])


def _stops(tokenizer: "PreTrainedTokenizerBase") -> set[int | None]:
    """The ids of the tokenizer's eos, and of generation_config.json if it is on this machine."""
    file, found = Path(tokenizer.name_or_path or "") / "generation_config.json", None
    if tokenizer.name_or_path and file.is_file():
        found = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
    return {tokenizer.eos_token_id, *(found if isinstance(found, list) else [found])}


def _marker_tokens(case: _Case) -> Iterator[Finding]:
    """Are the markers that structure a conversation single tokens?"""
    markers = [marker for marker in case.markers if marker != case.end_of_turn]
    split = [marker for marker in markers if len(case.ids(marker)) > 1]
    if split:
        tokens = case.count_of(case.ids(split[0]))
        yield _finding(
            "markers-split", markers=_listed(split), first=shown(split[0]), tokens=tokens
        )
    elif markers:
        yield _finding("markers", markers="each of " * (len(markers) > 1) + _listed(markers))


def _bos(case: _Case) -> Iterator[Finding]:
    """Does the token that begins a text come exactly as often as it should?"""
    bos, text = case.tokenizer.bos_token, case.long.text
    if bos is None:
        return
    added = case.tokenizer("a")["input_ids"][:1] == [case.tokenizer.bos_token_id]
    if text.startswith(bos + bos) or (added and text.startswith(bos)):
        who = "the tokenizer adds another" if added else "writes it twice"
        yield _finding("double-bos", bos=repr(bos), who=who)
    elif added and not text.startswith(bos):
        yield _finding("missing-bos", bos=repr(bos))


def _padding(case: _Case) -> Iterator[Finding]:
    pad = case.tokenizer.pad_token
    if pad is None:
        yield _finding("no-pad")
    elif pad in (case.end_of_turn, case.tokenizer.eos_token):
        name = "pad-is-end" if pad == case.end_of_turn else "pad-is-eos"
        yield _finding(name, pad=repr(pad))


def _straddling(case: _Case) -> Iterator[Finding]:
    """Does a token hold both a piece of an answer and a piece of what is not?"""
    made = labels(case.tokenizer, _LONG, template=case.template, on_full="keep")
    texts = dict.fromkeys(made.text[slice(*made.offsets[token])] for token in made.straddling)
    if texts:
        yield _finding("straddling", texts=_listed(list(texts)))


# With data.


def _rows(case: _Case) -> Iterator[Finding]:
    """Everything that goes wrong in the given conversations, each counted over all of them."""
    found = {name: {} for name in _texts() if name.startswith("rows-")}  # each row -> detail
    markers, lost, total = _control_tokens(case), 0, len(case.rows)
    for row, messages in enumerate(case.rows, start=1):
        text = "\n".join(str(message.get("content") or "") for message in messages)
        if held := [marker for marker in markers if marker in text]:
            found["rows-hold-markers"][row] = repr(held[0])
        try:
            if case.tokenizer is None:
                case.template.render(messages)
                continue
            options = {"max_length": case.max_length, "on_empty": "keep", "on_full": "keep"}
            made = labels(case.tokenizer, messages, template=case.template, **options)
        except TemplateError as error:
            found["rows-refused"][row] = str(error).removeprefix("row 0: ")
            continue
        lost += made.removed
        if not made.supervised:
            found["rows-masked" if made.removed else "rows-without-answer"][row] = ""
        elif made.removed:
            found["rows-cut"][row] = ""
        if made.straddling:
            found["rows-straddle"][row] = ""
    for name, rows in found.items():
        if rows:
            first = ", ".join(map(str, list(rows)[:5])) + ", ..." * (len(rows) > 5)
            count = f"{len(rows):,} of {total:,} conversations (row{'s' * (len(rows) > 1)} {first})"
            row, detail = next(iter(rows.items()))
            values = {"row": row, "detail": detail, "most": case.max_length, "lost": f"{lost:,}"}
            yield _finding(name, rows, count=count, **values)
    if not any(found.values()):
        kept = " and keeps its answers" if case.tokenizer else ""
        yield _finding("rows", count=f"{total:,}", kept=kept)


def _control_tokens(case: _Case) -> list[str]:
    """What no content may hold: the template's markers and special tokens, but for thinking's."""
    tokens = dict.fromkeys(case.markers)
    if case.tokenizer is not None:
        added = case.tokenizer.added_tokens_decoder.values()
        tokens |= dict.fromkeys(case.tokenizer.all_special_tokens)
        tokens |= dict.fromkeys(token.content for token in added if token.special)
    return [token for token in tokens if token not in ("<think>", "</think>")]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(map(repr, names[:4])) + more
