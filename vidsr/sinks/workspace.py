"""The folder beside an output that holds what is done of it: whole segments and the journal that vouches for them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from vidsr.durable import give_name, sync, sync_folder, write_whole
from vidsr.errors import OutputError
from vidsr.media.segment import SegmentInfo

__all__ = ["Workspace", "folder_of"]

_JOURNAL = "journal.jsonl"
_LOCK = "lock"
_VERSION = 1
_OWN_NAMES = re.compile(r"lock|journal\.jsonl(\.\d+\.part)?|\d{6,}\.segment|joined\.\w+")


def folder_of(path: Path) -> Path:
    """Where the work towards `path` lies until it is complete."""
    return path.with_name(path.name + ".vidsr")


class Workspace:
    """`OUT.vidsr/`: made, taken up again and removed by one run at a time, which a lock sees to.

    identity: facts about input, model and settings by name; a run is only taken up again under the same. plan: what
    the first run decided and a later one follows. damaged_frames: of an earlier run, whose files were damaged since.
    The journal is a line for these and one for each whole segment, every
    line synced; a torn last line is a segment that is not done.

    mode: "new" refuses a folder that holds work, "resume" takes it up (and begins where there is none), "replace"
    throws it away. Raises OutputError with the reason.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, str],
        plan: Mapping[str, Any],
        mode: Literal["new", "resume", "replace"],
    ) -> None:
        self.path, self.folder = path, folder_of(path)
        self.segments: list[SegmentInfo] = []
        self.plan = dict(plan)
        self.named = False
        self.damaged_frames = 0
        self._identity = dict(identity)
        self._lock = self._locked()
        try:
            with self._writing():
                self._enter(mode)
        except BaseException:
            self.release()
            raise

    @property
    def joined(self) -> Path:
        """The name of the finished file until it gets its own."""
        return self.folder / ("joined" + self.path.suffix)

    @property
    def frames(self) -> int:
        """In whole segments."""
        return sum(segment.frames for segment in self.segments)

    def next_segment(self) -> Path:
        return self.folder / self._segment_name(len(self.segments))

    @staticmethod
    def _segment_name(index: int) -> str:
        return f"{index:06}.segment"

    def add(self, segment: SegmentInfo) -> None:
        """Vouches for a segment whose file is closed and synced."""
        self._append({"segment": asdict(segment)})
        self.segments.append(segment)

    def name(self, *, overwrite: bool) -> None:
        """Gives the joined file its final name. Raises FileExistsError where another file took it meanwhile."""
        status = self.joined.stat()
        self._append({"joined": {"inode": status.st_ino, "bytes": status.st_size}})
        give_name(self.joined, self.path, overwrite=overwrite)
        self.named = True

    def remove(self) -> None:
        """Ends it: nothing is left of the folder."""
        with suppress(OSError):
            self._clear()
            (self.folder / _LOCK).unlink(missing_ok=True)
            self.folder.rmdir()
        self.release()

    def release(self) -> None:
        """Lets another run in."""
        self._lock.release()

    def _locked(self) -> FileLock:
        """The lock, held; a folder that vanished between making and locking it is made again."""
        while True:
            with self._writing():
                self.folder.mkdir(exist_ok=True)
                foreign = [entry.name for entry in self.folder.iterdir() if not _OWN_NAMES.fullmatch(entry.name)]
            if foreign:
                raise OutputError(
                    f"{self.folder} is needed for the work under way, but holds {foreign[0]}: move that away"
                )
            lock = FileLock(self.folder / _LOCK, timeout=0)
            try:
                lock.acquire()
            except Timeout:
                raise OutputError(f"{self.path}: another run is writing it at this moment") from None
            except OSError as error:
                if not self.folder.exists():
                    continue
                raise OutputError(f"{self.folder}: cannot be written ({error.strerror or error})") from error
            if (self.folder / _LOCK).exists():
                return lock
            lock.release()

    def _enter(self, mode: Literal["new", "resume", "replace"]) -> None:
        if mode == "replace":
            self._clear()
        header, segments, joined = self._read()
        work = [entry.name for entry in self.folder.iterdir() if not entry.name.startswith((_LOCK, _JOURNAL))]
        if header is None and work:
            raise OutputError(
                f"{self.folder} holds work that this version of vidsr cannot read: move it away, or add -y "
                "(overwrite=True) to begin anew"
            )
        if header is not None and joined and self._is_output(joined):
            self._compare(header)
            self.named, self.segments = True, segments
        elif header is None or not segments:
            self._clear()
            self._append(self._header())
        elif mode == "new":
            frames = sum(segment.frames for segment in segments)
            raise OutputError(
                f"{self.folder} holds an unfinished run, {frames} frames done: add --resume (resume=True) to go on, "
                "or -y (overwrite=True) to begin anew"
            )
        else:
            self._compare(header)
            self.plan = header["plan"]
            self.segments = self._whole(segments)
            self.damaged_frames = sum(segment.frames for segment in segments) - self.frames
            self._rewrite()

    def _clear(self) -> None:
        # The journal goes last: work without it, after a kill in between, would be nobody's.
        for entry in sorted(self.folder.iterdir(), key=lambda entry: entry.name.startswith(_JOURNAL)):
            if entry.name != _LOCK:
                entry.unlink()

    def _read(self) -> tuple[dict[str, Any] | None, list[SegmentInfo], dict[str, Any] | None]:
        """Header, segments and the joined file's marks, as far as the lines are whole."""
        try:
            lines = (self.folder / _JOURNAL).read_bytes().splitlines()
        except FileNotFoundError:
            return None, [], None
        entries: list[dict[str, Any]] = []
        for line in lines:
            try:
                entries.append(json.loads(line))
            except ValueError:
                break
        if not entries or not isinstance(entries[0], dict) or entries[0].get("version") != _VERSION:
            return None, [], None
        try:
            segments = [SegmentInfo(**entry["segment"]) for entry in entries if "segment" in entry]
            joined = next((entry["joined"] for entry in reversed(entries) if "joined" in entry), None)
            identity, plan = dict(entries[0]["identity"]), dict(entries[0]["plan"])
            return {"identity": identity, "plan": plan}, segments, joined
        except (KeyError, TypeError, ValueError):  # written by another version
            return None, [], None

    def _is_output(self, joined: Mapping[str, Any]) -> bool:
        """Whether the run ended between naming the output and cleaning up."""
        try:
            status = self.path.stat()
        except OSError:
            return False
        return (status.st_ino, status.st_size) == (joined["inode"], joined["bytes"])

    def _compare(self, header: Mapping[str, Any]) -> None:
        before = header["identity"]
        for key in [*before, *(key for key in self._identity if key not in before)]:
            old, new = before.get(key, "not set"), self._identity.get(key, "not set")
            if old != new:
                raise OutputError(
                    f"{self.folder} cannot be resumed: {key} was {old}, now it is {new}; "
                    "use the same input and settings, or begin anew with -y (overwrite=True) and without --resume"
                )

    def _whole(self, segments: list[SegmentInfo]) -> list[SegmentInfo]:
        """Those up to the first that is not as the journal says."""
        for index, segment in enumerate(segments):
            named = segment.name == self._segment_name(index) and segment.frames > 0
            if not named or _sha256(self.folder / segment.name) != segment.sha256:
                return segments[:index]
        return segments

    def _rewrite(self) -> None:
        """The journal without lines that no longer count, by a new file in its place; other files go."""
        kept = {_LOCK, _JOURNAL, *(segment.name for segment in self.segments)}
        for entry in self.folder.iterdir():
            if entry.name not in kept:
                entry.unlink()
        lines = [self._header()]
        lines += [{"segment": asdict(segment)} for segment in self.segments]
        write_whole(self.folder / _JOURNAL, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def _header(self) -> dict[str, Any]:
        return {"version": _VERSION, "identity": self._identity, "plan": self.plan}

    def _append(self, line: Mapping[str, Any]) -> None:
        with self._writing():
            fresh = not (self.folder / _JOURNAL).exists()
            with (self.folder / _JOURNAL).open("a", encoding="utf-8") as out:
                out.write(json.dumps(line) + "\n")
                sync(out)
            sync_folder(self.folder)
            if fresh:
                sync_folder(self.folder.parent)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written ({error.strerror or error})") from error


def _sha256(path: Path) -> str | None:
    """None if there is no such file."""
    try:
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        return None
