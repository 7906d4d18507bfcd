"""Lines for a person, of what anybody may have written into a topic."""

from rich.console import Console


def say(console: Console, *lines: str) -> None:
    """Print lines as they are, but for what is not printable."""
    console.print(*map(printable, lines), sep="\n", markup=False, highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    """Text without what would move a terminal's cursor, or worse: dead letters may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
