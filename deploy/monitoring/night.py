"""The page for the night: is the stream flowing, and what becomes of it?"""

from monitoring.panels import CHOSEN as _G
from monitoring.panels import RATE as _RATE
from monitoring.panels import Dashboard, Panel, Query, Row

# Of one input topic's series.
_T = f'{_G}, topic=~"$topic"'
# Of several workers that were asked at slightly different times, one may still own a partition that moved.
_BY_PARTITION = "max by (cluster, group, topic, partition)"


def _quantile(share: float) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate(rbstream_latency_seconds_bucket{{{_G}}}{_RATE})))"


NIGHT = Dashboard(
    "Night",
    "Is the stream flowing, and what becomes of it?",
    "now-12h",
    (
        Row("Is it flowing?", (
            Panel(
                "Workers ready", "stat", "short",
                "Workers that say they are ready: model verified, partitions assigned.",
                "`kubectl get pods`; the log of one that isn't says why. None ready: runbook, RbstreamNoReadyWorker.",
                (Query(f"sum(rbstream_ready{{{_G}}})"),), levels=(2, 1),
            ),
            Panel(
                "Alerts scored and committed", "stat", "suffix: alerts/s",
                "Alerts committed a second: every one that came in gets a verdict, and counts when it is committed.",
                "0 in the hours of observing: is the lag 0 too? Then nothing comes; ask upstream. Else runbook,"
                " RbstreamStalled.",
                (Query(f"sum(rate(rbstream_alerts_total{{{_T}}}{_RATE}))"),),
            ),
            Panel(
                "Lag", "stat", "suffix: messages",
                "Messages at the source that are not committed yet, over all partitions that somebody owns.",
                "Rising for more than a few minutes: add workers, up to the number of partitions; runbook,"
                " RbstreamLagGrowing.",
                (Query(f"sum({_BY_PARTITION} (rbstream_consumer_lag_messages{{{_T}}}))"),), levels=(1000, 10000),
            ),
            Panel(
                "Latency, 99 in 100", "stat", "s",
                "From a message's Kafka timestamp to the commit of its results, for all but one alert in a hundred.",
                "High with a lag: runbook, RbstreamLatencyHigh. High without: the source's timestamps, or its clock.",
                (Query(_quantile(0.99)),), levels=(1, 10),
            ),
            Panel(
                "Rejected, last hour", "stat", "percentunit",
                "Share of alerts that could not be scored: malformed packets. They are in the dead letters.",
                "`rbstream dlq ls` says of which reason; runbook, RbstreamRejecting.",
                (Query(
                    f'(sum(increase(rbstream_alerts_total{{{_T}, verdict="rejected"}}[1h])) or vector(0))'
                    f" / sum(increase(rbstream_alerts_total{{{_T}}}[1h]))"
                ),),
                levels=(0.01, 0.05),
            ),
            Panel(
                "Firing", "stat", "suffix: alert rules",
                "Alert rules that fire now for these groups.",
                "Each of them has a section in the runbook, under its name.",
                (Query(f'count(ALERTS{{alertname=~"Rbstream.+", alertstate="firing", {_G}}}) or vector(0)'),),
                levels=(1, 2),
            ),
        )),
        Row("In, behind, out", (
            Panel(
                "Read", "stack", "suffix: messages/s",
                "Messages read, by source topic; those of an aborted transaction are read and counted again.",
                "Nothing in the hours of observing: is the topic of tonight there (`rbstream offsets show`)? New ones"
                " that match are found within a minute.",
                (Query(f"sum by (topic) (rate(rbstream_consumed_messages_total{{{_T}}}{_RATE}))", "{{topic}}"),),
            ),
            Panel(
                "Verdicts", "stack", "suffix: alerts/s",
                "Alerts committed by what became of them: passed, filtered (scored too low) or rejected.",
                "All filtered: has the threshold or the model changed (page Model)? Rejected: see below.",
                (Query(f"sum by (verdict) (rate(rbstream_alerts_total{{{_T}}}{_RATE}))", "{{verdict}}"),),
            ),
            Panel(
                "Written", "stack", "suffix: messages/s",
                "Messages written and committed, by route: main, named routes, scores, dead_letters.",
                "A route that is empty while alerts pass: its `where` or threshold; `rbstream config show`.",
                (Query(f"sum by (route) (rate(rbstream_messages_total{{{_G}}}{_RATE}))", "{{route}}"),),
            ),
            Panel(
                "Lag by topic", "lines", "suffix: messages",
                "Messages not committed yet: as the workers see it; from outside, by kafka-exporter, of partitions that"
                " no worker tells of.",
                "From outside: nobody owns those partitions, workers are dead. Else, rising: too few workers, or one"
                " that is stuck (page Worker). An old topic's: it will be read; narrow `source.topics` if not.",
                (
                    Query(f"sum by (topic) ({_BY_PARTITION} (rbstream_consumer_lag_messages{{{_T}}}))", "{{topic}}"),
                    Query(f"sum by (topic) (rbstream:outside_lag_messages{{{_T}}})", "{{topic}}, from outside"),
                ),
            ),
            Panel(
                "Latency", "lines", "s",
                "From Kafka timestamp to commit: half of the alerts, nine in ten, 99 in 100.",
                "With lag: they waited; see Lag. Without: a slow commit (page Worker, stages) or old timestamps.",
                tuple(Query(_quantile(share), f"{share:g}") for share in (0.5, 0.9, 0.99)),
            ),
            Panel(
                "Waiting too long", "lines", "suffix: messages",
                "Messages that have been at the source for half of its retention and are not committed: Kafka will"
                " delete them. As the workers see it, and from outside.",
                "Anything above 0 is urgent: runbook, RbstreamLagNearRetention.",
                (
                    Query(f"sum(rbstream:overdue_messages{{{_T}}})", "workers"),
                    Query(f"sum(rbstream:outside_overdue_messages{{{_T}}})", "from outside"),
                ),
                levels=(1, 1),
            ),
        )),
        Row("What is scored, what is not", (
            Panel(
                "Rejections by reason", "stack", "suffix: alerts/s",
                "Alerts that could not be scored, by reason (docs/rejections.md says what each means).",
                "One reason, suddenly: the survey changed its packets; `rbstream dlq show` explains one. A few, always:"
                " as usual.",
                (Query(
                    f'sum by (reason) (rate(rbstream_alerts_total{{{_T}, verdict="rejected"}}{_RATE}))', "{{reason}}"
                ),),
            ),
            Panel(
                "Worst partition's rejections", "lines", "percentunit",
                "Share of rejections in the last `rejects.window` alerts of a topic's worst partition. A worker stops"
                " at `rejects.max_ratio`, 0.2 as installed.",
                "On its way to 0.2: read the dead letters before it stops; runbook, RbstreamRejecting.",
                (Query(f"max by (topic) (rbstream_reject_ratio{{{_T}}})", "{{topic}}"),), levels=(0.05, 0.2),
            ),
            Panel(
                "Passed", "lines", "percentunit",
                "Share of all alerts that pass the filter, by source topic.",
                "A step: a new model, threshold or `where`. A drift: the fields of tonight, or the camera; page Model.",
                (Query(
                    f'sum by (topic) (rate(rbstream_alerts_total{{{_T}, verdict="passed"}}{_RATE}))'
                    f" / (sum by (topic) (rate(rbstream_alerts_total{{{_T}}}{_RATE})) > 0)",
                    "{{topic}}",
                ),),
            ),
            Panel(
                "drb, over the time shown", "bars", "short",
                "Alerts by score. Real ones crowd at 1, bogus ones at 0.",
                "Everything in one bar: the model gets something that it does not know; page Model.",
                (Query(f"sum by (le) (increase(rbstream_drb_bucket{{{_G}}}[$__range]))", "{{le}}"),),
            ),
            Panel(
                "drb, as the night goes", "heatmap", "short",
                "Alerts by score and time.",
                "A band that moves or breaks: exposures with something wrong, or another model; page Model.",
                (Query(f"sum by (le) (increase(rbstream_drb_bucket{{{_G}}}{_RATE}))", "{{le}}"),),
            ),
            Panel(
                "Bytes read", "lines", "Bps",
                "Bytes of messages read a second, by source topic. A ZTF packet has about 76 kB.",
                "Flat at a round number while the lag rises: the network, or a quota of the survey's Kafka.",
                (Query(f"sum by (topic) (rate(rbstream_consumed_bytes_total{{{_T}}}{_RATE}))", "{{topic}}"),),
            ),
        )),
    ),
)  # fmt: skip
