"""What masks cost: ids and labels of conversations, beside ids alone with the same template.

    python benchmarks/masks.py [--conversations 1000] [--characters 500] [--rounds 3] [--json FILE]

Both arms take the same conversations and the same template, round by round; the best round of each
counts. Tokenising is `apply_chat_template` of transformers over the whole batch.
"""

import argparse
import json
import time
from pathlib import Path
from random import Random

from sftlab.chat import find_template, installed_templates, label_rows
from sftlab.models import load

BAR = 2.0
FAMILIES = ("chatml", "llama-3", "mistral", "alpaca")
INSTALLED = ("qwen3", "llama3", "gemma3", "deepseekv3")
TURNS = 4


def conversations(count, characters):
    """Of some length in all, each unlike the others."""
    draw = Random(0)
    words = "the model learns an answer from what it reads and stops where its turn ends".split()
    made = []
    for _ in range(count):
        texts = []
        for _ in range(TURNS):
            text = ""
            while len(text) < characters / TURNS:
                text += f"{draw.choice(words)} {draw.randrange(1000)} "
            texts.append(text[: characters // TURNS].strip())
        roles = ("user", "assistant") * (TURNS // 2)
        made.append([{"role": r, "content": t} for r, t in zip(roles, texts, strict=True)])
    return made


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--conversations", type=int, default=1000)
    parser.add_argument("--characters", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    _, tokenizer = load("tiny")
    rows = conversations(options.conversations, options.characters)
    names = [*FAMILIES, *(name for name in INSTALLED if name in installed_templates())]
    ratios = {}
    print(
        f"{len(rows)} conversations of {options.characters} characters in {TURNS} messages, "
        f"best of {options.rounds} rounds"
    )
    for name in names:
        tokenizer.chat_template = find_template(name).text
        ids, masks = [], []
        for _ in range(options.rounds):
            ids.append(seconds(lambda: tokenizer.apply_chat_template(rows)))
            masks.append(seconds(lambda: label_rows(tokenizer, rows)))
        ratios[name] = min(masks) / min(ids)
        verdict = "met" if ratios[name] <= BAR else "MISSED"
        print(
            f"  {name:<12}ids {min(ids):6.2f} s   ids and labels {min(masks):6.2f} s   "
            f"ratio {ratios[name]:5.2f}   bar {BAR}: {verdict}"
        )
    if options.json:
        options.json.write_text(json.dumps(ratios, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
