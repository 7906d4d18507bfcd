"""Stands in for kafka-exporter, which isn't on this machine: its series that the rules use, from the real broker.

As the real one, it tells of a group in a topic once the group has committed in one of its partitions: -1 for others.
"""

from collections.abc import Iterator

from broker import Broker
from confluent_kafka import Consumer, TopicPartition
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_OF_GROUP = ("consumergroup", "topic", "partition")


class Exporter(Collector):
    """Serves them on a port of 127.0.0.1. groups: the topic that each of them reads."""

    def __init__(self, broker: Broker, groups: dict[str, str], port: int) -> None:
        self._askers = {
            group: Consumer({"bootstrap.servers": broker.servers, "group.id": group, "log_level": 0})
            for group in groups
        }
        self._wanted = {
            group: [TopicPartition(topic, number) for number in broker.partitions(topic)]
            for group, topic in groups.items()
        }
        registry = CollectorRegistry()
        registry.register(self)
        self._server, _ = start_http_server(port, "127.0.0.1", registry)

    def describe(self) -> list[GaugeMetricFamily]:
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        end = GaugeMetricFamily("kafka_topic_partition_current_offset", "End", labels=_OF_GROUP[1:])
        oldest = GaugeMetricFamily("kafka_topic_partition_oldest_offset", "Oldest", labels=_OF_GROUP[1:])
        committed = GaugeMetricFamily("kafka_consumergroup_current_offset", "Committed", labels=_OF_GROUP)
        lag = GaugeMetricFamily("kafka_consumergroup_lag", "Lag", labels=_OF_GROUP)
        for group, asker in self._askers.items():
            marks = asker.committed(self._wanted[group], timeout=10)
            known = any(mark.offset >= 0 for mark in marks)
            for mark in marks:
                labels = (mark.topic, str(mark.partition))
                low, high = asker.get_watermark_offsets(mark, timeout=10)
                oldest.add_metric(labels, low)
                end.add_metric(labels, high)
                if known:
                    committed.add_metric((group, *labels), max(mark.offset, -1))
                    lag.add_metric((group, *labels), high - mark.offset if mark.offset >= 0 else -1)
        yield from (oldest, end, committed, lag)

    def close(self) -> None:
        self._server.shutdown()
        for asker in self._askers.values():
            asker.close()
