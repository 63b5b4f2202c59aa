"""Every training method: what it changes and leaves alone, where it starts, what it goes with."""

import copy
import itertools

import pytest
import torch
from peft import PeftModel, get_peft_model
from toy_run import EXAMPLES, KINDS, MIXED, Stopped, equal, logits, stop_at, train
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from sftlab.models import ADAPTED, METHODS, QUANTISED, find_profile, load
from sftlab.quiet import quiet_libraries
from sftlab.train import METHODS as DESCRIBED
from sftlab.train import Settings, SettingsError, load_run, table, untrained
from sftlab.train.methods import adapter_config, dropping, load_base, parts
from sftlab.train.trainer import SupervisedTrainer

ALIEN = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|fin|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""A template whose end of turn no vocabulary here knows."""
HOW = {"per_device_train_batch_size": 4, "learning_rate": 3e-3}  # six steps
WITH_LORA = ("lora", "qlora", "int8")
EVERY = [(method, "plain") for method in METHODS]
EVERY += [
    (method, kind) for method in WITH_LORA for kind in DESCRIBED[method].kinds if kind != "plain"
]


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
        return get_peft_model(model, adapter_config(model, settings, added=()))


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
        model, _ = load_base(profile, settings)
        expected = logits(model)
        found = get_peft_model(model, adapter_config(model, settings, added=()))
        assert torch.equal(logits(found), expected)

    @pytest.mark.parametrize("kind", KINDS)
    def test_merged_is_unmerged(self, base, kind):
        made = train(base, method="lora", **KINDS[kind], **HOW)
        expected = logits(made.model)
        assert (expected - logits(load(base)[0])).abs().max() > 0.01
        merged = copy.deepcopy(made.model).merge_and_unload()
        assert not isinstance(merged, PeftModel)
        torch.testing.assert_close(logits(merged), expected, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("kind", KINDS)
    def test_switched_off_it_is_the_base_bit_for_bit(self, base, kind):
        made = train(base, method="lora", **KINDS[kind], **HOW)
        expected = logits(load(base)[0])
        with made.model.disable_adapter():
            assert torch.equal(logits(made.model), expected)
        assert not torch.equal(logits(made.model), expected)

    def test_two_runs_are_loaded_together_switched_combined_and_taken_away(self, base, tmp_path):
        kinds = {"one": "plain", "two": "pissa"}
        runs = {
            name: train(base, method="lora", **KINDS[kind], seed=seed, **HOW)
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
        made = train(base, method="lora", init_lora_weights="pissa", r=4, **HOW)
        config = made.model.peft_config["default"]
        assert (config.r, config.lora_alpha, config.init_lora_weights) == (8, 64, True)
        assert made.trained == sum(
            4 * sum(layer.weight.shape)
            for layer in load(base)[0].model.layers.modules()
            if isinstance(layer, torch.nn.Linear)
        )


class TestPrefix:
    def test_base_is_left_as_it_was(self, base):
        made = train(base, method="prefix", **HOW)
        before, after = weights(load(base)[0]), weights(made.model.get_base_model())
        assert all(torch.equal(before[name], after[name]) for name in before)
        config = made.model.config
        each = config.hidden_size // config.num_attention_heads
        assert made.trained == 16 * config.num_hidden_layers * 2 * 2 * each
        assert 0 < made.trained_share < 0.1

    def test_it_is_trained_and_decides_what_is_said(self, base):
        made = train(base, method="prefix", **{**HOW, "learning_rate": 0.1})
        assert made.history[-1]["loss"] < made.history[0]["loss"]
        with made.model.disable_adapter():
            plain = logits(made.model)
        assert (logits(made.model) - plain).abs().max() > 0.01

    def test_answers_are_those_of_the_training_form(self, base):
        # Generation goes through other code of PEFT than training: positions, mask and cache agree.
        made = train(base, method="prefix", **{**HOW, "learning_rate": 0.1})
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
        made = train(str(tmp_path), EXAMPLES[:8], method="prefix", num_virtual_tokens=3, **HOW)
        assert made.trained == 3 * 2 * 2 * 2 * 32


class TestFreezing:
    def test_frozen_changes_upper_layers_and_norm_alone(self, base):
        made = train(base, method="frozen", weight_decay=0.1, **HOW)
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
        made = train(base, method="frozen", trained_layers=2, **HOW)
        assert {name for name in weights(made.model) if name not in changed(base, made)} == {
            "model.embed_tokens.weight"
        }
        with pytest.raises(SettingsError, match=r"trained_layers is 3.*2 layers"):
            train(base, method="frozen", trained_layers=3, **HOW)

    def test_head_changes_the_output_embeddings_alone(self, base, other_base):
        made = train(base, method="head", **HOW)
        assert changed(base, made) == {"model.embed_tokens.weight"}  # shared with the input
        untied = other_base(False)
        made = train(untied, EXAMPLES, method="head", **HOW)
        assert changed(untied, made) == {"lm_head.weight"}
        assert made.trained == made.model.lm_head.weight.numel()

    def test_untied_head_is_above_the_upper_layers(self, other_base):
        untied = other_base(False)
        made = train(untied, EXAMPLES, method="frozen", **HOW)
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
        made = train(base, method="gradual", **{**HOW, "per_device_train_batch_size": 3})
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
            **HOW,
            "per_device_train_batch_size": batch,
            "lr_scheduler_type": "constant_with_warmup",
        }
        made = train(base, method="gradual", warmup_steps=0, **asked)
        assert changed(base, made) == set(weights(made.model))

    def test_parts_are_all_weights_once(self, base, other_base):
        for folder in (base, other_base(False)):
            model, _ = load(folder)
            every = [weight for part in parts(model) for weight in part]
            assert len(every) == len({id(weight) for weight in every})
            assert {id(w) for w in every} == {id(w) for w in model.parameters()}


class TestAddedTokens:
    @pytest.mark.parametrize("tied", [True, False])
    @pytest.mark.parametrize("method", [one for one in METHODS if one not in ("prefix", "full")])
    def test_their_rows_are_trained_and_the_others_as_the_method_says(
        self, other_base, tmp_path, method, tied
    ):
        folder = other_base(tied)
        made = train(folder, EXAMPLES, method=method, template=ALIEN, weight_decay=0.1, **HOW)
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
    made = train(base, method=method, **KINDS[kind], **HOW)
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
    made = {m: train(base, EXAMPLES[:4], method=m, r=2, **HOW) for m in METHODS}
    assert {run.weights for run in made.values()} == {full}
    assert made["full"].trained_share == made["gradual"].trained_share == 1
    shapes = [w.shape for n, w in load(base)[0].named_parameters() if "_proj" in n]
    for method in WITH_LORA:
        assert made[method].trained == 2 * sum(sum(shape) for shape in shapes)
    assert untrained(base).trained_share == 0


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        *((method, "plain") for method in ("qlora", "prefix", "frozen", "gradual")),
        ("lora", "dora"),
        ("lora", "pissa"),
    ],
)
def test_resumed_is_uninterrupted(base, tmp_path, method, kind):
    how = {"method": method, **KINDS[kind], **HOW}
    kept = {"output_dir": tmp_path / "checkpoints", "save_steps": 2}
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(Stopped):
            train(base, **how, **kept)
    plain, resumed = train(base, **how), train(base, **how, **kept)
    assert equal(plain, resumed)
    assert plain.history == resumed.history


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
        Settings(method="full", init_lora_weights="pissa", trained_layers=1)

    def test_prefix_with_tokens_that_are_added(self, other_base):
        with pytest.raises(SettingsError, match=r"adds tokens.*choose a template"):
            train(other_base(True), EXAMPLES, method="prefix", template=ALIEN, **HOW)

    def test_each_is_refused_for_what_the_libraries_do(self, base, monkeypatch):
        # Should a newer version do better, these fail, and the refusal can go.
        profile = find_profile(base)
        monkeypatch.setattr("sftlab.train.settings._refusal", lambda settings: None)
        with pytest.raises(TypeError, match="PiSSA"):
            train(base, method="qlora", init_lora_weights="pissa", **HOW)
        with pytest.raises(TypeError, match="PiSSA"):
            train(base, method="int8", init_lora_weights="pissa", **HOW)
        with pytest.raises(AttributeError, match="unsqueeze"):
            train(base, method="int8", use_dora=True, **HOW)
        with pytest.raises(RuntimeError, match="must match the size"):
            train(base, method="prefix", gradient_checkpointing=True, **HOW)
        settings = Settings(method="prefix").filled(profile)
        model, _ = load(base)
        found = get_peft_model(model, adapter_config(model, settings, added=())).eval()
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


def test_table_has_every_method_and_says_why():
    shown = table()
    assert list(shown.index) == list(METHODS) == list(DESCRIBED)
    assert shown.loc["prefix", "padding-free"].startswith("refused: each example")
    assert set(shown["padding-free"].drop("prefix")) == {"yes"}
    assert shown.loc["int8", "LoRA kinds"] == "plain, rslora"
    assert shown.loc["full", "LoRA kinds"] == "-"
    assert not shown.isna().any().any()


@pytest.mark.parametrize("method", ["lora", "qlora", "int8", "gradual"])
def test_padding_free_and_checkpointing_are_what_the_table_says(base, method):
    plain = train(base, train_sampling_strategy="random", method=method, **HOW)
    ways = {"padding_free": True}, {"gradient_checkpointing": True}
    for way in ways:
        other = train(base, train_sampling_strategy="random", method=method, **way, **HOW)
        for one, two in zip(plain.history, other.history, strict=True):
            assert one["loss"] == pytest.approx(two["loss"], rel=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_bf16_decides_what_the_table_says(base, method):
    made = train(base, EXAMPLES[:8], method=method, **{**HOW, "bf16": True})
    held = {w.dtype for n, w in made.model.named_parameters() if "lora_" not in n}
    float32 = DESCRIBED[method].base == "float32"
    assert (torch.float32 in held) is float32
    assert (torch.bfloat16 in held) is not float32


class TestDropout:
    IDS = tuple(range(5, 25))

    @pytest.fixture
    def model(self, base):
        return load(base)[0].train()

    def test_it_falls_in_training_alone_and_comes_from_the_global_generator(self, model):
        plain = logits(model, self.IDS)
        with dropping(model, 0.0):
            assert torch.equal(logits(model, self.IDS), plain)
        with dropping(model, 0.3):
            torch.manual_seed(1)
            first, second = logits(model, self.IDS), logits(model, self.IDS)
            torch.manual_seed(1)
            assert torch.equal(logits(model, self.IDS), first)
            assert not torch.equal(second, first)
            model.eval()
            assert torch.equal(logits(model, self.IDS), plain)
            model.train()
        assert torch.equal(logits(model, self.IDS), plain), "nothing is left"

    def test_what_a_sublayer_adds_is_dropped_by_the_share_and_scaled(self, model):
        mlp, given = model.model.layers[0].mlp, torch.ones(1, 400, 64)
        with dropping(model, 0.25), torch.no_grad():
            dropped, whole = mlp(given), mlp.eval()(given)
        zero = dropped == 0
        assert 0.2 < zero.float().mean() < 0.3
        torch.testing.assert_close(dropped[~zero], whole[~zero] / 0.75)

    def test_attention_drops_by_the_models_own_code(self, model):
        attention = model.model.layers[1].self_attn
        with dropping(model, 0.25):
            assert attention.attention_dropout == 0.25
        assert attention.attention_dropout == 0.0
        assert model.config.attention_dropout == 0.0, "a saved model would drop ever after"

    def test_a_model_with_dropout_of_its_own_uses_that_one(self):
        own = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=40)).train()
        drops = [m for m in own.modules() if isinstance(m, torch.nn.Dropout)]
        for share in (0.0, 0.3):
            with dropping(own, share):
                assert {m.p for m in drops} == {share}
                assert not any(m._forward_hooks for m in own.modules())
        assert {m.p for m in drops} == {0.1}

    def test_a_model_without_known_layers_is_refused(self):
        with pytest.raises(SettingsError, match="Linear has its layers is not known"):
            dropping(torch.nn.Linear(2, 2), 0.1).__enter__()

    @pytest.mark.parametrize("how", [{"dropout": 0.2}, {"method": "lora", "lora_dropout": 0.2}])
    def test_training_with_it_has_a_seed_and_leaves_no_trace(self, base, how):
        first, second = (train(base, learning_rate=1e-2, **how) for _ in range(2))
        none = dict.fromkeys([name for name in how if "dropout" in name], 0)
        assert equal(first, second)
        assert not equal(first, train(base, learning_rate=1e-2, **how | none))
        expected = logits(first.model)
        if "lora_dropout" not in how:
            first.model.train()
        assert torch.equal(logits(first.model), expected)

    def test_checkpointed_layers_drop_the_same_again(self, base):
        kept, again = (
            train(base, MIXED, dropout=0.2, gradient_checkpointing=on) for on in (False, True)
        )
        for first, second in zip(kept.history, again.history, strict=True):
            assert first["loss"] == second["loss"]
            assert first["grad_norm"] == pytest.approx(second["grad_norm"], rel=1e-6)
