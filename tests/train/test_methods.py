"""Every training method: what it changes and leaves alone, where it starts, what it goes with."""

import copy
import itertools

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from sftlab.models import ADAPTED, METHODS, QUANTISED, find_profile, load
from sftlab.quiet import quiet_libraries
from sftlab.train import adapters, freezing
from sftlab.train.finetuning import finetune, untrained
from sftlab.train.methods import METHODS as DESCRIBED
from sftlab.train.methods import refusal, table
from sftlab.train.run import Run
from sftlab.train.saved_run import load_run
from sftlab.train.settings import Settings, SettingsError
from sftlab.train.step import SupervisedTrainer

EXAMPLES = [
    {
        "messages": [
            {"role": "user", "content": f"What is {n}?"},
            {"role": "assistant", "content": "Paris"},
        ]
    }
    for n in range(24)
]
ALIEN = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|fin|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""A template whose end of turn no vocabulary here knows."""
KINDS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
}
QUICK = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 4,
    "learning_rate": 3e-3,
    "progress": False,
}
IDS = torch.tensor([[9, 10, 11, 12, 13, 14]])
WITH_LORA = ("lora", "qlora", "int8")
REFUSED = {("qlora", "pissa"), ("int8", "pissa"), ("int8", "dora")}
LORA = [(method, kind) for method in WITH_LORA for kind in KINDS if (method, kind) not in REFUSED]
EVERY = [(method, "plain") for method in METHODS] + [one for one in LORA if one[1] != "plain"]


@pytest.fixture
def base(toy_base):
    return str(toy_base)


@pytest.fixture(scope="session")
def other_base(toy_base, tmp_path_factory):
    """Another random base with its embeddings tied, or not."""

    def make(tied):
        folder = tmp_path_factory.mktemp("bare")
        model, tokenizer = load(str(toy_base))
        config = copy.deepcopy(model.config)
        config.tie_word_embeddings = tied
        torch.manual_seed(1)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return make


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS.to(model.device)).logits.float()


def weights(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def changed(base, run):
    """Names of the base's weights that a run without adapters changed."""
    before = weights(load(base)[0])
    after = weights(run.model)
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def beside(base, **asked):
    """A base with fresh adapters."""
    settings = Settings(method="lora", **asked).filled(find_profile(base))
    model, _ = load(base)
    torch.manual_seed(0)
    with quiet_libraries():
        return get_peft_model(model, adapters.adapter_config(model, settings, added=()))


class TestAdapters:
    @pytest.mark.parametrize("kind", KINDS)
    def test_fresh_ones_are_the_base(self, base, kind):
        expected = logits(load(base)[0])
        found = logits(beside(base, **KINDS[kind]))
        if kind in ("plain", "rslora"):
            assert torch.equal(found, expected)
        # DoRA computes lengths, PiSSA splits the weights.
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("method", QUANTISED)
    def test_fresh_ones_are_the_quantised_base(self, base, method):
        profile = find_profile(base)
        settings = Settings(method=method, bf16=False).filled(profile)
        model, _ = adapters.load_base(profile, settings)
        expected = logits(model)
        found = get_peft_model(model, adapters.adapter_config(model, settings, added=()))
        assert torch.equal(logits(found), expected)

    @pytest.mark.parametrize("kind", KINDS)
    def test_merged_is_unmerged(self, base, kind):
        made = finetune(base, EXAMPLES, method="lora", **KINDS[kind], **QUICK)
        expected = logits(made.model)
        assert (expected - logits(load(base)[0])).abs().max() > 0.01
        merged = copy.deepcopy(made.model).merge_and_unload()
        assert not isinstance(merged, PeftModel)
        torch.testing.assert_close(logits(merged), expected, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("kind", KINDS)
    def test_switched_off_it_is_the_base_bit_for_bit(self, base, kind):
        made = finetune(base, EXAMPLES, method="lora", **KINDS[kind], **QUICK)
        expected = logits(load(base)[0])
        with made.model.disable_adapter():
            assert torch.equal(logits(made.model), expected)
        assert not torch.equal(logits(made.model), expected)

    def test_two_runs_are_loaded_together_switched_combined_and_taken_away(self, base, tmp_path):
        kinds = {"one": "plain", "two": "pissa"}
        runs = {
            name: finetune(base, EXAMPLES, method="lora", **KINDS[kind], seed=seed, **QUICK)
            for seed, (name, kind) in enumerate(kinds.items())
        }
        folders = {name: str(run.save(tmp_path / name)) for name, run in runs.items()}
        untouched, _ = load(base)
        expected = logits(untouched)
        both = PeftModel.from_pretrained(untouched, folders["one"], adapter_name="one")
        both.load_adapter(folders["two"], adapter_name="two")
        for name, run in runs.items():
            both.set_adapter(name)
            assert torch.equal(logits(both), logits(run.model))
        both.add_weighted_adapter(["one", "two"], [1.0, 1.0], "sum", combination_type="cat")
        both.set_adapter("sum")
        layer = both.get_base_model().model.layers[0].self_attn.q_proj
        total = layer.get_delta_weight("one") + layer.get_delta_weight("two")
        torch.testing.assert_close(layer.get_delta_weight("sum"), total, rtol=0, atol=1e-6)
        with both.disable_adapter():
            assert torch.equal(logits(both), expected)
        both.delete_adapter("sum")
        both.set_adapter("one")
        assert torch.equal(logits(both), logits(runs["one"].model))
        assert torch.equal(logits(both.unload()), expected)

    @pytest.mark.parametrize(
        ("which", "expected"),
        [
            (r".*self_attn\.\w+", {"q_proj", "k_proj", "v_proj", "o_proj"}),
            (["gate_proj", "up_proj", "down_proj"], {"gate_proj", "up_proj", "down_proj"}),
            (
                "all-linear",
                {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
            ),
        ],
    )
    def test_targets(self, base, which, expected):
        model = beside(base, target_modules=which)
        names = {
            name.split(".lora_A")[0].rsplit(".", 1)[-1]
            for name, _ in model.named_parameters()
            if "lora_A" in name
        }
        assert names == expected

    def test_scale_of_rslora_is_by_the_root_of_the_rank(self, base):
        for kind, expected in (("plain", 2.0), ("rslora", 8.0)):
            model = beside(base, **KINDS[kind], r=16)
            layer = model.get_base_model().model.layers[0].mlp.up_proj
            assert layer.scaling["default"] == expected

    def test_pissa_ends_as_a_plain_adapter_of_twice_the_rank(self, base):
        made = finetune(base, EXAMPLES, method="lora", init_lora_weights="pissa", r=4, **QUICK)
        config = made.model.peft_config["default"]
        assert (config.r, config.lora_alpha, config.init_lora_weights) == (8, 64, True)
        assert made.trained == sum(
            4 * sum(layer.weight.shape)
            for layer in load(base)[0].model.layers.modules()
            if isinstance(layer, torch.nn.Linear)
        )


class TestPrefix:
    def test_base_is_left_as_it_was(self, base):
        made = finetune(base, EXAMPLES, method="prefix", **QUICK)
        before, after = weights(load(base)[0]), weights(made.model.get_base_model())
        assert all(torch.equal(before[name], after[name]) for name in before)
        config = made.model.config
        each = config.hidden_size // config.num_attention_heads
        assert made.trained == 16 * config.num_hidden_layers * 2 * 2 * each
        assert 0 < made.trained_share < 0.1

    def test_it_is_trained_and_decides_what_is_said(self, base):
        made = finetune(base, EXAMPLES, method="prefix", **{**QUICK, "learning_rate": 0.1})
        assert made.history[-1]["loss"] < made.history[0]["loss"]
        with made.model.disable_adapter():
            plain = logits(made.model)
        assert (logits(made.model) - plain).abs().max() > 0.01

    def test_answers_are_those_of_the_training_form(self, base):
        # Generation goes through other code of PEFT than training: positions, mask and cache agree.
        made = finetune(base, EXAMPLES, method="prefix", **{**QUICK, "learning_rate": 0.1})
        questions = ["What is 3?", "What is the capital of 30 long questions?"]
        said = made.answer(questions, max_new_tokens=5)
        assert said == [made.chat(question, max_new_tokens=5) for question in questions]
        for question, answer in zip(questions, said, strict=True):
            messages = [{"role": "user", "content": question}]
            ids = made.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=True
            )["input_ids"]
            new = []
            for _ in range(5):
                with torch.no_grad():
                    given = torch.tensor([[*ids, *new]])
                    mask = torch.ones_like(given)
                    out = made.model(given, attention_mask=mask, use_cache=False)
                new.append(out.logits[0, -1].argmax().item())
                if new[-1] in made.model.generation_config.eos_token_id:
                    break
            assert made.tokenizer.decode(new, skip_special_tokens=True) == answer

    def test_width_is_that_of_grouped_keys(self, toy_base, tmp_path):
        # PEFT takes a head's width to be hidden / heads; Qwen3 states another.
        _, tokenizer = load(str(toy_base))
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=len(tokenizer),
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=32,
                tie_word_embeddings=True,
                max_position_embeddings=512,
            )
        )
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        made = finetune(str(tmp_path), EXAMPLES[:8], method="prefix", num_virtual_tokens=3, **QUICK)
        assert made.trained == 3 * 2 * 2 * 2 * 32


class TestFreezing:
    def test_frozen_changes_upper_layers_and_norm_alone(self, base):
        made = finetune(base, EXAMPLES, method="frozen", weight_decay=0.1, **QUICK)
        found = changed(base, made)
        assert found == {
            name
            for name in weights(made.model)
            if ".layers.1." in name or name == "model.norm.weight"
        }
        assert made.trained == sum(
            weight.numel() for name, weight in made.model.named_parameters() if name in found
        )

    def test_number_of_layers_is_as_asked(self, base):
        made = finetune(base, EXAMPLES, method="frozen", trained_layers=2, **QUICK)
        assert {name for name in weights(made.model) if name not in changed(base, made)} == {
            "model.embed_tokens.weight"
        }
        with pytest.raises(SettingsError, match=r"trained_layers is 3.*2 layers"):
            finetune(base, EXAMPLES, method="frozen", trained_layers=3, **QUICK)

    def test_head_changes_the_output_embeddings_alone(self, base, other_base):
        made = finetune(base, EXAMPLES, method="head", **QUICK)
        assert changed(base, made) == {"model.embed_tokens.weight"}  # shared with the input
        untied = other_base(False)
        made = finetune(untied, EXAMPLES, method="head", **QUICK)
        assert changed(untied, made) == {"lm_head.weight"}
        assert made.trained == made.model.lm_head.weight.numel()

    def test_untied_head_is_above_the_upper_layers(self, other_base):
        untied = other_base(False)
        made = finetune(untied, EXAMPLES, method="frozen", **QUICK)
        assert {n for n in changed(untied, made) if ".layers.1." not in n} == {
            "lm_head.weight",
            "model.norm.weight",
        }

    def test_gradual_starts_at_the_top_and_ends_with_all(self, base, monkeypatch):
        seen = []
        ordinary = SupervisedTrainer.training_step

        def spy(self, *given):
            made = ordinary(self, *given)
            seen.append({n for n, w in self.model.named_parameters() if w.grad is not None})
            return made

        monkeypatch.setattr(SupervisedTrainer, "training_step", spy)
        made = finetune(
            base, EXAMPLES, method="gradual", **{**QUICK, "per_device_train_batch_size": 3}
        )
        names = set(weights(made.model))
        assert len(seen) == 8  # steps; four parts: norm, two layers, embeddings
        assert seen[0] == {"model.norm.weight"}
        assert seen[2] - seen[1] == {name for name in names if ".layers.1." in name}
        assert seen[4] - seen[3] == {name for name in names if ".layers.0." in name}
        assert seen[7] == names
        assert all(first <= then for first, then in itertools.pairwise(seen))
        assert changed(base, made) == names
        assert made.trained == made.weights

    @pytest.mark.parametrize("batch", [24, 12, 8])
    def test_gradual_opens_all_however_few_the_steps(self, base, batch):
        asked = {
            **QUICK,
            "per_device_train_batch_size": batch,
            "lr_scheduler_type": "constant_with_warmup",
        }
        made = finetune(base, EXAMPLES, method="gradual", warmup_steps=0, **asked)
        assert changed(base, made) == set(weights(made.model))

    def test_parts_are_all_weights_once(self, base, other_base):
        for folder in (base, other_base(False)):
            model, _ = load(folder)
            every = [weight for part in freezing.parts(model) for weight in part]
            assert len(every) == len({id(weight) for weight in every})
            assert {id(w) for w in every} == {id(w) for w in model.parameters()}


class TestAddedTokens:
    @pytest.mark.parametrize("tied", [True, False])
    @pytest.mark.parametrize("method", [one for one in METHODS if one not in ("prefix", "full")])
    def test_their_rows_are_trained_and_the_others_as_the_method_says(
        self, other_base, tmp_path, method, tied
    ):
        folder = other_base(tied)
        made = finetune(folder, EXAMPLES, method=method, template=ALIEN, weight_decay=0.1, **QUICK)
        assert made.provenance["added_tokens"] == ["<|fin|>"]
        old = load(folder)[0].get_input_embeddings().weight
        new = made.model.get_input_embeddings().weight
        rows = new[len(old) :].float()
        assert len(rows) == 1
        assert (rows[0] - old.mean(dim=0)).abs().max() > 1e-4
        kept = torch.equal(new[: len(old)].to(old.dtype), old)
        whole = method == "gradual" or (method == "head" and tied)
        assert kept is not whole or method in QUANTISED
        opened = load_run(made.save(tmp_path / "run"))
        assert torch.equal(logits(opened.model), logits(made.model))


@pytest.mark.parametrize(("method", "kind"), EVERY)
def test_saved_run_computes_what_it_did(base, tmp_path, method, kind):
    made = finetune(base, EXAMPLES, method=method, **KINDS[kind], **QUICK)
    opened = load_run(made.save(tmp_path / "run"))
    assert torch.equal(logits(opened.model), logits(made.model))
    assert opened.answer(["What is 3?"]) == made.answer(["What is 3?"])
    assert opened.chat("What is 3?") == made.chat("What is 3?")
    assert (opened.trained, opened.weights) == (made.trained, made.weights)
    assert opened.settings == made.settings
    names = {file.name for file in (tmp_path / "run").iterdir()}
    assert ("adapter_model.safetensors" in names) is (method in ADAPTED)
    assert ("model.safetensors" in names) is (method not in ADAPTED)


def test_share_of_trained_weights(base):
    full = sum(weight.numel() for weight in load(base)[0].parameters())
    made = {m: finetune(base, EXAMPLES[:4], method=m, r=2, **QUICK) for m in METHODS}
    assert {run.weights for run in made.values()} == {full}
    assert made["full"].trained_share == made["gradual"].trained_share == 1
    shapes = [w.shape for n, w in load(base)[0].named_parameters() if "_proj" in n]
    for method in WITH_LORA:
        assert made[method].trained == 2 * sum(sum(shape) for shape in shapes)
    assert untrained(base).trained_share == 0


class Interrupted(Exception):
    """Instead of a kill."""


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        *((method, "plain") for method in ("lora", "qlora", "prefix", "frozen", "gradual")),
        ("lora", "dora"),
        ("lora", "pissa"),
    ],
)
def test_resumed_is_uninterrupted(base, tmp_path, monkeypatch, method, kind):
    asked = {"method": method, **KINDS[kind], **QUICK}
    plain = finetune(base, EXAMPLES, **asked)
    ordinary = SupervisedTrainer.training_step

    def stop(self, *given):
        if self.state.global_step == 3:
            raise Interrupted
        return ordinary(self, *given)

    monkeypatch.setattr(SupervisedTrainer, "training_step", stop)
    kept = {"output_dir": tmp_path / "checkpoints", "save_steps": 2}
    with pytest.raises(Interrupted):
        finetune(base, EXAMPLES, **asked, **kept)
    monkeypatch.setattr(SupervisedTrainer, "training_step", ordinary)
    resumed = finetune(base, EXAMPLES, **asked, **kept)
    before, after = weights(plain.model), weights(resumed.model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [row["loss"] for row in plain.history] == [row["loss"] for row in resumed.history]


class TestRefusals:
    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            ({"method": "prefix", "padding_free": True}, "see each other.*padding_free=False"),
            (
                {"method": "prefix", "gradient_checkpointing": True},
                "gets no cache.*gradient_checkpointing=False",
            ),
            ({"method": "qlora", "init_lora_weights": "pissa"}, "NF4 weights can't be rewritten"),
            ({"method": "int8", "init_lora_weights": "pissa"}, "int8 weights can't be rewritten"),
            ({"method": "int8", "use_dora": True}, "lose their scales.*'lora' or 'qlora'"),
            ({"init_lora_weights": "olora"}, 'True or "pissa"'),
            ({"target_modules": []}, '"all-linear", a list'),
            ({"adapter_dtype": "float16"}, "float32, bfloat16"),
            ({"bnb_4bit_use_double_quant": 1}, "True or False"),
            ({"num_virtual_tokens": 0}, "num_virtual_tokens is 0"),
            ({"trained_layers": 1.5}, "whole number"),
        ],
    )
    def test_what_does_not_go_together_says_why(self, asked, said):
        with pytest.raises(SettingsError, match=said):
            Settings(**asked)

    def test_method_of_the_profile_is_looked_at_too(self):
        settings = Settings(init_lora_weights="pissa")
        with pytest.raises(SettingsError, match="NF4"):
            settings.filled(find_profile("llama-3.1-8b-qlora"))
        assert settings.filled(find_profile("tiny")).init_lora_weights == "pissa"

    def test_settings_of_other_methods_are_left_alone(self):
        assert refusal(Settings(method="full", init_lora_weights="pissa", trained_layers=1)) is None

    def test_prefix_with_tokens_that_are_added(self, other_base):
        with pytest.raises(SettingsError, match=r"adds tokens.*choose a template"):
            finetune(other_base(True), EXAMPLES, method="prefix", template=ALIEN, **QUICK)

    def test_each_is_refused_for_what_the_libraries_do(self, base, monkeypatch):
        # Should a newer version do better, these fail, and the refusal can go.
        profile = find_profile(base)
        monkeypatch.setattr("sftlab.train.settings.refusal", lambda settings: None)
        with pytest.raises(TypeError, match="PiSSA"):
            finetune(base, EXAMPLES, method="qlora", init_lora_weights="pissa", **QUICK)
        with pytest.raises(TypeError, match="PiSSA"):
            finetune(base, EXAMPLES, method="int8", init_lora_weights="pissa", **QUICK)
        with pytest.raises(AttributeError, match="unsqueeze"):
            finetune(base, EXAMPLES, method="int8", use_dora=True, **QUICK)
        with pytest.raises(RuntimeError, match="must match the size"):
            finetune(base, EXAMPLES, method="prefix", gradient_checkpointing=True, **QUICK)
        settings = Settings(method="prefix").filled(profile)
        model, _ = load(base)
        found = get_peft_model(model, adapters.adapter_config(model, settings, added=())).eval()
        assert leaks(found)
        assert not leaks(load(base)[0])


def leaks(model):
    """Whether a packed example computes otherwise behind another neighbour."""
    ends = []
    for neighbour in (20, 30):
        ids = torch.tensor([[neighbour] * 3 + [9, 10, 11]])
        places = torch.tensor([[0, 1, 2, 0, 1, 2]])
        with torch.no_grad():
            out = model(ids, position_ids=places, use_cache=False)
        ends.append(out.logits[0, 3:])
    return (ends[0] - ends[1]).abs().max().item() > 1e-5


class TestTable:
    def test_has_every_method_and_says_why(self):
        shown = table()
        assert list(shown.index) == list(METHODS) == list(DESCRIBED)
        assert shown.loc["prefix", "packing"].startswith("refused: each example")
        assert set(shown["packing"].drop("prefix")) == {"yes"}
        assert shown.loc["int8", "LoRA kinds"] == "plain, rslora"
        assert shown.loc["full", "LoRA kinds"] == "-"
        assert not shown.isna().any().any()

    @pytest.mark.parametrize("method", [one for one in METHODS if one != "prefix"])
    def test_packing_is_what_it_says(self, base, method):
        packed, apart = (
            finetune(
                base,
                EXAMPLES,
                train_sampling_strategy="random",
                padding_free=way,
                method=method,
                **QUICK,
            )
            for way in (True, False)
        )
        for one, other in zip(packed.history, apart.history, strict=True):
            assert one["loss"] == pytest.approx(other["loss"], rel=2e-3)

    @pytest.mark.parametrize("method", [one for one in METHODS if one != "prefix"])
    def test_checkpointing_is_what_it_says(self, base, method):
        again, kept = (
            finetune(base, EXAMPLES, gradient_checkpointing=on, method=method, **QUICK)
            for on in (True, False)
        )
        for one, other in zip(again.history, kept.history, strict=True):
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        torch.testing.assert_close(logits(again.model), logits(kept.model), rtol=0, atol=2e-2)

    @pytest.mark.parametrize(("method", "kind"), EVERY)
    def test_bfloat16_products_are_what_it_says(self, base, method, kind):
        made = finetune(base, EXAMPLES[:8], method=method, **KINDS[kind], bf16=True, **QUICK)
        assert isinstance(made, Run)
        held = {w.dtype for n, w in made.model.named_parameters() if "lora_" not in n}
        float32 = DESCRIBED[method].base == "float32"
        assert (torch.float32 in held) is float32
        assert (torch.bfloat16 in held) is not float32
