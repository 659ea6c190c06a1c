"""What this machine has and what works on it: for people whose vidsr is slow or does not start, and for reports.

This package imports nothing but the standard library until it looks, and it looks at every library in a process of its
own: one that is broken, crashes or hangs is a line of the report and not its end.
"""

from vidsr.doctor.examination import examine
from vidsr.doctor.report import Check, Report

__all__ = ["Check", "Report", "examine"]
