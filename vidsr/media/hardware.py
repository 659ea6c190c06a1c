"""Decoders on an NVIDIA card (NVDEC), by FFmpeg."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av
from av.codec.hwaccel import HWAccel

__all__ = ["Hardware", "HardwareError", "advice"]

_REFUSALS = (av.error.FFmpegError, OSError, RuntimeError, NotImplementedError, ValueError)


class HardwareError(Exception):
    """The card does not decode this; never leaves `vidsr.media`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """A decoder on a card for one track.

    codec: FFmpeg's name of its own decoder, which hands the work on. card: its number. shape: (height, width, pixel
    format) of the frames as they come from the card; None where nothing is known yet.
    """

    codec: str
    card: int = 0
    shape: tuple[int, int, str] | None = None

    @property
    def formats(self) -> frozenset[str]:
        return frozenset([self.shape[2]] if self.shape else [])

    def context(self, template: Any) -> Any:
        """A decoder that is not open yet, for the track of `template`, whose frames come as software frames.

        Raises HardwareError. It decodes in the calling thread and raises at whatever is odd in the data, rather than
        guess.
        """
        try:
            context: Any = av.CodecContext.create(self.codec, "r", hwaccel=self._accel())
        except _REFUSALS as error:
            raise HardwareError(str(error.args[-1] if error.args else error)) from error
        if not context.is_hwaccel:
            raise HardwareError(f"FFmpeg's decoder {self.codec} has no way to an NVIDIA card")
        return prepared(context, template)

    def _accel(self) -> HWAccel:
        # In a CUDA context of its own: FFmpeg refuses the common one where an engine made it with other flags. With the
        # fallback, PyAV would decode on the processor and not say so.
        return HWAccel("cuda", device=self.card, allow_software_fallback=False)


def prepared(context: Any, template: Any) -> Any:
    """The context with what the container says of the track that `template` belongs to."""
    context.extradata = template.extradata
    context.reorder_depth = template.reorder_depth
    context.thread_count = 1
    context.options = {"err_detect": "explode"}
    return context


def advice(said: str) -> str:
    """What a person can do about a message of FFmpeg's, in brackets; empty where nothing is known."""
    if "libnvcuvid" in said or "libnvidia-encode" in said or "nvEncodeAPI" in said:
        return " (that part of the driver is missing; containers need NVIDIA_DRIVER_CAPABILITIES=compute,utility,video)"
    return ""
