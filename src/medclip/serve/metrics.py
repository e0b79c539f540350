"""What Prometheus may know: counts and times, never a word of a query.

With several workers each writes its numbers below PROMETHEUS_MULTIPROC_DIR (see `listen`), and whichever is asked adds
up those of all.
"""

from __future__ import annotations

import os

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

REQUESTS = Counter("medclip_requests", "Requests, by the template of their route and the status.", ["route", "status"])
SECONDS = Histogram(
    "medclip_request_seconds", "Time to the end of the answer.", ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)  # fmt: skip
BATCHES = Histogram(
    "medclip_batch_size", "What was done together: texts and images by the model, or scans of the index.", ["what"],
    buckets=(1, 2, 4, 8, 16, 32, 64),
)  # fmt: skip
PICTURES = Gauge("medclip_pictures", "Images in the index.", multiprocess_mode="mostrecent")


def exposition() -> bytes:
    """All of it as Prometheus reads it."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return generate_latest(registry)
