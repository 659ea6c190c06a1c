"""The tracks besides the video: every packet of what was copied, its time, and what the track says about itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from vidsr.media.container import TrackPlan
from vidsr.media.source import SourceInfo, TrackInfo, open_input
from vidsr.media.tags import same_language, stream_tags
from vidsr.media.timeline import Timeline
from vidsr.media.transcode import AudioTarget
from vidsr.verify.converted import compare_cues, compare_sound
from vidsr.verify.description import differing_tags
from vidsr.verify.expectation import Expectation
from vidsr.verify.packets import Packets, read_packets
from vidsr.verify.result import Check, Finding, clock
from vidsr.verify.span import Span
from vidsr.verify.video import VideoResult

__all__ = ["compare_tracks"]

_AHEAD = 64
"""How many packets to look ahead for one that is not where it should be."""
_REGENERATED = "data"
_NOT_TAGS = {"language", "title", "creation_time"}
"""What Matroska has fields for, or keeps for the whole file only."""
_LOOSE = {
    "mpegts": Fraction(1, 1000),
    "avi": Fraction(1, 10),
    "mp4": Fraction(1, 10_000),
    "mov": Fraction(1, 10_000),
}
"""By container, in seconds: times that its readers count or interpolate, and beginnings in steps of the whole file."""
_ONE_NAME = {"mp2", "mp3"}
"""What MP4 has one name for."""
_FRAMED = {"h264", "hevc", "aac", "webvtt"}
"""Codecs whose configuration looks different in each container."""


def compare_tracks(output: SourceInfo, expected: Expectation, video: VideoResult) -> list[Check]:
    """A check for each track of the source that is not the video."""
    span = Span.of(expected, video.first, video.offset)
    kept = [plan for plan in expected.tracks if plan.how in ("copy", "attach", "convert")]
    others = [track for track in output.tracks if track.index != output.video.index and track.kind != _REGENERATED]
    pairs = _matched([plan for plan in kept if plan.track.kind != _REGENERATED], others)
    found = {plan.track.index: other for plan, other in pairs}
    copied = [plan for plan in kept if plan.how != "convert" and plan.track.kind not in ("attachment", _REGENERATED)]
    ours = read_packets(expected.source.path, {plan.track.index: _Place(plan, span) for plan in copied})
    theirs = read_packets(output.path, {other.index: None for plan, other in pairs if plan in copied})
    checks = []
    with open_input(expected.source.path) as before, open_input(output.path) as after:
        for plan in expected.tracks:
            finding = Finding(str(plan.track))
            other = found.get(plan.track.index)
            text = _outcome(plan)
            if plan.lost:
                finding.add(f"left out: {plan.reason}", expected=True)
            elif plan in kept and other is None and plan.track.kind != _REGENERATED:
                empty = plan.track.index in ours and not ours[plan.track.index].times
                finding.add(f"it is missing{', nothing of it lies in this part' if empty else ''}", expected=empty)
            elif other is not None:
                stream, copy = before.streams[plan.track.index], after.streams[other.index]
                both = (ours[stream.index], theirs[copy.index]) if stream.index in ours else None
                text = _compare(finding, plan, stream, copy, both, output.path, expected, span)
                _describe(finding, plan, stream, copy, expected)
            checks.append(finding.check(text))
    extra = [track for track in others if track not in [other for _, other in pairs]]
    checks += [Check(name=str(track), status="fault", text="the source has no such track") for track in extra]
    return checks


def _outcome(plan: TrackPlan) -> str:
    if not plan.chosen:
        return "left out, as wished"
    return "made anew from chapters and tags" if plan.how == "regenerate" else "not compared"


def _matched(plans: Sequence[TrackPlan], others: Sequence[TrackInfo]) -> list[tuple[TrackPlan, TrackInfo]]:
    """Which track became which: in order within each kind, with a missing one found by codec and language."""
    pairs = []
    for kind in ("audio", "subtitle", "cover", "video", "attachment"):
        mine = [plan for plan in plans if _kind(plan.track) == kind]
        theirs = [track for track in others if _kind(track) == kind]
        if len(mine) == len(theirs):
            pairs += list(zip(mine, theirs, strict=True))
            continue
        first = [(plan.target.codec if plan.target else plan.track.codec, plan.track.language) for plan in mine]
        second = [(track.codec, track.language) for track in theirs]
        for block in SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks():
            pairs += [(mine[block.a + step], theirs[block.b + step]) for step in range(block.size)]
    return pairs


def _kind(track: TrackInfo) -> str:
    return "cover" if track.cover else track.kind


class _Place:
    """Where a packet of the source belongs in the output: times never step back, and the span is cut out."""

    def __init__(self, plan: TrackPlan, span: Span) -> None:
        self._cover, self._subtitle, self._span = plan.track.cover, plan.track.kind == "subtitle", span
        self._timeline: Timeline | None = None

    def __call__(self, packet: Any) -> tuple[int, int] | None:
        if self._timeline is None:
            self._timeline = Timeline(packet.time_base, strict=False)
        moved = 0 if packet.dts is None else self._timeline.place(packet.dts, packet.duration or 0) - packet.dts
        stated = packet.pts if packet.pts is not None else packet.dts
        if stated is None:
            return 0, 0
        time, duration, base = stated + moved, packet.duration or 0, packet.time_base
        span, seconds = self._span, time * base
        if self._cover:
            return time, duration
        if self._subtitle and packet.pts is not None and span.start is not None and seconds < span.start:
            begin = math.ceil(span.start / base)
            left = time + duration - begin
            return (begin, left) if left > 0 else None
        inside = (span.start is None or seconds >= span.start) and (span.end is None or seconds < span.end)
        return (time, duration) if inside else None


def _compare(
    finding: Finding,
    plan: TrackPlan,
    stream: Any,
    copy: Any,
    packets: tuple[Packets, Packets] | None,
    output: Path,
    expected: Expectation,
    span: Span,
) -> str:
    """Compares what a track holds; gives the text for when nothing differs."""
    if plan.track.kind == "attachment":
        if bytes(stream.data) != bytes(copy.data):
            finding.add("its content differs")
        return f"{len(stream.data)} bytes, the same"
    if plan.how == "convert":
        if plan.track.kind == "subtitle":
            return compare_cues(finding, expected.source, stream.index, output, copy.index, span)
        lossless = isinstance(plan.target, AudioTarget) and plan.target.lossless
        return compare_sound(finding, expected.source, stream.index, output, copy.index, span, lossless=lossless)
    assert packets is not None
    mine, other = packets
    _codecs(finding, stream, copy)
    if plan.track.cover:
        if list(mine.prints[:1]) != list(other.prints[:1]):
            finding.add("the picture differs")
        return "the same picture"
    tolerance = _tolerance(expected, mine.time_base, other.time_base, span)
    if mine.joined is not None:
        return _joined(finding, mine, other, tolerance, span)
    for difference in _differences(mine, other, tolerance, span):
        finding.add(difference)
    return f"{len(mine.times)} packets, the same"


def _tolerance(expected: Expectation, mine: Fraction, other: Fraction, span: Span) -> Fraction:
    """How far a packet's time may be off: half a step of the output's clock, a whole one where all was moved."""
    name = expected.container.format
    step = max(other, expected.container.time_base or Fraction(0))
    if name in _LOOSE:
        return max(step, _LOOSE[name])
    if span.moved:
        return step
    exact = (mine / step).denominator == 1
    # What a cut takes off is a whole number of the source's steps.
    return (Fraction(0) if exact else step / 2) + (Fraction(0) if span.start is None else mine / 2)


def _codecs(finding: Finding, stream: Any, copy: Any) -> None:
    first, second = (one.codec_context for one in (stream, copy))
    if first is None or second is None:
        return
    before, after = first.codec.canonical_name, second.codec.canonical_name
    if before != after and {before, after} != _ONE_NAME:
        finding.add(f"the codec is {after} instead of {before}")
    elif copy.container.format.name == "mpegts":
        return  # which writes every configuration in its own way
    elif before not in _FRAMED and first.extradata and second.extradata and first.extradata != second.extradata:
        finding.add("the codec's configuration differs")


def _joined(finding: Finding, mine: Packets, other: Packets, tolerance: Fraction, span: Span) -> str:
    if mine.joined != other.joined:
        finding.add(f"its samples differ ({mine.size_bytes} bytes became {other.size_bytes})")
    elif mine.times and abs(late := other.seconds(0) - mine.seconds(0) - span.offset) > tolerance:
        finding.add(f"it is {_late(late)}")
    return f"{mine.size_bytes} bytes of samples, the same"


def _differences(mine: Packets, other: Packets, tolerance: Fraction, span: Span) -> Iterator[str]:
    """Packets that are missing, changed, too many, or at another time, named by their time in the source."""
    left, right = 0, 0
    while left < len(mine.times) or right < len(other.times):
        step = _step(mine.prints, other.prints, left, right)
        for missing in range(left, left + step.missing):
            yield f"the packet at {clock(mine.seconds(missing) - span.begin)} is missing"
        for extra in range(right, right + step.extra):
            yield f"there is a packet too many at {clock(other.seconds(extra) - span.offset - span.begin)}"
        left, right = left + step.missing, right + step.extra
        if left >= len(mine.times) or right >= len(other.times):
            continue
        when = clock(mine.seconds(left) - span.begin)
        late = other.seconds(right) - span.offset - mine.seconds(left)
        if step.changed:
            yield f"the packet at {when} has another content"
        elif abs(late) > tolerance:
            yield f"the packet at {when} is {_late(late)}"
        left, right = left + 1, right + 1


@dataclass(frozen=True, slots=True)
class _Step:
    missing: int = 0
    extra: int = 0
    changed: bool = False


def _step(mine: Sequence[int], other: Sequence[int], left: int, right: int) -> _Step:
    """How the two go on from here."""
    if left >= len(mine):
        return _Step(extra=len(other) - right)
    if right >= len(other):
        return _Step(missing=len(mine) - left)
    if mine[left] == other[right]:
        return _Step()
    ahead = mine[left : left + _AHEAD]
    behind = other[right : right + _AHEAD]
    missing = ahead.index(other[right]) if other[right] in ahead else _AHEAD
    extra = behind.index(mine[left]) if mine[left] in behind else _AHEAD
    if missing == extra == _AHEAD:
        return _Step(changed=True)
    return _Step(missing=missing) if missing <= extra else _Step(extra=extra)


def _late(seconds: Fraction) -> str:
    return f"{clock(abs(seconds))} {'late' if seconds > 0 else 'early'}"


def _describe(finding: Finding, plan: TrackPlan, stream: Any, copy: Any, expected: Expectation) -> None:
    """Language, title and marks; all other tags where both files are of one kind."""
    name = expected.container.format
    # Measurements of the content are the muxer's own, also where that has not changed.
    wanted = stream_tags(stream.metadata, changed=True, recoded=plan.how == "convert", format=name)
    found = dict(copy.metadata)
    if plan.how == "attach":
        return
    for what in plan.loses:
        finding.add(f"its {what} is left out", expected=True)
    languages = [tags.get("language", "und") for tags in (wanted, found)]
    if not same_language(*languages) and "language" not in plan.loses:
        finding.add(f"its language is {languages[1]} instead of {languages[0]}")
    title = wanted.get("title")
    if title and title not in found.values() and "title" not in plan.loses:
        finding.add(f"its title is {found.get('title', 'missing')} instead of {title}")
    marks = int(stream.disposition) & ~int(copy.disposition) & ~av.stream.Disposition.default
    for mark in av.stream.Disposition:
        words = str(mark.name).replace("_", " ")
        if mark & marks and words not in plan.loses:
            finding.add(f"it is no longer marked {words}")
    if "matroska" in expected.source.format and name == "matroska":
        rest = {key: value for key, value in wanted.items() if key.lower() not in _NOT_TAGS}
        finding.extend(f"its tag {difference}" for difference in differing_tags(rest, found))
