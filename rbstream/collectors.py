"""What metrics are made of beyond prometheus_client's own: declarations, fast histograms, the GPU's gauges."""

import sys
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Declared(NamedTuple):
    """What the docs say of a metric. name: as it is scraped; why: the reason for the buckets."""

    name: str
    kind: str
    labels: tuple[str, ...]
    unit: str
    meaning: str
    buckets: tuple[float, ...] = ()
    why: str = ""


class Series:
    """One histogram's counts for one set of label values. Any thread may add to it."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._edges = np.array(bounds)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._sum = 0.0
        self._lock = Lock()

    def observe(self, value: float) -> None:
        """Count one value. NaN is no value."""
        if value == value:
            with self._lock:
                self._counts[bisect_left(self._bounds, value)] += 1
                self._sum += value

    def observe_many(self, values: NDArray[Any] | Sequence[float]) -> None:
        """Count values, float (N,): 10 us a call, however many. NaN is no value."""
        array = np.asarray(values, np.float64)
        array = array[array == array]
        counts = np.bincount(np.searchsorted(self._edges, array), minlength=len(self._counts))
        with self._lock:
            self._counts += counts
            self._sum += float(array.sum())

    @contextmanager
    def time(self) -> Iterator[None]:
        """Count the seconds that the body takes, if it ends without an exception."""
        start = time.perf_counter()
        yield
        self.observe(time.perf_counter() - start)

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """Counts up to and including each bound, by its name; and the sum."""
        with self._lock:
            counts, total = self._counts.cumsum().tolist(), self._sum
        return list(zip(map(floatToGoString, (*self._bounds, np.inf)), counts, strict=True)), total


class Histogram(Collector):
    """A histogram that takes whole arrays; prometheus_client's takes one value at a time, which is too slow here."""

    def __init__(self, declared: Declared) -> None:
        self._declared = declared
        self._series: dict[tuple[str, ...], Series] = {}
        if not declared.labels:
            self.labels()

    def labels(self, *values: str) -> Series:
        """The series of these label values, in the order declared."""
        if len(values) != len(self._declared.labels):
            raise ValueError(f"{self._declared.name} has the labels {self._declared.labels}, not {values}")
        return self._series.get(values) or self._series.setdefault(values, Series(self._declared.buckets))

    def observe(self, value: float) -> None:
        """Count one value, where there are no labels."""
        self.labels().observe(value)

    def observe_many(self, values: NDArray[Any] | Sequence[float]) -> None:
        """Count values, float (N,), where there are no labels."""
        self.labels().observe_many(values)

    def describe(self) -> list[HistogramMetricFamily]:
        return [HistogramMetricFamily(self._declared.name, self._declared.meaning, labels=self._declared.labels)]

    def collect(self) -> list[HistogramMetricFamily]:
        families = self.describe()
        for labels, series in list(self._series.items()):
            families[0].add_metric(labels, *series.read())
        return families


class GpuCollector(Collector):
    """Memory and utilisation of the GPU that serves the model, asked of it when somebody scrapes.

    Nothing where there is no GPU. Utilisation needs nvidia-ml-py (extra `gpu`); without it there is only memory.
    """

    def __init__(self, memory: Declared, utilization: Declared) -> None:
        self._declared = memory, utilization
        self.device: str | None = None

    def describe(self) -> list[GaugeMetricFamily]:
        return [GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels) for metric in self._declared]

    def collect(self) -> list[GaugeMetricFamily]:
        torch = sys.modules.get("torch")  # if nobody has loaded a model, this is not the place to import it
        if torch is None or self.device is None or not self.device.startswith("cuda"):
            return []
        memory, utilization = self.describe()
        # A GPU that fails is the scoring's to report; the other metrics must still be there to tell of it. What torch
        # and NVML raise is of many classes: not there, not installed, not allowed, not on a MIG slice.
        with suppress(Exception):
            free, total = torch.cuda.mem_get_info(self.device)
            memory.add_metric((self.device, "used"), total - free)
            memory.add_metric((self.device, "total"), total)
        with suppress(Exception):
            utilization.add_metric((self.device,), torch.cuda.utilization(self.device) / 100)
        return [family for family in (memory, utilization) if family.samples]
