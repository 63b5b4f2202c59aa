"""A training on your own file in a folder, which the same call takes up where it was left.

RUN/own_data.json    what is trained: written first; another file or setting is another run
RUN/data/            train.jsonl, held_out.jsonl; left_out.jsonl and rejected.jsonl with reasons
RUN/before.json      what the base does with the held-out rows
RUN/before.parquet   the base's reading of the forgetting meter
RUN/checkpoints/     while it trains
RUN/run.json ...     the trained model and its meter, as `Run.save` writes it; run.json comes last
RUN/after.json       what the trained model does with them
"""

import json
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from sftlab.chat import find_template, setup_chat_template
from sftlab.data import normalise, part_of, validate
from sftlab.measure import generate, read_meter
from sftlab.models import Profile
from sftlab.paths import write_atomically
from sftlab.quiet import quiet_libraries
from sftlab.train.checkpoints import last_step, remove_checkpoints
from sftlab.train.examples import supervise
from sftlab.train.finetuning import finetune
from sftlab.train.methods import load_base
from sftlab.train.own_data import OwnData, file_hash
from sftlab.train.run import Run, load_run
from sftlab.train.settings import Settings, SettingsError
from sftlab.train.trainer import mean_loss

IDENTITY = "own_data.json"
CHECKPOINTS = "checkpoints"
REPORT = "report.html"
"""What is written last: a run that has it is finished."""
LOCK = ".lock"
"""Held while a process is at work in the folder; the system lets it go when that is killed."""
SAVES = 10
"""Checkpoints of a training, about; on the disk are never more than three."""
ANSWERED = 64
"""Rows that the model answers itself, at most: writing takes longer than reading."""
SHORT = 12
"""Words up to which an answer is expected word for word."""


class OwnRunError(ValueError):
    """A folder that another run, or something else, is in."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model makes of one row."""

    row: int
    """Index of the row among the rows held out."""
    text: str
    """What the model wrote."""
    ended: bool
    """Whether it ended by itself; else it was stopped."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one model does with all held-out rows.

    row       user: Capital of Peru?   assistant: Lima.
    loss      mean nats of the tokens of `Lima.<|im_end|>`, given what comes before them
    answer    what the model writes after `Capital of Peru?` on its own, greedily
    """

    losses: list[float]
    """Of each row: mean nats of its learned tokens."""
    loss: float
    """Mean nats over the learned tokens of all rows."""
    answers: list[Answer]
    """Of some rows."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Outcome":
        """The same from plain values."""
        return cls(**{**values, "answers": [Answer(**one) for one in values["answers"]]})


@dataclass(frozen=True, kw_only=True)
class OwnRun:
    """A training that is done, and what came of it."""

    folder: Path
    """Where all of it is."""
    data: OwnData
    """What it was trained and measured on."""
    run: Run
    """The trained model."""
    before: Outcome | None
    """The base on the held-out rows, with the same template; `None` when none is held out."""
    after: Outcome | None
    """The trained model on them."""
    skills: dict[str, pd.DataFrame]
    """What the model could before, and what it can after: `sftlab.measure.read_meter` of both."""


def train_own_data(
    data: OwnData,
    profile: Profile,
    *,
    folder: str | Path,
    wanted: Mapping[str, Any],
    progress: bool = True,
    tell: Callable[[str], None] = lambda line: None,
) -> OwnRun:
    """Measure the base, train, measure again; what an earlier call did is not done again.

    Interrupted (`KeyboardInterrupt`) or killed, the same call goes on from the last checkpoint and
    ends at the same weights, bit for bit on the same CPU.

    Args:
        data: what `prepare` gave.
        profile: the model to train.
        folder: new, or of this very run.
        wanted: its `run_identity`.
        progress: show the bar of the training.
        tell: called with a line before each thing that takes its time.

    Raises:
        OwnRunError: the folder holds another run, or something else; or another process is at work
            in it.
        SettingsError: `early_stopping_patience`, and no row is held out.
        CheckpointError: its checkpoints were made with other versions of the libraries.
    """
    folder = Path(folder)
    if data.settings.early_stopping_patience and not data.held_out:
        raise SettingsError(
            "early_stopping_patience waits for the loss on held-out rows, and none is held out"
        )
    run_state(folder, wanted)  # before anything is made in a folder of others
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if run_state(folder, wanted) == "new":
            _write_json(folder / IDENTITY, dict(wanted))
        _write_data(folder / "data", data)
        before, meter = _before(data, profile, folder, tell)
        if step := last_step(folder / CHECKPOINTS):
            tell(f"going on from step {step}")
        run = _trained(folder, data, profile, progress)
        after = _outcome("after", lambda: run, data, folder, tell)
        skills = {"before": meter, "after": run.meter()}
        return OwnRun(folder=folder, data=data, run=run, before=before, after=after, skills=skills)


def _before(
    data: OwnData, profile: Profile, folder: Path, tell
) -> tuple[Outcome | None, pd.DataFrame]:
    """What the base does with the held-out rows, and its reading of the forgetting meter."""
    base = cache(lambda: _base(profile, data.settings))  # loaded when something is missing, once

    def read() -> pd.DataFrame:
        # Of the base as it is trained, perhaps in 4 bits: a sweep would load it in full.
        return read_meter(base().model, base().tokenizer, known_corpus=profile.embedded)

    return _outcome("before", base, data, folder, tell), _kept_meter(
        folder / "before.parquet", read
    )


def _outcome(
    name: str, run: Callable[[], Run], data: OwnData, folder: Path, tell
) -> Outcome | None:
    if not data.held_out:
        return None
    tell(f"measuring the model {name} the training on {len(data.held_out):,} held-out rows")
    file = folder / f"{name}.json"
    if not file.is_file():
        _write_json(file, measure(run(), data.held_out).as_dict())
    return Outcome.from_dict(json.loads(file.read_text(encoding="utf-8")))


def _kept_meter(file: Path, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A reading of the forgetting meter from its file, or taken now and written to it."""
    if not file.is_file():
        write_atomically(file, make().to_parquet())
    return pd.read_parquet(file)


def _base(profile: Profile, settings: Settings) -> Run:
    """The base with the template of the training: answers to the same prompts can be compared."""
    model, tokenizer = load_base(profile, settings)
    setup_chat_template(model, tokenizer, template=settings.template)
    return Run(model=model.eval(), tokenizer=tokenizer, history=[], settings=settings,
               seconds=0.0, tokens={}, provenance={})  # fmt: skip


def _trained(folder: Path, data: OwnData, profile: Profile, progress: bool) -> Run:
    if (folder / "run.json").is_file():
        remove_checkpoints(folder / CHECKPOINTS)  # stopped before they were
        return load_run(folder)
    settings = data.settings
    with warnings.catch_warnings():
        # It was counted before, and stands in the report.
        warnings.filterwarnings("ignore", message=r".* are longer than max_length=")
        run = finetune(
            profile,
            [{"messages": row["messages"]} for row in data.train],
            settings=settings,
            eval_dataset=[{"messages": row["messages"]} for row in data.held_out] or None,
            progress=progress,
            output_dir=folder / CHECKPOINTS,
            save_steps=max(5, min(50, data.steps // SAVES)),
        )
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    run.meter()  # what was taken is saved with the run
    run.save(unfinished)
    # run.json says that a run is there, so it comes last.
    for file in sorted(unfinished.iterdir(), key=lambda file: file.name == "run.json"):
        file.replace(folder / file.name)
    unfinished.rmdir()
    remove_checkpoints(folder / CHECKPOINTS)
    return run


def run_identity(file: str | Path, profile: Profile, settings: Settings, **options: Any) -> dict:
    """What makes a run this one and no other: plain values, to be compared and kept."""
    values = {
        "data": file_hash(file),
        "profile": profile.name,
        "template_text": find_template(settings.template).text,  # a file's may have changed
        "settings": asdict(settings.filled(profile)),
        **options,
    }
    return json.loads(json.dumps(values))


def run_state(folder: str | Path, wanted: Mapping[str, Any]) -> str:
    """`new`, `begun` or `finished`: how far the run of that identity is in the folder.

    Raises:
        OwnRunError: the folder holds another run, or something else.
    """
    folder = Path(folder)
    file = folder / IDENTITY
    if folder.exists() and not folder.is_dir():
        raise OwnRunError(f"{folder} is a file; give --out a new folder")
    if not file.is_file():
        # A kill may have left an unfinished file of `write_atomically`.
        if folder.exists() and any(one.name[0] != "." for one in folder.iterdir()):
            raise OwnRunError(
                f"{folder} is not empty and holds no run of `sftlab train`; give --out a new folder"
            )
        return "new"
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OwnRunError(f"{file} can't be read: {error}; give --out a new folder") from error
    if other := _differing(before, dict(wanted)):
        raise OwnRunError(
            f"{folder} holds another run (other {', '.join(other)}), and nothing of it is "
            "overwritten; give --out a new folder, or repeat the command it was begun with"
        )
    return "finished" if (folder / REPORT).is_file() else "begun"


def _differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Names of what differs, those of settings by themselves."""
    flat = [{**values, **values.get("settings", {}), "settings": None} for values in (before, now)]
    return sorted(key for key in {*flat[0], *flat[1]} if flat[0].get(key) != flat[1].get(key))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuse a second process: two trainings would write over each other's checkpoints."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OwnRunError(
            f"{folder}: another `sftlab train` is at work in it; wait until that ends, or give "
            "--out another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()
        (folder / LOCK).unlink(missing_ok=True)


def _write_data(folder: Path, data: OwnData) -> None:
    """Write the rows that are trained on, held out and left out, and the bad ones, to a folder."""
    folder.mkdir(exist_ok=True)
    _write_rows(folder / "train.jsonl", data.train)
    _write_rows(folder / "held_out.jsonl", data.held_out)
    if data.left_out:
        _write_rows(
            folder / "left_out.jsonl",
            [{"left_out": why, **row} for why, row in data.left_out],
        )
    if data.report.bad:
        validate(data.file, bad=folder / "rejected.jsonl")


def _write_rows(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    flat = ({**row, **row["meta"], "messages": row["messages"]} for row in rows)
    lines = [
        json.dumps({k: v for k, v in row.items() if k != "meta"}, ensure_ascii=False) + "\n"
        for row in flat
    ]
    file.write_text("".join(lines), encoding="utf-8")


def _write_json(file: Path, values: Any) -> None:
    write_atomically(file, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def measure(run: Run, rows: Sequence[dict[str, Any]]) -> Outcome:
    """Measure a run, trained or not, on rows that it was not trained on.

    Which rows are answered, and how long an answer may get, depends on the rows alone.

    Raises:
        ExampleError: a row can't be masked with the run's template.
    """
    plain = [{"messages": row["messages"]} for row in rows]
    labelled, _ = supervise(plain, run.tokenizer, run.settings)
    pad = run.tokenizer.pad_token_id
    with quiet_libraries():
        return Outcome(
            losses=[mean_loss(run.model, [row], pad) for row in labelled],
            loss=mean_loss(run.model, labelled, pad),
            answers=_answers(run, plain, pad),
        )


def _answers(run: Run, rows: list[dict[str, Any]], pad: int) -> list[Answer]:
    def ids(text: str) -> list[int]:
        return run.tokenizer(text, add_special_tokens=False)["input_ids"]

    prompts = {
        index: ids(
            run.tokenizer.apply_chat_template(
                row["messages"][:-1], tokenize=False, add_generation_prompt=True
            )
        )
        for index, row in enumerate(rows)
    }
    # A question longer than what was trained on, or than the model reads, leaves no room.
    fitting = [n for n, prompt in prompts.items() if len(prompt) < run.settings.max_length]
    chosen = sorted(Random("answered").sample(fitting, min(ANSWERED, len(fitting))))
    if not chosen:
        return []
    longest = max(len(ids(part_of(rows[n], "answer"))) for n in chosen)
    most = min(longest + longest // 2 + 8, 256)
    new = generate(
        run.model,
        [prompts[n] for n in chosen],
        pad=pad,
        max_new_tokens=most,
        batch_size=16,
    )
    return [
        Answer(
            row=n,
            text=run.tokenizer.decode(made, skip_special_tokens=True),
            ended=len(made) < most,
        )
        for n, made in zip(chosen, new, strict=True)
    ]


def is_short(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether answers are so short that a good one is the reference, word for word."""
    words = sorted(len(part_of(row, "answer").split()) for row in rows)
    return words[len(words) // 2] <= SHORT


def is_exact(answer: str, row: dict[str, Any]) -> bool:
    """Whether an answer is the row's, but for case and white space."""
    return normalise(answer) == normalise(part_of(row, "answer"))


def first_difference(answer: str, row: dict[str, Any]) -> int:
    """Words of an answer that agree with the row's before the first that does not."""
    given, wanted = answer.split(), part_of(row, "answer").split()
    pairs = zip(given, wanted, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(given), len(wanted)))
