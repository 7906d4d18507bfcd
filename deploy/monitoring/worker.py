"""The page for the workers: where does their time go, and what do they wait for?"""

from monitoring.panels import CHOSEN as _G
from monitoring.panels import RATE as _RATE
from monitoring.panels import Dashboard, Panel, Query, Row

# Outside Kubernetes there is no pod.
_WHO = "{{pod}} {{instance}}"


def _mean(name: str, by: str) -> str:
    total, count = (f"sum by ({by}) (rate(rbstream_{name}_{part}{{{_G}}}{_RATE}))" for part in ("sum", "count"))
    return f"{total} / ({count} > 0)"


WORKER = Dashboard(
    "Worker",
    "Where does the workers' time go, and what do they wait for?",
    "now-3h",
    (
        Row("Stages and batches", (
            Panel(
                "Time of a stage", "lines", "s",
                "Mean time of decoding, scoring and encoding a micro-batch, and of delivering a transaction.",
                "deliver: the sink's Kafka is slow, or far. score: a busy node, no GPU, or a heavier model. decode:"
                " larger packets.",
                (Query(_mean("stage_seconds", "stage"), "{{stage}}"),),
            ),
            Panel(
                "Busiest worker", "lines", "percentunit",
                "Share of its time that the busiest worker spends in each stage; decoding and scoring run beside the"
                " loop.",
                "decode + score near 1: this worker can't do more; add workers. deliver near 1: larger batches"
                " (`batch.max_alerts`), or a nearer Kafka.",
                (Query(
                    f"max by (stage) (sum by (instance, stage) (rate(rbstream_stage_seconds_sum{{{_G}}}{_RATE})))",
                    "{{stage}}",
                ),),
            ),
            Panel(
                "Slowest deliveries", "lines", "s",
                "Time to write and commit a transaction, all but one in a hundred.",
                "Seconds: the sink's brokers elect, restart, or have a full disk; look there.",
                (Query(
                    "histogram_quantile(0.99, sum by (pod, instance, le) (rate(rbstream_stage_seconds_bucket"
                    f'{{{_G}, stage="deliver"}}{_RATE})))', _WHO
                ),),
                levels=(1, 10),
            ),
            Panel(
                "Alerts in a batch", "lines", "suffix: alerts",
                "Mean size of the micro-batches. Near `batch.max_alerts` (32) there is a backlog; small ones are a"
                " quiet stream.",
                "Always at the most, and the lag rises: add workers; on a GPU, larger batches.",
                (Query(_mean("batch_alerts", "pod, instance"), _WHO),),
            ),
            Panel(
                "Wait for a batch", "lines", "s",
                "Time from a batch's first message to its closing, all but one in a hundred. `batch.max_delay`: 0.1 s.",
                "Well above `batch.max_delay`: the loop came late, as it was delivering, or the CPU is throttled.",
                (Query(
                    "histogram_quantile(0.99, sum by (pod, instance, le) (rate(rbstream_batch_wait_seconds_bucket"
                    f"{{{_G}}}{_RATE})))", _WHO
                ),),
            ),
            Panel(
                "Queues", "lines", "suffix: batches",
                "Micro-batches that wait to be scored, and that are scored and wait to be delivered.",
                "waiting at `batch.queue` (8): scoring is what limits. scored: the sink is.",
                (Query(f"sum by (queue) (rbstream_queue_batches{{{_G}}})", "{{queue}}"),),
            ),
        )),
        Row("Kafka", (
            Panel(
                "Transactions", "stack", "suffix: transactions/s",
                "Transactions by how they ended. What was aborted is read and written again: nothing is lost or twice.",
                "More than a few aborted: runbook, RbstreamTransactionsAborting.",
                (Query(f"sum by (outcome) (rate(rbstream_transactions_total{{{_G}}}{_RATE}))", "{{outcome}}"),),
            ),
            Panel(
                "Uncommitted", "lines", "suffix: alerts",
                "Alerts that were read and are not committed yet, by worker.",
                "Flat, above 0, while nothing is committed: stuck; `kubectl logs` has the stacks after"
                " `health.stuck_after`.",
                (Query(f"sum by (pod, instance) (rbstream_uncommitted_alerts{{{_G}}})", _WHO),),
            ),
            Panel(
                "Partitions", "lines", "suffix: partitions",
                "Partitions of each worker. Kafka shares them out by number, not by load.",
                "0 for long: more workers than partitions. All with one worker: the others are not in the group.",
                (Query(f"sum by (pod, instance) (rbstream_assigned_partitions{{{_G}}})", _WHO),),
            ),
            Panel(
                "Rebalances and rewinds", "stack", "short",
                "Assignments that changed, by event, and times that a worker went back to what is committed, in the"
                " last 10 minutes.",
                "lost: the session timed out, as CPU or network stood still. Many: pods that come and go; use static"
                " membership.",
                (
                    Query(f"sum by (event) (increase(rbstream_rebalances_total{{{_G}}}[10m]))", "{{event}}"),
                    Query(f"sum(increase(rbstream_rewinds_total{{{_G}}}[10m]))", "rewinds"),
                ),
            ),
            Panel(
                "Silence of Kafka", "lines", "s",
                "Time since a worker knew last that a broker answers, the worst one's, by client.",
                "More than half a minute: runbook, RbstreamKafkaAway.",
                (Query(f"max by (client) (rbstream_kafka_silence_seconds{{{_G}}})", "{{client}}"),), levels=(15, 30),
            ),
            Panel(
                "Errors of Kafka's clients", "stack", "short",
                "What librdkafka told of in the last 10 minutes, by client and name.",
                "A handful, when brokers restart, is usual. _AUTHENTICATION, _SSL, TOPIC_AUTHORIZATION_FAILED: rights"
                " or certificates.",
                (Query(
                    f"sum by (client, error) (increase(rbstream_kafka_errors_total{{{_G}}}[10m]))",
                    "{{client}} {{error}}",
                ),),
            ),
        )),
        Row("Process", (
            Panel(
                "Memory", "lines", "bytes",
                "Resident memory. Flat after the first backlog; the log's `largest_memory_bytes` is what alerts may"
                " take.",
                "Near the pod's limit: raise it, or lower `source.prefetch` and `batch.queue` (docs/operate.md, size).",
                (Query(f"sum by (pod, instance) (process_resident_memory_bytes{{{_G}}})", _WHO),),
            ),
            Panel(
                "CPU", "lines", "suffix: cores",
                "Cores in use. One core is what a worker can use; more workers use more.",
                "At the pod's CPU limit: under 1 it throttles scoring and heartbeats alike; set requests, no limit.",
                (Query(f"sum by (pod, instance) (rate(process_cpu_seconds_total{{{_G}}}{_RATE}))", _WHO),),
            ),
            Panel(
                "Open files", "lines", "short",
                "Open files and connections of a worker.",
                "Rising without end: a leak; restart it, and file an issue with the log.",
                (Query(f"sum by (pod, instance) (process_open_fds{{{_G}}})", _WHO),),
            ),
            Panel(
                "Age", "lines", "s",
                "Time since a worker started.",
                "Saw teeth: it ends and starts again; runbook, RbstreamRestarting.",
                (Query(f"time() - max by (pod, instance) (process_start_time_seconds{{{_G}}})", _WHO),),
            ),
            Panel(
                "GPU memory", "lines", "bytes",
                "Memory of the GPU that scores: in use, and there is. Empty where the CPU scores.",
                "In use near all there is: somebody shares this GPU; smaller `batch.max_alerts`, or another one.",
                (Query(f"max by (pod, instance, kind) (rbstream_gpu_memory_bytes{{{_G}}})", f"{_WHO} {{{{kind}}}}"),),
            ),
            Panel(
                "GPU in use", "lines", "percentunit",
                "Share of time that the GPU was busy. Empty where the CPU scores, or without the extra `gpu`.",
                "0 while alerts flow: runbook, RbstreamGpuUnused. 1: share it among fewer workers.",
                (Query(f"max by (pod, instance) (rbstream_gpu_utilization_ratio{{{_G}}})", _WHO),),
            ),
            Panel(
                "Builds", "table", "short",
                "What runs: version and revision of every worker.",
                "Two versions for long: a rollout that stands still; `kubectl rollout status`.",
                (Query(
                    f"max by (cluster, group, pod, instance, version, revision, python) (rbstream_build_info{{{_G}}})"
                ),),
            ),
        )),
    ),
)  # fmt: skip
