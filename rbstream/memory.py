"""How this process takes memory."""

import ctypes
import sys

# glibc's names for what can be set (malloc.h), and values that the pipeline's buffers stay under: activations of a
# batch take 8 MB at most, and 32 MiB is the largest threshold that glibc takes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MMAP_THRESHOLD_BYTES = 32 << 20
_TRIM_THRESHOLD_BYTES = 256 << 20


def keep_freed_memory() -> None:
    """Let malloc keep what is freed for the next batch instead of giving it back to the system.

    Fresh pages cost more than what is done in them: 130 page faults an alert, a third of all CPU time. The process
    keeps its peak, which is bounded by batches. Without glibc this does nothing.
    """
    if sys.platform.startswith("linux"):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
            mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)
            mallopt(_M_ARENA_MAX, 1)  # what one thread frees another takes; two arenas would both keep their peak
