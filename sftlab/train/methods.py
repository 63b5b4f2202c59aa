"""The training methods by name: what each trains, on which base, and what it does not go with.

    method    base     what is trained
    full      float32  every weight
    lora      float32  adapters: W + scale B A, with B (out, rank) and A (rank, in)
    qlora     NF4      the same; the base's linear layers take half a byte a weight
    int8      int8     the same; a byte a weight
    prefix    float32  keys and values of a few positions before the text, in every layer
    frozen    float32  the upper layers, the final norm, and the output head unless it is shared
    gradual   float32  from the top down, in the end every weight
    head      float32  the output head alone; shared with the input embeddings, these change too

Which combinations work was tried in the versions that constraints.txt names, and
tests/train/test_methods.py tries it again.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftlab.models import QUANTISED

if TYPE_CHECKING:
    import pandas as pd

    from sftlab.train.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way of training."""

    name: str
    """What `Settings.method` takes."""
    base: str
    """How the base's linear layers are held: float32, NF4 or int8."""
    trains: str
    """What is trained."""
    precision: str
    """What `Settings.bf16` decides."""
    added: str
    """What happens to tokens that the template adds to the vocabulary."""
    packing: str = ""
    """Why examples can't be packed; empty where they can."""
    checkpointing: str = ""
    """Why activations can't be computed again; empty where they can."""
    note: str = ""
    """What else to know."""


_PRODUCTS = "of the products; weights stay in float32"
_ALL = "of the products and of what is not quantised"
_ROWS = "their rows are trained with the rest"
_OWN_ROWS = "their rows alone are trained of the embeddings"

METHODS: dict[str, Method] = {
    one.name: one
    for one in (
        Method(name="full", base="float32", trains="every weight", precision=_PRODUCTS,
               added=_ROWS),
        Method(name="lora", base="float32", trains="adapters of linear layers",
               precision=_PRODUCTS, added=_OWN_ROWS,
               note="PiSSA rewrites the base while it trains; the run has the base as it was, and "
               "an adapter of twice the rank"),
        Method(name="qlora", base="NF4", trains="adapters of linear layers", precision=_ALL,
               added=_OWN_ROWS,
               note="adapters in bfloat16 unless adapter_dtype says otherwise; checkpointing "
               "by default"),
        Method(name="int8", base="int8", trains="adapters of linear layers", precision=_ALL,
               added=_OWN_ROWS,
               note="adapters as under qlora; checkpointing spares less, for the inputs of its "
               "products stay; on a CPU trained on unpacked weights, and evaluated with 8-bit "
               "products, which round the activations too"),
        Method(name="prefix", base="float32", trains="keys and values before the text",
               precision=_PRODUCTS,
               added="refused: a prefix trains no embedding, so they would keep no meaning",
               packing="each example would need the prefix before it, and PEFT puts one before "
               "the whole row: neighbours then see each other",
               checkpointing="a layer that is computed again gets no cache, and the prefix is one"),
        Method(name="frozen", base="float32", trains="the upper layers and the final norm",
               precision=_PRODUCTS, added=_OWN_ROWS,
               note="the output embeddings too, unless they are shared with the input"),
        Method(name="gradual", base="float32", trains="from the top down, in the end every weight",
               precision=_PRODUCTS, added="their rows are trained from the start",
               note="needs the memory of full in the last steps"),
        Method(name="head", base="float32", trains="the output embeddings", precision=_PRODUCTS,
               added="their rows are trained, in and out",
               note="where input and output embeddings are shared, both change"),
    )
}  # fmt: skip

KINDS = {
    "plain": "B starts at zero, so that the model starts as the base",
    "rslora": "scaled by alpha / sqrt(rank) instead of alpha / rank (arXiv 2312.03732)",
    "dora": "each output's length is trained apart from its direction (arXiv 2402.09353)",
    "pissa": "starts at the largest singular directions, taken out of the base (arXiv 2404.02948)",
}


def refusal(settings: "Settings") -> str | None:
    """Why these settings do not go together, and the remedy; `None` where they do."""
    method = METHODS.get(settings.method or "")
    if method is None:
        return None
    if settings.padding_free and method.packing:
        return (
            f"method {method.name!r} does not go with padding_free=True: {method.packing}; use "
            "padding_free=False: batches of like length have next to no padding"
        )
    if settings.gradient_checkpointing and method.checkpointing:
        return (
            f"method {method.name!r} does not go with gradient_checkpointing: "
            f"{method.checkpointing}; set gradient_checkpointing=False, and a smaller "
            "per_device_train_batch_size with gradient_accumulation_steps"
        )
    if settings.init_lora_weights == "pissa" and method.name in QUANTISED:
        return (
            f"init_lora_weights='pissa' does not go with method {method.name!r}: it takes a "
            f"part out of the base's weights, and {method.base} weights can't be rewritten; use "
            "method='lora', or init_lora_weights=True"
        )
    if settings.use_dora and method.name == "int8":
        return (
            "use_dora=True does not go with method 'int8': PEFT reads the lengths of the base's "
            "weights, and the layers lose their scales over it; use method='lora' or 'qlora', or "
            "use_dora=False"
        )
    return None


def added_refusal(method: str, added: list[str]) -> str | None:
    """Why a method can't train on a template that adds tokens, and the remedy."""
    if method != "prefix" or not added:
        return None
    return (
        f"method 'prefix' does not go with a template that adds tokens ({', '.join(added)}): a "
        "prefix trains no embedding, so they would keep no meaning; choose a template whose tokens "
        "the base knows, or method='lora'"
    )


def table() -> "pd.DataFrame":
    """The methods, one a row: what each is trained on and goes with."""
    import pandas as pd

    def allowed(why: str) -> str:
        return f"refused: {why}" if why else "yes"

    rows = [
        {
            "method": one.name,
            "base": one.base,
            "trained": one.trains,
            "bf16 decides": one.precision,
            "packing": allowed(one.packing),
            "checkpointing": allowed(one.checkpointing),
            "added tokens": one.added,
            "LoRA kinds": _kinds(one),
            "note": one.note,
        }
        for one in METHODS.values()
    ]
    return pd.DataFrame(rows).set_index("method")


def _kinds(method: Method) -> str:
    """The kinds of LoRA that a method goes with."""
    refused = {"lora": (), "qlora": ("pissa",), "int8": ("pissa", "dora")}.get(method.name, KINDS)
    return ", ".join(kind for kind in KINDS if kind not in refused) or "-"
