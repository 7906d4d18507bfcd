"""Names of topics and patterns: what both group protocols understand alike passes, and means what Python says."""

import ctypes
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbstream.kafka.patterns import is_pattern, matches, problem

GOOD = [
    "^ztf_[0-9]+_programid1$", "^.*$", "^ztf_.*$", "^(ztf|lsst)_[0-9]{8}$", "^a\\.b$", "^a(b|c)*d$", "^[^a-z_-]+$",
    "^a{2}$", "^a{2,}$", "^a{2,3}$", "^a?b+c*$", "^((a|b)c)+$", "^[A-Za-z0-9._-]+$",
]  # fmt: skip
BAD = {
    "^ztf_": "write ^ztf_.*$ for all that begins so",
    "^": "has to end in $",
    "^$": "has to end in $",
    "^a|b$": "write ^(a|b)$",
    "^(?!test)ztf$": "look-arounds",
    "^(?=ztf)ztf$": "look-arounds",
    "^(?i)ztf$": "flags",
    "^(?:a|b)$": "plain groups",
    "^(?P<x>a)$": "plain groups",
    "^ztf_\\d+$": "write [0-9]",
    "^\\w+$": "write [a-zA-Z0-9_]",
    "^\\s$": "names have no spaces",
    "^\\bztf$": "\\b is not understood alike",
    "^(a)\\1$": "\\1 is not understood alike",
    "^\\pL$": "\\p is not understood alike",
    "^a*?$": "? has nothing to repeat",
    "^a++$": "+ has nothing to repeat",
    "^a**$": "* has nothing to repeat",
    "^a{2}{3}$": "{3} has nothing to repeat",
    "^*a$": "* has nothing to repeat",
    "^(*a)$": "* has nothing to repeat",
    "^a{,3}$": "{n}, {n,} or {n,m}",
    "^a{1,300}$": "more than 255",
    "^a{3,2}$": "min repeat greater than max repeat",
    "^[[:digit:]]$": "the class [[:digit:] is not understood alike",
    "^[\\d]$": "the class [\\d] is not understood alike",
    "^[z-a]$": "bad character range",
    "^[ab$": "the class",
    "^(a$": "a ( without its )",
    "^a)$": "a ) without its (",
    "^(|a)$": "nothing stands before |",
    "^(a|)$": "nothing stands before )",
    "^()$": "nothing stands before )",
    "^a^b$": "^ may only stand at the beginning",
    "^(a$|b)$": "$ may only stand at the end",
    "^a b$": "' ' is in no topic's name",
    "^a/b$": "'/' is in no topic's name",
    "^é$": "is in no topic's name",
    "^a\\$": "\\ is not understood alike",
    "": "no name for a topic",
    "a b": "no name for a topic",
    "ztf_*": "no name for a topic",
    "..": "no name for a topic",
    "a" * 250: "no name for a topic",
}


@pytest.mark.parametrize("topic", [*GOOD, "ztf_20260101_programid1", "a.b-C_9", "a" * 249])
def test_what_both_protocols_understand_passes(topic: str) -> None:
    assert problem(topic) is None


@pytest.mark.parametrize(("topic", "words"), BAD.items())
def test_anything_else_is_refused_with_what_to_write_instead(topic: str, words: str) -> None:
    assert words in str(problem(topic))


def test_names_are_matched_whole() -> None:
    topics = ("^ztf_[0-9]+_programid1$", "extra")
    assert matches(topics, "ztf_20260101_programid1")
    assert matches(topics, "extra")
    assert not matches(topics, "ztf_20260101_programid12")
    assert not matches(topics, "my_ztf_20260101_programid1")
    assert not matches(topics, "extras")


@given(st.text(alphabet="abz09_-.^$\\()[]{}|*+?,:= dw", max_size=12).map(lambda text: f"^{text}$"))
def test_what_passes_is_a_regular_expression_of_names(pattern: str) -> None:
    assert is_pattern(pattern)
    if problem(pattern) is None:
        assert re.compile(pattern, re.ASCII)
        assert not re.search(r"\(\?|[*+?}][*+?{]|\\[a-zA-Z0-9]", pattern)


PIECES = [
    "a",
    "b",
    "[a-c]",
    "[^a]",
    "[0-9_-]",
    ".",
    "\\.",
    "\\-",
    "(",
    ")",
    "|",
    "*",
    "+",
    "?",
    "{2}",
    "{1,2}",
    "{0,}",
    "ztf_",
]
NAMES = ["a", "ab", "a.b", "b", "ab_1", "ztf_20260101_programid1", "aab", "abc", "a-b", "1", "_-", "ztf_ztf_"]


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map(lambda parts: f"^{''.join(parts)}$"))
def test_the_c_library_that_the_classic_protocol_asks_says_the_same(pattern: str) -> None:
    if problem(pattern) is None:
        assert c_matches(pattern) == [matches([pattern], name) for name in NAMES]


def c_matches(pattern: str) -> list[bool]:
    """What POSIX's regexec finds, by extended syntax (1)."""
    library, compiled = ctypes.CDLL(None), ctypes.create_string_buffer(256)  # regex_t is 64 bytes here
    assert library.regcomp(compiled, pattern.encode(), 1) == 0
    found = [library.regexec(compiled, name.encode(), 0, None, 0) == 0 for name in NAMES]
    library.regfree(compiled)
    return found
