"""Profiles, loading and preflight, without a network; threads, memory, where a bar goes."""

import hashlib
import logging
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest
import torch
from huggingface_hub import HfApi, constants, errors
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    AutoConfig,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from sftlab import machine, models, profiles
from sftlab.measure import complete, text_loss
from sftlab.models import load, load_tokenizer, weights_hash
from sftlab.planner import PreflightError, find_architecture
from sftlab.planner import preflighting as preflight
from sftlab.profiles import PROFILES, ModelNotAvailableError, UnknownProfileError, find_profile

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "vocab_size": 16}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32}


def snapshot(folder, dtype=torch.float32, unk="<unk>", extra=()):
    """A random Llama as the hub lays out a repository; as there, without a padding token."""
    LlamaForCausalLM(LlamaConfig(**SIZES)).to(dtype).save_pretrained(folder)
    words = ["<unk>", "<end>", "a", *extra]
    core = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    known = {"unk_token": unk} if unk else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", **known)
    tokenizer.save_pretrained(folder)
    return folder


def raising(error):
    def call(*args, **kwargs):
        raise OSError("wrapped") from error

    return call


def refusal(kind):
    """An error of the hub."""
    request = httpx.Request("GET", "https://x")
    return kind("said", response=httpx.Response(403, request=request))


def rows_of(check):
    return {row.what: row for row in check.rows}


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache of the hub, and a hub that must not be asked."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(HfApi, "auth_check", lambda self, name: None)
    return tmp_path / "hub"


def test_profiles_state_their_size():
    for profile in PROFILES.values():
        if profile.embedded:
            folder = profiles.local_folder(profile)
            assert folder is not None, "the base models ship with the course: run `make base`"
            count = profiles.parameters_in(folder)
            assert count == pytest.approx(profile.parameters, rel=0.1)
        else:
            known = find_architecture(profile.name if profile.fetched else profile.source)
            assert known.parameters == profile.parameters
            # The published files hold two bytes a weight; the fetched one has 4 bits.
            size = profile.download_bytes / profile.parameters
            assert 0.6 < size < 0.7 if profile.fetched else 2.0 <= size < 2.1
        assert profile.rate("lora") == profile.rate("qlora") > profile.rate("full")


def test_names_folders_and_hub_ids_are_found(tmp_path, hub_cache, monkeypatch):
    assert find_profile("tiny") is PROFILES["tiny"] is find_profile(PROFILES["tiny"])
    hub = find_profile("someone/some-model")
    assert hub.on_hub
    assert hub.parameters is None
    assert hub.method == "lora"
    folder = snapshot(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    found = find_profile("model")
    assert (found.name, found.source, found.on_hub) == ("model", str(folder.resolve()), False)
    assert found.rate_full == 4e-4
    assert find_profile(folder) == find_profile(str(folder))
    monkeypatch.chdir("/")  # a run remembers its base: the source is absolute
    assert profiles.local_folder(found) == folder.resolve()
    (folder / "config.json").unlink()
    with pytest.raises(ModelNotAvailableError, match=r"no config\.json"):
        load(found)


PATHS = ["runs", "./mine", "../mine", "/no/mine", "~/no-such/mine", "a/b/c", "runs/mine"]
PATHS += ["C:/mine", Path("mine"), Path("a/b")]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tinny", r"'tinny'.*choose tiny, small, tiny-early"),
        ("runs/adapter", "no whole run of the lab.*merge_and_unload"),
        *((name, "no folder with a config.json has this path") for name in PATHS),
    ],
)
def test_other_names_are_answered_here_and_never_by_the_hub(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "adapter").mkdir(parents=True)
    (tmp_path / "runs" / "adapter" / "adapter_config.json").write_text("{}")
    monkeypatch.setattr(profiles, "try_to_load_from_cache", raising(None))
    with pytest.raises(UnknownProfileError, match=said):
        find_profile(name)


@pytest.mark.parametrize(
    ("unk", "extra", "pad"),
    [
        ("<unk>", ["<|finetune_right_pad_id|>"], "<|finetune_right_pad_id|>"),
        ("<unk>", [], "<unk>"),
        (None, [], "<end>"),
        ("<end>", [], "<end>"),
    ],
)
def test_tokenizer_without_padding_gets_it(tmp_path, unk, extra, pad):
    model, tokenizer = load(snapshot(tmp_path / "model", unk=unk, extra=extra))
    assert tokenizer.pad_token == pad
    assert len(complete(model, tokenizer, ["a a", "a"], max_new_tokens=2)) == 2
    alone = [text_loss(model, tokenizer, ["a a a"]), text_loss(model, tokenizer, ["a a"])]
    both = text_loss(model, tokenizer, ["a a a", "a a"])
    assert both == pytest.approx((2 * alone[0] + alone[1]) / 3, rel=1e-5)


def test_models_of_others_go_to_the_gpu_and_the_embedded_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "pick_device", lambda: "meta")
    folder = snapshot(tmp_path / "model")
    assert load(folder)[0].device.type == "meta"
    shipped = profiles.Profile(name="x", source=str(folder), embedded=True)
    assert load(shipped)[0].device.type == "cpu"


def test_broken_weights_are_named_with_the_remedy(tmp_path):
    folder = snapshot(tmp_path / "model")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(re.sub(r'("intermediate_size": )\d+', r"\g<1>24", config))
    with pytest.raises(ModelNotAvailableError, match=r"can't be loaded.*its \*\.safetensors"):
        load(folder)
    file = folder / "model.safetensors"
    for content in (b"version https://git-lfs.github.com/spec/v1", file.read_bytes()[:-100]):
        file.write_bytes(content)
        shipped = profiles.Profile(name="x", source=str(folder), embedded=True)
        with pytest.raises(ModelNotAvailableError, match=r"model\.safetensors is.*git lfs pull"):
            load(shipped)
        with pytest.raises(ModelNotAvailableError, match="git lfs pull"):
            preflight.preflight(shipped)


def test_weights_load_as_float32_whatever_is_stored(tmp_path, capfd):
    folder = snapshot(tmp_path / "model", torch.bfloat16)
    capfd.readouterr()
    model, tokenizer = load(folder)
    assert model.dtype == torch.float32
    assert not model.training
    assert tokenizer("a")["input_ids"] == [2]
    assert load(folder, dtype=torch.bfloat16)[0].dtype == torch.bfloat16
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("t5", "an encoder-decoder"),
        ("bert", "an encoder, which"),
        ("roberta", "an encoder, which"),
        ("qwen2_vl", "a vision-language model; take the text-only"),
        ("llava", "a vision-language model"),
        ("gemma3", "a vision-language model"),
        ("whisper", "an encoder-decoder"),
        ("vit", "a model for another task"),
        ("llama", None),
        ("bloom", None),
        ("qwen3_5", None),  # transformers loads its text part alone
    ],
)
def test_what_is_no_causal_language_model_is_named_before_weights_are_read(tmp_path, kind, said):
    folder = snapshot(tmp_path / "model")
    AutoConfig.for_model(kind).save_pretrained(folder)
    if said is None:
        load_tokenizer(folder)
        return
    (folder / "model.safetensors").unlink()  # no weight is asked for
    said = f"{kind} is not a causal language model but {said}"
    for use in load, load_tokenizer, find_architecture:
        with pytest.raises(ValueError, match=said):
            use(folder)
    assert said in str(preflight.preflight(folder))


def test_a_tokenizer_whose_model_only_its_own_code_can_read_is_loaded(tmp_path):
    folder = snapshot(tmp_path / "model")
    (folder / "config.json").write_text('{"model_type": "unheard-of"}')
    assert load_tokenizer(folder)("a")["input_ids"] == [2]
    with pytest.raises(ModelNotAvailableError, match="unheard-of"):
        load(folder)


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
    rows = rows_of(preflight.preflight(found).require())
    assert rows["weights"].found == "here"
    assert "disk" not in rows


def test_failures_name_profile_and_remedy(hub_cache, tmp_path, monkeypatch):
    with pytest.raises(ModelNotAvailableError, match=r"'llama-3.2-1b'.*'tiny' needs none"):
        load("llama-3.2-1b")  # which is not in the cache
    gated = refusal(errors.GatedRepoError)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", raising(gated))
    with pytest.raises(ModelNotAvailableError, match=r"wrapped.*`hf auth login`") as caught:
        load("llama-3.2-1b")
    assert caught.value.__cause__.__cause__ is gated
    gone = profiles.Profile(name="tiny", source=str(tmp_path / "no"), embedded=True)
    with pytest.raises(ModelNotAvailableError, match="make base"):
        load(gone)
    unfetched = profiles.Profile(name="real", source=str(tmp_path / "no"), fetched=True)
    with pytest.raises(ModelNotAvailableError, match="make real"):
        load(unfetched)
    assert "make real" in rows_of(preflight.preflight(unfetched))["weights"].remedy


def test_preflight_refuses_with_a_remedy(hub_cache, monkeypatch):
    monkeypatch.setattr(preflight, "pick_device", lambda: "cpu")
    monkeypatch.setattr(preflight, "free_memory", lambda: 2e9)
    check = preflight.preflight("llama-3.1-8b-qlora")
    assert not check.ok
    assert "NO  GPU" in str(check)
    assert "-> memory" in str(check)
    with pytest.raises(PreflightError, match=r"(?s)llama-3.1-8b-qlora.*GPU runtime.*method='lora'"):
        check.require()
    row = rows_of(preflight.preflight("qwen3-0.6b"))["disk"]
    assert row.needed == "1.2 GB"
    assert "HF_HOME" in row.remedy


def test_preflight_of_a_folder(tmp_path):
    check = preflight.preflight(snapshot(tmp_path / "model"), method="lora").require()
    assert check.profile.method == "lora"
    assert set(rows_of(check)) >= {"memory", "time"}
    with pytest.raises(ValueError, match="'magic'; choose one of full, lora, qlora"):
        preflight.preflight(tmp_path / "model", method="magic")


def test_weights_hash_is_that_of_the_file(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    assert weights_hash(tmp_path) == hashlib.sha256(b"abc").hexdigest()
    (tmp_path / "z.safetensors").write_bytes(b"d")
    assert weights_hash(tmp_path) == hashlib.sha256(b"abcd").hexdigest()


def test_what_bitsandbytes_logs_at_its_import_is_silent_once_a_model_was_loaded(caplog):
    """PEFT imports it, in whatever cell of the learner's comes first."""
    load("tiny")
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    log.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s", "no kernels")
    log.warning("Another matter")
    assert [record.getMessage() for record in caplog.records] == ["Another matter"]


def test_a_kernel_is_a_notebook_and_a_program_that_only_imports_it_is_none():
    import ipykernel.kernelapp  # noqa: F401 - as ipywidgets and papermill do

    assert machine.progress_stream() is sys.stderr
    code = (
        "import sys; from ipykernel.kernelapp import IPKernelApp; IPKernelApp.instance();"
        "from sftlab.machine import progress_stream; print(progress_stream() is sys.stdout)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize(("small", "threads"), [(10_000, 3), (20_000_000, 1)])
def test_a_small_model_takes_one_thread_and_others_take_all(tmp_path, monkeypatch, small, threads):
    before = torch.get_num_threads()
    monkeypatch.setattr(machine, "_threads_at_start", lambda: 3)
    monkeypatch.setattr(machine, "SMALL", small)
    try:
        load("tiny")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("limit", "used", "room"),
    [("1000", "900", 800), ("max", "900", 5000), ("9000", "900", 5000), (None, "", 5000)],
)
def test_room_of_a_container_does_not_count_cached_files(tmp_path, monkeypatch, limit, used, room):
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(machine, "pick_device", lambda: "cpu")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5000))
    if limit:
        (tmp_path / "memory.max").write_text(limit + "\n")
        (tmp_path / "memory.current").write_text(used + "\n")
        stat = "anon 100\ninactive_file 500\nactive_file 200\n"
        (tmp_path / "memory.stat").write_text(stat)
    assert machine.free_memory() == room
