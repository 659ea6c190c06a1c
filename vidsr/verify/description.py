"""What a file says about its picture and itself: colour, shape, HDR, chapters, tags."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from vidsr.color import RGB, UNSPECIFIED, ColorTags, HdrMetadata
from vidsr.media.container import VIDEO_WITHOUT_LANGUAGE
from vidsr.media.source import SourceInfo, VideoInfo, open_input
from vidsr.media.tags import container_tags, lost_tags, same_language, stream_tags, tag_options
from vidsr.verify.expectation import Expectation
from vidsr.verify.result import Check, Finding, clock

__all__ = ["compare_chapters", "compare_picture_format", "compare_tags", "differing_tags"]

_SAME_SHAPE = Fraction(1, 100)
_HDR_CODECS = {"h264", "hevc", "av1"}
_CHAPTER_STEP = Fraction(1, 1000)
_FULL_TURN = 65536
_PLACE = re.compile(r"([+-]\d+(\.\d+)?){2,3}/?")
_DATE = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.0+)?Z?")


def compare_picture_format(output: SourceInfo, expected: Expectation) -> tuple[Check, ...]:
    """Size, pixel format, colour, shape, orientation and HDR metadata of the video track."""
    found = output.video
    return (_format(found, expected), _colour(found, expected), _shape(found, expected), _hdr(found, expected))


def _format(found: VideoInfo, expected: Expectation) -> Check:
    finding = Finding("picture format")
    made = found.layout
    size = f"{made.width}x{made.height}"
    if expected.video is not None:
        wanted = expected.video.layout
        if (made.height, made.width) != (wanted.height, wanted.width):
            finding.add(f"it is {size} instead of {wanted.width}x{wanted.height}")
        # FFmpeg decodes H.264 without colour as 4:2:0.
        colourless = wanted.family == "gray" and found.codec == "h264"
        for name in ("alpha",) if colourless else ("family", "chroma", "alpha"):
            if getattr(made, name) != getattr(wanted, name):
                finding.add(f"{name} is {getattr(made, name)} instead of {getattr(wanted, name)}")
        if made.bits < wanted.bits:  # FFmpeg reads ProRes 4444 with more than it writes
            finding.add(f"it has {made.bits} bits instead of {wanted.bits}")
    else:
        given = expected.source.video.layout
        if made.bits < given.bits:
            finding.add(f"it has {made.bits} bits, the source {given.bits}", expected=True)
        if given.alpha and not made.alpha:
            finding.add("its transparency is left out", expected=True)
    return finding.check(f"{size} {found.pixel_format}, {found.codec}")


def _colour(found: VideoInfo, expected: Expectation) -> Check:
    finding = Finding("colour tags")
    video, given = expected.video, expected.source.video
    same_family = given.layout.family == found.layout.family
    wanted = video.color if video is not None else given.color
    names = ["primaries", "transfer", "matrix", "full_range"] if video or same_family else ["primaries", "transfer"]
    is_now = found.color
    if found.layout.family == "rgb":
        wanted, is_now = _rgb_stated(wanted), _rgb_stated(is_now)
    elif given.layout.family == "gray":
        wanted = _gray_stated(wanted)
        is_now = _gray_stated(is_now) if found.layout.family == "gray" else is_now
    for name in names:
        before, after = getattr(wanted, name), getattr(is_now, name)
        # A range that is not stated is the limited one; some codecs always state it, others then never do.
        if before != after and not (name == "full_range" and not before and not after):
            finding.add(f"{name.replace('_', ' ')} is {after} instead of {before}")
    return finding.check(_in_words(found.color))


def _rgb_stated(tags: ColorTags) -> ColorTags:
    """What tags of an RGB picture mean where they say nothing: encoders differ in whether they write it."""
    matrix = RGB if tags.matrix == UNSPECIFIED else tags.matrix
    return replace(tags, matrix=matrix, full_range=tags.full_range is not False)


def _gray_stated(tags: ColorTags) -> ColorTags:
    """Gray pictures are tagged as RGB by PNG and its like, which video codecs cannot say without three planes."""
    return replace(tags, matrix=UNSPECIFIED) if tags.matrix == RGB else tags


def _in_words(tags: ColorTags) -> str:
    ranges = {None: "range not stated", False: "limited range", True: "full range"}
    return f"{tags.primaries}/{tags.transfer}/{tags.matrix}, {ranges[tags.full_range]}"


def _shape(found: VideoInfo, expected: Expectation) -> Check:
    """The picture as it is shown: sample aspect ratio, and turning and mirroring."""
    finding = Finding("shape")
    given, video = expected.source.video, expected.video
    ratio = found.sample_aspect_ratio or Fraction(1)
    wanted = (video.sample_aspect_ratio if video is not None else given.sample_aspect_ratio) or Fraction(1)
    if video is None:
        size, other = given.layout, found.layout
        change = Fraction(other.width, other.height) * ratio / (Fraction(size.width, size.height) * wanted)
        if abs(change - 1) > _SAME_SHAPE:
            finding.add(f"the picture is shown {float(change):.3f} times as wide")
    elif abs(ratio / wanted - 1) > Fraction(1, 2 * min(video.layout.width, video.layout.height)):
        # Some containers state it as the size in whole pixels at which the picture is shown.
        finding.add(f"pixels are {ratio} as wide as high instead of {wanted}")
    if _turn(found.display_matrix) != _turn(given.display_matrix):
        finding.add("it is turned or mirrored in another way")
    shown = f", pixels {ratio} as wide as high" if ratio != 1 else ""
    turned = ", turned as in the source" if given.display_matrix else ""
    return finding.check(f"as in the source{shown}{turned}")


def _turn(matrix: tuple[int, ...] | None) -> tuple[int, ...]:
    """What turns and mirrors; the rest of the matrix moves the picture back into view and grows with it."""
    return tuple(matrix[index] for index in (0, 1, 3, 4)) if matrix else (_FULL_TURN, 0, 0, _FULL_TURN)


def _hdr(found: VideoInfo, expected: Expectation) -> Check:
    finding = Finding("HDR metadata")
    wanted = expected.video.hdr if expected.video is not None else expected.source.video.hdr
    if found.hdr is None and wanted is not None:
        finding.add("it is missing", expected=found.codec not in _HDR_CODECS)
    elif found.hdr is not None and wanted is None:
        finding.add("there is some, which the source has not")
    elif found.hdr is not None and wanted is not None:
        finding.extend(_hdr_differences(wanted, found.hdr))
    for name in expected.source.video.dynamic_hdr:
        finding.add(f"{name} is left out", expected=True)
    return finding.check("as in the source" if wanted else "none, as in the source")


def _hdr_differences(wanted: HdrMetadata, found: HdrMetadata) -> Iterator[str]:
    """Encoders keep chromaticities in steps of 0.00002, AV1 in 1/65536, and luminances in 1/16384 or 0.0001."""
    steps = {"primaries": 2e-5, "luminance": 1e-4}
    for name in ("primaries", "luminance"):
        before, after = (_numbers(getattr(metadata, name)) for metadata in (wanted, found))
        if len(before) != len(after) or any(
            abs(a - b) > steps[name] + abs(a) * 1e-3 for a, b in zip(before, after, strict=True)
        ):
            yield f"{name} are {_rounded(after)} instead of {_rounded(before)}"
    for name in ("max_cll", "max_fall"):
        if getattr(wanted, name) != getattr(found, name):
            yield f"{name} is {getattr(found, name)} instead of {getattr(wanted, name)}"


def _numbers(values: Any) -> list[float]:
    if values is None:
        return []
    return [float(part) for value in values for part in (value if isinstance(value, tuple) else (value,))]


def _rounded(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values) or "not stated"


@dataclass(frozen=True, slots=True)
class _Chapter:
    start: Fraction
    end: Fraction
    title: str


def compare_chapters(output: SourceInfo, expected: Expectation, first: Fraction, moved: Fraction) -> Check:
    """first: time of the first frame of the span. moved: by how much the container moved everything."""
    finding = Finding("chapters")
    begin = expected.source.start_seconds
    wanted = list(_cut(_chapters(expected.source), expected, first))
    found = _chapters(output)
    if wanted and not expected.container.chapters:
        finding.add(f"{len(wanted)} are left out, {expected.container.format} holds none", expected=True)
        return finding.check("")
    shift = first if expected.start else Fraction(0)
    unmatched = list(found)
    for chapter in wanted:
        when = chapter.start - shift
        near = [other for other in unmatched if _near(other.start - when, moved)]
        same = [other for other in near if other.title == chapter.title]
        if not near:
            finding.add(f"the one at {clock(chapter.start - begin)} ({chapter.title}) is missing")
            continue
        other = (same or near)[0]
        unmatched.remove(other)
        if not same:
            finding.add(f"the one at {clock(chapter.start - begin)} is called {other.title} instead of {chapter.title}")
        elif output.format.startswith("matroska") and not _near(other.end - (chapter.end - shift), moved):
            finding.add(f"the one at {clock(chapter.start - begin)} ends at {clock(other.end + shift - begin)}")
    finding.extend(f"there is one too many at {clock(other.start + shift - begin)}" for other in unmatched)
    return finding.check(f"all {len(wanted)} there" if wanted else "none, as in the source")


def _near(late: Fraction, moved: Fraction) -> bool:
    """Containers that move everything else leave chapters where they are."""
    return abs(late) <= _CHAPTER_STEP or abs(late - moved) <= _CHAPTER_STEP


def _chapters(info: SourceInfo) -> list[_Chapter]:
    with open_input(info.path) as opened:
        return [
            _Chapter(
                chapter["start"] * (chapter["time_base"] or Fraction(1)),
                chapter["end"] * (chapter["time_base"] or Fraction(1)),
                chapter["metadata"].get("title", ""),
            )
            for chapter in opened.chapters()
        ]


def _cut(chapters: list[_Chapter], expected: Expectation, first: Fraction) -> Iterator[_Chapter]:
    """Those of the span, no longer than it."""
    begin = first if expected.start else None
    end = None if expected.end is None else expected.source.start_seconds + expected.end
    for chapter in chapters:
        if (begin is None or chapter.end > begin) and (end is None or chapter.start < end):
            yield _Chapter(
                chapter.start if begin is None else max(chapter.start, begin),
                chapter.end if end is None else min(chapter.end, end),
                chapter.title,
            )


def compare_tags(output: SourceInfo, expected: Expectation) -> Check:
    """Tags of the file and of the video track."""
    finding = Finding("tags")
    source, name = expected.source, expected.container.format
    covers = any(plan.track.cover and plan.how == "copy" for plan in expected.tracks)
    lost = lost_tags(source.path, name, tag_options(source.path, name, covers=covers))
    with open_input(source.path) as before, open_input(output.path) as after:
        wanted, found = container_tags(before.metadata), dict(after.metadata)
        given = before.streams[source.video.index].metadata
        tags = stream_tags(given, changed=True, recoded=True, format=name)
        video_tags = dict(after.streams[output.video.index].metadata)
    for tag in lost:
        finding.add(f"{tag} is left out, {name} does not hold it", expected=True)
    finding.extend(differing_tags({tag: value for tag, value in wanted.items() if tag not in lost}, found))
    if not same_language(tags.get("language", "und"), video_tags.get("language", "und")):
        finding.add(
            f"the video's language is {video_tags.get('language', 'not stated')} instead of {tags.get('language')}",
            expected=name in VIDEO_WITHOUT_LANGUAGE,
        )
    return finding.check(f"all {len(wanted)} there" if wanted else "none, as in the source")


def differing_tags(wanted: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    """Tags that are missing or have another value; names are the same in any case, and containers rename some."""
    values = {name.lower(): value for name, value in found.items()}
    kept = {_plain(value) for value in found.values()}
    for name, value in wanted.items():
        other = values.get(name.lower())
        if other is None and _plain(value) not in kept:
            yield f"{name} is missing"
        elif other is not None and _plain(other) != _plain(value) and _plain(value) not in kept:
            yield f"{name} is {other!r} instead of {value!r}"


def _plain(value: str) -> str:
    """A value in one notation; containers write dates and places (ISO 6709) in theirs."""
    match = _DATE.fullmatch(value)
    if match:
        return f"{match[1]}T{match[2]}"
    if _PLACE.fullmatch(value):
        return " ".join(f"{float(number):.3f}" for number in re.findall(r"[+-][\d.]+", value))
    return value
