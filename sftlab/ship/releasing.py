"""From a saved run to a folder that may be served, which is written only if the gate opens.

DIR/model.safetensors, config.json, tokenizer.json ...   a plain model (merged, nf4); or
DIR/model-q8_0.gguf                                      one file for llama.cpp and Ollama
DIR/contract.json    what whoever serves it must reproduce
DIR/gate.json        what the gate measured
DIR/README.md        how to serve it
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from shlex import quote
from typing import Any

from sftlab.chat import CONTRACT
from sftlab.data import part_of, read
from sftlab.integrity import GATE, file_hash
from sftlab.measure import probe_questions
from sftlab.paths import folder_written_atomically
from sftlab.ship.gating import BOUNDS, Gate, Question, gate
from sftlab.ship.gguf_file import TYPES, write_gguf
from sftlab.ship.runtimes import LlamaCpp, Transformers, convert
from sftlab.train import Run, load_run
from sftlab.world import countries

FORMS = {"merged": ("f32", "bf16", "f16"), "nf4": ("nf4",), "gguf": ("f16", *TYPES)}
"""What a release may be, with the precisions of each, the usual one first."""
MOST_QUESTIONS, MOST_TOKENS = 200, 128
_HELD = {"qlora": "nf4", "int8": "int8"}  # in which precision a method holds its base


class ReleaseError(ValueError):
    """A release that can't be made: of this form, to this folder, or with these questions."""


class GateError(ReleaseError):
    """The gate refused a release, of which nothing was written; `gate` has its table."""

    def __init__(self, gate: Gate) -> None:
        super().__init__(gate.verdict)
        self.gate = gate


@dataclass(frozen=True, kw_only=True)
class Release:
    """What was written, and what the gate measured before."""

    gate: Gate
    serve: dict[str, str]  # for each program that can serve it its command


def release(
    folder: str | Path,
    out: str | Path,
    *,
    to: str,
    type: str | None = None,
    questions: str | Path | Sequence[Question] | None = None,
    verify: bool = True,
) -> Release:
    """Convert a saved run, compare it with the run as it was trained, and write it if it passes.

    Args:
        to: one of `FORMS`; `type` a precision of it.
        questions: or a file of rows; by default those of `release_questions`.

    A run on a quantized base is compared with that base, while a merged model has the full one: it
    is allowed the difference that quantization makes. Raises GateError where the gate refuses,
    and ReleaseError for an unknown form or a folder that is not new.
    """
    folder, out = Path(folder), Path(out)
    if to not in FORMS:
        raise ReleaseError(f"to is {to!r}; choose one of {', '.join(FORMS)}")
    type = type or FORMS[to][0]
    if type not in FORMS[to]:
        raise ReleaseError(f"type of {to} is {type!r}; choose one of {', '.join(FORMS[to])}")
    if out.is_file() or any(out.glob("*")) or out.resolve() == Path.cwd():
        said = "is a file, not empty, or where you are"  # which can't be replaced
        raise ReleaseError(f"{out} {said}; give a new folder (--out)")
    run = load_run(folder, verify=verify)
    if not run.adapted and getattr(run.model.config, "quantization_config", None):
        raise ReleaseError(f"{folder} holds quantized weights; give the run it was made from")
    if questions is None or isinstance(questions, str | Path):
        questions = release_questions(run, folder, file=questions)
    whole = load_run(folder, merge=True, dtype="float32", verify=False) if run.adapted else run
    method = run.settings.method if run.adapted else ""
    allowed = max(BOUNDS[one] for one in (type, _HELD.get(method, type)))
    with folder_written_atomically(out) as scratch:
        if to == "gguf":
            file = write_gguf(whole, scratch / f"model-{type}.gguf", type)
            contract = run.contract() | {"files": {file.name: file_hash(file)}}
            (scratch / CONTRACT).write_text(_json(contract), encoding="utf-8")
            candidate: Any = LlamaCpp(file)
        else:
            made = whole if type == "f32" else convert(whole, type)
            made.write(scratch)
            dtype = {"bf16": "bfloat16", "f16": "float16"}.get(type)
            candidate = Transformers(load_run(scratch, dtype=dtype), name=f"{to}, {type}")
        how = {"allowed": allowed, "max_new_tokens": _tokens(run, questions)}
        found = gate(Transformers(run), candidate, questions, kind=type, **how)
        if not found.passed:
            raise GateError(found)
        name = out.resolve().name
        serve = _serve(out, to, type, name=name)
        inside = _serve(Path("."), to, type, name=name)  # no path of this machine
        record = {"to": to, "type": type, "questions": len(questions), "passed": found.passed}
        record["checks"] = found.table.to_dict("records")
        (scratch / GATE).write_text(_json(record), encoding="utf-8")
        lines = [f"# {found.verdict}", *(f"{name}:\n\n    {line}" for name, line in inside.items())]
        (scratch / "README.md").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return Release(gate=found, serve=serve)


def release_questions(
    run: Run, folder: str | Path, *, file: str | Path | None = None
) -> list[Question]:
    """What a gate asks a run: the rows of a file, or those that its training held out, or the
    world's questions about countries that no example of the course names. Of many a sample."""
    held = Path(folder) / "data" / "held_out.jsonl"
    source = file or (held if held.is_file() and held.stat().st_size else None)
    system = (run.provenance.get("system_prompt") or {}).get("text")
    first = [{"role": "system", "content": system}] if system else []
    if source:
        rows = [row for row in read(source) if not row.get("tools")]
        found = [
            Question(
                messages=row["messages"][:-1], answers=(part_of(row, "answer"),), entity=str(n)
            )
            for n, row in enumerate(rows)
            if row["messages"][-1]["role"] == "assistant"
        ]
    else:
        known = [one for one in countries(split="held_out") if one.group != "unseen"]
        frame = probe_questions(lambda asked: [""] * len(asked), among=known)
        found = [
            Question(
                messages=[*first, {"role": "user", "content": row.prompt}],
                answers=tuple(row.answers),
                entity=row.country,
            )
            for row in frame.itertuples()
        ]
    most = run.context_length - MOST_TOKENS
    found = [one for one in found if len(run.prompt_ids(one.messages)) <= most]
    if not found:
        raise ReleaseError(
            f"{source} has no row that can be asked: with an answer, without tools, and "
            f"{MOST_TOKENS} tokens shorter than the model reads; give --questions FILE"
        )
    return Random("gate").sample(found, min(MOST_QUESTIONS, len(found)))


def _tokens(run: Run, questions: Sequence[Question]) -> int:
    """How long an answer may get: half as long again as the longest that is known."""
    known = [answer for one in questions for answer in one.answers]
    counts = [len(run.tokenizer(one, add_special_tokens=False)["input_ids"]) for one in known]
    return min(max(counts, default=16) * 3 // 2 + 8, MOST_TOKENS)


def _serve(folder: Path, to: str, type: str, *, name: str) -> dict[str, str]:
    """A command for each program that serves this form."""
    if to == "gguf":
        model, file = f"model-{type}.gguf", quote(str(folder / "Modelfile"))
        return {
            "llama.cpp": f"llama-server --model {quote(str(folder / model))} --jinja",
            "Ollama": f"echo 'FROM ./{model}' > {file} && ollama create {quote(name)} -f {file}",
        }
    programs = {"the lab": "sftlab", "vLLM": "vllm", "transformers": "transformers"}
    return {one: f"{line} serve {quote(str(folder))}" for one, line in programs.items()}


def _json(record: Any) -> str:
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
