"""What an unfinished run leaves, and who may go on with it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from vidsr.errors import OutputError
from vidsr.media.segment import SegmentInfo
from vidsr.sinks.workspace import Workspace, folder_of

IDENTITY = {"--crf": "18", "the input's size": "1000 bytes"}


@contextmanager
def workspace(
    path: Path, mode: Literal["new", "resume", "replace"] = "new", identity: dict[str, str] = IDENTITY
) -> Iterator[Workspace]:
    opened = Workspace(path, identity, {"tile": None}, mode)
    try:
        yield opened
    finally:
        opened.release()


def add_segment(opened: Workspace, content: bytes = b"segment") -> SegmentInfo:
    path = opened.next_segment()
    path.write_bytes(content)
    info = SegmentInfo(
        name=path.name, frames=10, first_pts=0, end_pts=10, bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(), reorder=2, extradata="",
    )  # fmt: skip
    opened.add(info)
    return info


def test_work_is_taken_up_again(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with workspace(out) as first:
        infos = [add_segment(first), add_segment(first, b"another")]
    with workspace(out, "resume") as second:
        assert second.segments == infos
        assert second.frames == 20
        third = add_segment(second)
    with workspace(out, "resume") as again:
        assert again.segments == [*infos, third]


def test_resume_begins_where_there_is_nothing(tmp_path: Path) -> None:
    with workspace(tmp_path / "out.mp4", "resume") as opened:
        assert opened.segments == []
        add_segment(opened)


def test_work_is_not_thrown_away_unasked(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with workspace(out) as first:
        add_segment(first)
    with pytest.raises(OutputError, match=r"unfinished run, 10 frames.*--resume.*-y"), workspace(out):
        pass
    with workspace(out, "replace") as fresh:
        assert fresh.segments == []
        assert not fresh.next_segment().exists()


def test_a_folder_without_segments_is_no_work(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with workspace(out):
        pass
    with workspace(out) as again:
        assert again.segments == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--crf": "20", "the input's size": "1000 bytes"}, "--crf was 18, now it is 20"),
        ({"--crf": "18", "the input's size": "7 bytes"}, "the input's size was 1000 bytes, now it is 7 bytes"),
        ({"--crf": "18"}, "the input's size was 1000 bytes, now it is not set"),
        ({**IDENTITY, "--start": "1"}, "--start was not set, now it is 1"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    out = tmp_path / "out.mp4"
    with workspace(out) as first:
        add_segment(first)
    with pytest.raises(OutputError, match=said), workspace(out, "resume", changed):
        pass
    with workspace(out, "resume") as still:
        assert len(still.segments) == 1


def test_two_runs_at_once(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    modes: list[Literal["new", "resume", "replace"]] = ["new", "resume", "replace"]
    with workspace(out) as first:
        add_segment(first)
        for mode in modes:
            with pytest.raises(OutputError, match="another run"), workspace(out, mode):
                pass
        add_segment(first)
    with workspace(out, "resume") as after:
        assert len(after.segments) == 2


@pytest.mark.parametrize("damage", ["torn", "missing", "changed", "garbage"])
def test_what_is_not_whole_is_done_again(tmp_path: Path, damage: str) -> None:
    out = tmp_path / "out.mp4"
    with workspace(out) as first:
        infos = [add_segment(first, bytes([index])) for index in range(3)]
    journal = folder_of(out) / "journal.jsonl"
    if damage == "torn":
        journal.write_bytes(journal.read_bytes()[:-20])
    elif damage == "garbage":
        journal.write_bytes(journal.read_bytes() + b'{"segment": {"na\xff')
    else:
        path = folder_of(out) / infos[2].name
        path.unlink() if damage == "missing" else path.write_bytes(b"x")
    whole = 3 if damage == "garbage" else 2
    with workspace(out, "resume") as again:
        assert again.segments == infos[:whole]
        added = add_segment(again)
    with workspace(out, "resume") as once_more:
        assert once_more.segments == [*infos[:whole], added]


def test_files_of_no_whole_segment_go(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with workspace(out) as first:
        add_segment(first)
        first.next_segment().write_bytes(b"half")
        first.joined.write_bytes(b"half")
    with workspace(out, "resume") as again:
        assert not again.next_segment().exists()
        assert not again.joined.exists()


@pytest.mark.parametrize("links", [True, False])
def test_naming_replaces_nothing_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    out = tmp_path / "out.mp4"
    if not links:
        monkeypatch.setattr(os, "link", _no_links)
    with workspace(out) as opened:
        opened.joined.write_bytes(b"done")
        out.write_bytes(b"somebody else's")
        with pytest.raises(FileExistsError):
            opened.name(overwrite=False)
        assert out.read_bytes() == b"somebody else's"
        opened.name(overwrite=True)
        assert out.read_bytes() == b"done"
        opened.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def _no_links(*_: object) -> None:
    raise OSError("no hard links here")


@pytest.mark.parametrize("links", [True, False])
def test_a_run_killed_behind_the_naming_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    out = tmp_path / "out.mp4"
    if not links:
        monkeypatch.setattr(os, "link", _no_links)
    with workspace(out) as opened:
        add_segment(opened)
        opened.joined.write_bytes(b"done")
        opened.name(overwrite=False)
    with workspace(out, "resume") as again:
        assert again.named
        again.remove()
    assert out.read_bytes() == b"done"
    assert not folder_of(out).exists()


@pytest.mark.parametrize("gone", range(5))
def test_a_run_killed_while_it_removes_its_folder_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: int
) -> None:
    """After any number of the folder's files: two segments, the output's other name, the journal, the lock."""
    out = tmp_path / "out.mp4"
    left = iter(range(gone))
    unlink = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with workspace(out) as opened:
        add_segment(opened)
        add_segment(opened)
        opened.joined.write_bytes(b"done")
        opened.name(overwrite=False)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", killed)
            with pytest.raises(KeyboardInterrupt):
                opened.remove()
    with workspace(out, "resume") as again:
        assert again.named == (gone < 4)
        again.remove()
    assert out.read_bytes() == b"done"
    assert not folder_of(out).exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "out.mp4.vidsr").write_bytes(b"a file of that name")
    with pytest.raises(OutputError, match=r"out\.mp4\.vidsr"), workspace(tmp_path / "out.mp4"):
        pass


@pytest.mark.parametrize("mode", ["new", "resume", "replace"])
def test_files_of_somebody_else_stay(tmp_path: Path, mode: Literal["new", "resume", "replace"]) -> None:
    folder = folder_of(tmp_path / "out.mp4")
    folder.mkdir()
    (folder / "holiday.mp4").write_text("precious")
    with pytest.raises(OutputError, match="holds holiday"), workspace(tmp_path / "out.mp4", mode):
        pass
    assert (folder / "holiday.mp4").read_text() == "precious"


@pytest.mark.parametrize("damage", ["version", "first line", "fields"])
@pytest.mark.parametrize("mode", ["new", "resume"])
def test_work_that_cannot_be_read_is_not_cleared(
    tmp_path: Path, damage: str, mode: Literal["new", "resume", "replace"]
) -> None:
    out = tmp_path / "out.mp4"
    with workspace(out) as first:
        segment = add_segment(first)
    journal = folder_of(out) / "journal.jsonl"
    content = journal.read_text()
    changes = {"version": ('"version": 1', '"version": 99'), "first line": ("{", ""), "fields": ("reorder", "other")}
    journal.write_text(content.replace(*changes[damage], 1))
    with pytest.raises(OutputError, match=r"cannot read.*-y"), workspace(out, mode):
        pass
    assert (folder_of(out) / segment.name).exists()
    with workspace(out, "replace") as fresh:
        assert fresh.segments == []


def test_a_named_run_is_only_taken_up_with_its_own_settings(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with workspace(out) as opened:
        add_segment(opened)
        opened.joined.write_bytes(b"done")
        opened.name(overwrite=False)
    with pytest.raises(OutputError, match="--crf was 18"), workspace(out, "resume", {**IDENTITY, "--crf": "40"}):
        pass


def test_damaged_segments_are_counted(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with workspace(out) as first:
        infos = [add_segment(first, bytes([index])) for index in range(3)]
    (folder_of(out) / infos[1].name).write_bytes(b"changed")
    with workspace(out, "resume") as again:
        assert (again.frames, again.damaged_frames) == (10, 20)


def test_other_settings_are_fine_where_nothing_is_done(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with workspace(out):
        pass
    with workspace(out, "resume", {"--crf": "40"}) as again:
        assert again.segments == []
