"""Profiles, loading and preflight, without a network."""

import hashlib
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, errors
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from sftlab import models, preflight, profiles
from sftlab.models import (
    PROFILES,
    ModelNotAvailableError,
    PreflightError,
    UnknownProfileError,
    find_profile,
    load,
    weights_hash,
)

SIZES = dict(hidden_size=64, num_hidden_layers=2, intermediate_size=128, num_attention_heads=2,
             num_key_value_heads=1, vocab_size=16, max_position_embeddings=32)  # fmt: skip
PUBLISHED = {
    "smollm2-135m": LlamaConfig(
        hidden_size=576, num_hidden_layers=30, intermediate_size=1536, vocab_size=49152,
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True),
    "qwen3-0.6b": Qwen3Config(
        hidden_size=1024, num_hidden_layers=28, intermediate_size=3072, vocab_size=151936,
        num_attention_heads=16, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True),
    "llama-3.2-1b": LlamaConfig(
        hidden_size=2048, num_hidden_layers=16, intermediate_size=8192, vocab_size=128256,
        num_attention_heads=32, num_key_value_heads=8, tie_word_embeddings=True),
    "llama-3.1-8b-qlora": LlamaConfig(
        hidden_size=4096, num_hidden_layers=32, intermediate_size=14336, vocab_size=128256,
        num_attention_heads=32, num_key_value_heads=8, tie_word_embeddings=False),
}  # fmt: skip


def snapshot(folder, kind="llama", dtype=torch.float32):
    """Random weights of a hub profile's architecture, as the hub lays out a repository."""
    folder = Path(folder)
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**SIZES))
    else:
        model = Qwen3ForCausalLM(Qwen3Config(head_dim=32, **SIZES))
    model.to(dtype).save_pretrained(folder)
    words = Tokenizer(WordLevel({"<unk>": 0, "<end>": 1, "a": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", eos_token="<end>"
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache of the hub, and a hub that must not be asked."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(HfApi, "auth_check", lambda self, name: None)
    return tmp_path / "hub"


@pytest.mark.parametrize("name", PUBLISHED)
def test_hub_profiles_state_the_size_of_their_architecture(name):
    config = PUBLISHED[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    profile = PROFILES[name]
    assert sum(p.numel() for p in model.parameters()) == profile.parameters
    assert profile.shape == profiles.Shape(
        layers=config.num_hidden_layers, hidden=config.hidden_size, mlp=config.intermediate_size,
        vocabulary=config.vocab_size)  # fmt: skip
    # The published files hold two bytes a weight.
    assert 2.0 <= profile.download_bytes / profile.parameters < 2.1


@pytest.mark.parametrize("name", ["tiny", "small", "tiny-early"])
def test_embedded_profiles_tell_their_size(name):
    folder = profiles.local_folder(PROFILES[name])
    assert folder is not None, "the base models ship with the course: run `make base`"
    assert profiles.parameters_in(folder) == pytest.approx(PROFILES[name].parameters, rel=0.1)


def test_adapters_want_a_larger_rate():
    for profile in PROFILES.values():
        assert profile.rate("lora") == profile.rate("qlora") > profile.rate("full")


def test_names_folders_and_hub_ids_are_found(tmp_path, hub_cache):
    assert find_profile("tiny") is PROFILES["tiny"] is find_profile(PROFILES["tiny"])
    folder = snapshot(tmp_path / "model")
    found = find_profile(folder)
    assert not found.on_hub
    assert found.rate_full == 5e-4
    assert found.shape.hidden == 64
    assert found == find_profile(str(folder))
    hub = find_profile("someone/some-model")
    assert hub.on_hub
    assert hub.parameters is None
    assert hub.method == "lora"


def test_other_names_are_answered_with_those_that_exist(tmp_path):
    with pytest.raises(UnknownProfileError, match=r"'tinny'.*tiny, small, tiny-early"):
        find_profile("tinny")
    with pytest.raises(UnknownProfileError, match=r"without config\.json"):
        find_profile(tmp_path)
    with pytest.raises(UnknownProfileError, match="not a int"):
        find_profile(3)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UnknownProfileError, match="load_run"):
        find_profile(tmp_path)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_weights_load_as_float32_whatever_is_stored(tmp_path, kind, capfd):
    folder = snapshot(tmp_path / "model", kind, torch.bfloat16)
    capfd.readouterr()
    model, tokenizer = load(folder)
    assert model.dtype == torch.float32
    assert not model.training
    assert tokenizer("a")["input_ids"] == [2]
    assert load(folder, dtype=torch.bfloat16)[0].dtype == torch.bfloat16
    assert capfd.readouterr() == ("", "")


def test_pickled_weights_are_refused(tmp_path):
    folder = snapshot(tmp_path / "model")
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotAvailableError, match="safetensors"):
        load(folder)


def test_hub_model_in_the_cache_needs_no_network(hub_cache):
    commit = "0" * 40
    repository = hub_cache / "models--someone--some-model"
    snapshot(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    found = find_profile("someone/some-model")
    assert found.parameters < 1e6
    assert load(found)[0].dtype == torch.float32
    rows = {row.what: row for row in models.preflight(found).require().rows}
    assert rows["network"].needed == "no"
    assert rows["disk"].needed == "0.0 GB"


def raising(error):
    def call(*args, **kwargs):
        raise OSError("wrapped") from error

    return call


def hub_error(kind):
    import httpx

    return kind("said", response=httpx.Response(403, request=httpx.Request("GET", "https://x")))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (hub_error(errors.GatedRepoError), "Accept its licence.*hf auth login"),
        (hub_error(errors.RepositoryNotFoundError), "no such model.*Check the spelling"),
        (errors.OfflineModeIsEnabled("said"), "can't be reached.*'tiny'"),
        (errors.LocalEntryNotFoundError("said"), "not in the cache"),
    ],
)
def test_hub_failures_name_profile_and_remedy(hub_cache, monkeypatch, error, said):
    import transformers

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", raising(error))
    with pytest.raises(ModelNotAvailableError, match=r"'llama-3.2-1b'.*" + said) as caught:
        load("llama-3.2-1b")
    assert caught.value.__cause__.__cause__ is error


def test_hub_model_out_of_reach(hub_cache):
    with pytest.raises(ModelNotAvailableError, match=r"'smollm2-135m'.*can't be reached"):
        load("smollm2-135m")


def test_missing_embedded_model_says_how_to_make_it(tmp_path, monkeypatch):
    gone = profiles.Profile(name="tiny", source=str(tmp_path / "no"), embedded=True)
    with pytest.raises(ModelNotAvailableError, match="make base"):
        load(gone)
    with pytest.raises(PreflightError, match="make base"):
        models.preflight(gone).require()


def test_preflight_refuses_with_a_remedy(hub_cache, monkeypatch):
    monkeypatch.setattr(preflight, "pick_device", lambda: "cpu")
    monkeypatch.setattr(preflight, "_room", lambda: 2e9)
    check = models.preflight("llama-3.1-8b-qlora")
    assert not check.ok
    assert "NO  GPU" in str(check)
    assert "-> memory" in str(check)
    with pytest.raises(PreflightError, match=r"(?s)llama-3.1-8b-qlora.*GPU runtime.*method='lora'"):
        check.require()
    monkeypatch.setattr(HfApi, "auth_check", raising(None))
    rows = {row.what: row for row in models.preflight("smollm2-135m").rows}
    assert not rows["network"].ok
    assert "tiny" in rows["network"].remedy
    denied = hub_error(errors.GatedRepoError)
    monkeypatch.setattr(HfApi, "auth_check", lambda self, name: (_ for _ in ()).throw(denied))
    rows = {row.what: row for row in models.preflight("llama-3.2-1b").rows}
    assert "hf auth login" in rows["licence"].remedy


def test_preflight_of_a_folder_asks_no_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(HfApi, "auth_check", raising(None))
    check = models.preflight(snapshot(tmp_path / "model"), method="lora").require()
    assert check.method == "lora"
    assert {row.what for row in check.rows} >= {"memory", "time"}
    with pytest.raises(ValueError, match="'frozen'; choose one of full, lora, qlora"):
        models.preflight(tmp_path / "model", method="frozen")


def test_memory_follows_the_method():
    profile = PROFILES["llama-3.1-8b-qlora"]
    full, lora, qlora = (
        preflight.memory_bytes(profile.parameters, profile.shape, profile, method)
        for method in ("full", "lora", "qlora")
    )
    assert full > lora > qlora
    assert full > 16 * profile.parameters
    assert 0.5 * profile.parameters < qlora < 16e9  # a 16 GB card takes it


def test_weights_hash_is_that_of_the_file(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    assert weights_hash(tmp_path) == hashlib.sha256(b"abc").hexdigest()
    one = weights_hash(tmp_path)
    (tmp_path / "z.safetensors").write_bytes(b"abc")
    assert weights_hash(tmp_path) != one
    with pytest.raises(ModelNotAvailableError, match=r"no \*\.safetensors"):
        weights_hash(tmp_path / "none")


def test_a_package_outside_the_course_s_range_is_named(monkeypatch):
    ranges = {"trl": preflight.SpecifierSet(">=99")}
    monkeypatch.setattr(preflight, "_ranges", lambda: ranges)
    row = preflight._packages("full")
    assert not row.ok
    assert "pip install 'trl>=99'" in row.remedy
    assert "torch>" not in row.remedy
