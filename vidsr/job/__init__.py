"""Jobs: one input to one output with every setting resolved. The one place where the parts meet."""

from vidsr.job.engine import Conversions, EnginePlan, available_memory, plan_engine
from vidsr.job.pipe import resolve_pipe, run_pipe
from vidsr.job.resolve import check_paths, check_span, resolve
from vidsr.job.run import Tap, run
from vidsr.job.settings import Job, Settings
from vidsr.job.stream import Stream, resolve_stream, stream

__all__ = [
    "Conversions",
    "EnginePlan",
    "Job",
    "Settings",
    "Stream",
    "Tap",
    "available_memory",
    "check_paths",
    "check_span",
    "plan_engine",
    "resolve",
    "resolve_pipe",
    "resolve_stream",
    "run",
    "run_pipe",
    "stream",
]
