"""Runs in parallel processes: what dies takes nobody along, and an interrupt ends them all."""

import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, nullcontext
from typing import Any

from sftlab.sweeps import forking
from sftlab.sweeps.experiment import Experiment, Outcome, conduct
from sftlab.sweeps.grid import SweepError

IDLE = 120
"""Seconds after which a process without work ends; until then the next sweep need not start it."""
GROWTH = 1_500_000_000
"""Bytes by which a process may grow before a fresh one takes its place."""
ATTEMPTS = 2
"""Times that a run is begun whose process died."""
TICK = 1.0
"""Seconds between two looks at the clock."""

_pool: tuple[Any, int, Any] | None = None
"""Executor, number of processes, and what they were started with: code and environment."""
_at_work = threading.Lock()
"""Held by the sweep that uses the pool: a second would end the runs of the first with its own."""


def conduct_all(
    experiments: Sequence[Experiment], *, jobs: int, loaded: Any
) -> Iterator[tuple[str, Experiment, Outcome | None] | None]:
    """Carry out the runs, at most `jobs` at a time.

    Yields ("begun", run, None) and ("ended", run, outcome), and `None` each second in between.
    When the caller leaves early, by an interrupt or by closing the iterator, every process is ended
    at once.

    Args:
        experiments: in the order in which they begin.
        jobs: number of processes.
        loaded: what must be the same for processes of an earlier sweep to be used again: a stamp
            of the code that they have imported.

    Raises:
        SweepError: another thread of this process is in the midst of it.
    """
    if not _at_work.acquire(blocking=False):
        raise SweepError(
            "another sweep of this process is at work; wait for it, or give both to `sweeps`"
        )
    try:
        yield from _conduct_all(experiments, jobs, loaded)
    finally:
        _at_work.release()


def _conduct_all(
    experiments: Sequence[Experiment], jobs: int, loaded: Any
) -> Iterator[tuple[str, Experiment, Outcome | None] | None]:
    waiting, suspects = deque(experiments), deque()
    died: Counter[str] = Counter()
    running: dict[Future, Experiment] = {}
    prepare()
    while not forking.ready(TICK):
        yield None
    try:
        while waiting or suspects or running:
            # When a process dies the whole pool breaks, and it is not said whose run it was. So
            # all that were running are tried again, one by one: the next death has a name.
            alone = any(died[experiment.run] for experiment in running.values())
            while (suspects or waiting) and len(running) < (1 if suspects else jobs) and not alone:
                experiment = (suspects or waiting).popleft()
                alone = died[experiment.run] > 0
                running[_submit(experiment, jobs, loaded)] = experiment
                yield "begun", experiment, None
            done, _ = wait(running, timeout=TICK, return_when=FIRST_COMPLETED)
            if not done:
                yield None
            if any(_broke(future) for future in done):
                done, _ = wait(running)
                end_processes()
            for future in done:
                experiment = running.pop(future)
                outcome = _outcome(future)
                if outcome is None:
                    died[experiment.run] += 1
                    if died[experiment.run] < ATTEMPTS:
                        suspects.append(experiment)
                        continue
                    outcome = Outcome(error=_last_words(future.exception()))
                yield "ended", experiment, outcome
    except BaseException:
        end_processes()
        raise


def _broke(future: Future) -> bool:
    from joblib.externals.loky.process_executor import BrokenProcessPool

    return isinstance(future.exception(), BrokenProcessPool)


def _outcome(future: Future) -> Outcome | None:
    """How the run went; `None` when its process, or a neighbour's, died."""
    error = future.exception()
    if error is None:
        return future.result()
    return None if _broke(future) else Outcome(error=f"{type(error).__name__}: {error}")


def _last_words(error: BaseException) -> str:
    codes = str(error).partition("exit codes of the workers are {")[2].partition("}")[0]
    return (
        f"ProcessDied: the process of this run ended {ATTEMPTS} times without a word"
        f"{f' ({codes})' if codes else ''}. As a rule the memory was short: give sweep a smaller "
        "jobs, or a smaller per_device_train_batch_size or max_length"
    )


def _submit(experiment: Experiment, jobs: int, loaded: Any) -> Future:
    from joblib.externals.loky.process_executor import BrokenProcessPool

    for _ in range(2):
        before = _pool
        executor = _executor(jobs, loaded)
        try:
            # What is ignored here stays ignored in a process that starts, from its first moment.
            # (A blocked signal does not: loky unblocks it while it starts its own helper.)
            with _deaf() if _pool is not before else nullcontext():
                return executor.submit(conduct, experiment)
        except BrokenProcessPool as error:  # an idle process was killed since the last sweep
            broken = error
            end_processes()
        except (EOFError, OSError) as error:  # the server of the processes can't be kept alive
            broken = error
            forking.give_up()
            end_processes()
    raise broken


def _executor(jobs: int, loaded: Any):
    global _pool
    from joblib.externals.loky import ProcessPoolExecutor

    environment = {**os.environ, **forking.ONE_THREAD}
    loaded = (loaded, environment)
    if _pool and (_pool[1] < jobs or _pool[2] != loaded):
        end_processes()
    if _pool is None:
        executor = ProcessPoolExecutor(
            max_workers=jobs, timeout=IDLE, initializer=start, context=forking.context,
            initargs=(os.getpid(), environment), env=forking.ONE_THREAD,
        )  # fmt: skip
        _pool = (executor, jobs, loaded)
    return _pool[0]


def end_processes() -> None:
    """Kill the processes of sweeps, those at work and those that wait for the next sweep."""
    global _pool
    if _pool is None:
        return
    executor, _pool = _pool[0], None
    with _deaf():  # a second Ctrl-C would leave some alive
        executor.shutdown(wait=True, kill_workers=True)


def prepare() -> None:
    """Let the processes' server import its libraries now, beside what the caller does."""
    with _deaf():
        forking.start_server()


def start(parent: int, environment: dict[str, str]) -> None:
    """Set up a fresh process: quiet, deaf to Ctrl-C, and gone when its parent is.

    Ctrl-C reaches all processes of a terminal or kernel. The parent alone answers it, and ends the
    others, or each would print its traceback. What libraries print would land in the notebook;
    warnings are collected instead and travel with the run.
    """
    import psutil
    from joblib.externals.loky import process_executor
    from tqdm import tqdm

    # loky ends a process that grew by 0.3 GB; where it does not fork, a new one imports for 6 s.
    # Freed memory is kept here on purpose (`keep_freed_memory`), and a run leaves 0.04 GB.
    process_executor._MAX_MEMORY_LEAK_SIZE = GROWTH
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.environ.clear()  # a fork has those of its server
    os.environ.update(environment, TOKENIZERS_PARALLELISM="false")

    def watch() -> None:
        # A parent that was killed can't end its children: they would go on for their whole run.
        while _lives(caller):
            time.sleep(0.5)
        os._exit(1)

    caller = psutil.Process(parent)
    threading.Thread(target=watch, daemon=True).start()
    # tqdm's own lock is the system's, and who is killed would leave it behind.
    tqdm.set_lock(threading.RLock())
    # Here all processes do it side by side; in the first run of each, they would wait in turn.
    # These names are what loading a model imports; `transformers` itself imports next to nothing.
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationMixin  # noqa: F401

    import sftlab.train.finetuning  # noqa: F401
    from sftlab.machine import keep_freed_memory

    keep_freed_memory()


def _lives(process) -> bool:
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def _deaf() -> Iterator[None]:
    """Ignore Ctrl-C for a moment."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
