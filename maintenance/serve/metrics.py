"""What a Prometheus is told of the verdicts that this process gave."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from maintenance.upload.judging import UploadVerdict

STEPS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds


class Metrics:
    """Since the start of the process; all clients together."""

    def __init__(self) -> None:
        """Begin at zero."""
        self._registry = CollectorRegistry()
        self._verdicts = Counter("imagewarden_uploads", "Uploads by verdict and cause",
                                 ("verdict", "cause"), registry=self._registry)
        self._broken = Counter("imagewarden_broken_requests", "Requests that were answered by 400",
                               registry=self._registry)
        self._seconds = Histogram("imagewarden_upload_seconds", "Scan time, without the body's way",
                                  buckets=STEPS, registry=self._registry)
        self.connections = Gauge("imagewarden_connections", "Open connections",
                                 registry=self._registry)

    def verdict(self, verdict: UploadVerdict) -> None:
        """Count a verdict."""
        self._verdicts.labels(verdict.verdict, verdict.cause).inc()
        if verdict.verdict in {"clean", "infected"}:
            self._seconds.observe(verdict.seconds)

    def broken(self) -> None:
        """Count a request that could not be read."""
        self._broken.inc()

    def text(self) -> bytes:
        """Return all of it in Prometheus' own form."""
        return generate_latest(self._registry)
