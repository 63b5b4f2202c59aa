"""Our questions as tasks for EleutherAI's lm-eval, so that the same numbers come out elsewhere.

    tasks/
      sftlab_questions.yaml   questions.jsonl    answers generated, exact match with aliases
      sftlab_choices.yaml     choices.jsonl      the likeliest of some answers (MC1)

    lm_eval run --model hf --model_args pretrained=RUN --include_path tasks \\
        --tasks sftlab_questions --apply_chat_template

RUN is the folder of a saved run with all weights. For one with adapters name the base too,
`pretrained=BASE,peft=RUN,tokenizer=RUN`, and the id of the token that ends a turn,
`--gen_kwargs eos_token_id=ID`: lm-eval stops at the base's end of text, which may be another.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from sftlab.measure.likelihood import choice_prompts
from sftlab.measure.probes import question_prompts
from sftlab.world import Country


def export_tasks(folder: str | Path, *, among: Sequence[Country]) -> list[str]:
    """Write both tasks about some countries into a new or an empty folder; their names.

    The questions are those of `probe_questions`, the choices those of `probe_choices`. The tasks
    name their files by this machine's path: write them where they are used.
    """
    asked = question_prompts(among=among).rename(columns={"prompt": "question"})
    tables = {
        "questions": asked[["country", "relation", "question", "answers"]],
        "choices": choice_prompts(among=among)[["country", "relation", "prompt", "choices"]],
    }
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not empty: name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        file, task = folder / f"{name}.jsonl", f"sftlab_{name}.yaml"
        table.to_json(file, orient="records", lines=True, force_ascii=False)
        text = Path(__file__).with_name("lm_eval").joinpath(task).read_text(encoding="utf-8")
        path = json.dumps(str(file), ensure_ascii=False)
        (folder / task).write_text(text.replace("ROWS", path), encoding="utf-8")
    return [f"sftlab_{name}" for name in tables]
