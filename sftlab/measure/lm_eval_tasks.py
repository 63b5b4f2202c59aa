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
"""

import json
from collections.abc import Sequence
from pathlib import Path

from sftlab.measure.likelihood import choices
from sftlab.world import RELATIONS, Country, countries, grammar

TASKS = {
    "sftlab_questions": {
        "output_type": "generate_until",
        "doc_to_text": "question",
        "doc_to_target": "answers",
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 24},
        "metric_list": [{"metric": "exact_match", "ignore_case": True, "ignore_punctuation": True}],
    },
    "sftlab_choices": {
        "output_type": "multiple_choice",
        "doc_to_text": "prompt",
        "doc_to_choice": "choices",
        "doc_to_target": 0,
        "target_delimiter": " ",
        "metric_list": [{"metric": "acc"}],
    },
}


def export_tasks(folder: str | Path, *, among: Sequence[Country]) -> list[str]:
    """Write both tasks about some countries into a new or an empty folder; their names.

    The questions are those of `probe_questions`, in its order, the choices those of
    `probe_choices`. The tasks name their files by this machine's path: write them where they are
    used. ValueError: the folder holds something, or there is no country.
    """
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not empty: name a new folder")
    if not among:
        raise ValueError("`among` is empty: give one country or more")
    folder.mkdir(parents=True, exist_ok=True)
    forms = {one.name: n for n, one in enumerate(countries())}
    rows: dict[str, list[dict]] = {name: [] for name in TASKS}
    for one in among:
        for relation in RELATIONS:
            item = {"country": one.name, "relation": relation}
            asked = grammar.question(one, relation, wording="test", form=forms.get(one.name, 0))
            question = {"question": asked, "answers": list(one.answers(relation))}
            choice = {"prompt": grammar.cloze(one, relation), "choices": choices(one, relation)}
            rows["sftlab_questions"].append(item | question)
            rows["sftlab_choices"].append(item | choice)
    for name, task in TASKS.items():
        file = folder / f"{name.removeprefix('sftlab_')}.jsonl"
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[name])
        file.write_text(text, encoding="utf-8")
        (metric,) = task["metric_list"]
        values = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(file)}},
            "test_split": "test",
            "num_fewshot": 0,
            **task,
            "metric_list": [{**metric, "aggregation": "mean", "higher_is_better": True}],
            "metadata": {"version": 1.0},
        }
        # YAML includes JSON, so each value is written as that.
        lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
        (folder / f"{name}.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return list(TASKS)
