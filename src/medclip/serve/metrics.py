"""Prometheus metrics: counts and times, never the text of a query.

With several workers each writes its numbers below PROMETHEUS_MULTIPROC_DIR (see `run.serve`), and whichever is scraped
adds up those of all.
"""

from __future__ import annotations

import os

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

REQUESTS = Counter("medclip_requests", "Requests, by route template and status.", ["route", "status"])
REQUEST_SECONDS = Histogram(
    "medclip_request_seconds", "Time to the end of the response.", ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)  # fmt: skip
BATCH_SIZES = Histogram(
    "medclip_batch_size", "Size of batches: texts and images of the model, or queries of an index scan.", ["kind"],
    buckets=(1, 2, 4, 8, 16, 32, 64),
)  # fmt: skip
INDEX_IMAGES = Gauge("medclip_index_images", "Images in the index.", multiprocess_mode="mostrecent")


def exposition() -> bytes:
    """All metrics in Prometheus's text format."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return generate_latest(registry)
