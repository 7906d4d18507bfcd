"""The verdict: decisions one by one, SQL's logic against sqlite, and what nobody should have written."""

import math
import pickle
import sqlite3
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbstream.errors import UsageError
from rbstream.filter import FieldType, Filter, FilterError, compile_where, ztf_fields
from rbstream.where import MAX_DEPTH, MAX_LENGTH

TYPES: dict[str, FieldType] = {
    "drb": "float",
    "magpsf": "float",
    "jd": "double",
    "candid": "long",
    "ndethist": "int",
    "nbad": "int",
    "isdiffpos": "string",
    "ssnamenr": "string",
    "flag": "boolean",
}
EXAMPLE = "drb >= 0.65 and magpsf < 19.5 and isdiffpos in ('t', '1')"


def single(number: float) -> float:
    return float(np.float32(number))


def decide(text: str, **values: Any) -> bool:
    return compile_where(text, TYPES)(values)


@pytest.mark.parametrize(
    ("drb", "candidate", "passes"),
    [
        (0.9, {"magpsf": 18.0, "isdiffpos": "t"}, True),
        (0.9, {"magpsf": 18.0, "isdiffpos": "1"}, True),
        (0.9, {"magpsf": 18.0, "isdiffpos": "f"}, False),
        (0.9, {"magpsf": 19.5, "isdiffpos": "t"}, False),
        (0.6, {"magpsf": 18.0, "isdiffpos": "t"}, False),
        (single(0.65), {"magpsf": 18.0, "isdiffpos": "t"}, True),
        (0.9, {"magpsf": None, "isdiffpos": "t"}, False),
        (0.9, {"isdiffpos": "t"}, False),
        (0.9, {"magpsf": math.nan, "isdiffpos": "t"}, False),
        (0.9, {"magpsf": 18, "isdiffpos": "t"}, True),
        (0.9, {"magpsf": "18", "isdiffpos": "t"}, False),
        (0.9, {"magpsf": [18.0], "isdiffpos": b"t"}, False),
        (0.9, {"magpsf": 18.0, "isdiffpos": "t", "drb": 0.1}, True),  # what upstream scored is not asked
        (0.1, {"magpsf": 18.0, "isdiffpos": "t", "drb": 0.9}, False),
    ],
)
def test_the_example_decides(drb: float, candidate: dict[str, Any], passes: bool) -> None:
    assert Filter(0.0, compile_where(EXAMPLE, TYPES)).passes(drb, candidate) is passes


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("magpsf < 19", True),
        ("MAGPSF_is_other or true", None),
        ("magpsf = 18.3", True),  # rounded to float32, as the field is
        ("magpsf == 18.3 AND magpsf >= 18.3 and Not magpsf > 18.3", True),
        ("magpsf in (1, 18.3)", True),
        ("magpsf between 18.3 and 18.3", True),
        ("magpsf not between 18 and 19", False),
        ("-magpsf = -18.3", True),
        ("18.3 = magpsf", True),
        ("jd = 2458451.7523843", True),
        ("jd <> 2458451.7523843", False),
        ("candid = 697252383015010006", True),
        ("candid = 697252383015010007", False),  # as doubles they would be equal
        ("candid in (697252383015010007, 697252383015010006)", True),
        ("ndethist / nbad = 1.5", True),
        ("ndethist / 0 is null", True),
        ("1 - 1e308 * 10 < 0", True),
        ("1e308 * 10 - 1e308 * 10 is null", True),
        ("2 + 3 * 2 = 8 and (2 + 3) * 2 = 1e1 and 8 - 4 - 2 = 2 and 8 / 4 / 2 = 1", True),
        ("- - 2 = +2 and .5 = 5e-1 and 1. = 1", True),
        ("magpsf - 18 > ndethist - nbad - 1", True),
        ("isdiffpos = 't'", True),
        ("isdiffpos not in ('f', '0')", True),
        ("ssnamenr = 'O''Hara \"é\" 星'", True),
        ("ssnamenr > isdiffpos", False),
        ("flag", True),
        ("flag = true and not (flag = false)", True),
        ("absent", None),
        ("true or null", True),
        ("\n drb\t>\u00a00.5 ", True),
        ("drb in (magpsf, drb)", True),
        ("nbad in (1, ndethist)", False),
        ("(1 < 2) = (2 < 3)", True),
        ("not not true", True),
        ("not 1 = 2", True),
        ("true or false and false", True),
        ("magpsf < 1e39", True),
    ],
)
def test_what_an_expression_means(text: str, passes: bool | None) -> None:
    values = {
        "drb": 0.9,
        "magpsf": single(18.3),
        "jd": 2458451.7523843,
        "candid": 697252383015010006,
        "ndethist": 3,
        "nbad": 2,
        "isdiffpos": "t",
        "ssnamenr": 'O\'Hara "é" 星',
        "flag": True,
    }
    if passes is None:
        with pytest.raises(FilterError, match="did you mean"):
            decide(text, **values)
    else:
        assert decide(text, **values) is passes


TRUTH = {True: "true", False: "false", None: "null"}


@pytest.mark.parametrize("left", TRUTH)
@pytest.mark.parametrize("right", TRUTH)
def test_truth_tables(left: bool | None, right: bool | None) -> None:
    unknown = None in (left, right)
    both = False if False in (left, right) else None if unknown else True
    either = True if True in (left, right) else None if unknown else False
    for word, value in (("and", both), ("or", either), ("=", None if unknown else left == right)):
        text = f"{TRUTH[left]} {word} {TRUTH[right]}"
        assert decide(text) is (value is True)
        assert decide(f"not ({text})") is (value is False)
        assert decide(f"({text}) is null") is (value is None)
        assert decide(f"({text}) is not null") is (value is not None)


@pytest.mark.parametrize(
    "text",
    [
        *("magpsf < 19", "magpsf in (19, 20)", "magpsf not in (19, 20)", "not magpsf = 19", "magpsf <> 19"),
        *("magpsf between 1 and 30", "magpsf not between 1 and 30", "magpsf - magpsf = 0", "-magpsf < 0"),
        *("magpsf = magpsf", "magpsf = null", "ndethist = null", "ndethist in (1, null)", "isdiffpos = 't'"),
        *(
            "ndethist not in (1, null)",
            "isdiffpos not in ('t')",
            "flag",
            "not flag",
            "null",
            "ndethist / 0 > 1",
        ),
    ],
)
@pytest.mark.parametrize("unknown", [None, math.nan])
def test_the_unknown_does_not_pass(text: str, unknown: float | None) -> None:
    assert not decide(text, magpsf=unknown, ndethist=3, isdiffpos=unknown, flag=None)
    assert not decide(text, ndethist=3)


def test_the_threshold_is_compared_as_float32() -> None:
    assert Filter(0.65).passes(single(0.65), {})
    assert single(0.65) < 0.65
    assert not Filter(0.65).passes(float(np.nextafter(np.float32(0.65), np.float32(0))), {})
    assert Filter(0.0).passes(0.0, {})
    assert Filter(1.0).passes(1.0, {})
    assert not Filter(0.0).passes(math.nan, {})


@pytest.mark.parametrize("threshold", [-0.1, 1.1, 65, math.nan, math.inf])
def test_a_threshold_outside_the_scores_is_refused(threshold: float) -> None:
    with pytest.raises(FilterError, match=r"outside \[0, 1\]"):
        Filter(threshold)


def test_fields_and_pickling() -> None:
    where = compile_where(EXAMPLE, TYPES)
    assert where.fields == {"magpsf", "isdiffpos"}
    verdict = Filter(0.5, where)
    again = pickle.loads(pickle.dumps(verdict))
    assert again == verdict
    assert again.fields == {"magpsf", "isdiffpos"}
    assert again.passes(0.9, {"magpsf": 18.0, "isdiffpos": "t"})
    assert Filter(0.5).fields == frozenset()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("drb", "condition is needed here, not a number"),
        ("'t'", "condition is needed here, not a string"),
        ("drb and true", "condition is needed"),
        ("not magpsf", "condition is needed"),
        ("drb > 0.5 and magpfs < 19", r"'magpfs': did you mean magpsf\? \(column 15\)"),
        ("MagPSF < 19", "did you mean magpsf"),
        ("drb > 0.5 and", r"ends too early \(column 14\)"),
        ("((drb > 0.5)", "ends too early"),
        ("drb > 0.5)", r"'\)' can't stand here \(column 10\)"),
        ("drb < magpsf < 3", "'<' can't stand here"),
        ("and < 3", "'and' can't stand here"),
        ("drb in ()", "can't stand here"),
        ("ssnamenr = 'abc", r"not closed.*\(column 12\)"),
        ("ssnamenr = 'abc''", "not closed"),
        ('isdiffpos = "t"', "single quotes"),
        ("drb > 0 && magpsf < 3", "the words and, or"),
        ("isdiffpos > 3", "string can't be compared with a number"),
        ("isdiffpos = magpsf", "string can't be compared with a number"),
        ("magpsf in (1, 't')", r"number can't be compared with a string \(column 15\)"),
        ("isdiffpos between 1 and 'z'", "string can't be compared with a number"),
        ("isdiffpos + 1 > 2", r"number is needed here, not a string \(column 1\)"),
        ("magpsf > -isdiffpos", "number is needed"),
        ("flag > 3", "boolean can't be compared with a number"),
        ("drb > 1e400", "larger than any field"),
        ("drb > 9223372036854775809", "larger than any field"),
        ("drb > " + "9" * 5000, "larger than any field"),
        ("drb > 0x10", "can't stand here"),
        ("drb > ٣", "means nothing here"),
        ("é = 3", "means nothing here"),
        ("drb > 0\x00", "means nothing here"),
        ("drb > 0; drop table alerts", "means nothing here"),
        ("__import__('os')", "can't stand here"),
        ("().__class__", "can't stand here"),
        ("drb.real > 0", "means nothing here|can't stand here"),
        ("(" * 60_000, "ends too early"),
        ("not " * 16_000 + "true", "nested more than"),
        ("-" * 60_000 + "1 > 0", "nested more than"),
        ("1+" * 30_000 + "1 > 0", "nested more than"),
        ("(true or (false and " * MAX_DEPTH + "true" + "))" * MAX_DEPTH, "nested more than"),
        ("a" * 60_000 + " > 1", "no candidate field"),
        ("'" * 60_001, "not closed"),
        ("drb > 0 or " * 10_000 + "true", f"more than {MAX_LENGTH:,}"),
    ],
)
def test_a_mistake_is_named(text: str, message: str) -> None:
    with pytest.raises(FilterError, match=message) as caught:
        compile_where(text, TYPES)
    assert isinstance(caught.value, UsageError)
    assert len(str(caught.value)) < 400


def test_the_caret_points_at_the_mistake() -> None:
    with pytest.raises(FilterError) as caught:
        compile_where("drb > 0.5 and\n magpfs < 19", TYPES)
    _, line, caret = str(caught.value).split("\n")
    assert line[caret.index("^") :].startswith("magpfs")


def test_what_is_long_but_sound_compiles() -> None:
    ids = [697252383015010006 + n for n in range(3000)]
    assert decide(f"candid in ({', '.join(map(str, ids))})", candid=ids[-1])
    assert decide(" and ".join(["true"] * 7000))
    assert decide("(" * 20_000 + "true" + ")" * 20_000)
    assert decide("(true or (false and " * 20 + "true" + "))" * 20)


@settings(max_examples=300)
@given(st.text() | st.text(alphabet="drb magpsf<>=!'()0.9e+-*/andornotinisnull,", max_size=60))
def test_any_text_compiles_or_is_refused(text: str) -> None:
    try:
        where = compile_where(text, TYPES)
    except FilterError:
        return
    assert where({}) in (True, False)


# sqlite's logic is SQL's. Its `/` truncates integers, so that one is given as `* 1.0 /`.

ROWS = st.fixed_dictionaries(
    {
        "jd": st.none() | st.sampled_from([-2.5, -1.0, 0.0, 0.5, 1.0, 3.0]),
        "magpsf": st.none() | st.sampled_from([-2.5, -1.0, 0.0, 0.5, 1.0, 3.0]),
        "ndethist": st.none() | st.integers(-3, 3),
        "nbad": st.none() | st.integers(-3, 3),
        "isdiffpos": st.none() | st.sampled_from(["", "t", "f", "é", "'"]),
        "ssnamenr": st.none() | st.sampled_from(["", "t", "f", "é", "'"]),
    }
)
NUMBERS = st.recursive(
    st.sampled_from(["jd", "magpsf", "ndethist", "nbad", "null", "0", "1", "2.5", ".5", "3e0"]),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*", "* 1.0 /"]), inner),
        st.builds("{}{}".format, st.sampled_from(["- ", "+ "]), inner),
    ),
    max_leaves=4,
)
STRINGS = st.sampled_from(["isdiffpos", "ssnamenr", "null", "''", "'t'", "'f'", "'é'", "''''"])
COMPARE = st.sampled_from(["=", "==", "!=", "<>", "<", "<=", ">", ">="])


def predicates(terms: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    maybe = st.sampled_from(["", "not "])
    lists = st.lists(terms, min_size=1, max_size=3).map(", ".join)
    return st.one_of(
        st.builds("{} {} {}".format, terms, COMPARE, terms),
        st.builds("{} is {}null".format, terms, maybe),
        st.builds("{} {}in ({})".format, terms, maybe, lists),
        st.builds("{} {}between {} and {}".format, terms, maybe, terms, terms),
    )


CONDITIONS = st.recursive(
    predicates(NUMBERS) | predicates(STRINGS) | st.sampled_from(["true", "false", "null"]),
    lambda inner: st.one_of(
        st.builds("not {}".format, inner.map("({})".format)),
        st.lists(inner, min_size=2, max_size=4).map(lambda parts: "(" + " and ".join(parts) + ")"),
        st.lists(inner, min_size=2, max_size=4).map(lambda parts: "(" + " or ".join(parts) + ")"),
        st.builds("{} and {} or not {}".format, inner, inner, inner),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def sqlite() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table alerts (jd real, magpsf real, ndethist int, nbad int, isdiffpos, ssnamenr)")
    return connection


@settings(max_examples=500, deadline=None)
@given(text=CONDITIONS, row=ROWS)
def test_decides_as_sqlite(sqlite: sqlite3.Connection, text: str, row: dict[str, Any]) -> None:
    sqlite.execute("delete from alerts")
    sqlite.execute("insert into alerts values (:jd, :magpsf, :ndethist, :nbad, :isdiffpos, :ssnamenr)", row)
    (expected,) = sqlite.execute(f"select count(*) from alerts where {text}").fetchone()
    (unknown,) = sqlite.execute(f"select ({text}) is null from alerts").fetchone()
    ours = text.replace("* 1.0 /", "/")
    assert decide(ours, **row) is bool(expected)
    assert decide(f"({ours}) is null", **row) is bool(unknown)


def test_ztf_fields_come_from_the_schema() -> None:
    schema = ztf_fields()
    assert schema["drb"] == "float"
    assert schema["drb_upstream"] == "float"
    assert schema["drbversion_upstream"] == "string"
    assert schema["candid"] == "long"
    assert schema["jd"] == "double"
    assert schema["isdiffpos"] == "string"
    assert len(schema) > 90
    assert compile_where(EXAMPLE, schema).fields == {"magpsf", "isdiffpos"}
    with pytest.raises(FilterError, match="did you mean magpsf"):
        compile_where("magpfs < 19", schema)
