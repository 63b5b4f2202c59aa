"""The bar of a sweep: runs done of all, and how long the rest will take."""

import heapq
import time
import warnings

from sftlab.machine import progress_stream
from sftlab.sweeps.experiment import Experiment, Outcome


class Countdown:
    """One bar of plain text, like that of a fine-tune.

    The time left is told from the runs that have ended: seconds of training per unit of work, and
    a constant for loading and measuring. Work is the characters that a run reads times the size of
    its model. How long the processes took to start does not count; before the first run has ended
    nothing is known, and nothing is said.
    """

    def __init__(self, name: str, *, total: int, cached: int, jobs: int, shown: bool) -> None:
        """`total` counts all runs, those from the cache included."""
        self._cached, self._jobs = cached, jobs
        self._errors: list[str] = []
        self._waiting: dict[str, float] = {}
        self._running: dict[str, tuple[float, float]] = {}
        self._ended = self._all_work = 0.0
        self._training = self._constant = self._starting = 0.0
        self._bar = self._said = None
        if shown:
            from tqdm import tqdm

            self._stream = progress_stream()
            self._bar = tqdm(
                total=total, initial=cached, desc=name, file=self._stream, mininterval=0,
                dynamic_ncols=self._stream.isatty(),
                bar_format="{desc}: {n_fmt} of {total_fmt} runs |{bar:20}|{postfix}",
            )  # fmt: skip
            self._show()

    def expect(self, experiments: list[Experiment]) -> None:
        """The runs that are still to be done."""
        self._waiting = {experiment.run: work(experiment) for experiment in experiments}
        self._show()

    def begun(self, experiment: Experiment) -> None:
        """A process has been given a run."""
        amount = self._waiting.pop(experiment.run, work(experiment))
        self._running[experiment.run] = (time.perf_counter(), amount)

    def ended(self, experiment: Experiment, outcome: Outcome) -> None:
        """A run is over."""
        begun, amount = self._running.pop(experiment.run)
        if outcome.error:
            self._note(outcome.error)
        elif outcome.total:
            if not self._ended:
                self._starting = max(time.perf_counter() - begun - outcome.total, 0.0)
            self._ended += 1
            self._all_work += amount
            self._training += outcome.training
            self._constant += outcome.total - outcome.training
            # Those that began with the first one waited for their process as long as it did.
            for run, (start, size) in list(self._running.items()):
                if self._ended == 1 and start - begun < 1:
                    self._running[run] = (start + self._starting, size)
        self._step()

    def left(self) -> float | None:
        """Seconds until the last run ends; `None` while there is nothing to tell it from."""
        if not self._ended:
            return None
        constant = self._constant / self._ended
        rate = self._training / self._all_work if self._all_work else 0.0
        now = time.perf_counter()
        free = [max(constant + rate * amount - (now - start), 0.0)
                for start, amount in self._running.values()]  # fmt: skip
        free += [0.0] * (self._jobs - len(free))
        heapq.heapify(free)
        for amount in self._waiting.values():
            heapq.heappush(free, heapq.heappop(free) + constant + rate * amount)
        return max(free)

    def tick(self) -> None:
        """Tell the time left anew."""
        self._show()

    def close(self) -> None:
        """End the bar, and say how many runs failed, also when there is no bar."""
        if self._bar is not None:
            self._show(over=True)
            self._bar.close()
        if not self._errors:
            return
        count = len(self._errors)
        said = (
            f"{count} {'run' if count == 1 else 'runs'} failed and will be tried again by the next "
            "call; the column `error` says why."
        )
        if self._bar is not None:
            print(said, file=self._stream, flush=True)
        else:
            warnings.warn(f"{said} The first: {self._errors[0]}", stacklevel=3)

    def failed(self, error: str) -> None:
        """A run that could not even begin."""
        self._note(error)
        self._step()

    def _note(self, error: str) -> None:
        """Keep an error; the first is shown at once: whoever sees it may not wait for the rest."""
        self._errors.append(error)
        if self._bar is not None and len(self._errors) == 1:
            self._bar.write(f"The first run that failed: {error}", file=self._stream)
            self._stream.flush()

    def _step(self) -> None:
        if self._bar is not None:
            self._bar.n += 1
            self._said = None
            self._show()

    def _show(self, *, over: bool = False) -> None:
        if self._bar is None:
            return
        parts = [f"{self._cached} from the cache"] if self._cached else []
        if self._errors:
            parts.append(f"{len(self._errors)} failed")
        if not over and (self._waiting or self._running):
            seconds = self.left()
            parts.append("estimating" if seconds is None else f"{_about(seconds)} left")
        if parts != self._said:  # a line that says nothing new would only fill an exported page
            self._said = parts
            self._bar.set_postfix_str(", ".join(parts))


def work(experiment: Experiment) -> float:
    """Characters read times epochs times parameters; a model of unknown size counts as 1."""
    if experiment.settings is None or experiment.examples is None:
        return 0.0
    read = sum(len(m["content"]) for row in experiment.examples for m in row["messages"])
    return read * experiment.settings.num_train_epochs * (experiment.profile.parameters or 1)


def _about(seconds: float) -> str:
    """`about 40 s`, `about 3 min`: no more digits than are known."""
    if seconds < 90:
        return f"about {max(5 * round(seconds / 5), 1)} s"
    return f"about {round(seconds / 60)} min"
