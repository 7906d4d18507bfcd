"""Writes what of the chart is made from declarations: `python deploy/chart/generate.py`. A test says when it drifts.

From rbstream's settings: the schema of `config`, and the defaults that templates read. From the comments of
values.yaml: the schema of all other values, and the table in README.md.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rbstream import dotted
from rbstream.kafka.properties import MAX_POLL_INTERVAL_MS
from rbstream.settings import Settings

CHART = Path(__file__).parent / "rbstream"

Schema = dict[str, Any]

_HEAD = """# rbstream's Helm chart

Made by `deploy/chart/generate.py`, the table from the comments in `values.yaml`; edit those.

    helm install night deploy/chart/rbstream -n alerts -f my-values.yaml

Needs Helm 3 or 4. Start from one of [examples](examples): [a CPU cluster](examples/cpu.yaml), [a GPU
node](examples/gpu.yaml), [a survey's Kafka to your own](examples/survey.yaml), [a rehearsal](examples/rehearsal.yaml).

- `config` is the tree of `rbstream.toml` ([all settings](../../../docs/settings.md)), checked against rbstream's own
  schema. A change rolls the workers, one after the other.
- Secrets are only named. Each key of a Secret in `secrets` is a setting, e.g. `source.properties.sasl.password`; what
  looks like a secret in `config` is refused. A Secret that changes needs `kubectl rollout restart`.
- Each pod is called by its namespace and name: among the members of its group, and for its transactions. So
  `source.instance_id` and `sink.transactional_id` can't be set.
- `batch.max_delay` < `shutdown.drain` < `max.poll.interval.ms`, or it is refused; `terminationGracePeriodSeconds` is
  the drain and 10 s.
- `autoscaling` wants KEDA, `podMonitor` and `rules` the Prometheus operator, `dashboards` Grafana's sidecar. KEDA looks
  at one topic where `config.source.topics` is one plain name, else at all topics that the group has committed in.
- rbstream makes no topics: those of `config.sink` have to be there.

"""
_TYPES: dict[str, Schema] = {
    "text": {"type": "string"},
    "true or false": {"type": "boolean"},
    "whole number": {"type": "integer", "minimum": 0},
    "number": {"type": "number", "minimum": 0},
    "list": {"type": "array"},
    "table": {"type": "object"},
    "null": {"type": "null"},
}
_INFERRED = {str: "text", bool: "true or false", int: "whole number"}
# What a type alone doesn't say, by the value's name.
_NARROWER: dict[str, Schema] = {
    "secrets": {
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string", "minLength": 1}, "items": {"type": "array"}},
            "additionalProperties": False,
        }
    },
    "image.digest": {"pattern": "^(sha256:[0-9a-f]{64})?$"},
    "gpu.count": {"minimum": 1},
    "probes.startup.seconds": {"minimum": 1},
    # No workers at all: no metrics, alerts go off, and after some days the group's offsets are gone.
    "autoscaling.minReplicaCount": {"minimum": 1},
    "autoscaling.lagThreshold": {"minimum": 1},
    "autoscaling.cooldownPeriod": {"maximum": 3600},  # what Kubernetes takes for a stabilization window
    "rules.overdue": {"pattern": "^([0-9]+(ms|s|m|h|d|w|y))+$"},
    "podMonitor.interval": {"pattern": "^([0-9]+(ms|s|m|h|d|w|y))+$"},
    "rehearsal.night": {"pattern": "^/nights(/|$)"},
    "rehearsal.rate": {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"enum": ["realtime", None]}]},
}


@dataclass(frozen=True)
class Value:
    """A documented value of the chart. default: as values.yaml has it."""

    name: str
    type: str
    default: Any
    description: str


def values() -> Iterator[Value]:
    """Every value that has a line `# -- (type) what it is`, from the comments of values.yaml."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    tree, path, said = yaml.safe_load(text), list[tuple[int, str]](), None
    for line in text.splitlines():
        if comment := re.fullmatch(r"\s*# -- (?:\(([^)]*)\) )?(.+)", line):
            said = comment
        elif key := re.match(r"( *)(\w+):", line):
            indent = len(key[1])
            path = [*((at, name) for at, name in path if at < indent), (indent, key[2])]
            if said is not None:
                names = [name for _, name in path]
                default = tree
                for name in names:
                    default = default[name]
                yield Value(".".join(names), said[1] or _INFERRED[type(default)], default, said[2])
                said = None


def schema() -> Schema:
    """values.schema.json: draft 7, which validators of both Helm 3 and 4 take."""
    whole = _table("Values of rbstream's chart", {})
    whole = {"$schema": "http://json-schema.org/draft-07/schema#", **whole}
    for value in values():
        *groups, last = value.name.split(".")
        table = whole
        for group in groups:
            table = table["properties"].setdefault(group, _table("", {}))
        table["properties"][last] = _config() if value.name == "config" else _schema_of(value)
    whole["properties"]["global"] = {"type": "object", "description": "Of a chart that has this one in it; not used"}
    return whole


def defaults() -> dict[str, Any]:
    """rbstream's defaults by dotted name, for the templates; null is none. Not those that depend on the machine."""
    known = dotted.leaves(Settings().model_dump(mode="json"))
    named = {name: value for name, value in known.items() if not dotted.declared(name).default_factory}
    return {**named, "source.properties.max.poll.interval.ms": MAX_POLL_INTERVAL_MS}


def files() -> dict[str, str]:
    """By path in the chart, all that is made."""
    return {
        "values.schema.json": json.dumps(schema(), indent=1) + "\n",
        "files/defaults.json": json.dumps(defaults(), indent=1) + "\n",
        "README.md": _HEAD + "\n".join(_rows()) + "\n",
    }


def _table(description: str, properties: Schema) -> Schema:
    said = {"description": description} if description else {}
    return {**said, "type": "object", "additionalProperties": False, "properties": properties}


def _schema_of(value: Value) -> Schema:
    narrower = _NARROWER.get(value.name, {})
    if "anyOf" in narrower:
        return {"description": value.description, **narrower}
    names = [value.type] if value.type in _TYPES else re.split(", | or ", value.type)
    if not set(names) <= _TYPES.keys():
        return {"description": value.description, "enum": names}
    merged: Schema = {}
    for each in map(_TYPES.__getitem__, names):
        merged |= each
    types = [_TYPES[name]["type"] for name in names]
    return {"description": value.description, **merged, "type": types if len(types) > 1 else types[0], **narrower}


def _config() -> Schema:
    """rbstream's own schema, without the references: what stands beside one has no meaning in draft 7."""
    whole = Settings.model_json_schema()
    return dict(_resolved(whole, whole["$defs"]), description="The tree of rbstream.toml")


def _resolved(schema: Any, shared: Schema) -> Any:
    """With what is referred to in its place, and without titles, which are names once more, and defaults, of which the
    templates have their own."""
    if isinstance(schema, list):
        return [_resolved(each, shared) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _resolved(shared[schema["$ref"].removeprefix("#/$defs/")], shared)
    return {
        # The names of settings are not keywords.
        name: {each: _resolved(one, shared) for each, one in below.items()}
        if name == "properties"
        else _resolved(below, shared)
        for name, below in schema.items()
        if name not in ("$defs", "title", "default")
    }


def _rows() -> Iterator[str]:
    yield "| value | type | default | what it is |"
    yield "|---|---|---|---|"
    for value in values():
        default = value.default if isinstance(value.default, str) else json.dumps(value.default)
        shown = f"`{default}`" if default else ""
        yield f"| `{value.name}` | {value.type} | {shown} | {value.description} |"


def main() -> None:
    """Write them all."""
    for name, text in files().items():
        (CHART / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
