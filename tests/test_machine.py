"""Threads, memory, where a progress bar goes."""

import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
import torch

from sftlab import machine
from sftlab.machine import progress_stream
from sftlab.models import load


def test_a_kernel_is_a_notebook_and_a_program_that_only_imports_it_is_none():
    import ipykernel.kernelapp  # noqa: F401 - as ipywidgets and papermill do

    assert progress_stream() is sys.stderr
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
    ("files", "room"),
    [
        ({"memory.max": "1000", "memory.current": "900",
          "memory.stat": "anon 100\ninactive_file 500\nactive_file 200"}, 800),
        ({"memory.max": "1000", "memory.current": "900"}, 100),
        ({"memory.max": "max", "memory.current": "900"}, 5000),
        ({"memory.max": "9000", "memory.current": "900"}, 5000),
        ({"memory.max": "1000", "memory.current": "1200"}, 0),
        ({"memory/memory.limit_in_bytes": "2000", "memory/memory.usage_in_bytes": "1900",
          "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 300\n"
                                "total_active_file 400"}, 800),
        ({"memory/memory.limit_in_bytes": str(2**63 - 4096),
          "memory/memory.usage_in_bytes": "1900"}, 5000),
        ({}, 5000),
    ],
)  # fmt: skip
def test_room_of_a_container_does_not_count_cached_files(tmp_path, monkeypatch, files, room):
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(machine, "pick_device", lambda: "cpu")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5000))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert machine.free_memory() == room
