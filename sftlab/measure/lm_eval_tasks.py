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

TASKS = Path(__file__).with_name("lm_eval")


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
    rows: dict[str, list[dict]] = {"questions": [], "choices": []}
    for one in among:
        for relation in RELATIONS:
            item = {"country": one.name, "relation": relation}
            asked = grammar.question(one, relation, wording="test", form=forms.get(one.name, 0))
            answers, offered = list(one.answers(relation)), choices(one, relation)
            rows["questions"].append({**item, "question": asked, "answers": answers})
            prompt = grammar.cloze(one, relation)
            rows["choices"].append({**item, "prompt": prompt, "choices": offered})
    for name, items in rows.items():
        file, task = folder / f"{name}.jsonl", f"sftlab_{name}.yaml"
        text = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
        file.write_text(text, encoding="utf-8")
        values = (TASKS / task).read_text(encoding="utf-8")
        path = json.dumps(str(file), ensure_ascii=False)
        (folder / task).write_text(values.replace("ROWS", path), encoding="utf-8")
    return [f"sftlab_{name}" for name in rows]
