"""What Prometheus reads at ``/metrics``."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from rpbert.service.failures import Failure
from rpbert.types import Prediction

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
POSTS = (1, 2, 4, 8, 16, 32, 64, 128)
METHODS = frozenset(("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"))


class Metrics:
    """Counts of one service, in a registry of its own.

    Args:
        queue: tells how many posts wait.
        paths: those that are told apart; what clients make up counts as ``other``.
    """

    def __init__(self, queue: Callable[[], int], paths: frozenset[str]) -> None:
        self.paths = paths
        self.registry = CollectorRegistry()
        own = self.registry
        self.requests = Counter(
            "rpbert_requests",
            "Answers by path, method and status.",
            ["path", "method", "status"],
            registry=own,
        )
        self.latency = Histogram(
            "rpbert_request_seconds",
            "From the head of a request to the end of its answer.",
            ["path"],
            buckets=SECONDS,
            registry=own,
        )
        self.running = Gauge("rpbert_requests_running", "Requests being answered.", registry=own)
        self.batches = Histogram(
            "rpbert_batch_posts",
            "Posts that went through the model together.",
            ["work"],
            buckets=POSTS,
            registry=own,
        )
        self.model = Histogram(
            "rpbert_batch_seconds",
            "Time of the model on a batch.",
            ["work"],
            buckets=SECONDS,
            registry=own,
        )
        self.images = Counter(
            "rpbert_images", "Posts by what became of their image.", ["status"], registry=own
        )
        self.failures = Counter(
            "rpbert_post_failures", "Posts not answered, by reason.", ["code"], registry=own
        )
        waiting = Gauge("rpbert_queue_posts", "Posts that wait for the model.", registry=own)
        waiting.set_function(queue)

    def request(self, path: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        path = path if path in self.paths else "other"
        method = method if method in METHODS else "other"
        self.requests.labels(path, method, str(status)).inc()
        self.latency.labels(path).observe(seconds)

    def post(self, answer: Prediction | Failure) -> None:
        """A post was answered, or failed."""
        if isinstance(answer, Failure):
            self.failures.labels(answer.code).inc()
        else:
            self.images.labels(answer.image).inc()

    def batch(self, work: str, posts: int, seconds: float) -> None:
        """A batch went through the model."""
        self.batches.labels(work).observe(posts)
        self.model.labels(work).observe(seconds)

    def render(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
