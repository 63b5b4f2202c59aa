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
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from sftlab.chat import find_template
from sftlab.data import normalise, part_of, validate
from sftlab.measure import generate
from sftlab.models import Profile
from sftlab.paths import write_atomically
from sftlab.quiet import quiet_libraries
from sftlab.train.checkpoints import last_step, remove_checkpoints
from sftlab.train.examples import supervise
from sftlab.train.finetuning import finetune, untrained
from sftlab.train.own_data import OwnData, Row, file_hash
from sftlab.train.run import Run, load_run
from sftlab.train.settings import Settings, SettingsError
from sftlab.train.trainer import mean_loss

REPORT = "report.html"  # is written last: a run that has it is finished
SAVES = 10  # checkpoints of a training, about; on the disk are never more than three
ANSWERED = 64  # rows that the model answers itself, at most: writing takes longer than reading
SHORT = 12  # words up to which an answer is expected word for word


class OwnRunError(ValueError):
    """A folder that another run, or something else, is in."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model makes of one row."""

    row: int  # index among the rows held out
    text: str  # what the model wrote
    ended: bool  # by itself; else it was stopped


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one model does with all held-out rows.

    row       user: Capital of Peru?   assistant: Lima.
    loss      mean nats of the tokens of `Lima.<|im_end|>`, given what comes before them
    answer    what the model writes after `Capital of Peru?` on its own, greedily
    """

    losses: list[float]  # of each row: mean nats of its learned tokens
    loss: float  # mean nats over the learned tokens of all rows
    answers: list[Answer]  # of some rows


@dataclass(frozen=True, kw_only=True)
class OwnRun:
    """A training that is done, and what came of it."""

    folder: Path  # where all of it is
    data: OwnData  # what it was trained and measured on
    run: Run  # the trained model
    before: Outcome | None  # the base, with the same template; `None` when no row is held out
    after: Outcome | None  # the trained model
    skills: dict[str, pd.DataFrame]  # `sftlab.measure.read_meter` of both, before and after


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

    Interrupted or killed, the same call goes on from the last checkpoint and ends at the same
    weights, bit for bit on the same CPU. The folder is new, or of this very run, whose
    `run_identity` is `wanted`; `tell` gets a line before each thing that takes its time.

    Raises:
        OwnRunError, CheckpointError: the folder holds another run, or another process is at work in
            it, or its checkpoints are of other versions of the libraries.
        SettingsError: `early_stopping_patience`, and no row is held out.
    """
    folder = Path(folder)
    if data.settings.early_stopping_patience and not data.held_out:
        raise SettingsError(
            "early_stopping_patience waits for the loss on held-out rows, and none is held out"
        )
    run_state(folder, wanted)  # before anything is made in a folder of others
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # Two processes would write over each other's checkpoints. The system lets the lock of one
        # that is killed go.
        with FileLock(folder / ".lock", timeout=0):
            if run_state(folder, wanted) == "new":
                _write_json(folder / "own_data.json", dict(wanted))
            return _measure_and_train(data, profile, folder, progress, tell)
    except Timeout:
        raise OwnRunError(
            f"{folder}: another `sftlab train` is at work in it; wait until that ends, or give "
            "--out another folder"
        ) from None


def _measure_and_train(data: OwnData, profile: Profile, folder: Path, progress, tell) -> OwnRun:
    @cache
    def base() -> Run:
        return untrained(profile, data.settings)

    def outcome(name: str, run: Callable[[], Run]) -> Outcome | None:
        """What a model does with the held-out rows, from its file, or measured now."""
        if not data.held_out:
            return None
        tell(f"measuring the model {name} the training on {len(data.held_out):,} held-out rows")
        file = folder / f"{name}.json"
        if not file.is_file():
            _write_json(file, asdict(measure(run(), data.held_out)))
        values = json.loads(file.read_text(encoding="utf-8"))
        return Outcome(**values | {"answers": [Answer(**one) for one in values["answers"]]})

    _write_data(folder / "data", data)
    before, meter = outcome("before", base), folder / "before.parquet"
    if not meter.is_file():
        write_atomically(meter, base().meter().to_parquet())
    base.cache_clear()  # the training wants its memory
    if step := last_step(folder / "checkpoints"):
        tell(f"going on from step {step}")
    run = _trained(folder, data, profile, progress)
    after = outcome("after", lambda: run)
    skills = {"before": pd.read_parquet(meter), "after": run.meter()}
    return OwnRun(folder=folder, data=data, run=run, before=before, after=after, skills=skills)


def _trained(folder: Path, data: OwnData, profile: Profile, progress: bool) -> Run:
    checkpoints = folder / "checkpoints"
    if (folder / "run.json").is_file():
        remove_checkpoints(checkpoints)  # stopped before they were
        return load_run(folder)
    rows, held_out = (_plain(rows) for rows in (data.train, data.held_out))
    with warnings.catch_warnings():
        # It was counted before, and stands in the report.
        warnings.filterwarnings("ignore", message=r".* are longer than max_length=")
        run = finetune(
            profile,
            rows,
            settings=data.settings,
            eval_dataset=held_out or None,
            progress=progress,
            output_dir=checkpoints,
            save_steps=max(5, min(50, data.steps // SAVES)),
        )
    run.meter()  # what was taken is saved with the run
    run.write(folder)
    remove_checkpoints(checkpoints)
    return run


def _plain(rows: Sequence[Row]) -> list[Row]:
    return [{"messages": row["messages"]} for row in rows]


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
    """`new`, `begun` or `finished`: how far the run of that identity is in the folder."""
    folder = Path(folder)
    file = folder / "own_data.json"
    if folder.exists() and not folder.is_dir():
        raise OwnRunError(f"{folder} is a file; give --out a new folder")
    if not file.is_file():
        # A kill may have left an unfinished file of `write_atomically`.
        if folder.exists() and any(one.name[0] != "." for one in folder.iterdir()):
            raise OwnRunError(
                f"{folder} is not empty and holds no run of `sftlab train`; give --out a new folder"
            )
        return "new"
    before = json.loads(file.read_text(encoding="utf-8"))
    # Settings that differ are named by themselves.
    one, two = ({**v, **v.get("settings", {}), "settings": None} for v in (before, wanted))
    if other := sorted(key for key in {*one, *two} if one.get(key) != two.get(key)):
        raise OwnRunError(
            f"{folder} holds another run (other {', '.join(other)}), and nothing of it is "
            "overwritten; give --out a new folder, or repeat the command it was begun with"
        )
    return "finished" if (folder / REPORT).is_file() else "begun"


def _write_data(folder: Path, data: OwnData) -> None:
    """Write the rows that are trained on, held out and left out, and the bad ones, to a folder."""
    folder.mkdir(exist_ok=True)
    files = {"train": data.train, "held_out": data.held_out}
    if data.left_out:
        files["left_out"] = [{"left_out": why, **row} for why, row in data.left_out]
    for name, rows in files.items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as stream:
            for row in rows:
                flat = {**row, **row["meta"], "messages": row["messages"]}
                plain = {key: value for key, value in flat.items() if key != "meta"}
                stream.write(json.dumps(plain, ensure_ascii=False) + "\n")
    if data.report.bad:
        validate(data.file, bad=folder / "rejected.jsonl")


def _write_json(file: Path, values: Any) -> None:
    write_atomically(file, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def measure(run: Run, rows: Sequence[Row]) -> Outcome:
    """Measure a run, trained or not, on rows that it was not trained on.

    Which rows are answered, and how long an answer may get, depends on the rows alone.
    """
    tokenizer, pad, plain = run.tokenizer, run.tokenizer.pad_token_id, _plain(rows)
    labelled, _ = supervise(plain, tokenizer, run.settings)
    prompts = [run.prompt_ids(row["messages"][:-1]) for row in plain]
    # A question longer than what was trained on, or than the model reads, leaves no room.
    fitting = [n for n, prompt in enumerate(prompts) if len(prompt) < run.settings.max_length]
    chosen = sorted(Random("answered").sample(fitting, min(ANSWERED, len(fitting))))
    answers = [part_of(plain[n], "answer") for n in chosen]
    longest = max(
        (len(tokenizer(one, add_special_tokens=False).input_ids) for one in answers), default=0
    )
    most = min(longest + longest // 2 + 8, 256)
    with quiet_libraries():
        losses = [mean_loss(run.model, [row], pad) for row in labelled]
        loss = mean_loss(run.model, labelled, pad)
        asked, how = [prompts[n] for n in chosen], {"max_new_tokens": most, "batch_size": 16}
        made = generate(run.model, asked, pad=pad, **how) if chosen else []
    answers = [
        Answer(row=n, text=tokenizer.decode(new, skip_special_tokens=True), ended=len(new) < most)
        for n, new in zip(chosen, made, strict=True)
    ]
    return Outcome(losses=losses, loss=loss, answers=answers)


def is_short(rows: Sequence[Row]) -> bool:
    """Whether answers are so short that a good one is the reference, word for word."""
    words = sorted(len(part_of(row, "answer").split()) for row in rows)
    return words[len(words) // 2] <= SHORT


def is_exact(answer: str, row: Row) -> bool:
    """Whether an answer is the row's, but for case and white space."""
    return normalise(answer) == normalise(part_of(row, "answer"))


def first_difference(answer: str, row: Row) -> int:
    """Words of an answer that agree with the row's before the first that does not."""
    given, wanted = answer.split(), part_of(row, "answer").split()
    pairs = zip(given, wanted, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(given), len(wanted)))
