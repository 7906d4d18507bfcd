"""docs/rejections.md lists exactly the stages and reasons that the code gives."""

import ast
import re
from pathlib import Path

from rbstream.settings import Limits

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs/rejections.md").read_text(encoding="utf-8")


def given_in(path: Path) -> set[tuple[str, str]]:
    """Stage and reason of every rejection that a module makes, but for those that it hands on."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    pairs = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Rejection":
            stage, reason = (
                constants.get(arg.id) if isinstance(arg, ast.Name) else getattr(arg, "value", None)
                for arg in node.args[:2]
            )
            if isinstance(stage, str) and isinstance(reason, str):
                pairs.add((stage, reason))
            else:
                handed_on = [ast.unparse(arg) for arg in node.args[:2]]
                assert re.fullmatch(r"(\w+)\.stage \1\.reason", " ".join(handed_on)), handed_on
    return pairs


def test_the_table_lists_exactly_what_the_code_gives() -> None:
    given = set().union(*(given_in(path) for path in (ROOT / "rbstream").rglob("*.py")))
    listed = re.findall(r"^\| (\w+) \| `(\w+)` \|", TEXT, re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == given


def test_the_limits_that_it_names_are_settings() -> None:
    named = set(re.findall(r"`limits\.(\w+)`", TEXT))
    assert named == set(Limits.model_fields)
