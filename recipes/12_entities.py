"""Train a token classifier that marks names in a text, and report its strict F1 on held-out rows.

python recipes/12_entities.py --data names.jsonl --out mine"""

import json
from argparse import ArgumentParser
from itertools import groupby

import transformers
from datasets import load_dataset
from transformers import AutoModelForTokenClassification, AutoTokenizer

parser = ArgumentParser()
parser.add_argument("--model", default="FacebookAI/roberta-base")
line = '{"text": "Ada is here.", "entities": [{"start": 0, "end": 3, "label": "person"}]}'
parser.add_argument("--data", required=True, help=f"JSONL: a line is {line}")
parser.add_argument("--out", required=True)
parser.add_argument("--learning_rate", type=float, default=5e-5)
parser.add_argument("--max_steps", type=int, default=-1)
options = parser.parse_args()

rows = load_dataset("json", data_files=options.data, split="train")
for number, row in enumerate(rows, 1):
    for one in row["entities"]:
        if not 0 <= one["start"] < one["end"] <= len(row["text"]):
            parser.error(
                f"{options.data}, row {number}: the span {one['start']} to {one['end']} is not in "
                f"its {len(row['text'])} characters; start counts from 0, end is the one after"
            )
# Two names of one kind that touch would need labels that say where a name begins (B-, I-).
labels = ["O", *sorted({one["label"] for row in rows for one in row["entities"]})]
tokenizer = AutoTokenizer.from_pretrained(options.model)
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token


def align(row):
    """Ids, and a label for each token: of the name that it overlaps; -100 of special tokens."""
    tokens = tokenizer(row["text"], return_offsets_mapping=True, return_special_tokens_mask=True)
    marks = zip(tokens["offset_mapping"], tokens.pop("special_tokens_mask"), strict=True)
    tokens["labels"] = [-100 if special else 0 for _, special in marks]
    for place, (start, end) in enumerate(tokens.pop("offset_mapping")):
        for one in row["entities"]:
            if tokens["labels"][place] == 0 and start < one["end"] and end > one["start"]:
                tokens["labels"][place] = labels.index(one["label"])
    return tokens


def spans(numbers):
    """Names as (first token, number of tokens, label)."""
    runs = [list(run) for _, run in groupby(enumerate(numbers), lambda pair: pair[1])]
    return {(run[0][0], len(run), run[0][1]) for run in runs if run[0][1] > 0}


def compute_metrics(prediction):
    """Right is a name whose two ends and label are right."""
    said = prediction.predictions.argmax(-1)
    said[prediction.label_ids == -100] = -100
    pairs = [(spans(a), spans(b)) for a, b in zip(said, prediction.label_ids, strict=True)]
    right, both = (sum(len(a & b) for a, b in pairs), sum(len(a) + len(b) for a, b in pairs))
    return {"strict_f1": 2 * right / max(both, 1)}


split = rows.map(align).train_test_split(0.2, seed=0)
numbers = {"id2label": dict(enumerate(labels)), "label2id": {x: n for n, x in enumerate(labels)}}
model = AutoModelForTokenClassification.from_pretrained(options.model, **numbers)
how = {"learning_rate": options.learning_rate, "max_steps": options.max_steps}
settings = transformers.TrainingArguments(options.out, save_strategy="no", report_to="none", **how)
data = {"train_dataset": split["train"], "eval_dataset": split["test"]}
data["data_collator"] = transformers.DataCollatorForTokenClassification(tokenizer)
how = {"compute_metrics": compute_metrics, "processing_class": tokenizer}
trainer = transformers.Trainer(model, settings, **data, **how)
trainer.train()
trainer.save_model(options.out)
print(json.dumps({"rows": len(rows), "strict_f1": trainer.evaluate()["eval_strict_f1"]}))
