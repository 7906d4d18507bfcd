"""What wakes somebody: the alert rules, and the series that they compare with.

Every series of rbstream carries the target labels `cluster` (the source's Kafka) and `group` (the consumer group):
whoever scrapes sets them. In expressions `<15m>` is a duration, and `<15m as seconds>` the number of its seconds, so
that tests can let a minute last a second.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

# Where the sections about the alerts are; the chart puts a URL in its place.
RUNBOOK = "docs/runbook.md"

_DURATION = re.compile(r"<(\d+)([smhd])( as seconds)?>")


@dataclass(frozen=True)
class Clock:
    """How long a minute and a day last in the rules [s]. Seconds stay seconds: clients tell every five."""

    minute: float = 60
    day: float = 86400

    def set(self, text: str) -> str:
        """The text with its durations filled in."""
        return _DURATION.sub(self._filled, text)

    def _filled(self, match: "re.Match[str]") -> str:
        number, unit, as_seconds = match.groups()
        if self == Clock() and not as_seconds:
            return f"{number}{unit}"
        lasts = {"s": 1.0, "m": self.minute, "h": 60 * self.minute, "d": self.day}
        seconds = round(int(number) * lasts[unit])
        return str(seconds) if as_seconds else f"{seconds}s"


@dataclass(frozen=True)
class Alert:
    """A rule. lasts: for how long the expression has to hold, `5m`. says: one line for whoever is woken."""

    name: str
    severity: Literal["critical", "warning"]
    lasts: str
    says: str
    expression: str


@dataclass(frozen=True)
class Recorded:
    """A series that rules and dashboards compare with."""

    name: str
    expression: str


# By model version, as a new model is meant to score otherwise; over an hour, as fields differ between exposures, and of
# 500 alerts or more, as a field of few is no drift; against the six days that ended a day ago, so that a drift does not
# become what it is compared with. An instance counts once its model is an hour old: counters don't say which scored.
_MODEL = "max by (cluster, group, instance, version) (rbstream_model_info%s)"
_BY_VERSION = f"* on (cluster, group, instance) group_left (version) ({_MODEL % ''} and {_MODEL % ' offset <1h>'})"
_SCORED = f"(sum by (cluster, group, version) (increase(rbstream_drb_count[<1h>]) {_BY_VERSION}) > 500)"
# Less than an hour of such samples is nothing to compare with; a rule is looked at every minute, or more often.
_BEFORE = "(avg_over_time({0}[<6d>] offset <1d>) and count_over_time({0}[<6d>] offset <1d>) >= 60)"


def _compared(bound: str) -> str:
    """Alerts whose score is above upstream's by that at most."""
    return (
        "sum by (cluster, group, version)"
        f' (increase(rbstream_drb_difference_bucket{{le="{bound}"}}[<1h>]) {_BY_VERSION})'
    )


RECORDED = (
    Recorded(
        "rbstream:drb_mean",
        f"sum by (cluster, group, version) (increase(rbstream_drb_sum[<1h>]) {_BY_VERSION}) / {_SCORED}",
    ),
    Recorded(
        "rbstream:drb_disagreement",
        f"1 - ({_compared('0.5')} - {_compared('-0.5')}) / ({_compared('+Inf')} > 500)",
    ),
    Recorded("rbstream:drb_drift", f"abs(rbstream:drb_mean - {_BEFORE.format('rbstream:drb_mean')})"),
    Recorded(
        "rbstream:drb_disagreement_drift",
        f"abs(rbstream:drb_disagreement - {_BEFORE.format('rbstream:drb_disagreement')})",
    ),
)

# What is a site's own: its source's Kafka and consumer group, the topics that it reads, half of their retention, its
# hours of observing. The chart puts its values in the place of these.
CLUSTER, GROUP, TOPICS, OVERDUE = "kafka", "rbstream", "ztf_[0-9]+_programid1", "84h"
OBSERVING = "vector(1) and on () (hour() >= 2 and hour() < 13)"

_P = "(cluster, topic, partition)"
_OF = f'cluster="{CLUSTER}"'
# Two exporters may tell of one partition, two workers of one that has moved.
_END = f'max by {_P} (kafka_topic_partition_current_offset{{{_OF}, topic=~"{TOPICS}"}}%s)'
_OLDEST = f'max by {_P} (kafka_topic_partition_oldest_offset{{{_OF}, topic=~"{TOPICS}"}})'
_BY_GROUP = f'{{{_OF}, consumergroup="{GROUP}", topic=~"{TOPICS}"}}'
_COMMITTED = f"max by {_P} (kafka_consumergroup_current_offset{_BY_GROUP} >= 0)"
_WORKERS = f'max by {_P} (rbstream_%s_offset{{{_OF}, group="{GROUP}"}}%s)'
_THEN = f" offset {OVERDUE}"


def _overdue(end: str, committed: str) -> str:
    """What was there then, and is not committed now; not of topics that were made anew since, which end before."""
    then = end % _THEN
    return f"sum by (cluster, topic) (clamp_min({then} - {committed}, 0) and {end % ''} >= {then})"


SITE = (
    Recorded("rbstream:observing", OBSERVING),
    # Of partitions that no worker tells of: those know better, and the group at the source may trail, or not be there.
    # Where the group has committed nothing (kafka-exporter: -1, or no series), all that is there is to be read.
    Recorded(
        "rbstream:outside_lag_messages",
        f"(clamp_min(max by {_P} (kafka_consumergroup_lag{_BY_GROUP}), 0) and on {_P} {_COMMITTED}"
        f" or on {_P} ({_END % ''} - {_OLDEST})) unless on {_P} {_WORKERS % ('committed', '')}",
    ),
    Recorded("rbstream:outside_committed_offset", _COMMITTED),
    Recorded(
        "rbstream:overdue_messages",
        _overdue(_WORKERS.replace("%s", "end", 1), _WORKERS % ("committed", "")),
    ),
    Recorded(
        "rbstream:outside_overdue_messages",
        _overdue(_END, f"({_WORKERS % ('committed', '')} or on {_P} {_COMMITTED} or on {_P} {_OLDEST})"),
    ),
)

_READY = "max by (cluster, group) (rbstream_ready) == 1"
_LAG = "sum by (cluster, group) (rbstream_consumer_lag_messages)"
_SILENCE = "max by (cluster, group) (rbstream_kafka_silence_seconds)"
_BY_PARTITION = "(cluster, group, topic, partition)"

ALERTS = (
    # A day: whoever was scraped in the last one is meant to be there. Ten minutes: as long as a GPU's first start.
    Alert(
        "RbstreamNoReadyWorker", "critical", "10m",
        "No worker of group {{ $labels.group }} is ready",
        "group by (cluster, group) (last_over_time(rbstream_ready[<1d>]))"
        f" unless on (cluster, group) ({_READY})",
    ),
    # By partition, as one that stands still is hidden by the others; from inside, and from outside by kafka-exporter: a
    # dead worker exports nothing.
    Alert(
        "RbstreamStalled", "critical", "10m",
        "There are alerts in {{ $labels.topic }}, and group {{ $labels.group }} commits none of a partition",
        "group by (cluster, group, topic) ("
        f"max by {_BY_PARTITION} (rbstream_consumer_lag_messages) > 0 unless on {_BY_PARTITION}"
        f" (max by {_BY_PARTITION} (delta(rbstream_committed_offset[<10m>])) > 0)"
        f" or rbstream:outside_lag_messages > 0 unless on {_BY_PARTITION}"
        " (delta(rbstream:outside_committed_offset[<10m>]) > 0))",
    ),
    # Only within the hours of observing that rbstream:observing says, and not for what was before they began: nights
    # have ends, and days.
    Alert(
        "RbstreamSourceSilent", "warning", "15m",
        "Nothing new at the source of group {{ $labels.group }}, in the hours of observing",
        f"({_READY}) and on (cluster, group) (rbstream:observing == 1)"
        " and on (cluster, group) (rbstream:observing offset <15m> == 1)"
        " unless on (cluster, group) (sum by (cluster, group) (rate(rbstream_consumed_messages_total[<15m>])) > 0)"
        f" unless on (cluster, group) ({_LAG} > 0) unless on (cluster, group) ({_SILENCE} > 30)",
    ),
    # Six times as long as a client that is well is silent at most: it hears from a broker every five seconds.
    Alert(
        "RbstreamKafkaAway", "critical", "1m",
        "A worker of group {{ $labels.group }} hears from no broker ({{ $labels.client }})",
        "max by (cluster, group, client) (rbstream_kafka_silence_seconds) > 30",
    ),
    # More than a quarter of an hour's work, and more of it all the time.
    Alert(
        "RbstreamLagGrowing", "warning", "15m",
        "Group {{ $labels.group }} is {{ $value | humanize }} messages behind, and falls further behind",
        f"{_LAG} > <15m as seconds> * (sum by (cluster, group) (rate(rbstream_alerts_total[<15m>])) > 0)"
        f" and on (cluster, group) (deriv({_LAG}[<15m>:<1m>]) > 0)",
    ),
    Alert(
        "RbstreamLagNearRetention", "critical", "5m",
        "{{ $value | humanize }} messages of {{ $labels.topic }} wait since half of its retention: Kafka will delete"
        " them",
        "rbstream:overdue_messages > 0 or rbstream:outside_overdue_messages > 0",
    ),
    # A quarter of rejects.max_ratio, at which a worker stops. While alerts come: a window keeps a night's end.
    Alert(
        "RbstreamRejecting", "warning", "5m",
        "{{ $value | humanizePercentage }} of a partition of {{ $labels.topic }} is rejected; workers stop at"
        " rejects.max_ratio",
        "max by (cluster, group, topic) (rbstream_reject_ratio) > 0.05"
        " and on (cluster, group, topic) (sum by (cluster, group, topic) (rate(rbstream_alerts_total[<30m>])) > 0)",
    ),
    # Far from the 0.15 s that a worker takes that keeps up, and from any pause that mends itself.
    Alert(
        "RbstreamLatencyHigh", "warning", "10m",
        "One alert in a hundred takes {{ $value | humanizeDuration }} or more from Kafka to its commit",
        "histogram_quantile(0.99, sum by (cluster, group, le) (rate(rbstream_latency_seconds_bucket[<10m>]))) > 10",
    ),
    # Twice may be a deployment that was corrected.
    Alert(
        "RbstreamRestarting", "warning", "0m",
        "A worker of group {{ $labels.group }} ends and starts again: {{ $value }} times in an hour",
        "max by (cluster, group) (changes(process_start_time_seconds[<1h>])"
        " and on (cluster, group, instance) last_over_time(rbstream_build_info[<1h>])) > 2",
    ),
    # An abort costs what its alerts cost; one in ten is no hiccup any more, and five are none on a quiet day.
    Alert(
        "RbstreamTransactionsAborting", "warning", "10m",
        "{{ $value | humanizePercentage }} of the transactions of group {{ $labels.group }} are aborted",
        'sum by (cluster, group) (rate(rbstream_transactions_total{outcome="aborted"}[<15m>]))'
        " / (sum by (cluster, group) (rate(rbstream_transactions_total[<15m>])) > 0) > 0.1 and on (cluster, group)"
        ' (sum by (cluster, group) (increase(rbstream_transactions_total{outcome="aborted"}[<15m>])) > 5)',
    ),
    # The GPU that scores and does nothing, and (by kube-state-metrics) the GPU of a pod that scores on its CPU.
    Alert(
        "RbstreamGpuUnused", "warning", "15m",
        "{{ $labels.instance }} has a GPU and does not use it",
        "(max by (cluster, group, instance) (max_over_time(rbstream_gpu_utilization_ratio[<15m>])) == 0"
        " and on (cluster, group, instance)"
        " (sum by (cluster, group, instance) (rate(rbstream_alerts_total[<15m>])) > 0))"
        ' or (max by (cluster, group, instance, namespace, pod) (rbstream_model_info{device="cpu"}) == 1'
        ' and on (namespace, pod) (kube_pod_container_resource_requests{resource=~"nvidia_com_.+"} > 0))',
    ),
    # The thresholds are guesses: nobody had a season of nights when they were chosen.
    Alert(
        "RbstreamScoreDrift", "warning", "30m",
        "Scores of {{ $labels.version }} in the last hour are not those of the last days: off by"
        ' {{ $value | printf "%.2f" }}',
        "rbstream:drb_drift > 0.15 or rbstream:drb_disagreement_drift > 0.1",
    ),
)  # fmt: skip


def rules(clock: Clock = Clock()) -> dict[str, Any]:
    """`rules.yaml`. clock: how long minutes and days last, for tests that can't wait."""
    recorded = [{"record": each.name, "expr": clock.set(each.expression)} for each in RECORDED]
    alerts = [_rule(alert, clock) for alert in ALERTS]
    return {"groups": [{"name": "rbstream", "rules": recorded}, {"name": "rbstream-alerts", "rules": alerts}]}


def _rule(alert: Alert, clock: Clock) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": clock.set(alert.expression),
        "for": clock.set(f"<{alert.lasts}>"),
        "labels": {"severity": alert.severity},
        "annotations": {"summary": alert.says, "runbook_url": f"{RUNBOOK}#{alert.name.lower()}"},
    }


def site(clock: Clock = Clock()) -> dict[str, Any]:
    """`site.yaml`: recorded under the labels `cluster` and `group`, so that several sites' don't get mixed up."""
    labels = {"cluster": CLUSTER, "group": GROUP}
    recorded = [{"record": each.name, "expr": clock.set(each.expression), "labels": dict(labels)} for each in SITE]
    return {"groups": [{"name": "rbstream-site", "rules": recorded}]}


def expressions() -> Iterator[str]:
    """All of the rules', for whoever looks which series are used."""
    for each in (*RECORDED, *SITE, *ALERTS):
        yield each.expression
