"""The page for the model: does it still score as it did, and as upstream does?"""

from monitoring.panels import CHOSEN as _G
from monitoring.panels import RATE as _RATE
from monitoring.panels import Dashboard, Panel, Query, Row

# Two models may be at work while one is rolled out.
_VERSION = f"* on (cluster, group, instance) group_left (version) rbstream_model_info{{{_G}}}"


def _by_version(series: str, by: str = "version") -> str:
    """The rate of a counter, by version of the model that counted."""
    return f"sum by ({by}) (rate({series}{_RATE}) {_VERSION})"


def _share(name: str) -> str:
    return f"{_by_version(f'{name}{{{_G}}}')} / ({_by_version(f'rbstream_drb_count{{{_G}}}')} > 0)"


def _beyond(bound: str) -> str:
    """Share of the compared alerts whose score is further from upstream's than that."""
    under, over, every = (
        _by_version(f'rbstream_drb_difference_bucket{{{_G}, le="{le}"}}') for le in (f"-{bound}", bound, "+Inf")
    )
    return f"1 - ({over} - {under}) / ({every} > 0)"


def _quantile(share: float) -> str:
    return f"histogram_quantile({share}, {_by_version(f'rbstream_drb_bucket{{{_G}}}', 'version, le')})"


MODEL = Dashboard(
    "Model",
    "Does the model still score as it did, and as upstream does?",
    "now-2d",
    (
        Row("Which model", (
            Panel(
                "Models at work", "table", "short",
                "The model of every worker: version, checksum, device, precision.",
                "Two versions for long: a rollout that stands still. `cpu` on a node with a GPU: runbook,"
                " RbstreamGpuUnused.",
                (Query(
                    "max by (cluster, group, pod, instance, name, version, sha256, device, precision)"
                    f" (rbstream_model_info{{{_G}}})"
                ),),
            ),
            Panel(
                "Scored", "stack", "suffix: alerts/s",
                "Alerts scored a second, by version of the model.",
                "Nothing while alerts come: all are rejected; page Night.",
                (Query(_by_version(f"rbstream_drb_count{{{_G}}}"), "{{version}}"),),
            ),
        )),
        Row("Scores", (
            Panel(
                "Mean drb", "lines", "none",
                "Mean score, by version of the model.",
                "A step without a new version: the input changed (another field, a bad flat, moonlight), or a wrong"
                " model under the same name: compare the checksum.",
                (Query(_share("rbstream_drb_sum"), "{{version}}"),),
            ),
            Panel(
                "Spread of drb", "lines", "none",
                "The score under which one alert in ten, half of them, and nine in ten are.",
                "All three together: the model gives everything the same score; `rbstream model verify`, then look at"
                " cutouts.",
                tuple(Query(_quantile(share), f"{{{{version}}}} {share:g}") for share in (0.1, 0.5, 0.9)),
            ),
            Panel(
                "Drift", "lines", "none",
                "How far the last hour's mean score is from that of the six days that ended a day ago, by version."
                " Empty on a model's first day.",
                "Above 0.15 for half an hour: runbook, RbstreamScoreDrift.",
                (Query(f"rbstream:drb_drift{{{_G}}}", "{{group}} {{version}}"),),
                levels=(0.1, 0.15),
            ),
        )),
        Row("Against upstream", (
            Panel(
                "Not upstream's score", "lines", "percentunit",
                "Share of the alerts that came with a score whose own is further away than 0.001, 0.1, 0.5.",
                "The same network agrees to 0.001 (bfloat16: 0.01). Another one does not; then only changes tell.",
                tuple(Query(_beyond(bound), f"{{{{version}}}} > {bound}") for bound in ("0.001", "0.1", "0.5")),
            ),
            Panel(
                "drb minus upstream's", "heatmap", "short",
                "Alerts by how far their score is from the one that they came with.",
                "A second band: two kinds of packets, or two models upstream.",
                (Query(f"sum by (le) (increase(rbstream_drb_difference_bucket{{{_G}}}{_RATE}))", "{{le}}"),),
            ),
            Panel(
                "Disagreement in the last hour", "lines", "percentunit",
                "Share of alerts whose score is on the other side: 0.5 or more from upstream's.",
                "Rising: one of the two has changed; look at `drbversion_upstream` in what passed.",
                (Query(f"rbstream:drb_disagreement{{{_G}}}", "{{group}} {{version}}"),),
            ),
        )),
        Row("What the stamps are like", (
            Panel(
                "Masked", "lines", "percentunit",
                "Share of scored alerts with a NaN pixel in the triplet. ZTF: about 0.14.",
                "A step: another reference, a dead amplifier, or a saturated field.",
                (Query(_share("rbstream_masked_alerts_total"), "{{version}}"),),
            ),
            Panel(
                "At the chip's edge", "lines", "percentunit",
                "Share of scored alerts with a stamp that the edge cuts short. ZTF: about 0.01.",
                "A step: upstream cuts its stamps otherwise.",
                (Query(_share("rbstream_edge_alerts_total"), "{{version}}"),),
            ),
            Panel(
                "drb, as time goes", "heatmap", "short",
                "Alerts by score and time.",
                "Bands that move together with Masked or the edge: the input, not the model.",
                (Query(f"sum by (le) (increase(rbstream_drb_bucket{{{_G}}}{_RATE}))", "{{le}}"),),
            ),
        )),
    ),
)  # fmt: skip
