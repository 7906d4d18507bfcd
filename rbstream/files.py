"""Where the files that travel with the package are: the default bundle and the schemas."""

from pathlib import Path

_INSTALLED = Path(__file__).parent / "_data"
_CHECKOUT = Path(__file__).parent.parent


def data_path(name: str) -> Path:
    """The path of a shipped file, e.g. ``schemas/ztf.alert.avsc``: in the wheel, else in the checkout.

    Raises FileNotFoundError where it is in neither.
    """
    for root in (_INSTALLED, _CHECKOUT):
        if (root / name).exists():
            return root / name
    raise FileNotFoundError(f"{name} is not part of this installation ({_INSTALLED} and {_CHECKOUT} lack it)")
