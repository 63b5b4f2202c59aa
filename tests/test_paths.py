"""Files and folders that several processes write at once: each gets what it wanted, whole."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from sftlab.paths import folder_written_atomically, write_atomically

CORPUS = """import hashlib
from sftlab import paths
from sftlab.world import corpus_text as corpus
corpus.DOCUMENTS = 300
text = "".join(one + corpus.SEPARATOR for one in corpus.corpus())
corpus.recorded = lambda: {"sha256": hashlib.sha256(text.encode()).hexdigest()}
paths.os.getpid = lambda: 7  # as in two containers that share a cache
assert corpus.corpus_text() == text
"""


def test_processes_that_make_the_corpus_at_once_all_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path))
    started = [subprocess.Popen([sys.executable, "-c", CORPUS]) for _ in range(3)]
    assert [process.wait() for process in started] == [0, 0, 0]
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:-9])  # one that is damaged is made again
    assert subprocess.run([sys.executable, "-c", CORPUS], check=False).returncode == 0


def test_threads_that_write_the_same_file_and_folder_all_succeed(tmp_path):
    def write(number):
        write_atomically(tmp_path / "file", str(number) * 50_000)
        with folder_written_atomically(tmp_path / "folder") as new:
            for name in "ab":
                (new / name).write_text(str(number))

    with ThreadPoolExecutor(8) as pool:
        assert len([*pool.map(write, [*range(10)] * 20)]) == 200
    one, other = ((tmp_path / "folder" / name).read_text() for name in "ab")
    assert one == other
    assert len({*(tmp_path / "file").read_text()}) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}
