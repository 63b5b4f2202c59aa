"""What a server counts and times, for Prometheus.

Names, labels and bounds of the buckets are those of OpenTelemetry's semantic conventions for
generative AI, v0.1.0 (docs/gen-ai/gen-ai-metrics.md of open-telemetry/semantic-conventions-genai;
status "Development", so they may change), with underscores for dots and the unit at the end, as
Prometheus has it. Those that begin with sftlab_ have no name there.
"""

import time

from sftlab.ship.generator import Answer

DURATION = [0.01 * 2**n for n in range(14)]
FIRST = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
NEXT = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5]
TOKENS = [4**n for n in range(14)]
# Name: what it says, its buckets, its label beside the common ones.
HISTOGRAMS = {
    "gen_ai_server_request_duration_seconds": ("Whole request", DURATION, "error_type"),
    "gen_ai_server_time_to_first_token_seconds": ("Until the first token, with the wait", FIRST),
    "gen_ai_server_time_per_output_token_seconds": ("Of each token after the first", NEXT),
    "gen_ai_client_token_usage": ("Tokens of a request", TOKENS, "gen_ai_token_type"),
}  # fmt: skip


class Metrics:
    """The metrics of one server, in a registry of its own: the default one is the process's."""

    def __init__(self, model: str) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = registry = CollectorRegistry()
        common = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "sftlab"}
        self._common = common | {"gen_ai_request_model": model}
        self._histograms = [
            Histogram(name, said, [*self._common, *labels], buckets=buckets, registry=registry)
            for name, (said, buckets, *labels) in HISTOGRAMS.items()
        ]
        said = "Requests that wait or are being answered"
        self.unfinished = Gauge("sftlab_requests_unfinished", said, registry=registry)
        said = "Refused requests, by the code of the error"
        self.refused = Counter("sftlab_requests_refused", said, ["code"], registry=registry)

    def finished(self, answer: Answer, error: BaseException | None) -> None:
        """Count an accepted request, whether it was answered, failed or cancelled."""
        kind = type(error).__name__ if error else "cancelled" if answer.cancelled else ""
        duration, first, each, tokens = self._histograms
        seconds = time.perf_counter() - answer.submitted
        duration.labels(**self._common, error_type=kind).observe(seconds)
        counts = zip(("input", "output"), answer.counts, strict=True)
        for token_type, count in counts if answer.ids else ():
            tokens.labels(**self._common, gen_ai_token_type=token_type).observe(count)
        if not kind:
            first.labels(**self._common).observe(answer.first - answer.submitted)
        if not kind and len(answer.ids) > 1:
            between = (answer.last - answer.first) / (len(answer.ids) - 1)
            each.labels(**self._common).observe(between)
