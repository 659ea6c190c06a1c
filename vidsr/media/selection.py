"""Which tracks a user wants besides the video."""

from __future__ import annotations

from vidsr.errors import UsageError
from vidsr.media.source import SourceInfo, TrackInfo
from vidsr.media.tags import same_language

__all__ = ["select"]

_KINDS = ("audio", "subtitle", "attachment", "cover", "data", "video")


def select(source: SourceInfo, text: str) -> frozenset[int]:
    """The tracks that `text` names, by index: a list, with commas, of `all`, `none`, kinds (`audio`, `subtitle`,
    `attachment`, `cover`, `data`, further `video`), `KIND:LANGUAGE` and numbers. `-` before one takes it out; a list
    that begins so begins with all.

    Raises UsageError, which says what there is, for what means nothing or names a track that is not there.
    """
    others = {track.index: track for track in source.tracks if track.index != source.video.index}
    items = [item.strip().lower() for item in text.split(",")]
    kept = set(others) if items[0].startswith("-") else set()
    for item in items:
        name = item.removeprefix("-")
        named = _named(source, others, name)
        if named is None:
            raise UsageError(f"--tracks {text}: {name or 'nothing'} {_offer(others)}")
        if name == "none" or item.startswith("-"):
            kept -= named
        else:
            kept |= named
    return frozenset(kept)


def _named(source: SourceInfo, others: dict[int, TrackInfo], name: str) -> set[int] | None:
    """The tracks of one word; None if it means none. A kind of which there is no track is fine: it is a wish."""
    kind, colon, language = name.partition(":")
    if name in ("all", "none"):
        return set(others)
    if name.isdecimal():
        index = int(name)
        return {index} & set(others) if index in others or index == source.video.index else None
    if kind not in _KINDS:
        return None
    named = {index for index, track in others.items() if _kind(track) == kind}
    if colon:
        return {index for index in named if same_language(others[index].language, language)} or None
    return named


def _kind(track: TrackInfo) -> str:
    return "cover" if track.cover else track.kind


def _offer(others: dict[int, TrackInfo]) -> str:
    tracks = "; ".join(f"{index} is {track}" for index, track in sorted(others.items()))
    words = ", ".join(_KINDS)
    return f"names no track: there is {tracks or 'none besides the video'} (or all, none, KIND, KIND:LANG of {words})"
