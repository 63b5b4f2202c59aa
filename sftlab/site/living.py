"""Pages that answer without a kernel: two models, and the loss mask of a text of one's own.

    write_assets(folder, base="tiny", tuned=tuned_model(cache))     once a site
    living_html("ask", assets="_static/living/")                    where a page wants the box

`write_assets` writes what `static/living.js` computes with. All of it are scripts and a style
sheet, which a page may read from disk, where a browser fetches nothing else:

    living.js living.css    as they stand in `static`
    living-tokenizer.js     vocabulary and merges, shared by both models
    living-base.js          configuration and weights, 10 MB; read when the first question is asked
    living-tuned.js
"""

import base64
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sftlab.models import load
from sftlab.paths import folder_written_atomically, write_atomically
from sftlab.profiles import Profile, find_profile
from sftlab.site.filling import fill
from sftlab.sweeps import base_hash, code_hash
from sftlab.train import finetune
from sftlab.world import countries, country_examples

EXAMPLES = 300
"""Conversations that the tuned model learns from: those of lesson 00."""
HELD_OUT = (
    "Can you tell me the capital of France?",
    "What language is spoken in Mexico?",
    "What do people in Japan pay with?",
)
OUTSIDE = ("Who wrote Hamlet?", "What is 3 plus 4?")
_STATIC = Path(__file__).with_name("static")
# What living.js does to a text before it merges bytes, as tokenizer.json states it.
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_SPLITS = [{"type": "Digits", "individual_digits": True}, _BYTES]
_CHATML = "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"


class LivingError(ValueError):
    """A model that the page could not compute as transformers does."""


def tuned_model(folder: Path) -> Path:
    """The folder of a tuned `tiny`, made in `folder` unless it is there: the fine-tune of lesson 00
    with seed 0, some ten seconds on one core."""
    examples = country_examples(EXAMPLES, seed=0)
    # Its settings stand in this file, and `code_hash` leaves out this room.
    here = Path(__file__).read_text(encoding="utf-8")
    stated = f"{code_hash()} {here} {base_hash(find_profile('tiny'))} {json.dumps(examples)}"
    made = folder / f"living-{hashlib.sha256(stated.encode()).hexdigest()[:16]}"
    if not (made / "run.json").is_file():
        run = finetune("tiny", examples, seed=0, progress=False)
        with folder_written_atomically(made) as new:
            run.save(new)
    return made


def write_assets(
    folder: Path, *, base: str | Path | Profile = "tiny", tuned: str | Path | Profile
) -> None:
    """Write the scripts and the style sheet of the boxes to `folder`.

    Both models are small Llamas in float32 with the same byte-level tokenizer, the tuned one with
    ChatML as its template. Raises LivingError for others.
    """
    tokenizers = {}
    for name, which in {"base": base, "tuned": tuned}.items():
        model, tokenizers[name] = load(which)
        _write(folder, name, _model_for_page(model))
    parts = [_tokenizer_for_page(tokenizer) for tokenizer in tokenizers.values()]
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    if parts[0] != parts[1]:
        raise LivingError("the models have different tokenizers; give a model and its fine-tune")
    if tokenizers["tuned"].apply_chat_template(turns, tokenize=False) != _CHATML:
        raise LivingError("the tuned model's template is not ChatML; train with template='chatml'")
    _write(folder, "tokenizer", parts[0])
    for file in ("living.js", "living.css"):
        shutil.copyfile(_STATIC / file, folder / file)


def _write(folder: Path, name: str, content: dict[str, Any]) -> None:
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    script = f"(window.sftlab_models ??= {{}}).{name} = {text};\n"
    write_atomically(folder / f"living-{name}.js", script)


def _model_for_page(model: Any) -> dict[str, Any]:
    config, stops = model.config, model.generation_config.eos_token_id
    plain = config.model_type == "llama" and config.hidden_act == "silu"
    plain &= config.tie_word_embeddings and not config.attention_bias and not config.mlp_bias
    if not plain or config.rope_parameters["rope_type"] != "default":
        raise LivingError(
            "the page computes only Llamas with tied embeddings, plain RoPE, no biases"
        )
    weights = {name.removeprefix("model."): one for name, one in model.model.named_parameters()}
    return {
        "config": {
            "width": config.hidden_size,
            "layers": config.num_hidden_layers,
            "heads": config.num_attention_heads,
            "keyValueHeads": config.num_key_value_heads,
            "headWidth": config.head_dim,
            "positions": config.max_position_embeddings,
            "epsilon": config.rms_norm_eps,
            "theta": config.rope_parameters["rope_theta"],
        },
        "stops": [stops] if isinstance(stops, int) else stops,
        "tensors": {
            name.removesuffix(".weight"): _encoded(one.detach().float().numpy())
            for name, one in weights.items()
        },
    }


def _encoded(tensor: np.ndarray) -> dict[str, str]:
    """A vector as float32; a matrix as integers of 16 bits with a float32 unit a row.

    The largest error in the logits of five prompts, compared with the float32 weights of `tiny`
    and of its fine-tune: 0.25 and 0.44 with 8 bits a row, 0.23 and 0.20 with 8 bits for every 8
    weights, 0.02 and 0.03 with 12 bits a row, 0.000 and 0.008 with float16, 0.001 and 0.001 with
    these, which are as large as float16. The bound is 0.01.
    """
    if tensor.ndim == 1:
        return {"values": _text(tensor, "<f4")}
    units = np.abs(tensor).max(axis=1, keepdims=True) / 32767
    units[units == 0] = 1  # a row of zeros, of a token that is never used
    return {"units": _text(units, "<f4"), "values": _text(np.rint(tensor / units), "<i2")}


def _text(numbers: np.ndarray, kind: str) -> str:
    return base64.b64encode(numbers.astype(kind).tobytes()).decode()


def _tokenizer_for_page(tokenizer: Any) -> dict[str, Any]:
    stated = json.loads(tokenizer.backend_tokenizer.to_str())
    model, splits = stated["model"], stated["pre_tokenizer"].get("pretokenizers")
    if model["type"] != "BPE" or splits != _SPLITS or stated["normalizer"]:
        raise LivingError("the page has the byte-level BPE of the course's base models only")
    ids = tokenizer.get_vocab()
    return {
        "vocabulary": sorted(ids, key=ids.get),
        "merges": [" ".join(pair) for pair in model["merges"]],
        "special": [one["content"] for one in stated["added_tokens"]],
    }


def living_html(kind: Literal["ask", "mask"], *, assets: str = "") -> str:
    """The HTML of a box, for any page: `ask` has two models that answer, `mask` shows which tokens
    of a conversation are supervised.

    Args:
        assets: the address of the folder of `write_assets` from the page, such as `_static/`.
    """
    mentioned = {one.name for one in countries(split="sft")}
    seen = [row["messages"][0]["content"] for row in country_examples(EXAMPLES, seed=0)[:2]]
    return fill(
        "living.html",
        kind=kind,
        assets=assets,
        questions={
            "Countries that no example mentions": HELD_OUT,
            "Examples of the fine-tune": seen,
            "About something else": OUTSIDE,
        },
        examples=EXAMPLES,
        countries=len(mentioned),
    )
