"""The model: its bundle, what it says of itself, and how it scores.

Nothing here imports torch until a bundle is loaded or written: `rbstream.model.manifest` reads one without.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name in ("load_bundle", "load_scorer", "write_bundle", "Scorer"):
        from rbstream.model import bundle

        return getattr(bundle, name)
    raise AttributeError(name)
