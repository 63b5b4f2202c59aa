"""The template doctor: what will go wrong with a template, a tokenizer and data, before training.

    template       does it render, end its turns, keep its history, system messages, white space?
    + tokenizer    is the end of turn one token, and a stop? is a token cut in two, bos doubled?
    + data         which conversations are refused, hold markers, lose their answer when cut?

Each check renders a short conversation and a long one, and compares the texts; no list of known
templates is used. findings.toml has the words.

    user  QuestionOne        user  QuestionOne        user  QuestionTwo
    assistant  AnswerOne     assistant  AnswerOne     assistant  AnswerTwo
"""

import json
import re
import string
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sftlab.chat.masking import labels
from sftlab.chat.missing import Missing
from sftlab.chat.shadow import followed_texts
from sftlab.chat.spans import MARKER, Messages, assistant_spans, listed, shared, start_of
from sftlab.chat.templates import Template, TemplateError, find_template
from sftlab.data import shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


LEVELS = ("error", "warning", "note", "ok")  # the worst first
TEXTS = tomllib.loads(Path(__file__).with_name("findings.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was checked: one sentence on what was seen, and one on what to do."""

    level: str  # one of LEVELS; "ok" when it was checked and is right
    code: str  # a stable name, for programs: `no-end-of-turn`
    what: str
    remedy: str = ""  # empty when nothing has to be done
    rows: tuple[int, ...] = ()  # the rows of the data that it is about, counted from 1


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Everything that `examine` found."""

    template: str
    end_of_turn: str | None  # None where nothing ends an answer, or no answer could be found
    rows: int | None  # conversations that were checked; None where none were given
    findings: tuple[Finding, ...]  # the worst first

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that are not "ok"."""
        return tuple(finding for finding in self.findings if finding.level != "ok")

    @property
    def ok(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.level != "error" for finding in self.findings)

    def __str__(self) -> str:
        lines = [f"template {self.template}"]
        for finding in self.findings:
            lines.append(f"{finding.level:8}{finding.code}: {finding.what}")
            lines += [f"        do: {finding.remedy}"] * bool(finding.remedy)
        return "\n".join(lines)


def make_finding(name: str, rows: Iterable[int] = (), **values: Any) -> Finding:
    """The finding of findings.toml with the values filled in."""
    texts = {"code": name} | TEXTS[name]
    filled = {key: string.Template(text).substitute(values) for key, text in texts.items()}
    return Finding(**filled, rows=tuple(rows))


def _said(*contents: str) -> list[dict[str, str]]:
    roles = {"Q": "user", "A": "assistant", "S": "system"}
    return [{"role": roles[content[0]], "content": content} for content in contents]


_SYSTEM = _said("SystemText")
_QUESTION = _said("QuestionOne")
_SHORT = _said("QuestionOne", "AnswerOne")
_INLINE = "<think>\nThought\n</think>\n\nAnswerOne"
_LONG = _said("QuestionOne", "AnswerOne", "QuestionTwo", "AnswerTwo")
# Thinking as templates know it in a content; elsewhere in it they cut off what is before.
_THOUGHT = re.compile(r"\s*<think>((?!</?think>).)*</think>((?!</?think>).)*", re.DOTALL)


def examine(
    template: Template | str | None = None,
    *,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    conversations: Iterable[Any] | None = None,
    turns: Literal["all", "last", "everything"] = "all",
    start: Literal["auto", "content", "generation"] = "auto",
    max_length: int | None = None,
) -> Diagnosis:
    """Check a template, and say what is right and what is not.

    Args:
        template: whatever `find_template` takes; None is the tokenizer's own.
        tokenizer: a fast one; without it nothing is said about tokens.
        conversations: rows as `sftlab.data.read` gives them, checked as training labels them.
        turns, start: what training supervises, as in `Settings`.
        max_length: the tokens that training keeps of a conversation; counted with a tokenizer.
    """
    rows, case, found = None, None, find_template(template, tokenizer=tokenizer)
    if conversations is not None:
        rows = [{"messages": r["messages"], "tools": r.get("tools")} for r in conversations]
    if tokenizer is None:  # rendered as nothing, an eos that ends each turn would not be seen
        tokens = {key: getattr(found, key) or f"<{key}>" for key in ("bos_token", "eos_token")}
        found = replace(found, **tokens)
    findings = _unusable(found)
    if not findings:
        case = _Case(found, tokenizer, rows, max_length, turns, start)
        findings = sorted(_checks(case), key=lambda finding: LEVELS.index(finding.level))
    return Diagnosis(
        template=found.name,
        end_of_turn=case and case.end_of_turn,
        rows=None if rows is None else len(rows),
        findings=tuple(findings),
    )


def _unusable(template: Template) -> list[Finding]:
    """Why nothing can be examined, if a conversation is not rendered or its answers not found."""
    for messages in (_SHORT, _LONG):
        try:
            text = template.render(messages)
            roles = sorted({m["role"] for m in messages if m["content"] not in text})
            fault = make_finding("content-lost", roles=" and ".join(roles)) if roles else None
        except TemplateError as error:
            fault = make_finding("not-rendered", error=error)
        if fault:
            parts = [m | {"content": [{"type": "text", "text": m["content"]}]} for m in _LONG]
            text = _rendered(template, parts) or ""
            wanted = all(message["content"] in text for message in _LONG)
            return [make_finding("parts-wanted") if wanted else fault]
    try:
        for messages in (_SHORT, _LONG):
            assistant_spans(template, messages)
    except TemplateError as error:
        return [make_finding("answers-not-found", error=error)]
    return []


def _rendered(template: Template, messages: Messages, **options: Any) -> str | None:
    """The text, or None where the template refuses."""
    try:
        return template.render(messages, **options)
    except TemplateError:
        return None


class _Case:
    """A template that renders the conversations, and what it is examined with."""

    def __init__(
        self,
        template: Template,
        tokenizer: Any,
        rows: list[dict[str, Any]] | None,
        most: int | None,
        turns: str,
        start: str,
    ) -> None:
        self.template, self.tokenizer, self.rows, self.max_length = template, tokenizer, rows, most
        self.turns = turns
        # As training does it.
        self.options = {"turns": "all" if turns == "everything" else turns, "start": start}
        self.options |= {"append_eos": bool(template.eos_token)}
        starts = {start_of(row["messages"], turns) for row in rows or ()} or {"content"}
        self.starts = starts if start == "auto" else {start}
        self.short, self.long = (assistant_spans(template, chat) for chat in (_SHORT, _LONG))
        self.prompt = self.render(_QUESTION, add_generation_prompt=True)
        texts = (self.long.text[span.start : span.end] for span in self.long.spans)
        # What ends the first answer, which a message follows, and what ends the last.
        middle, last = (re.sub(r"\AAnswer(One|Two)", "", text).strip() for text in texts)
        self.endings, self.end_of_turn = (middle, last), last or middle or None
        texts = (self.long.text, self.prompt, self.render(_SYSTEM + _LONG))
        # Those that the template itself writes, in the order in which they come.
        self.markers = list(dict.fromkeys(re.findall(MARKER, "\n".join(filter(None, texts)))))

    def render(self, messages: Messages, **options: Any) -> str | None:
        return _rendered(self.template, messages, **options)

    def labelled(self, row: dict[str, Any]) -> Any:
        """`Labels` of the row as training makes them, or `Spans` without a tokenizer."""
        if self.tokenizer is None:
            how = self.options | {"tools": row["tools"]}
            return assistant_spans(self.template, row["messages"], **how)
        options = self.options | {"max_length": self.max_length, "on_empty": "keep"}
        return labels(self.tokenizer, row, template=self.template, **options)

    def renders_thinking(self, part: str) -> bool:
        """Whether it does in the newest answer, in the "content" or as "reasoning"."""
        inline = {"content": _INLINE} if part == "content" else {"reasoning_content": "Thought"}
        return "Thought" in (self.render([_SHORT[0], _SHORT[1] | inline]) or "")

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def pieces(self, text: str) -> str:
        """`3 tokens ('a' 'b' 'c')`, without the brackets where one is a piece of a letter."""
        ids = self.ids(text)
        texts = " ".join(repr(self.tokenizer.decode([i])) for i in ids[:6])
        texts += " ..." * (len(ids) > 6)
        return f"{len(ids)} tokens" + (f" ({texts})" if "\ufffd" not in texts else "")


def _checks(case: _Case) -> Iterator[Finding]:
    for check in (_end_of_turn, _prompt, _history, _thinking, _roles, _writing):
        yield from check(case)
    if case.tokenizer is not None:
        yield from _tokens(case)
    if case.rows is not None:
        yield from _rows(case)


# The template alone.


def _end_of_turn(case: _Case) -> Iterator[Finding]:
    """Does something end an answer, also the last one?"""
    middle, last = case.endings
    ends = {"middle": shown(middle), "last": shown(last)}
    name = "end-of-turn" if last else "last-turn-open" if middle else "no-end-of-turn"
    yield make_finding(name, **ends)
    if last and middle and middle != last:
        yield make_finding("ends-differ", **ends)


def _prompt(case: _Case) -> Iterator[Finding]:
    r"""Does the trained text begin with the prompt?

    prompt    <|im_start|>user\nQuestionOne<|im_end|>\n<|im_start|>assistant\n
    short     <|im_start|>user\nQuestionOne<|im_end|>\n<|im_start|>assistant\nAnswerOne ...
    """
    prompt, text, start = case.prompt, case.short.text, case.short.spans[0].start
    if prompt is None:
        yield make_finding("prompt-refused")
    elif not text.startswith(prompt):
        same = shared(prompt, text)
        ends = {"prompt": prompt[same:], "trained": text[same:start]}
        ends = {name: shown(end) if end else "nothing" for name, end in ends.items()}
        yield make_finding("prompt-differs", **ends)
    elif (between := text[len(prompt) : start]).strip() and "content" in case.starts:
        added = prompt != case.render(_QUESTION)
        name = "text-before-answer" if added else "no-generation-prompt"
        yield make_finding(name, between=shown(between), literal=repr(between))


def _history(case: _Case) -> Iterator[Finding]:
    before, after, span = case.short.text, case.long.text, case.short.spans[0]
    if after.startswith(before):
        return
    end = span.end if len(set(case.endings)) == 1 else span.start + len("AnswerOne")
    if not after.startswith(before[:end]):
        if case.turns == "last":  # then each answer is learned behind what the model sees in use
            return
        same = shared(before, after)
        texts = {"before": shown(before[same:]), "after": shown(after[same : len(before)])}
        yield make_finding("history-changes", **texts)
    elif before[span.end :].strip():  # Not if only a line break is missing at the end.
        yield make_finding("closing-text", closing=shown(before[span.end :]))


def _thinking(case: _Case) -> Iterator[Finding]:
    """Is a model's thinking removed from its answers, or from the earlier ones?"""
    question, answer, *rest = _LONG
    for thoughtful in (answer | {"content": _INLINE}, answer | {"reasoning_content": "Thought"}):
        now = case.render([question, thoughtful]) or ""
        later = case.render([question, thoughtful, *rest]) or ""
        if "Thought" in now and "Thought" not in later:
            if case.turns != "last":
                yield make_finding("thinking-stripped")
            return
    if not case.renders_thinking("content"):
        yield make_finding("thinking-dropped")


def _roles(case: _Case) -> Iterator[Finding]:
    """Is a system message rendered, and may two messages of one role follow each other?"""
    texts = {
        "a question": case.render(_SYSTEM + _QUESTION, add_generation_prompt=True),
        "a finished turn": case.render(_SYSTEM + _SHORT),
        "a longer conversation": case.render(_SYSTEM + _LONG),
    }
    rendered = {name: text for name, text in texts.items() if text is not None}
    dropped = [name for name, text in rendered.items() if "SystemText" not in text]
    if "a finished turn" not in rendered:
        yield make_finding("system-refused")
    elif dropped:
        some = len(dropped) < len(rendered)
        yield make_finding("system-dropped", where=f" from {' and '.join(dropped)}" if some else "")
    else:
        yield make_finding("system")
    twice = _said("QuestionOne", "QuestionTwo", "AnswerTwo")
    text = case.render(twice)
    if text is None:
        yield make_finding("alternation-required")
    elif not all(message["content"] in text for message in twice):
        yield make_finding("message-dropped")


def _writing(case: _Case) -> Iterator[Finding]:
    """What does the template add, cut off, or make of the day?"""
    text = case.long.text
    before = text.partition("QuestionOne")[0]
    between = text[case.long.spans[0].end :].partition("QuestionTwo")[0]
    header = shared(before[::-1], between[::-1])
    added = before[: len(before) - header]  # before the first message, and before no other
    if len(re.findall(r"[^\W\d_]{2,}", re.sub(MARKER, "", added))) >= 4:
        yield make_finding("adds-text", added=shown(added.strip()))
    padded = [message | {"content": f"\t {message['content']} \t"} for message in _SHORT]
    text = case.render(padded)
    lost = [message["role"] for message in padded if message["content"] not in (text or "")]
    if text is not None and lost:
        yield make_finding("content-trimmed", roles=" and ".join(lost))
    days = {case.render(_SHORT, strftime_now=lambda form, day=day: day) for day in ("Mon", "Tue")}
    if len(days) > 1:
        yield make_finding("date-dependent")
    if not re.search(r"\{%[-+]?\s*generation\s*[-+]?%\}", case.template.text):
        yield make_finding("no-generation-marks")


# With a tokenizer.


def _tokens(case: _Case) -> Iterator[Finding]:
    """Is the end one token and a stop, each marker a token, bos there once, pad apart, none cut?

    Are the prompt's tokens those of training? "\\n\\n" at its end may be one token, and two
    before a word: GPT-2's pattern parts the last of several line breaks from the others there.
    """
    tokenizer, text, end = case.tokenizer, case.long.text, case.end_of_turn
    bos, eos, pad = tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token
    if end is not None:
        parts = re.findall(MARKER, end)  # Cohere ends an answer and then the turn, each with one.
        stop = parts[-1] if "".join(parts) == end else end
        ids = case.ids(stop)
        if len(ids) != 1:
            yield make_finding("end-split", end=shown(stop), tokens=case.pieces(stop))
        else:
            name = "end-stops" if ids[0] in _stops(tokenizer) else "end-not-stop"
            yield make_finding(name, end=shown(stop), eos=repr(eos), id=ids[0])
    markers = [marker for marker in case.markers if marker != end]
    if split := [marker for marker in markers if len(case.ids(marker)) > 1]:
        first, tokens = shown(split[0]), case.pieces(split[0])
        yield make_finding(
            "markers-split", markers=listed(split, 4, repr), first=first, tokens=tokens
        )
    elif markers:
        each = "each of " * (len(markers) > 1)
        yield make_finding("markers", markers=each + listed(markers, 4, repr))
    if bos is not None:
        adds = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
        if text.startswith(bos + bos) or (adds and text.startswith(bos)):
            who = "the tokenizer adds another" if adds else "writes it twice"
            yield make_finding("double-bos", bos=repr(bos), who=who)
        elif adds:
            yield make_finding("missing-bos", bos=repr(bos))
    if pad is None:
        yield make_finding("no-pad")
    elif pad in (end, eos):
        yield make_finding("pad-is-end" if pad == end else "pad-is-eos", pad=repr(pad))
    made = labels(tokenizer, _LONG, template=case.template)
    held = dict.fromkeys(made.text[slice(*made.offsets[token])] for token in made.straddling)
    if held:  # tokens with a piece of an answer, and a piece of what is not
        yield make_finding("straddling", texts=listed(list(held), 4, repr))
    elif case.prompt and case.short.text.startswith(case.prompt):
        asked, trained = case.ids(case.prompt), case.ids(case.short.text)
        if trained[: len(asked)] != asked:
            same = shared(asked, trained)
            ends = {"asked": asked[same:], "trained": trained[same : same + 2]}
            ends = {name: [tokenizer.decode([i]) for i in ids] for name, ids in ends.items()}
            ends = {name: listed(texts, 4, repr) for name, texts in ends.items()}
            yield make_finding("prompt-tokens", **ends)


def _stops(tokenizer: "PreTrainedTokenizerBase") -> set[int | None]:
    """The ids of the tokenizer's eos, and of generation_config.json if it is on this machine."""
    file, found = Path(tokenizer.name_or_path or "") / "generation_config.json", None
    if tokenizer.name_or_path and file.is_file():
        found = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
    return {tokenizer.eos_token_id, *(found if isinstance(found, list) else [found])}


# With data.


def _rows(case: _Case) -> Iterator[Finding]:
    """Everything that goes wrong in the given conversations, each counted over all of them."""
    found = {name: {} for name in TEXTS if name.startswith("rows-")}  # each row -> detail
    lost, total = 0, len(case.rows)
    # No content may hold the template's markers and special tokens, but for thinking's.
    markers = dict.fromkeys(case.markers)
    if case.tokenizer is not None:
        added = case.tokenizer.added_tokens_decoder.values()
        markers |= dict.fromkeys(case.tokenizer.all_special_tokens)
        markers |= dict.fromkeys(token.content for token in added if token.special)
    markers = [marker for marker in markers if marker not in ("<think>", "</think>")]
    advice: dict[str, dict[str, None]] = {"rows-text-lost": {}, "rows-text-left-out": {}}
    for row, given in enumerate(case.rows, start=1):
        plain = case.template.plain(given["messages"])
        text = "\n".join(value for message in plain for _, value in followed_texts(message))
        text += json.dumps(given["tools"], ensure_ascii=False, default=str)
        if held := [marker for marker in markers if marker in text]:
            found["rows-hold-markers"][row] = repr(held[0])
        try:
            made = case.labelled(given)
        except TemplateError as error:
            found["rows-refused"][row] = str(error).removeprefix("row 0: ")
            continue
        for one in made.missing:
            name = "text-lost" if one.learned or case.turns == "everything" else "text-left-out"
            found[f"rows-{name}"].setdefault(row, str(one))
            advice[f"rows-{name}"][_advice(case, one, given["messages"])] = None
        if case.tokenizer is None:
            continue
        lost += made.removed
        if not made.supervised:
            found["rows-masked" if made.removed else "rows-without-answer"][row] = made.tokens
        elif made.removed:
            found["rows-cut"][row] = made.tokens
        if made.straddling:
            found["rows-straddle"][row] = ""
    for name, rows in found.items():
        if rows:
            first = ", ".join(map(str, list(rows)[:5])) + ", ..." * (len(rows) > 5)
            count = f"{len(rows):,} of {total:,} conversations (row{'s' * (len(rows) > 1)} {first})"
            row, detail = next(iter(rows.items()))
            values = {"row": row, "detail": detail, "most": case.max_length, "lost": f"{lost:,}"}
            values["needed"] = max(rows.values()) if name in ("rows-masked", "rows-cut") else ""
            values["advice"] = "; ".join(TEXTS["advice"][key] for key in advice.get(name, ()))
            yield make_finding(name, rows, count=count, **values)
    if not any(found.values()):
        kept = " and keeps its answers" if case.tokenizer else ""
        yield make_finding("rows", count=f"{total:,}", kept=kept)


def _advice(case: _Case, one: Missing, messages: Messages) -> str:
    """What to do about a missing text: a key of `[advice]` in findings.toml."""
    if one.message is None or one.part == "tool call":
        return "tools"
    role, content = messages[one.message].get("role"), str(messages[one.message].get("content"))
    if role != "assistant":
        return {"system": "system", "tool": "tools"}.get(role, "content")
    if one.part == "content" and not _THOUGHT.fullmatch(content):
        return "tools" if any(message.get("tool_calls") for message in messages) else "content"
    later = (message.get("role") == "assistant" for message in messages[one.message + 1 :])
    if not (any(later) and case.renders_thinking(one.part)):
        return "thinking"
    return "earlier-thinking" if one.learned else "unlearned-thinking"
