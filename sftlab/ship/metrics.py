"""What a server counts and times, for Prometheus.

Names, labels and bounds of the buckets are those of OpenTelemetry's semantic conventions for
generative AI, v0.1.0 (docs/gen-ai/gen-ai-metrics.md of open-telemetry/semantic-conventions-genai;
status "Development", so they may change), with underscores for dots and the unit at the end, as
Prometheus has it. Those that begin with sftlab_ have no name there.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sftlab.ship.generator import Answer

if TYPE_CHECKING:
    from prometheus_client import Histogram

TOKENS = [4**n for n in range(14)]
DURATION = [0.01 * 2**n for n in range(14)]  # seconds
FIRST = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
NEXT = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5]


class Metrics:
    """The metrics of one server, in a registry of its own: the default one is the process's."""

    def __init__(self, model: str) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()
        common = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "sftlab"}
        self._common = common | {"gen_ai_request_model": model}

        def histogram(name: str, words: str, buckets: Sequence[float], *labels: str) -> "Histogram":
            options = {"buckets": buckets, "registry": self.registry}
            return Histogram(name, words, [*self._common, *labels], **options)

        said = "Seconds of a request, from when it was accepted to its last token."
        name = "gen_ai_server_request_duration_seconds"
        self._duration = histogram(name, said, DURATION, "error_type")
        said = "Seconds to the first token, waiting included."
        self._first = histogram("gen_ai_server_time_to_first_token_seconds", said, FIRST)
        said = "Seconds of each token after the first, by request."
        self._next = histogram("gen_ai_server_time_per_output_token_seconds", said, NEXT)
        said = "Tokens of a request: input, and output."
        self._tokens = histogram("gen_ai_client_token_usage", said, TOKENS, "gen_ai_token_type")
        said = "Requests that wait or are being answered."
        self.unfinished = Gauge("sftlab_requests_unfinished", said, registry=self.registry)
        said = "Requests that were refused, by the code of the error."
        name, labels = "sftlab_requests_refused", ["code"]
        self.refused = Counter(name, said, labels, registry=self.registry)

    def finished(self, answer: Answer, error: BaseException | None) -> None:
        """Count a request that was accepted, whatever became of it."""
        kind = type(error).__name__ if error else "cancelled" if answer.cancelled else ""
        seconds = time.perf_counter() - answer.submitted
        self._duration.labels(**self._common, error_type=kind).observe(seconds)
        counts = {"input": len(answer.prompt), "output": len(answer.ids)}
        for token_type, count in counts.items() if answer.ids else ():
            self._tokens.labels(**self._common, gen_ai_token_type=token_type).observe(count)
        if kind:
            return
        self._first.labels(**self._common).observe(answer.first - answer.submitted)
        if len(answer.ids) > 1:
            each = (answer.last - answer.first) / (len(answer.ids) - 1)
            self._next.labels(**self._common).observe(each)
