"""CUDA as vidsr needs it: one seam, a file for each library behind it."""

from vidsr.backends.cuda.device import Device, Event, Graph, Memory, Pinned, Stream

__all__ = ["Device", "Event", "Graph", "Memory", "Pinned", "Stream"]
