"""`sftlab serve` from its first line to Ctrl-C."""

import os
import re
import signal
import subprocess
import sys

import httpx


def test_serve_says_where_answers_and_ends_on_ctrl_c(mine):
    command = [sys.executable, "-m", "sftlab", "serve", str(mine), "--port", "0"]
    command += ["--host", "0.0.0.0", "--api-key"]
    given = {"env": {**os.environ, "SFTLAB_API_KEY": "secret"}, "text": True}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **given, **pipes) as serving:
        line = serving.stdout.readline()
        address = re.search(r"http://[\d.:]+/v1", line)[0].replace("0.0.0.0", "127.0.0.1")
        asked = {"model": "mine", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
        for key, status in (("secret", 200), ("other", 401)):
            headers = {"Authorization": f"Bearer {key}"}
            said = httpx.post(f"{address}/chat/completions", json=asked, headers=headers)
            assert said.status_code == status
        serving.send_signal(signal.SIGINT)
        out, err = serving.communicate(timeout=60)
    assert serving.returncode in (0, 130)
    assert "secret" not in line
    assert out == ""
    assert err.startswith("sftlab: 0.0.0.0 accepts other machines, with the key")
    assert len(err.splitlines()) == 1


def test_a_file_for_llama_cpp_says_what_serves_it(call, tmp_path):
    (tmp_path / "model-q8_0.gguf").touch()
    code, _, err = call("serve", tmp_path)
    assert (code, "llama-server --model" in err) == (2, True)


def test_a_key_is_never_taken_from_nowhere(call, tmp_path, monkeypatch):
    monkeypatch.delenv("SFTLAB_API_KEY", raising=False)
    code, _, err = call("serve", tmp_path, "--api-key")
    assert (code, "set SFTLAB_API_KEY" in err) == (2, True)
