"""What a metric is, apart from its values. Pure."""

from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

RESOURCE = ("namespace", "name")
"""Labels of every metric of a resource whose kind follows from the metric's name."""
ANY_RESOURCE = ("kind", *RESOURCE)
"""Labels of every metric that resources of all kinds have."""


@dataclass(frozen=True)
class Family:
    """A metric as people know it; docs/monitoring.md lists them all."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str

    def collect(self) -> CounterMetricFamily | GaugeMetricFamily:
        """Without values, for those that are told at a scrape."""
        made = CounterMetricFamily if self.type == "counter" else GaugeMetricFamily
        return made(self.name, self.help, labels=self.labels)
