"""Our questions as tasks for EleutherAI's lm-eval, so that the same numbers come out elsewhere.

    tasks/
      sftlab_questions.yaml   questions.jsonl    answers generated, exact match with aliases
      sftlab_choices.yaml     choices.jsonl      the likeliest of some answers (MC1)

    lm_eval run --model hf --model_args pretrained=RUN --include_path tasks \\
        --tasks sftlab_questions --apply_chat_template

RUN is the folder of a saved run with all weights. For one with adapters name the base too,
`pretrained=BASE,peft=RUN,tokenizer=RUN`, since the chat template is the run's, and the id of the
token that ends a turn, `--gen_kwargs eos_token_id=ID`: lm-eval stops at the base's end of text,
which may be another token.
Nothing is fetched: the rows are read from the files beside the tasks.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sftlab.measure.likelihood import choices
from sftlab.world import RELATIONS, Country, countries, grammar

QUESTIONS, CHOICES = "sftlab_questions", "sftlab_choices"


def export_tasks(
    folder: str | Path,
    *,
    among: Sequence[Country],
    relations: Sequence[str] = RELATIONS,
    wrong: int = 4,
    seed: int = 0,
    max_new_tokens: int = 24,
) -> list[str]:
    """Write both tasks about some countries into a new or an empty folder; their names.

    The questions are those of `probe_questions`, in its order, the choices those of
    `probe_choices`. The tasks name their files by this machine's path: write them where they are
    used.

    Raises:
        ValueError: the folder holds something, or there is no country.
    """
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not empty; write to a new folder")
    if not among:
        raise ValueError("there is no country to ask about: `among` is empty")
    folder.mkdir(parents=True, exist_ok=True)
    forms = {one.name: n for n, one in enumerate(countries())}
    items = [(one, relation) for one in among for relation in relations]
    _rows(folder / "questions.jsonl", [
        {
            "country": one.name,
            "relation": relation,
            "question": grammar.question(
                one, relation, wording="test", form=forms.get(one.name, 0)
            ),
            "answers": list(one.answers(relation)),
        }
        for one, relation in items
    ])  # fmt: skip
    _rows(folder / "choices.jsonl", [
        {
            "country": one.name,
            "relation": relation,
            "prompt": grammar.cloze(one, relation),
            "choices": choices(one, relation, wrong=wrong, seed=seed),
        }
        for one, relation in items
    ])  # fmt: skip
    _task(folder / f"{QUESTIONS}.yaml", {
        "task": QUESTIONS,
        **_read(folder / "questions.jsonl"),
        "output_type": "generate_until",
        "doc_to_text": "question",
        "doc_to_target": "answers",
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": max_new_tokens},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True,
                         "ignore_case": True, "ignore_punctuation": True}],
        "metadata": {"version": 1.0},
    })  # fmt: skip
    _task(folder / f"{CHOICES}.yaml", {
        "task": CHOICES,
        **_read(folder / "choices.jsonl"),
        "output_type": "multiple_choice",
        "doc_to_text": "prompt",
        "doc_to_choice": "choices",
        "doc_to_target": 0,
        "target_delimiter": " ",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    })  # fmt: skip
    return [QUESTIONS, CHOICES]


def _read(rows: Path) -> dict[str, Any]:
    return {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test",
        "num_fewshot": 0,
    }


def _rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def _task(path: Path, values: dict[str, Any]) -> None:
    """YAML whose values are written as JSON, which YAML includes."""
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
