"""A merged run as one GGUF file, which llama.cpp, Ollama and LM Studio read.

    run ------> GGUF        what is in it beside the weights
    config      llama.*     sizes, RoPE's theta, epsilon of the norms
    tokenizer   tokenizer.* vocabulary, merges, special ids, stop ids, chat template

Names of keys and tensors are those of the package `gguf`, which llama.cpp's authors publish; what
its converter (convert_hf_to_gguf.py, not in the package) does with a Llama is done here for the
models that the lab trains, and refused for others.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.machine import import_extra

if TYPE_CHECKING:
    import torch

    from sftlab.train import Run

TYPES = {"f32": "F32", "f16": "F16", "q8_0": "Q8_0", "q4_0": "Q4_0"}
"""Types of the matrices, with the names of `gguf.GGMLQuantizationType`; vectors stay float32."""
_DIGITS_THEN_BYTES = [
    {"type": "Digits", "individual_digits": True},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
]  # what llama.cpp's pre-tokenizer `smollm` does
_ENDS = ("eos", "eot", "eom")  # keys for up to three stop ids, at all of which llama.cpp stops


class GgufError(ValueError):
    """A model that this writer doesn't know, or a type that it doesn't write."""


def interleave(weight: "torch.Tensor", heads: int) -> "torch.Tensor":
    """Rows of a query or key matrix in llama.cpp's order; its converter calls this `permute`.

    RoPE turns pairs of a head's numbers. transformers pairs the first half of a head with its
    second, llama.cpp neighbours, so row i of a half becomes row 2i or 2i + 1:

        transformers  a0 a1 a2 b0 b1 b2     pairs (a0 b0) (a1 b1) (a2 b2)
        llama.cpp     a0 b0 a1 b1 a2 b2

    `weight` is (heads x head_dim, ...). A file without it loads, and computes something else.
    """
    rows, *rest = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, *rest).swapaxes(1, 2).reshape(rows, *rest)


def write_gguf(run: "Run", file: str | Path, type: str = "f16") -> Path:
    """Write a run without adapters (`Run.merge`), of Llama's architecture, to a GGUF file.

    `type` is one of `TYPES`. Quantization is `gguf.quants`, blocks of 32 weights with one scale:
    llama.cpp's own for these types, without an importance matrix.

    Raises GgufError: adapters, another architecture or tokenizer, or an unknown type.
    """
    gguf = import_extra("gguf")
    if type not in TYPES:
        raise GgufError(f"type is {type!r}; choose one of {', '.join(TYPES)}")
    _check(run)
    config = run.model.config
    kind = gguf.GGMLQuantizationType[TYPES[type]]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name(Path(run.provenance["profile"]["name"]).name)
    share = "ALL" if type == "f32" else "MOSTLY"
    writer.add_file_type(gguf.LlamaFileType[f"{share}_{TYPES[type]}"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if type.startswith("q"):
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_tokenizer(writer, gguf, run)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in run.model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue  # llama.cpp takes the embeddings where a file has no output matrix
        part = name.split(".")[-2]
        weight = interleave(weight, heads[part]) if part in heads else weight
        array = weight.detach().float().cpu().numpy()
        matrix = array.ndim > 1 and array.shape[-1] % 32 == 0
        chosen = kind if matrix else gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(array, chosen)
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), data, raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(file)


def _check(run: "Run") -> None:
    """Raise GgufError for what would be written wrong."""
    remedy = (
        "write a plain model with `sftlab merge RUN --out DIR`, and convert that with llama.cpp's "
        "convert_hf_to_gguf.py DIR"
    )
    if run.adapted:
        raise GgufError("the run has adapters, and a GGUF file holds whole weights; merge() it")
    config = run.model.config
    rope = config.rope_parameters if config.model_type == "llama" else {}
    if config.model_type != "llama" or config.attention_bias or config.mlp_bias:
        raise GgufError(f"the architecture is {config.model_type}, not a plain llama; {remedy}")
    if rope.get("rope_type", "default") != "default":
        raise GgufError(f"rope_type is {rope['rope_type']!r}, which is not written here; {remedy}")
    if getattr(config, "quantization_config", None):
        raise GgufError("the weights are quantized; open the run with load_run(folder, merge=True)")
    kept = _backend(run.tokenizer)
    steps = kept.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    if kept["model"]["type"] != "BPE" or steps != _DIGITS_THEN_BYTES or kept["normalizer"]:
        raise GgufError(
            f"the tokenizer is not byte-level BPE with single digits, as the lab's bases have it "
            f"and llama.cpp's pre-tokenizer smollm reads it; {remedy}"
        )
    if len(run.stop_ids) > len(_ENDS):
        said = f"generation stops at {len(run.stop_ids)} ids, and GGUF has {len(_ENDS)} keys"
        raise GgufError(f"{said}; {remedy}")


def _backend(tokenizer: Any) -> dict[str, Any]:
    """What the tokenizer's library would save as tokenizer.json."""
    return json.loads(tokenizer.backend_tokenizer.to_str())


def _add_tokenizer(writer: Any, gguf: Any, run: "Run") -> None:
    """Write vocabulary, merges, special and stop ids, and the chat template."""
    tokenizer, kinds, size = run.tokenizer, gguf.TokenType, run.model.config.vocab_size
    tokens = {id: token for token, id in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder

    def kind(id: int) -> Any:
        if id not in tokens:
            return kinds.UNUSED
        if id not in added:
            return kinds.NORMAL
        return kinds.CONTROL if added[id].special else kinds.USER_DEFINED

    # Rows of the embeddings that no token has (padding to a round number) need a name of their own.
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([tokens.get(id, f"[PAD{id}]") for id in range(size)])
    writer.add_token_types([kind(id) for id in range(size)])
    merges = _backend(tokenizer)["model"]["merges"]
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    for end, id in zip(_ENDS, run.stop_ids, strict=False):
        getattr(writer, f"add_{end}_token_id")(id)
    for name in ("bos", "pad"):
        if (id := getattr(tokenizer, f"{name}_token_id")) is not None:
            getattr(writer, f"add_{name}_token_id")(id)
    writer.add_add_bos_token(False)  # the chat template writes it where it is wanted
    if tokenizer.chat_template:
        tags = r"\{%-?\s*(?:end)?generation\s*-?%\}"  # which only training reads
        writer.add_chat_template(re.sub(tags, "", tokenizer.chat_template))
