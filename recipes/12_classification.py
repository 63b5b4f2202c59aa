"""Fine-tune a classifier; validation chooses the checkpoint, and the score is of untouched texts.

python recipes/12_classification.py --data reviews.jsonl --out runs/mine"""

import json
from argparse import ArgumentParser

import torch
from datasets import load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
)

parser = ArgumentParser()
parser.add_argument("--model", default="Qwen/Qwen3-0.6B-Base")
parser.add_argument("--data", required=True, help='JSONL: a line is {"text": ..., "label": ...}')
parser.add_argument("--out", required=True)
parser.add_argument("--learning_rate", type=float, default=2e-5)
parser.add_argument("--max_steps", type=int, default=-1)
options = parser.parse_args()

torch.manual_seed(0)  # the head's first weights are random
tokenizer = AutoTokenizer.from_pretrained(options.model)
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
rows = load_dataset("json", data_files=options.data, split="train").class_encode_column("label")
names = dict(enumerate(rows.features["label"].names))
rows = rows.map(lambda row: tokenizer(row["text"], truncation=True, max_length=512))
split = {"test_size": 0.2, "seed": 0, "stratify_by_column": "label"}
rest, test = rows.train_test_split(**split).values()
train, validation = rest.train_test_split(**split).values()

how = {"num_labels": len(names), "id2label": names, "dtype": torch.float32}
model = AutoModelForSequenceClassification.from_pretrained(options.model, **how)
model.config.pad_token_id = tokenizer.pad_token_id  # else: "no padding token is defined"


def compute_metrics(prediction):
    return {"accuracy": (prediction.predictions.argmax(-1) == prediction.label_ids).mean()}


settings = TrainingArguments(
    output_dir=options.out,
    learning_rate=options.learning_rate,
    num_train_epochs=3,
    max_steps=options.max_steps,
    per_device_train_batch_size=16,
    eval_strategy="epoch",
    save_strategy="epoch",
    load_best_model_at_end=True,
    metric_for_best_model="accuracy",
    report_to="none",
)
data = {"train_dataset": train, "eval_dataset": validation}  # the test chooses nothing
how = {"processing_class": tokenizer, "compute_metrics": compute_metrics}  # it pads each batch
trainer = Trainer(model, settings, **data, **how)
trainer.train()
found = trainer.predict(test)
confidence, label = torch.tensor(found.predictions).softmax(-1).max(-1)
right = (label == torch.tensor(found.label_ids)).float()
bins = (10 * confidence).long().clamp(max=9)
ece = sum((confidence - right)[bins == one].sum().abs().item() for one in range(10)) / len(test)
trainer.save_model(options.out)
scores = {"validation": trainer.state.best_metric, "test": right.mean().item(), "ece": ece}
print(json.dumps(scores))
