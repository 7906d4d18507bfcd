"""The language of `--where`: SQL's conditions over an alert's candidate fields, compiled to closures.

    drb >= 0.65 and magpsf < 19.5 and isdiffpos in ('t', '1')

Parsed against a grammar and compiled once, at start-up, where every mistake in it is found; no text is ever
run as Python. The logic is SQL's: a comparison with an unknown value (null, NaN, a field the packet lacks) is
itself unknown, and an alert passes only where the whole expression is true.

Most candidate fields are float32, and a float32 that reads 0.65 is 0.64999998 once widened. So a number that
is compared with a float32 field is rounded to float32 first: a score that reads 0.65 is >= 0.65, and = 0.65
(numpy compares a float32 column with a number in the same way). Arithmetic is done in double precision, its
results are compared as they are, and `/` never truncates.
"""

import math
import operator
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal, NoReturn, cast

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from rbstream.errors import UsageError
from rbstream.ternary import (
    ARITHMETIC,
    COMPARISONS,
    Run,
    Values,
    calculate,
    chain,
    compared,
    compared_with,
    member,
    negated,
    number_field,
    plain_field,
)

FieldType = Literal["int", "long", "float", "double", "string", "boolean"]
"""A field's type in Avro's words; whether it may be null makes no difference to an expression."""

Kind = Literal["number", "string", "boolean", "null"]

MAX_LENGTH = 65_536
"""Characters: room for `candid in (...)` with 3,000 of them, and still compiled within a second or two."""

MAX_DEPTH = 50
"""Levels: each costs a few frames of Python's stack (1,000 by default) to compile and one to evaluate."""

MAX_INTEGER = 2**63
"""The size of Avro's long: no field holds more, and a larger integer may not fit a float."""

GRAMMAR = r"""
    ?start: or
    ?or: and
        | and (_OR and)+                              -> any_of
    ?and: not
        | not (_AND not)+                             -> all_of
    ?not: NOT not                                     -> negation
        | predicate
    ?predicate: sum
        | sum COMPARE sum                             -> comparison
        | sum _IS [NOT] NULL                          -> is_null
        | sum [NOT] _IN "(" sum ("," sum)* ")"        -> membership
        | sum [NOT] _BETWEEN sum _AND sum             -> between
    ?sum: product
        | sum SIGN product                            -> arithmetic
    ?product: signed
        | product TIMES signed                        -> arithmetic
    ?signed: SIGN signed                              -> sign
        | atom
    ?atom: NAME | NUMBER | STRING | TRUE | FALSE | NULL | "(" or ")"

    COMPARE: /<=|>=|<>|!=|==|=|<|>/
    SIGN: /[+-]/
    TIMES: /[*\/]/
    NUMBER: /([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?/i
    STRING: /'(''|[^'])*'/
    NAME: /[A-Za-z_][A-Za-z0-9_]*/
    _OR.1: /or\b/i
    _AND.1: /and\b/i
    NOT.1: /not\b/i
    _IS.1: /is\b/i
    _IN.1: /in\b/i
    _BETWEEN.1: /between\b/i
    NULL.1: /null\b/i
    TRUE.1: /true\b/i
    FALSE.1: /false\b/i
    %ignore /\s+/
"""


class FilterError(UsageError, ValueError):
    """A threshold or an expression that can't be used: what is wrong, where, and what would be right."""


@dataclass(frozen=True)
class Where:
    """A compiled expression. Pickled as its text and compiled anew on the other side."""

    text: str
    fields: frozenset[str]
    """The candidate fields it reads, `drb` (the new score) not among them."""
    types: Mapping[str, FieldType] = field(repr=False)
    run: Run = field(repr=False, compare=False)

    def __call__(self, values: Values) -> bool:
        """Whether the expression is true of `values` (false and unknown are both False); never raises.

        A value is what fastavro gives: int, float, str, bool or None. A name that is absent, and a value that
        is not of its field's type, are unknown.
        """
        return self.run(values) is True

    def __reduce__(self) -> tuple[Any, ...]:
        return compile_where, (self.text, dict(self.types))


def compile_where(text: str, types: Mapping[str, FieldType]) -> Where:
    """The expression `text` over the fields in `types`, ready to call.

    Raises FilterError where it has no meaning: syntax, unknown names, kinds that can't be compared, size.
    """
    if len(text) > MAX_LENGTH:
        raise FilterError(f"the expression has {len(text):,} characters, more than {MAX_LENGTH:,}")
    if not text.strip():
        raise FilterError("the expression is empty: write a condition such as drb >= 0.65, or leave it out")
    compiler = _Compiler(text, types)
    run = compiler.condition(_parse(text)).run
    used = {name: types[name] for name in sorted(compiler.used)}
    return Where(text, frozenset(used) - {"drb"}, used, run)


@cache
def _parser() -> Lark:
    # The basic lexer reserves the keywords everywhere: `and < 3` is a slip, not a field called `and`.
    return Lark(GRAMMAR, parser="lalr", lexer="basic", propagate_positions=True)


Node = Tree[Token] | Token


def _parse(text: str) -> Node:
    try:
        return cast(Node, _parser().parse(text))
    except UnexpectedCharacters as error:
        position = error.pos_in_stream or 0
        _fail(text, position, _about_character(text[position]))
    except UnexpectedToken as error:
        if error.token.type == "$END":
            _fail(text, len(text.rstrip()), "the expression ends too early")
        _fail(text, error.token.start_pos or 0, f"{_short(error.token)} can't stand here")


def _about_character(character: str) -> str:
    if character == "'":
        return "this string is not closed: it needs a second ' (a quote inside is written '')"
    if character == '"':
        return "strings stand in single quotes: 't'"
    if character in "&|":
        return "conditions are joined by the words and, or"
    return f"{character!r} means nothing here"


def _fail(text: str, position: int, what: str) -> NoReturn:
    start = max(0, position - 40)
    line = "".join(c if c.isprintable() else " " for c in text[start : start + 76])
    raise FilterError(f"{what} (column {position + 1})\n  {line}\n  {' ' * (position - start)}^")


def _short(word: str) -> str:
    return repr(str(word[:40])) + ("..." if len(word) > 40 else "")


@dataclass(frozen=True, slots=True)
class _Term:
    """A compiled piece: what kind of value it gives, and how."""

    kind: Kind
    run: Run
    single: bool = False  # a float32 field
    constant: Any = None  # a number, string or boolean written in the expression


class _Compiler:
    """From the parse tree, each rule by the method of its name, to one closure."""

    def __init__(self, text: str, types: Mapping[str, FieldType]) -> None:
        self.text, self.types = text, types
        self.used: set[str] = set()
        self.depth = 0

    def term(self, node: Node) -> _Term:
        if isinstance(node, Token):
            return cast(_Term, getattr(self, node.type)(node))
        if self.depth == MAX_DEPTH:
            self.fail(node, f"the expression is nested more than {MAX_DEPTH} levels deep")
        self.depth += 1
        term: _Term = getattr(self, node.data)(node)
        self.depth -= 1
        return term

    def condition(self, node: Node) -> _Term:
        term = self.term(node)
        if term.kind in ("number", "string"):
            self.fail(node, f"a condition is needed here, not a {term.kind}: compare it with something")
        return term

    def number(self, node: Node) -> _Term:
        term = self.term(node)
        if term.kind in ("string", "boolean"):
            self.fail(node, f"a number is needed here, not a {term.kind}")
        return term

    def fail(self, node: Node, what: str) -> NoReturn:
        position = node.start_pos if isinstance(node, Token) else node.meta.start_pos
        _fail(self.text, position or 0, what)

    # Leaves

    def NAME(self, token: Token) -> _Term:  # noqa: N802 - lark's name for the terminal
        name = str(token)
        if name not in self.types:
            lowered = {known.lower(): known for known in self.types}
            nearest = get_close_matches(name[:64].lower(), lowered, n=1, cutoff=0)
            hint = f": did you mean {lowered[nearest[0]]}?" if nearest else ""
            self.fail(token, f"no candidate field is called {_short(name)}{hint}")
        self.used.add(name)
        avro_type = self.types[name]
        if avro_type in ("string", "boolean"):
            return _Term(cast(Kind, avro_type), plain_field(name, str if avro_type == "string" else bool))
        return _Term("number", number_field(name), single=avro_type == "float")

    def NUMBER(self, token: Token) -> _Term:  # noqa: N802
        integral = token.isdecimal()
        # The length first: Python refuses to convert thousands of digits.
        if (integral and (len(token) > 400 or int(token) > MAX_INTEGER)) or math.isinf(float(token)):
            self.fail(token, "this number is larger than any field can be")
        return _constant("number", int(token) if integral else float(token))

    def STRING(self, token: Token) -> _Term:  # noqa: N802
        return _constant("string", token[1:-1].replace("''", "'"))

    def TRUE(self, token: Token) -> _Term:  # noqa: N802
        return _constant("boolean", True)

    def FALSE(self, token: Token) -> _Term:  # noqa: N802
        return _constant("boolean", False)

    def NULL(self, token: Token) -> _Term:  # noqa: N802
        return _constant("null", None)

    # Rules

    def any_of(self, tree: Tree[Token]) -> _Term:
        return _Term("boolean", chain([self.condition(child).run for child in tree.children], ends_at=True))

    def all_of(self, tree: Tree[Token]) -> _Term:
        return _Term("boolean", chain([self.condition(child).run for child in tree.children], ends_at=False))

    def negation(self, tree: Tree[Token]) -> _Term:
        return _Term("boolean", negated(self.condition(tree.children[1]).run))

    def comparison(self, tree: Tree[Token]) -> _Term:
        left, sign, right = tree.children
        return _Term("boolean", self.compare(COMPARISONS[str(sign)], self.term(left), self.term(right), tree))

    def is_null(self, tree: Tree[Token]) -> _Term:
        run = self.term(tree.children[0]).run
        if tree.children[1] is not None:
            return _Term("boolean", lambda values: run(values) is not None)
        return _Term("boolean", lambda values: run(values) is None)

    def membership(self, tree: Tree[Token]) -> _Term:
        left, inverted, *listed = tree.children
        term, options = self.term(left), [self.term(child) for child in listed]
        if all(option.constant is not None for option in options):
            for child, option in zip(listed, options, strict=True):
                self.check_kinds(term, option, child)
            run = member(term.run, frozenset(_fitted(option, term).constant for option in options))
        else:
            pairs = zip(options, listed, strict=True)
            equal = [self.compare(operator.eq, term, option, child) for option, child in pairs]
            run = chain(equal, ends_at=True)
        return _Term("boolean", run if inverted is None else negated(run))

    def between(self, tree: Tree[Token]) -> _Term:
        value, inverted, low, high = tree.children
        term = self.term(value)
        above = self.compare(operator.ge, term, self.term(low), low)
        below = self.compare(operator.le, term, self.term(high), high)
        run = chain([above, below], ends_at=False)
        return _Term("boolean", run if inverted is None else negated(run))

    def arithmetic(self, tree: Tree[Token]) -> _Term:
        left, sign, right = tree.children
        run = calculate(ARITHMETIC[str(sign)], self.number(left).run, self.number(right).run)
        return _Term("number", run)

    def sign(self, tree: Tree[Token]) -> _Term:
        sign, operand = tree.children
        term = self.number(operand)
        if sign == "+" or term.kind == "null":
            return term
        if term.constant is not None:
            return _constant("number", -term.constant)
        return replace(term, run=calculate(operator.sub, lambda values: 0, term.run))

    def compare(self, compare: Callable[[Any, Any], bool], left: _Term, right: _Term, where: Node) -> Run:
        self.check_kinds(left, right, where)
        left, right = _fitted(left, right), _fitted(right, left)
        if right.constant is not None:
            return compared_with(compare, left.run, right.constant)
        return compared(compare, left.run, right.run)

    def check_kinds(self, left: _Term, right: _Term, where: Node) -> None:
        if left.kind != right.kind and "null" not in (left.kind, right.kind):
            self.fail(where, f"a {left.kind} can't be compared with a {right.kind}")


def single(number: float) -> float:
    """The float32 nearest to `number`, widened again; infinite beyond float32's range."""
    try:
        nearest: float = struct.unpack("f", struct.pack("f", number))[0]
    except OverflowError:
        return math.copysign(math.inf, number)
    return nearest


def _fitted(term: _Term, other: _Term) -> _Term:
    """`term` at the precision of `other`: a written number beside a float32 field is rounded to float32."""
    return _constant("number", single(term.constant)) if other.single and term.constant is not None else term


def _constant(kind: Kind, value: Any) -> _Term:
    return _Term(kind, lambda values: value, constant=value)
