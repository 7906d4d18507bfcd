"""rbstream: scores astronomical alert packets real or bogus."""

import os
from importlib.metadata import version

__version__ = version("rbstream")

REVISION_VARIABLE = "RBSTREAM_REVISION"
# Of the source: only who built the image knows it, and sets the variable there.
__revision__ = os.environ.get(REVISION_VARIABLE, "")
