"""Every training method: what it changes and leaves alone, where it starts, what it goes with."""

import copy
import itertools
from functools import cache

import pytest
import torch
from peft import PeftModel, get_peft_model
from toy_run import EXAMPLES, KINDS, MIXED, Stopped, equal, logits, stop_at, train, weights
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from sftlab.models import ADAPTED, METHODS, QUANTISED, find_profile, load
from sftlab.quiet import quiet_libraries
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
LORA = ("lora", "qlora", "int8")
EVERY = [(method, "plain") for method in METHODS]
EVERY += [
    *(("lora", kind) for kind in ("rslora", "dora", "pissa")),
    *(("qlora", kind) for kind in ("rslora", "dora")),
    ("int8", "rslora"),
]
NORM = {"model.norm.weight"}


@pytest.fixture(scope="module")
def base(toy_base):
    return str(toy_base)


@pytest.fixture(scope="module")
def untied(toy_base, tmp_path_factory):
    """Another random base, whose output embeddings are its own."""
    folder = tmp_path_factory.mktemp("untied")
    model, tokenizer = load(str(toy_base))
    config = copy.deepcopy(model.config)
    config.tie_word_embeddings = False
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def made(base):
    """Runs by method and kind of LoRA, each trained once; tests leave them as they are."""
    return cache(lambda method, kind="plain": train(base, method=method, **KINDS[kind], **HOW))


def changed(base, run):
    """Names of the base's weights that a run without adapters changed."""
    before, after = (dict(one.named_parameters()) for one in (load(base)[0], run.model))
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def beside(base, method="lora", **asked):
    """A base, and the same with fresh adapters."""
    profile = find_profile(base)
    settings = Settings(method=method, bf16=False, **asked).filled(profile)
    plain, model = (load_base(profile, settings)[0] for _ in range(2))
    torch.manual_seed(0)
    with quiet_libraries():
        return plain, get_peft_model(model, adapter_config(model, settings, added=()))


class TestAdapters:
    @pytest.mark.parametrize(("method", "kind"), [one for one in EVERY if one[0] in LORA])
    def test_fresh_ones_are_the_base(self, base, method, kind):
        expected, found = (logits(model) for model in beside(base, method, **KINDS[kind]))
        # DoRA computes lengths, PiSSA splits the weights.
        exact = kind in ("plain", "rslora")
        torch.testing.assert_close(found, expected, rtol=0, atol=0 if exact else 1e-5)

    @pytest.mark.parametrize("kind", KINDS)
    def test_switched_off_it_is_the_base_and_merged_it_is_itself(self, base, made, kind):
        run, untouched = made("lora", kind), logits(load(base)[0])
        expected = logits(run.model)
        assert (expected - untouched).abs().max() > 0.01
        with run.model.disable_adapter():
            assert torch.equal(logits(run.model), untouched)
        merged = copy.deepcopy(run.model).merge_and_unload()
        assert not isinstance(merged, PeftModel)
        torch.testing.assert_close(logits(merged), expected, rtol=0, atol=1e-4)

    def test_two_runs_are_loaded_together_switched_and_taken_away(self, base, made, tmp_path):
        runs = {"one": made("lora"), "two": made("lora", "pissa")}
        folders = {name: str(run.save(tmp_path / name)) for name, run in runs.items()}
        untouched, _ = load(base)
        expected = logits(untouched)
        both = PeftModel.from_pretrained(untouched, folders["one"], adapter_name="one")
        both.load_adapter(folders["two"], adapter_name="two")
        for name, run in runs.items():
            both.set_adapter(name)
            assert torch.equal(logits(both), logits(run.model))
        assert torch.equal(logits(both.unload()), expected)

    @pytest.mark.parametrize(
        ("which", "expected"),
        [
            (r".*self_attn\.\w+", "q_proj k_proj v_proj o_proj"),
            (["gate_proj", "up_proj"], "gate_proj up_proj"),
            ("all-linear", "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"),
        ],
    )
    def test_targets(self, base, which, expected):
        _, model = beside(base, target_modules=which)
        names = [name.split(".lora_A")[0] for name, _ in model.named_parameters() if "_A." in name]
        assert {name.rsplit(".", 1)[-1] for name in names} == set(expected.split())

    def test_pissa_ends_as_a_plain_adapter_of_twice_the_rank(self, made):
        config = made("lora", "pissa").model.peft_config["default"]
        assert (config.r, config.lora_alpha, config.init_lora_weights) == (32, 64, True)


class TestPrefix:
    def test_base_is_left_as_it_was(self, base, made):
        run = made("prefix")
        before, after = weights(load(base)[0]), weights(run.model.get_base_model())
        assert all(torch.equal(before[name], after[name]) for name in before)
        config = run.model.config
        each = config.hidden_size // config.num_attention_heads
        assert run.trained == 16 * config.num_hidden_layers * 2 * 2 * each
        assert 0 < run.trained_share < 0.1

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

    def test_width_is_that_of_grouped_keys(self, toy_base, tmp_path):
        # PEFT takes a head's width to be hidden / heads; Qwen3 states another.
        _, tokenizer = load(str(toy_base))
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
        config = Qwen3Config(vocab_size=len(tokenizer), tie_word_embeddings=True, **sizes, **heads)
        Qwen3ForCausalLM(config).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        run = train(tmp_path, EXAMPLES[:8], method="prefix", num_virtual_tokens=3, **HOW)
        assert run.trained == 3 * 2 * 2 * 2 * 32


class TestFreezing:
    @pytest.mark.parametrize(
        ("tied", "how", "expected"),
        [
            (True, {"method": "frozen", "weight_decay": 0.1}, NORM | {"layers.1"}),
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

    def test_gradual_opens_all_in_a_single_step(self, base):
        how = {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 0}
        run = train(base, method="gradual", per_device_train_batch_size=24, **how)
        assert changed(base, run) == {name for name, _ in run.model.named_parameters()}

    def test_parts_are_all_weights_once(self, base, untied):
        for folder in (base, untied):
            model, _ = load(folder)
            every = [id(weight) for part in parts(model) for weight in part]
            assert sorted(every) == sorted(id(weight) for weight in model.parameters())


@pytest.mark.parametrize(
    ("method", "tied"),
    [*((one, True) for one in METHODS if one not in ("prefix", "full")), ("head", False),
     ("lora", False), ("gradual", False)],
)  # fmt: skip
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
    assert kept is not (method == "gradual" or (method == "head" and tied)) or method in QUANTISED
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
    assert runs["full"].trained_share == runs["gradual"].trained_share == 1
    adapters = 16 * sum(sum(one.shape) for name, one in named.items() if "_proj" in name)
    assert {runs[method].trained for method in LORA} == {adapters}
    assert made("lora", "pissa").trained == adapters
    assert untrained(base).trained_share == 0


@pytest.mark.parametrize(
    ("method", "kind"),
    [*((one, "plain") for one in ("qlora", "prefix", "frozen", "gradual")),
     ("lora", "dora"), ("lora", "pissa")],
)  # fmt: skip
def test_resumed_is_uninterrupted(base, made, tmp_path, method, kind):
    how = {"method": method, **KINDS[kind], **HOW, "output_dir": tmp_path / "c", "save_steps": 2}
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(Stopped):
            train(base, **how)
    resumed = train(base, **how)
    assert equal(made(method, kind), resumed)
    assert made(method, kind).history == resumed.history


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
        ({"method": "prefix", "template": ALIEN}, r"adds tokens.*choose a template"),
        ({"method": "frozen", "trained_layers": 3}, r"trained_layers is 3.*2 layers"),
    ],
)
def test_what_does_not_go_together_says_why(base, asked, said):
    with pytest.raises(SettingsError, match=said):
        train(base, **asked)


def test_the_method_of_the_profile_is_looked_at_too_and_settings_of_others_are_left_alone():
    settings = Settings(init_lora_weights="pissa")
    with pytest.raises(SettingsError, match="NF4"):
        settings.filled(find_profile("llama-3.1-8b-qlora"))
    assert settings.filled(find_profile("tiny")).init_lora_weights == "pissa"
    Settings(method="full", init_lora_weights="pissa", trained_layers=1)


def test_each_is_refused_for_what_the_libraries_do(base, monkeypatch):
    # Should a newer version do better, these fail, and the refusal can go.
    monkeypatch.setattr("sftlab.train.settings._check_method", lambda settings, facts: None)
    for how, error, said in (
        ({"method": "qlora", "init_lora_weights": "pissa"}, TypeError, "PiSSA"),
        ({"method": "int8", "init_lora_weights": "pissa"}, TypeError, "PiSSA"),
        ({"method": "int8", "use_dora": True}, AttributeError, "unsqueeze"),
        ({"method": "prefix", "gradient_checkpointing": True}, RuntimeError, "must match the size"),
    ):
        with pytest.raises(error, match=said):
            train(base, **how, **HOW)
    plain, prefixed = beside(base, "prefix")
    ends = {}
    for name, model in (("plain", plain), ("prefixed", prefixed.eval())):
        found = []
        for neighbour in (20, 30):  # of a packed example, in the same row
            ids = torch.tensor([[neighbour] * 3 + [9, 10, 11]])
            places = torch.tensor([[0, 1, 2, 0, 1, 2]])
            with torch.no_grad():
                found.append(model(ids, position_ids=places, use_cache=False).logits[0, 3:])
        ends[name] = (found[0] - found[1]).abs().max().item()
    assert ends["plain"] < 1e-5 < ends["prefixed"]


def test_table_has_every_method_and_says_why():
    shown = table()
    assert list(shown.index) == list(METHODS)
    assert shown.loc["prefix", "padding-free"].startswith("refused: each example")
    assert set(shown["padding-free"].drop("prefix")) == {"yes"}
    for method, kinds in shown["LoRA kinds"].items():
        assert [kind for name, kind in EVERY if name == method and method in LORA] == (
            [] if kinds == "-" else kinds.split(", ")
        )
    assert not shown.isna().any().any()


@pytest.mark.parametrize("method", ["lora", "qlora", "int8", "gradual"])
def test_padding_free_and_checkpointing_are_what_the_table_says(base, made, method):
    for way in {"padding_free": True}, {"gradient_checkpointing": True}:
        other = train(base, method=method, **way, **HOW)
        for one, two in zip(made(method).history, other.history, strict=True):
            assert one["loss"] == pytest.approx(two["loss"], rel=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_bf16_decides_what_the_table_says(base, method):
    run = train(base, EXAMPLES[:8], method=method, **{**HOW, "bf16": True})
    held = {w.dtype for n, w in run.model.named_parameters() if "lora_" not in n}
    float32 = table().loc[method, "base"] == "float32"
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

    def test_sublayers_are_dropped_by_the_share_and_attention_by_its_own_code(self, model):
        mlp, given = model.model.layers[0].mlp, torch.ones(1, 400, 64)
        attention = model.model.layers[1].self_attn
        with dropping(model, 0.25), torch.no_grad():
            assert attention.attention_dropout == 0.25
            dropped, whole = mlp(given), mlp.eval()(given)
        zero = dropped == 0
        assert 0.2 < zero.float().mean() < 0.3
        torch.testing.assert_close(dropped[~zero], whole[~zero] / 0.75)
        assert attention.attention_dropout == 0.0
        assert model.config.attention_dropout == 0.0, "a saved model would drop ever after"

    def test_a_model_with_dropout_of_its_own_uses_that_one(self):
        own = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=40)).train()
        drops = [m for m in own.modules() if isinstance(m, torch.nn.Dropout)]
        for share in (0.0, 0.3):
            with dropping(own, share):
                assert {m.p for m in drops} == {share}
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
