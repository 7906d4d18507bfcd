"""Names of topics, and the regular expressions that both of Kafka's group protocols understand alike.

The classic protocol matches in the client, by the C library's extended regular expressions, anywhere in the name; the
newer one (KIP-848) in the broker, by RE2/J, the whole name. What is allowed here means the same to both, and to Python.
"""

import re
from collections.abc import Iterable

LONGEST_NAME = 249  # Kafka's own limit
_NAME = re.compile(r"[a-zA-Z0-9._-]+", re.ASCII)
_ADVICE = {
    "(?": "look-arounds, flags and groups with (? are not shared by both matchers; use plain groups",
    "\\d": "write [0-9]", "\\D": "write [^0-9]", "\\w": "write [a-zA-Z0-9_]", "\\W": "write [.-]",
    "\\s": "names have no spaces", "\\S": "write .", "\\b": "name what stands there instead",
}  # fmt: skip
_TOKEN = re.compile(
    r"""(?P<atom>[a-zA-Z0-9_-] | \. | \\[._-] | \[\^?(?:[a-zA-Z0-9._]-[a-zA-Z0-9._] | [a-zA-Z0-9._])+-?\])
    | (?P<open>\((?!\?)) | (?P<close>\)) | (?P<or>\|) | (?P<repeat>[*+?] | \{[0-9]{1,3}(?:,(?:[0-9]{1,3})?)?\})""",
    re.VERBOSE | re.ASCII,
)
_MOST_REPEATS = 255  # the least that POSIX asks of a C library


def is_pattern(topic: str) -> bool:
    """Whether librdkafka takes it for a regular expression."""
    return topic.startswith("^")


def problem(topic: str) -> str | None:
    """What is wrong with the name of a topic, or with a pattern, and what to write instead; None where it is fine."""
    return _pattern_problem(topic) if is_pattern(topic) else name_problem(topic)


def name_problem(topic: str) -> str | None:
    """What is wrong with the name of a topic, None where it is fine."""
    if _NAME.fullmatch(topic) and topic not in (".", "..") and len(topic) <= LONGEST_NAME:
        return None
    return f"no name for a topic: Kafka's have 1 to {LONGEST_NAME} of a-z, A-Z, 0-9, '.', '_' and '-'"


def matches(topics: Iterable[str], name: str) -> bool:
    """Whether a consumer of these names and patterns reads the topic of that name."""
    return any(re.fullmatch(each, name, re.ASCII) if is_pattern(each) else each == name for each in topics)


def _pattern_problem(pattern: str) -> str | None:
    """Token by token: Python's own parser allows far more than is shared."""
    if not pattern.endswith("$") or len(pattern) < 3:
        return (
            "a pattern has to end in $: the classic protocol looks for it anywhere in a name, KIP-848 wants the whole "
            f"of it; write {pattern.rstrip('$')}.*$ for all that begins so"
        )
    body, at, depth, before = pattern[1:-1], 0, 0, "open"
    while at < len(body):
        token = _TOKEN.match(body, at)
        if token is None:
            return _untold(body[at:])
        kind, text = str(token.lastgroup), token.group()
        if kind == "repeat" and before != "atom":
            return f"{text} has nothing to repeat: it has to follow a character, a class or a group, and only one may"
        if kind == "repeat" and any(int(number) > _MOST_REPEATS for number in re.findall("[0-9]+", text)):
            return f"{text} repeats more than {_MOST_REPEATS} times"
        if kind in ("close", "or") and before in ("open", "or"):
            return f"nothing stands before {text}: a part that may be absent is written (...)?"
        if kind == "or" and depth == 0:
            return f"alternatives need parentheses, or ^ and $ belong to one of them only: write ^({body})$"
        depth += {"open": 1, "close": -1}.get(kind, 0)
        if depth < 0:
            return "a ) without its ("
        before, at = "atom" if kind == "close" else kind, token.end()
    if depth:
        return "a ( without its )"
    try:
        re.compile(pattern)
    except re.error as error:  # a range or a repeat from more to less
        return str(error)
    return None


def _untold(rest: str) -> str:
    """Why there is no token at the beginning of `rest`."""
    if rest[:2] in _ADVICE:
        return f"{rest[:2]} is not understood alike by both group protocols: {_ADVICE[rest[:2]]}"
    if rest[0] == "\\":
        return f"{rest[:2]} is not understood alike by both group protocols: only \\. \\_ and \\- are"
    if rest[0] == "[":
        shown = f"{rest.partition(']')[0]}]"
        return f"the class {shown} is not understood alike by both: only letters, digits, . _ and ranges, then -"
    if rest[0] == "{":
        return "{ has to be {n}, {n,} or {n,m}"
    if rest[0] in "^$":
        return f"{rest[0]} may only stand at the {'beginning' if rest[0] == '^' else 'end'} of the pattern"
    return f"{rest[0]!r} is in no topic's name"
