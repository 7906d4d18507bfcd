"""The check at the end of the torture finds what it is there to find."""

import dataclasses
from collections.abc import Callable

import pytest
from check import Copy, Key, Seen, Verdict, differences

PASSED, FILTERED, REJECTED = Verdict("passed", 0.9), Verdict("filtered", 0.1), Verdict("rejected", None)


def whole() -> Seen:
    """Three partitions of three alerts, one of each verdict; the last message has a second record."""
    expected = {Key("in", n, offset, 0): v for n in range(3) for offset, v in enumerate((PASSED, FILTERED, REJECTED))}
    expected[Key("in", 2, 2, 1)] = PASSED
    places = [("in", n, offset) for n in range(3) for offset in range(3)]
    return Seen(
        published=places,
        inputs={place: f"digest of {place}" for place in places},
        expected=expected,
        scores=list(expected.items()),
        outputs=[Copy(key, drb=0.9) for key, verdict in expected.items() if verdict is PASSED],
        dead=[Copy(k, digest=f"digest of {k[:3]}") for k, verdict in expected.items() if verdict is REJECTED],
    )


def test_nothing_is_found_where_all_is_well() -> None:
    assert differences(whole()) == {}


def drop(seen: Seen, field: str, place: int = 0) -> Seen:
    return dataclasses.replace(seen, **{field: [v for n, v in enumerate(getattr(seen, field)) if n != place]})


def double(seen: Seen, field: str, place: int = 0) -> Seen:
    values = getattr(seen, field)
    return dataclasses.replace(seen, **{field: [*values, values[place]]})


def forge(seen: Seen, field: str, *more: object) -> Seen:
    return dataclasses.replace(seen, **{field: [*getattr(seen, field), *more]})


def rescored(seen: Seen, verdict: Verdict, place: int = 0) -> Seen:
    scores = [(key, verdict if n == place else old) for n, (key, old) in enumerate(seen.scores)]
    return dataclasses.replace(seen, scores=scores)


FIRST, FORGED = Key("in", 0, 0, 0), Key("in", 0, 99, 0)
BROKEN: dict[str, tuple[Callable[[Seen], Seen], dict[str, list[object]]]] = {
    "a message that the topic lost": (
        lambda seen: forge(seen, "published", ("in", 0, 99)),
        {"published, and not in the topic": [("in", 0, 99)]},
    ),
    "a message from somebody else": (
        lambda seen: drop(seen, "published"),
        {"in the topic, and not published": [("in", 0, 0)]},
    ),
    "an alert lost": (lambda seen: drop(drop(seen, "scores"), "outputs"), {"without a score": [FIRST]}),
    "a second record lost": (
        lambda seen: drop(drop(seen, "scores", 9), "outputs", 3),
        {"without a score": [Key("in", 2, 2, 1)]},
    ),
    "a score lost": (
        lambda seen: drop(seen, "scores"),
        {"without a score": [FIRST], "in the output, and not passed": [FIRST]},
    ),
    "a score doubled": (lambda seen: double(seen, "scores"), {"scored more than once": [FIRST]}),
    "a score forged": (
        lambda seen: forge(seen, "scores", (FORGED, FILTERED)),
        {"scored, and not in the topic": [FORGED]},
    ),
    "an output lost": (lambda seen: drop(seen, "outputs"), {"passed, and not in the output": [FIRST]}),
    "an output doubled": (lambda seen: double(seen, "outputs"), {"more than once in the output": [FIRST]}),
    "an output forged": (
        lambda seen: forge(seen, "outputs", Copy(FORGED, 0.9)),
        {"in the output, and not passed": [FORGED]},
    ),
    "a filtered alert put out": (
        lambda seen: forge(seen, "outputs", Copy(Key("in", 0, 1, 0), 0.1)),
        {"in the output, and not passed": [("in", 0, 1, 0)]},
    ),
    "a dead letter lost": (
        lambda seen: drop(seen, "dead"),
        {"rejected, and not in the dead letters": [("in", 0, 2, 0)]},
    ),
    "a dead letter doubled": (
        lambda seen: double(seen, "dead"),
        {"more than once in the dead letters": [("in", 0, 2, 0)]},
    ),
    "a dead letter changed": (
        lambda seen: forge(drop(seen, "dead"), "dead", Copy(Key("in", 0, 2, 0), digest="other")),
        {"dead letter with other bytes than the input": [("in", 0, 2, 0)]},
    ),
    "a verdict that replay doesn't give": (
        lambda seen: forge(rescored(seen, Verdict("passed", 0.1), 1), "outputs", Copy(Key("in", 0, 1, 0), 0.1)),
        {"another verdict than replay's": [("in", 0, 1, 0)]},
    ),
    "a score that replay doesn't give": (
        lambda seen: rescored(seen, Verdict("passed", 0.900002)),
        {"another drb than replay's": [FIRST], "another drb in the output than in the scores": [FIRST]},
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_is_found_and_named(fault: str) -> None:
    broken, found = BROKEN[fault]
    assert differences(broken(whole())) == found


def test_at_least_once_may_repeat_and_not_lose() -> None:
    repeated = double(double(double(whole(), "scores"), "outputs"), "dead")
    assert differences(repeated, repeats=True) == {}
    assert differences(drop(drop(repeated, "scores", 1), "scores", 0), repeats=True) == {
        "without a score": [("in", 0, 1, 0)]
    }


def test_scores_may_differ_by_rounding() -> None:
    assert differences(rescored(whole(), Verdict("passed", 0.9000005))) == {}
