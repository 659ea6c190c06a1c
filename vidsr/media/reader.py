"""The video frames of a file, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import av

from vidsr.errors import InputError
from vidsr.frame import Frame, Plane
from vidsr.media.convert import Converter, plain_name
from vidsr.media.deinterlace import Deinterlacer, Timed, deinterlaced
from vidsr.media.demux import Decoded, Decoder, tags_of
from vidsr.media.hardware import Hardware
from vidsr.media.info import Deinterlace, SourceInfo
from vidsr.media.interleave import unpack
from vidsr.media.pixel import layout_of, native, planar_equivalent
from vidsr.media.timeline import Timeline
from vidsr.notes import Notes

__all__ = ["VideoReader"]

_LEAD_FRAMES = 3
"""How many frames a deinterlacer sees before the first one wanted."""


class VideoReader:
    """Delivers the frames of a file's video track into planes that the caller owns.

    start, end: keep frames whose time, from the beginning of the file in seconds, is in [start, end).
    deinterlace: make whole pictures of fields; with "field" there are twice as many, and times are in halves.
    skip: how many of the frames that would be delivered are only decoded; what follows is as without it.
    strict: raise InputError for what is damaged, where it is otherwise noted and passed over.
    hardware: what decodes, as `vidsr.media.nvdec` has proved it for this file; None for the processor.
    given_up: asked before each frame is decoded; where it says yes the frames end.

    Passive; belongs to one thread. An `info` whose layout has no alpha where the file has gets none.
    time_base: of the frames. notes: what had to be mended, and when. end_seconds: where the last frame ends.
    passed: how many frames were only decoded because whoever reads is in a hurry.
    """

    def __init__(
        self,
        info: SourceInfo,
        *,
        start: Fraction | None = None,
        end: Fraction | None = None,
        deinterlace: Deinterlace = "off",
        skip: int = 0,
        strict: bool = False,
        hardware: Hardware | None = None,
        given_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self.info, self.video = info, info.video
        self.time_base = info.video.time_base_for(deinterlace)
        self.notes = Notes()
        self.end_seconds = Fraction(0)
        self.passed = 0
        self._until: Fraction | None = None
        self._start = info.start_seconds + start if start else None
        self._end = info.start_seconds + end if end is not None else None
        self._deinterlace, self._skip, self._strict, self._hardware = deinterlace, skip, strict, hardware
        self._given_up = given_up
        interlaced = deinterlace == "off" and info.video.scan != "progressive"
        also = hardware.formats if hardware else frozenset[str]()
        self._converter = Converter(info.video.layout, info.video.color, interlaced=interlaced, also=also)
        self._planar: dict[tuple[str, int, int], Converter] = {}
        begin = round(info.start_seconds / info.video.time_base)
        self._timeline = Timeline(info.video.time_base, strict=True, begin=begin)
        self._decoder = self._open()
        self._frames = self._wanted()

    def read(self, planes: Sequence[Plane], until: Fraction | None = None) -> Frame | None:
        """Copies the next frame into `planes` (`video.layout`); None at the end. Raises InputError.

        until: frames that are over by then, in seconds from the beginning of the file, are only decoded.
        """
        self._until = None if until is None else until + self.info.start_seconds
        timed = next(self._frames, None)
        if timed is None:
            return None
        picture, color = self._converter(timed.picture, timed.color)
        # A plane of alpha that is not wanted lies behind the others.
        unpack(planes, picture, self.video.layout.bits)
        return Frame(
            planes=planes,
            pts=timed.pts,
            duration=timed.duration,
            time_base=self.time_base,
            color=color,
            key=timed.key,
        )

    def close(self) -> None:
        self._frames.close()
        self._decoder.close()

    def _wanted(self) -> Generator[Timed]:
        """The frames of the wanted span but for those to skip."""
        left = self._skip
        for timed in self._in_span(self._whole()):
            self._note(timed)
            self.end_seconds = (timed.pts + timed.duration) * self.time_base - self.info.start_seconds
            if left:
                left -= 1
            elif self._over(timed):
                self.passed += 1
            else:
                yield timed

    def _over(self, timed: Timed) -> bool:
        if self._until is None:
            return False
        return (timed.pts + (timed.duration or self._usual_duration())) * self.time_base <= self._until

    def _in_span(self, frames: Iterator[Timed]) -> Iterator[Timed]:
        for timed in frames:
            if self._given_up():
                return
            seconds = timed.pts * self.time_base
            if self._end is not None and seconds >= self._end:
                return
            if self._start is None or seconds >= self._start:
                yield timed

    def _whole(self) -> Iterator[Timed]:
        """All frames from somewhere before the span on, deinterlaced, with their times."""
        decoded = self._decoder.frames() if self._start is None else self._seek(self._start)
        frames = map(self._timed, decoded)
        if self._deinterlace == "off":
            return frames
        deinterlacer = Deinterlacer(self._deinterlace, self.video.scan, self._usual_duration())
        return deinterlaced(map(self._as_planes, frames), deinterlacer)

    def _open(self) -> Decoder:
        """At the beginning of the file."""
        video = self.video
        decoder = video.decoder if video.layout.alpha else None
        return Decoder(
            self.info.path,
            video.index,
            decoder=decoder,
            hardware=self._hardware,
            on_error=self._damaged,
            on_leaving=self._left,
        )

    def _seek(self, start: Fraction) -> Iterator[Decoded]:
        """Frames from some point before `start` on.

        An index can be missing or lie (MPEG-TS lands behind the key frame, AVI takes every frame for one), so a landing
        is used only if its first frame is early enough, and a key frame; else an earlier one, at last the beginning.
        """
        base = self.video.time_base
        if self._deinterlace != "off":
            start -= _LEAD_FRAMES * self._usual_duration() * base
        for back in (0, 10, 60):
            if start - back <= self.info.start_seconds:
                break
            if not self._decoder.seek(int((start - back) / base)):
                continue
            frames = self._decoder.frames()
            first = next(frames, None)
            if first is not None and first.key and first.time is not None and first.time * base <= start:
                return _chain(first, frames)
        self._decoder.close()
        self._decoder = self._open()
        return self._decoder.frames()

    def _timed(self, decoded: Decoded) -> Timed:
        """A frame with its time: its own, made strictly increasing where the file's are not."""
        picture = decoded.picture
        duration = int(picture.duration or 0)
        pts = self._timeline.place(decoded.time, duration or self._usual_duration())
        if decoded.time is None:
            self._mended("frames without a time got one behind their predecessor", pts)
        elif pts != decoded.time:
            self._mended("frames with a time before their predecessor were moved behind it", pts)
        return Timed(
            picture=picture,
            pts=pts,
            duration=duration,
            color=tags_of(self._decoder.stream, picture),
            key=decoded.key,
            corrupt=picture.is_corrupt,
        )

    def _as_planes(self, timed: Timed) -> Timed:
        """In a format that can be deinterlaced, at its own size: no line is mixed with its neighbours."""
        picture = timed.picture
        if native(picture.format.name):
            return timed
        key = (picture.format.name, picture.height, picture.width)
        if key not in self._planar:
            siting = self.video.layout.siting
            layout = layout_of(
                planar_equivalent(picture.format.name), height=picture.height, width=picture.width, siting=siting
            )
            self._planar[key] = Converter(layout, timed.color, interlaced=True)
        planar, color = self._planar[key](picture, timed.color)
        return replace(timed, picture=planar, color=color)

    def _usual_duration(self) -> int:
        return max(1, round(1 / ((self.video.rate or 25) * self.video.time_base)))

    def _note(self, timed: Timed) -> None:
        """What is odd about a frame that is kept."""
        picture, layout = timed.picture, self.video.layout
        seconds = timed.pts * self.time_base - self.info.start_seconds
        if timed.corrupt:
            what = "frames were decoded from damaged data and may show it"
            if self._strict:
                raise InputError(f"{self.info.path}: the frame at {float(seconds):.3f} s is damaged")
            self.notes.add(what, seconds)
        if (picture.height, picture.width) != (layout.height, layout.width):
            self.notes.add(f"frames of another size than {layout.width}x{layout.height} were scaled to it", seconds)
        elif not self._converter.fits(picture) and self._format_changed(picture):
            self.notes.add(f"frames of another format than {self.video.pixel_format} were converted", seconds)

    def _format_changed(self, picture: av.VideoFrame) -> bool:
        return plain_name(picture.format.name) not in (
            plain_name(self.video.pixel_format),
            planar_equivalent(self.video.pixel_format),
        )

    def _mended(self, what: str, pts: int) -> None:
        self.notes.add(what, pts * self.video.time_base - self.info.start_seconds)

    def _left(self, reason: str) -> None:
        """The card does not decode any more."""
        self._hardware = None
        self.notes.add(f"the card ended decoding, and the processor went on ({reason})")

    def _damaged(self, error: Exception, time: int | None) -> None:
        """Damaged data, at `time` in units of the track's time base if that is known."""
        base = self.video.time_base
        if time is not None and self._start is not None and time * base < self._start:
            return
        seconds = None if time is None else time * base - self.info.start_seconds
        if isinstance(error, InputError):
            what = str(error)
        else:
            what = f"damaged data in the input was passed over ({error.args[-1] if error.args else error})"
        if self._strict:
            where = "" if seconds is None else f" at {float(seconds):.3f} s"
            raise InputError(f"{self.info.path}: {what.replace(' was passed over', where)}")
        self.notes.add(what, seconds)


def _chain(first: Decoded, rest: Iterator[Decoded]) -> Iterator[Decoded]:
    yield first
    yield from rest
