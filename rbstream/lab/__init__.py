"""The lab: data sets, training, evaluation and explanation of networks. The worker imports nothing of it.

It needs rbstream's extra `lab`.
"""

from importlib.util import find_spec

from rbstream.errors import UsageError

_NEEDED = {"matplotlib": "matplotlib", "sklearn": "scikit-learn"}

_missing = [name for module, name in _NEEDED.items() if find_spec(module) is None]
if _missing:
    raise UsageError(f"the lab needs {' and '.join(_missing)}; in rbstream's source, pip install '.[lab]'")
