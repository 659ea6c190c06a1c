"""Tags of files and tracks: which belong to the content, and which of them a container keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidsr.media.source import open_input
from vidsr.media.trial import REFUSALS, add_silence, written_back

__all__ = ["container_tags", "lost_tags", "same_language", "stream_tags", "tag_options"]

_CONTAINER_OWN = {"major_brand", "minor_version", "compatible_brands", "encoder"}
_STATISTICS = re.compile(r"(bps|duration|number_of_frames|number_of_bytes|_statistics_.*)(-\w+)?", re.IGNORECASE)
_RECODED = {"encoder", "alpha_mode"}
_WRITTEN_ANYWAY = {"creation_time"}
_MDTA = {"movflags": "use_metadata_tags"}
_LANGUAGES = (
    "alb sqi,arm hye,baq eus,bur mya,chi zho,ces cze,dut nld,fra fre,geo kat,ger deu,gre ell,ice isl,mac mkd,may msa,"
    "mao mri,per fas,ron rum,slk slo,sve swe,tib bod,wel cym"
)
"""Languages with two codes, the one that QuickTime takes first."""
_QUICKTIME_LANGUAGE = {code: pair.split()[0] for pair in _LANGUAGES.split(",") for code in pair.split()}


def container_tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """Tags of the file that belong to its content; those that describe the old file are left to the new one."""
    return {key: value for key, value in metadata.items() if key.lower() not in _CONTAINER_OWN}


def stream_tags(
    metadata: Mapping[str, str], *, changed: bool, recoded: bool = False, format: str = ""
) -> dict[str, str]:
    """Tags of a track. `changed` content leaves out those that measured it, `recoded` what describes the encoding.

    format: of the container they are for.
    """
    kept = {key: value for key, value in metadata.items() if not (changed and _STATISTICS.fullmatch(key))}
    kept = {key: value for key, value in kept.items() if not (recoded and key.lower() in _RECODED)}
    if "name" in kept:  # as MP4 calls the title of a track when it is read
        kept.setdefault("title", kept.pop("name"))
    if format == "mov" and "language" in kept:
        kept["language"] = _QUICKTIME_LANGUAGE.get(kept["language"], kept["language"])
    return kept


def same_language(one: str, other: str) -> bool:
    """Whether two codes mean one language: ISO 639-2 has two codes for some."""
    first, second = (_QUICKTIME_LANGUAGE.get(code.lower(), code.lower()) for code in (one, other))
    return first == second


def tag_options(path: Path, format: str, *, covers: bool) -> dict[str, str]:
    """Options of the container with which it keeps the tags of the file at `path`.

    MP4 and MOV have two places for tags. The usual one is where every player looks, and where covers lie, but it knows
    few names; the other takes any name, as telephones write them, and only one can be used. It is taken where
    nothing would be missed in the usual one.
    """
    if format not in ("mp4", "mov") or covers:
        return {}
    wanted = _tags_of(path)
    lost = _lost(wanted, format, {})
    usual = wanted.keys() - set(lost) - _WRITTEN_ANYWAY
    return _MDTA if lost and not usual and not _lost(wanted, format, _MDTA) else {}


def lost_tags(path: Path, format: str, options: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the tags of the file at `path` that a container does not keep. options: see `tag_options`."""
    return _lost(_tags_of(path), format, options)


def _tags_of(path: Path) -> dict[str, str]:
    with open_input(path) as opened:
        return container_tags(opened.metadata)


def _lost(wanted: Mapping[str, str], format: str, options: Mapping[str, str]) -> tuple[str, ...]:
    """By writing them in front of a moment of silence and reading them back."""

    def write(output: Any) -> None:
        output.metadata.update(wanted)
        add_silence(output, format)

    if not wanted:
        return ()
    try:
        kept, _ = written_back(format, write, options)
    except REFUSALS:
        return tuple(wanted)
    names, values = {name.lower() for name in kept}, set(kept.values())
    return tuple(name for name, value in wanted.items() if name.lower() not in names and value not in values)
