"""The sound to what is played, ahead of the viewer's clock."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from threading import Thread

from vidsr.errors import InputError
from vidsr.media.info import SourceInfo
from vidsr.media.sound import Sound, SoundReader
from vidsr.preview.desk import Desk, Wish

__all__ = ["Hearing"]

_LANE = "sound"
_AHEAD_SECONDS = 1.5


class Hearing:
    """Sends sound for each wish to play, from `start` to `close`. A source without any is silent.

    send: gets the wish, the sound, and its samples a second. notice: what the viewer should know.
    """

    def __init__(
        self,
        source: SourceInfo,
        desk: Desk,
        *,
        send: Callable[[Wish, Sound, int], None],
        notice: Callable[[str], None],
    ) -> None:
        self._source, self._desk, self._send, self._notice = source, desk, send, notice
        self._thread = Thread(target=self._run, name="vidsr-sound")

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._desk.leave(_LANE)
        self._thread.join()

    def _run(self) -> None:
        try:
            reader, note = SoundReader.of(self._source)
            if note is not None:
                self._notice(note)
            if reader is not None:
                with closing(reader):
                    self._play_all(reader)
        except InputError as error:  # the file is gone, which the lanes find, too
            self._notice(str(error))

    def _play_all(self, reader: SoundReader) -> None:
        done = 0
        while (wish := self._desk.next(_LANE, done, every=True)) is not None:
            done = wish.serial
            if wish.playing:
                self._play(reader, wish)

    def _play(self, reader: SoundReader, wish: Wish) -> None:
        reader.seek(wish.seconds)
        while (sound := reader.read()) is not None:
            if not self._desk.wait_until(float(sound.seconds) - _AHEAD_SECONDS, wish):
                return
            self._send(wish, sound, reader.rate)
