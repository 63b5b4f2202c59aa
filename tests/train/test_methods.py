"""Every training method: what it changes and leaves alone, where it starts, what it goes with."""

import itertools
from dataclasses import replace
from functools import cache

import pytest
import torch
from toy_run import EXAMPLES, equal, logits, same, train, write_base
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    PhiConfig,
    PhiForCausalLM,
)

from sftlab.chat import resize_embeddings
from sftlab.models import load, load_tokenizer
from sftlab.planner import estimate
from sftlab.profiles import ADAPTED, METHODS, QUANTISED, find_profile
from sftlab.train import Settings, SettingsError, load_run, methods, untrained
from sftlab.train.methods import add_dropout
from sftlab.train.trainer import SupervisedTrainer

ALIEN = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|fin|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""A template whose end of turn no vocabulary here knows."""
HOW = {"per_device_train_batch_size": 4, "learning_rate": 3e-3}  # six steps
KINDS = {"plain": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True}}
LORA = ("lora", "qlora", "int8")
EVERY = [(method, "plain") for method in METHODS]
EVERY += [("lora", "rslora"), ("lora", "dora"), ("qlora", "dora"), ("int8", "rslora")]
NORM = {"model.norm.weight"}
ENDS = ("bos", "eos", "pad")


@pytest.fixture(scope="module")
def base(toy_base):
    return str(toy_base)


@pytest.fixture(scope="module")
def untied(toy_tokenizer, tmp_path_factory):
    """Another random base, whose output embeddings are its own."""
    return write_base(tmp_path_factory.mktemp("untied"), toy_tokenizer, tied=False)


@pytest.fixture(scope="module")
def made(base):
    """Runs by method and kind of LoRA, each trained once; tests leave them as they are."""
    return cache(lambda method, kind="plain": train(base, method=method, **KINDS[kind], **HOW))


def changed(base, run):
    """Names of the base's weights that a run without adapters changed."""
    before, after = (dict(one.named_parameters()) for one in (load(base)[0], run.model))
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


class TestPrefix:
    def test_base_is_left_as_it_was_and_the_width_is_that_of_its_keys(self, base, untied, made):
        run = made("prefix")
        assert same(load(base)[0].state_dict(), run.model.get_base_model().state_dict())
        assert run.trained == 16 * 2 * 2 * 64  # tokens, layers, keys and values, width
        assert 0 < run.trained < run.weights / 10
        # PEFT takes a head's width to be hidden / heads; Qwen3 states another.
        run = train(untied, EXAMPLES[:8], method="prefix", num_virtual_tokens=3, **HOW)
        assert run.trained == 3 * 2 * 2 * (2 * 32)

    def test_answers_are_those_of_the_training_form(self, base):
        # Generation goes through other code of PEFT than training: positions, mask and cache agree.
        run = train(base, method="prefix", **{**HOW, "learning_rate": 0.1})
        assert run.history[-1]["loss"] < run.history[0]["loss"]
        with run.model.disable_adapter():
            plain = logits(run.model)
        assert (logits(run.model) - plain).abs().max() > 0.01
        questions = ["What is 3?", "What is the capital of 30 long questions?"]
        said = run.answer(questions, max_new_tokens=5)
        assert said == [run.chat(question, max_new_tokens=5) for question in questions]
        for question, answer in zip(questions, said, strict=True):
            messages = [{"role": "user", "content": question}]
            form = {"add_generation_prompt": True, "return_dict": True}
            ids, new = run.tokenizer.apply_chat_template(messages, **form)["input_ids"], []
            for _ in range(5):
                new.append(logits(run.model, [*ids, *new])[0, -1].argmax().item())
                if new[-1] in run.model.generation_config.eos_token_id:
                    break
            assert run.tokenizer.decode(new, skip_special_tokens=True) == answer


class TestFreezing:
    @pytest.mark.parametrize(
        ("tied", "how", "expected"),
        [
            (True, {"method": "frozen"}, NORM | {"layers.1"}),
            (True, {"method": "frozen", "trained_layers": 2}, NORM | {"layers.0", "layers.1"}),
            (False, {"method": "frozen"}, NORM | {"layers.1", "lm_head.weight"}),
            (True, {"method": "head"}, {"model.embed_tokens.weight"}),  # shared with the input
            (False, {"method": "head"}, {"lm_head.weight"}),
        ],
    )
    def test_what_is_changed(self, base, untied, tied, how, expected):
        folder = base if tied else untied
        run = train(folder, **how, **HOW)
        found = changed(folder, run)
        assert {name if name in expected else name.split(".", 1)[1][:8] for name in found} == (
            expected
        )
        named = dict(run.model.named_parameters())
        assert run.trained == sum(named[name].numel() for name in found)

    def test_gradual_starts_at_the_top_and_ends_with_all(self, base, monkeypatch):
        seen = []
        ordinary = SupervisedTrainer.training_step

        def spy(self, *given):
            made = ordinary(self, *given)
            seen.append({n for n, w in self.model.named_parameters() if w.grad is not None})
            return made

        monkeypatch.setattr(SupervisedTrainer, "training_step", spy)
        run = train(base, method="gradual", **{**HOW, "per_device_train_batch_size": 3})
        names = {name for name, _ in run.model.named_parameters()}
        assert len(seen) == 8  # steps; four parts: norm, two layers, embeddings
        assert seen[0] == NORM
        assert seen[2] - seen[1] == {name for name in names if ".layers.1." in name}
        assert seen[4] - seen[3] == {name for name in names if ".layers.0." in name}
        assert all(first <= then for first, then in itertools.pairwise(seen))
        assert seen[7] == changed(base, run) == names
        assert run.trained == run.weights


@pytest.mark.parametrize(
    ("method", "tied"),
    [
        *((method, True) for method in METHODS if method != "prefix"),
        *((method, False) for method in ("full", "head", "lora", "gradual")),
    ],
)
def test_rows_of_added_tokens_are_trained_and_the_others_as_the_method_says(
    base, untied, tmp_path, method, tied
):
    folder = base if tied else untied
    run = train(folder, method=method, template=ALIEN, weight_decay=0.1, **HOW)
    assert run.provenance["added_tokens"] == ["<|fin|>"]
    old = load(folder)[0].get_input_embeddings().weight
    new = run.model.get_input_embeddings().weight
    rows = new[len(old) :].float()
    assert len(rows) == 1
    assert (rows[0] - old.mean(dim=0)).abs().max() > 1e-4
    kept = torch.equal(new[: len(old)].to(old.dtype), old)
    trained = method in ("full", "gradual") or (method == "head" and tied)
    assert kept is not trained or method in QUANTISED
    opened = load_run(run.save(tmp_path / "run"))
    assert torch.equal(logits(opened.model), logits(run.model))


@pytest.mark.parametrize(("method", "kind"), EVERY)
def test_saved_run_computes_what_it_did(made, tmp_path, method, kind):
    run = made(method, kind)
    opened = load_run(run.save(tmp_path / "run"))
    assert torch.equal(logits(opened.model), logits(run.model))
    assert opened.answer(["What is 3?"]) == run.answer(["What is 3?"])
    assert (opened.trained, opened.weights) == (run.trained, run.weights)
    assert opened.settings == run.settings
    names = {file.name for file in (tmp_path / "run").iterdir()}
    assert ("adapter_model.safetensors" in names) is (method in ADAPTED)
    assert ("model.safetensors" in names) is (method not in ADAPTED)


def test_share_of_trained_weights(base, made):
    named = dict(load(base)[0].named_parameters())
    runs = {method: made(method) for method in METHODS}
    assert {run.weights for run in runs.values()} == {sum(one.numel() for one in named.values())}
    assert all(runs[method].trained == runs[method].weights for method in ("full", "gradual"))
    adapters = 16 * sum(sum(one.shape) for name, one in named.items() if "_proj" in name)
    assert {runs[method].trained for method in LORA} == {adapters}
    for which, layers in (["gate_proj", "up_proj"], 2), (r".*self_attn\.\w+", 4):
        run = train(base, EXAMPLES[:8], method="lora", target_modules=which)
        found = [name for name, _ in run.model.named_parameters() if "lora_A" in name]
        assert len(found) == 2 * layers
    assert untrained(base).trained == 0


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"num_key_value_heads": 1, "intermediate_size": 48}
EXPERTS = {"num_experts": 2, "num_local_experts": 2, "num_experts_per_tok": 1}
EXPERTS |= {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
QKVO, GATED = "q_proj k_proj v_proj o_proj", "mlp.gate_proj mlp.up_proj mlp.down_proj"
STACKED = "mlp.experts mlp.experts.base_layer"  # PEFT wraps gate_up_proj around down_proj
FUSED = "self_attention.query_key_value self_attention.dense"
NEOX, OWN_HEADS = "mlp.dense_h_to_4h mlp.dense_4h_to_h", {"num_key_value_heads": None}
FAMILY = {  # options, where the layers are, attention in one, MLP in one, beside the layers
    "gpt2": (OWN_HEADS, "transformer.h", "attn.c_attn attn.c_proj", "mlp.c_fc mlp.c_proj", ""),
    "gpt_neox": ({}, "gpt_neox.layers", "attention.query_key_value attention.dense", NEOX, ""),
    "phi": (OWN_HEADS, "model.layers", "q_proj k_proj v_proj dense", "mlp.fc1 mlp.fc2", ""),
    "opt": (
        {"ffn_dim": 48, "word_embed_proj_dim": 16}, "model.decoder.layers",
        "q_proj k_proj v_proj out_proj", "fc1 fc2",
        "model.decoder.project_in model.decoder.project_out",
    ),
    "falcon": (OWN_HEADS, "transformer.h", FUSED, NEOX, ""),
    "qwen3": ({}, "model.layers", QKVO, GATED, ""),
    "gemma3_text": ({}, "model.layers", QKVO, GATED, ""),
    "mixtral": (EXPERTS, "model.layers", QKVO, STACKED, ""),
    "qwen2_moe": (
        EXPERTS, "model.layers", QKVO,
        f"{STACKED} {GATED.replace('mlp', 'mlp.shared_expert')}", "",
    ),
    "gpt_oss": (EXPERTS, "model.layers", QKVO, STACKED, ""),
}  # fmt: skip


@pytest.fixture(scope="module")
def families(tmp_path_factory, toy_tokenizer):
    """Folders with a random model of a family, by its name."""

    @cache
    def make(kind):
        ends = {f"{end}_token_id": getattr(toy_tokenizer, f"{end}_token_id") for end in ENDS}
        sizes = SIZES | ends | FAMILY.get(kind, [OWN_HEADS])[0] | {"vocab_size": len(toy_tokenizer)}
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp(kind)
        config = AutoConfig.for_model(kind, **{k: v for k, v in sizes.items() if v is not None})
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        toy_tokenizer.save_pretrained(folder)
        return str(folder)

    return make


@pytest.mark.parametrize("role", ["all-linear", "attention", "mlp"])
@pytest.mark.parametrize("kind", FAMILY)
def test_lora_finds_the_layers_of_a_family_by_their_role(families, tmp_path, kind, role):
    base, (_, place, attention, mlp, beside) = families(kind), FAMILY[kind]
    count = load(base)[0].config.num_hidden_layers
    attention = [one if "." in one else f"self_attn.{one}" for one in attention.split()]
    inner = {"attention": attention, "mlp": mlp.split()}.get(role, [*attention, *mlp.split()])
    expected = {f"{place}.{n}.{one}" for n in range(count) for one in inner}
    expected |= {*beside.split()} if role == "all-linear" else set()
    run = train(base, EXAMPLES[:8], method="lora", target_modules=role)
    named = dict(run.model.get_base_model().named_parameters())
    found = {name.split(".lora_B")[0] for name in named if ".lora_B" in name}
    assert found == expected
    assert all(weight.any() for name, weight in named.items() if ".lora_B" in name)
    assert 0 < run.history[-1]["loss"] < 20
    with run.model.disable_adapter():
        assert torch.equal(logits(run.model), logits(load(base)[0]))
    if role == "all-linear":
        assert len(run.answer(["What is 3?"], max_new_tokens=2)) == 1
        opened = load_run(run.save(tmp_path / "run"))
        assert torch.equal(logits(opened.model), logits(run.model))
        assert estimate(base, method="lora").trained == run.trained


@pytest.mark.parametrize("kind", ["gpt2", "falcon", "mixtral", "qwen2_moe", "gpt_oss"])
def test_a_prefix_has_the_shape_of_a_familys_keys(families, tmp_path, kind):
    run = train(families(kind), EXAMPLES[:8], method="prefix")
    assert 0 < run.history[0]["loss"] < 20
    assert not getattr(run.model.config, "output_router_logits", False), (
        "or a saved one computes it"
    )
    assert torch.equal(logits(load_run(run.save(tmp_path / "run")).model), logits(run.model))


@pytest.mark.parametrize(
    ("kind", "asked", "said"),
    [
        ("gpt2", ["q_proj"], r"'q_proj' matches no layer of GPT2.*attention, mlp.*\(c_attn, c_p"),
        ("qwen3", ["q_proj", "lm_head"], "'lm_head' matches no layer"),
        ("qwen3", "q_proj", "'q_proj' matches no layer.*regular expression for whole names"),
        ("qwen3", ".*(", "unterminated"),
        ("qwen2_moe", [".mlp.gate"], "'.mlp.gate' matches no layer"),
        ("qwen2_moe", ["shared_expert_gate"], "'shared_expert_gate' matches no layer"),
        ("mixtral", {"lora_dropout": 0.1}, "stacked.*lora_dropout=0, or target_modules='att"),
        ("mixtral", {"use_dora": True}, "stacked.*use_dora=False"),
        ("qwen2_moe", {"method": "qlora"}, "stacked.*method='lora'"),
    ],
)
def test_layers_that_are_not_there_are_refused_before_weights_are_read(families, kind, asked, said):
    asked = asked if isinstance(asked, dict) else {"target_modules": asked}
    how = {"profile": families(kind), "settings": Settings(**{"method": "lora", **asked})}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "load", lambda *given, **options: pytest.fail("weights were read"))
        with pytest.raises(SettingsError, match=said):
            untrained(**how)


def test_added_tokens_start_at_the_mean_of_those_before_whatever_the_padding_holds(
    toy_base, toy_tokenizer
):
    old, names = len(toy_tokenizer), [f"<|{n}|>" for n in range(4)]
    for tied, rows in itertools.product((True, False), (old, old + 2, old + 64)):
        config = PhiConfig(vocab_size=rows, tie_word_embeddings=tied, **SIZES)
        model, tokenizer = PhiForCausalLM(config), load_tokenizer(toy_base)
        ends = model.get_input_embeddings().weight, *model.get_output_embeddings().parameters()
        with torch.no_grad():
            for weight in ends:
                weight.normal_()[old:] = float("nan")
        means = [weight[:old].mean(dim=0) for weight in ends]
        tokenizer.add_special_tokens({"additional_special_tokens": names})
        resize_embeddings(model, tokenizer, names)
        ends = model.get_input_embeddings().weight, *model.get_output_embeddings().parameters()
        assert len(ends) == 3, "embeddings, head, and the head's bias"
        for weight, mean in zip(ends, means, strict=True):
            assert len(weight) == max(rows, old + 4)
            torch.testing.assert_close(weight[old : old + 4], mean.expand(4, *mean.shape))
            assert weight[old + 4 :].isnan().all()


CHECKPOINTED = {"gradient_checkpointing": True}


@pytest.mark.parametrize(
    ("method", "asked", "said"),
    [
        ("prefix", {"padding_free": True}, "see each other.*padding_free=False"),
        ("prefix", CHECKPOINTED, "no cache.*gradient_checkpointing=False"),
        ("int8", {"use_dora": True}, "lose their scales.*'lora' or 'qlora'"),
    ],
)
def test_what_does_not_go_together_says_why_also_for_the_profiles_method(method, asked, said):
    with pytest.raises(SettingsError, match=said):
        Settings(method=method, **asked)
    with pytest.raises(SettingsError, match=said):
        Settings(**asked).filled(replace(find_profile("tiny"), method=method))
    Settings(method="full", **asked)


def test_a_prefix_gives_no_meaning_to_added_tokens_and_needs_keys(base, families):
    with pytest.raises(SettingsError, match=r"Mamba.* keep others; choose method='lora' \(--meth"):
        train(families("mamba"), method="prefix")
    with pytest.raises(SettingsError, match="no meaning; choose a template"):
        train(base, method="prefix", template=ALIEN)


@pytest.mark.parametrize("method", ["lora", "qlora", "int8", "gradual"])
def test_padding_free_and_checkpointing_are_what_the_table_says(base, made, method):
    for way in {"padding_free": True}, CHECKPOINTED:
        other = train(base, method=method, **way, **HOW)
        for one, two in zip(made(method).history, other.history, strict=True):
            assert one["loss"] == pytest.approx(two["loss"], rel=2e-3)


class TestDropout:
    def test_it_falls_in_training_alone_and_by_the_share(self, base):
        model, ids = load(base)[0].train(), tuple(range(5, 25))
        plain = logits(model, ids)
        mlp, given = model.model.layers[0].mlp, torch.ones(1, 400, 64)
        add_dropout(model, 0.25)
        with torch.no_grad():
            torch.manual_seed(1)
            first, second = logits(model, ids), logits(model, ids)
            torch.manual_seed(1)
            assert torch.equal(logits(model, ids), first), "it comes from the global generator"
            assert not torch.equal(second, first)
            dropped, whole = mlp(given), mlp.eval()(given)
            zero = dropped == 0
            assert 0.2 < zero.float().mean() < 0.3
            torch.testing.assert_close(dropped[~zero], whole[~zero] / 0.75)
            assert torch.equal(logits(model.eval(), ids), plain)
        assert model.model.layers[1].self_attn.attention_dropout == 0.25
        assert model.config.attention_dropout == 0.0, "a saved model would drop ever after"

    def test_a_model_with_dropout_of_its_own_uses_that_one_and_an_unknown_one_is_refused(self):
        own = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=40))
        drops = [m for m in own.modules() if isinstance(m, torch.nn.Dropout)]
        for share in (0.0, 0.3):
            add_dropout(own, share)
            assert {m.p for m in drops} == {share}
        assert not any(m._forward_hooks for m in own.modules())
        with pytest.raises(SettingsError, match="Linear has its layers is not known"):
            add_dropout(torch.nn.Linear(2, 2), 0.1)

    @pytest.mark.parametrize("how", [{"dropout": 0.2}, {"method": "lora", "lora_dropout": 0.2}])
    def test_training_with_it_has_a_seed(self, base, how):
        first, second = (train(base, learning_rate=1e-2, **how) for _ in range(2))
        none = dict.fromkeys([name for name in how if "dropout" in name], 0)
        assert equal(first, second)
        assert not equal(first, train(base, learning_rate=1e-2, **how | none))
