"""Jobs: one input to one output with every setting resolved. The one place where the parts meet."""

from vidsr.job.engine import Conversions, EnginePlan, available_memory, plan_engine
from vidsr.job.resolve import check_span, resolve
from vidsr.job.run import run, stream
from vidsr.job.settings import Job, Settings

__all__ = [
    "Conversions",
    "EnginePlan",
    "Job",
    "Settings",
    "available_memory",
    "check_span",
    "plan_engine",
    "resolve",
    "run",
    "stream",
]
