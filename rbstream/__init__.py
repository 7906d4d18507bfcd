"""rbstream: scores astronomical alert packets real or bogus."""

from importlib.metadata import version

__version__ = version("rbstream")
