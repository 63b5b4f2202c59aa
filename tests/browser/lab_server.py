"""JupyterLab on this machine with settings of its own, and the browser to look at it with."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jupyter_server.serverapp import list_running_servers

from sftlab.site import find_chromium  # noqa: F401 - what drives the browser asks here

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 240
"""For JupyterLab or a page to come up, on a machine with other work to do."""
CHROMIUM_FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
).split()
CONFIG = {
    "ServerApp": {"ip": "127.0.0.1", "open_browser": False, "allow_root": True},
    "LabApp": {
        "news_url": None,
        "check_for_updates_class": "jupyterlab.handlers.announcements.NeverCheckForUpdate",
        "extension_manager": "readonly",
        "expose_app_in_browser": True,
    },
}
SETTINGS = {
    # All cells are in the page at once, so that one look sees them all.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false"},
}


@dataclass
class Lab:
    """A running JupyterLab over `folder`, where the copies of the notebooks are."""

    folder: Path
    records: Path  # the folder of the claims that its kernels record
    process: subprocess.Popen
    address: str
    token: str

    def ask(self, path: str, *, method: str = "GET") -> Any:
        """The JSON that the server's REST interface answers, None when it answers nothing."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.address}/api/{path}", None, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as reply:
            body = reply.read()
        return json.loads(body) if body else None

    def stop(self) -> None:
        """Stop the server and its kernels, by its own interface so that it works on Windows too.

        A server whose page was closed while it loaded has been seen to answer and stay.
        """
        ask = partial(self.ask, "shutdown", method="POST")
        for stop in (ask, self.process.terminate, self.process.kill):
            try:
                stop()
                self.process.wait(10)
                return
            except (OSError, subprocess.TimeoutExpired):
                continue


def start_lab(folder: Path) -> Lab:
    """Start JupyterLab over `folder`/work and wait until it answers.

    Raises RuntimeError with the server's log when it doesn't come up in START_SECONDS.
    """
    kinds = "CONFIG_DIR DATA_DIR RUNTIME_DIR LAB_SETTINGS_DIR LAB_WORKSPACES_DIR".split()
    places = {
        f"JUPYTER{'' if kind.startswith('LAB') else '_'}{kind}": folder / kind.lower()
        for kind in kinds
    }
    places["IPYTHONDIR"] = folder / "ipython"
    for place in (*places.values(), folder / "work"):
        place.mkdir(parents=True, exist_ok=True)
    (folder / "config_dir/jupyter_lab_config.json").write_text(json.dumps(CONFIG))
    for plugin, settings in SETTINGS.items():
        file = places["JUPYTERLAB_SETTINGS_DIR"] / f"@jupyterlab/{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {name: str(place) for name, place in places.items()}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PYTHONPATH": search}
    environment["SFTLAB_RECORDS"] = str(folder / "records")
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder / 'work'}"]
    log = folder / "jupyterlab.log"
    with log.open("w") as sink:
        started = {"cwd": folder, "env": environment, "stdout": sink, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, **started)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for server in list_running_servers(str(places["JUPYTER_RUNTIME_DIR"])):
            place = {"folder": folder / "work", "records": folder / "records", "process": process}
            lab = Lab(**place, address=server["url"].rstrip("/"), token=server["token"])
            try:
                lab.ask("status")
                return lab
            except (urllib.error.URLError, OSError):
                pass
        time.sleep(0.2)
    process.kill()
    raise RuntimeError(f"JupyterLab did not start; its log:\n{log.read_text()[-4000:]}")
