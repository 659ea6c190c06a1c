"""Plays a file's frames as a model makes them: what is wanted when, by which lane, and what the viewer hears of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from queue import Empty, SimpleQueue
from threading import Condition, Event, Thread
from typing import Any

from vidsr import models
from vidsr.errors import Cancelled, VidsrError
from vidsr.job import Settings
from vidsr.media.info import SourceInfo
from vidsr.media.sound import Sound
from vidsr.preview.desk import Desk, Wish
from vidsr.preview.figures import Figures
from vidsr.preview.hearing import Hearing
from vidsr.preview.lane import Lane, Listener, Shot
from vidsr.preview.lanes import Built, Lanes, plain
from vidsr.preview.quality import Quality
from vidsr.preview.remedy import remedy
from vidsr.preview.session import Outbox

__all__ = ["Player"]

_TICK_SECONDS = 0.5
_GRACE_SECONDS = 1.5
"""How long engines are kept for a viewer who only loads the page again."""
_SETTLE_SECONDS = 2.5
"""Of playing, before a lane's speed is believed."""
_HOPELESS = 3
"""Times too slow, where the first frame says enough."""
_NUDGE = Fraction(1, 100_000)
"""Seconds; a time that went through the page as a float can lie before the frame it means."""


class Player:
    """Shows a source to one viewer at a time. Its methods return at once, but for `exact` and `close`, and may be
    called from any thread: one of its own decides, to which everything comes through a queue.

    settings: with the model and scale to begin with, and where. failed: told why nothing can be shown any more.
    """

    def __init__(self, source: SourceInfo, settings: Settings, failed: Callable[[str], None]) -> None:
        self._source, self._settings, self._failed = source, settings, failed
        self._good = settings
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._over = Event()
        self._thread = Thread(target=self._run, name="vidsr-player")
        quality = Quality()
        self._desk, self._figures, self._outbox = Desk(), Figures(quality), None
        self._hearing = Hearing(
            source,
            self._desk,
            send=self._send_sound,
            notice=lambda text: self._later(lambda: self._notice(text, "info")),
        )
        listener = Listener(
            shot=self._shot,
            failed=lambda lane, error: self._later(lambda: self._lane_failed(lane, error)),
            ended=lambda wish: self._later(lambda: self._at_end(wish)),
        )
        self._lanes = Lanes(source, self._desk, listener, quality, later=self._later, built=self._built)
        self._smooth, self._chosen = "auto", settings.model != models.DEFAULT
        self._playing, self._ended = True, False
        self._at, self._steps = settings.start or Fraction(0), 0
        self._left, self._visited = time.monotonic(), False
        self._told: Mapping[str, Any] = {}
        self._exact: Shot | None = None
        self._exact_made = Condition()

    _outbox: Outbox | None

    def start(self) -> None:
        """Begins to load, so that there is something to show when the first viewer comes."""
        self._hearing.start()
        self._thread.start()
        self._later(lambda: self._lanes.build(self._settings))

    def attach(self, outbox: Outbox) -> None:
        """A viewer has come, and goes on where the one before was."""
        self._later(lambda: self._attach(outbox))

    def detach(self) -> None:
        """Nobody looks: nothing is done any more."""
        self._later(self._detach)

    def play(self) -> None:
        self._later(self._play)

    def pause(self, seconds: float | None = None) -> None:
        """At that time, or where the viewer's clock stands."""
        self._later(lambda: self._pause(seconds))

    def seek(self, seconds: float) -> None:
        self._later(lambda: self._seek(Fraction(seconds)))

    def step(self, by: int) -> None:
        """So many frames further, or back."""
        self._later(lambda: self._step(by))

    def choose(self, model: str | None, scale: Fraction | None) -> None:
        """None for the model that is shown, and for the model's own scale."""
        self._later(lambda: self._choose(model, scale))

    def smooth(self, how: str) -> None:
        self._later(lambda: self._set_smooth(how))

    def look(self, x: float, y: float) -> None:
        """The middle of what the viewer looks at, 0..1."""
        self._desk.look = (x, y)

    def chosen(self, call: Callable[[Settings], None]) -> None:
        """Calls it with what is chosen by all commands so far."""
        self._later(lambda: call(self._settings))

    def notice(self, text: str, level: str) -> None:
        """Tells the viewer."""
        self._later(lambda: self._notice(text, level))

    def clock(self, seconds: float, shown: int, late: int) -> None:
        """Where the viewer's clock stands, while it runs, and how many pictures it has shown, and shown late."""
        self._desk.told(seconds)
        self._later(lambda: self._heard(shown, late))

    def exact(self, patience_seconds: float) -> Shot | None:
        """Pauses where the viewer is, and waits for the picture there without loss; None where there is none."""
        if self._outbox is None:
            return None
        if self._desk.wish.playing:
            self.pause()
        with self._exact_made:
            self._exact_made.wait_for(lambda: self._over.is_set() or self._is_exact(), patience_seconds)
            return self._exact if self._is_exact() else None

    def close(self) -> None:
        """Ends all threads."""
        self._later(self._over.set)
        self._thread.join()

    # From here on the thread that decides.

    def _later(self, call: Callable[[], None]) -> None:
        self._inbox.put(call)

    def _run(self) -> None:
        tick = time.monotonic()
        while not self._over.is_set():
            try:
                self._inbox.get(timeout=max(0.0, tick - time.monotonic()))()
            except Empty:
                self._tick()
                tick = time.monotonic() + _TICK_SECONDS
            except Exception as error:
                self._break(str(plain(error)))
                break
        self._over.set()
        self._clear()
        self._lanes.join()
        while not self._inbox.empty():  # a lane may have been made in the last moment
            self._inbox.get()()
        self._clear()
        self._hearing.close()
        with self._exact_made:
            self._exact_made.notify_all()

    def _attach(self, outbox: Outbox) -> None:
        self._outbox, self._told, self._visited = outbox, {}, True
        if self._lanes.still is None and self._lanes.loading is None:
            self._lanes.build(self._settings)
        self._tell_state()
        self._wish()

    def _detach(self) -> None:
        self._hold()
        self._outbox, self._left = None, time.monotonic()
        self._desk.put(lane="", seconds=self._at, playing=False)

    def _play(self) -> None:
        if self._ended:
            self._at = Fraction(0)
        self._playing = True
        self._wish()

    def _pause(self, seconds: float | None) -> None:
        self._hold()
        self._playing = False
        if seconds is not None:
            self._at = Fraction(seconds) + _NUDGE
        self._wish()

    def _seek(self, seconds: Fraction) -> None:
        duration = self._source.duration_seconds
        self._at = max(Fraction(0), seconds if duration is None else min(seconds, duration)) + _NUDGE
        self._wish()

    def _step(self, by: int) -> None:
        self._hold()
        self._playing = False
        self._wish(by=self._steps + by)

    def _choose(self, model: str | None, scale: Fraction | None) -> None:
        self._hold()
        self._chosen = True
        self._settings = replace(self._settings, model=model or self._settings.model, scale=scale, size=None)
        self._lanes.build(self._settings)
        self._tell_state()

    def _set_smooth(self, how: str) -> None:
        self._smooth = how
        if how == "drop":
            if self._lanes.loads_playing_only:
                self._lanes.forget()
            self._play_by(self._lanes.still)
        self._tell_state()

    def _heard(self, shown: int, late: int) -> None:
        if self._lanes.live is not None:
            self._lanes.live.pace.heard(shown, late)

    def _hold(self) -> None:
        """Notes where the viewer is."""
        if self._desk.wish.playing:
            self._at = Fraction(self._desk.seconds)

    def _wish(self, by: int = 0, *, ended: bool = False) -> None:
        """Asks the lane whose turn it is for what is to be shown now. ended: that is the last frame, for good."""
        self._ended, self._steps = ended, by
        lane = self._lanes.live if self._playing else self._lanes.still
        if lane is None or self._outbox is None:
            return
        self._figures.begin()
        self._desk.put(lane=lane.name, seconds=self._at, playing=self._playing, by=by)
        self._tell_state()

    def _clear(self) -> None:
        self._hold()
        self._desk.put(lane="", seconds=self._at, playing=False)
        self._lanes.clear()

    def _built(self, built: Built) -> None:
        lane, lanes = built.lane, self._lanes
        if isinstance(lane, VidsrError):
            self._not_built(lane, playing_only=built.playing_only)
        elif built.playing_only:
            self._play_by(lane)
        else:
            self._hold()
            old = lanes.still
            self._good = lane.stream.settings
            lanes.still = lanes.live = lane
            self._wish()
            lanes.use(still=lane, live=lane)
            for line in lane.stream.warnings if old is None or lane.stream.warnings != old.stream.warnings else ():
                self._notice(line, "info")
        self._tell_state()

    def _not_built(self, error: VidsrError, *, playing_only: bool) -> None:
        if isinstance(error, Cancelled):
            return
        if self._lanes.still is None and self._settings == self._good:
            self._break(str(error))
            return
        self._notice(str(error), "error")
        if playing_only:
            self._smooth = "drop"
            return
        self._settings = self._good
        if self._lanes.still is None:  # what was chosen came before what there was to begin with
            self._lanes.build(self._settings)

    def _play_by(self, lane: Lane | None) -> None:
        if lane is self._lanes.live:
            return
        self._hold()
        self._lanes.live = lane
        if self._playing:
            self._wish()
        self._lanes.use(still=self._lanes.still, live=lane)

    def _lane_failed(self, lane: Lane, error: BaseException) -> None:
        text = str(plain(error))
        if lane is self._lanes.still:
            self._break(text)
        elif lane is self._lanes.live:
            self._notice(text, "error")
            self._smooth = "drop"
            self._play_by(self._lanes.still)

    def _break(self, text: str) -> None:
        if self._outbox is not None:
            self._outbox.tell({"tell": "broken", "text": text})
        self._failed(text)

    def _tick(self) -> None:
        now, lane = time.monotonic(), self._lanes.live
        if self._outbox is None:
            if self._visited and now - self._left > _GRACE_SECONDS and lane is not None:
                self._clear()
            return
        if lane is None or not self._playing:
            return
        self._outbox.tell(self._figures.stats(lane, self._lanes.still))
        settled = self._figures.seconds > _SETTLE_SECONDS or lane.pace.cost > _HOPELESS * lane.pace.frame_seconds
        if self._smooth == "auto" and self._lanes.loading is None and settled:
            self._mend(lane)

    def _mend(self, lane: Lane) -> None:
        """Takes something faster where the machine cannot keep up, and says so."""
        found = remedy(lane, chosen=self._chosen)
        if found is None:
            return
        if found.text is not None:
            self._notice(found.text, "info")
        if found.settings is None:
            self._smooth = "drop"
        else:
            self._lanes.build(found.settings, found.size, playing_only=True)
        self._tell_state()

    # What the viewer is told; `_shot` and `_send_sound` in other threads.

    def _shot(self, shot: Shot) -> None:
        outbox = self._outbox
        if outbox is None:
            return
        sent = outbox.send(shot.header(), [shot.original, shot.enlarged])
        latency = time.perf_counter() - shot.ticket.begun
        self._later(lambda: self._sent_shot(shot, sent, latency))

    def _sent_shot(self, shot: Shot, sent: bool, latency: float) -> None:
        wish = shot.ticket.wish
        if wish is not self._desk.wish:
            return
        if not wish.playing:
            self._at, self._steps = shot.ticket.held.seconds, 0
        else:
            self._figures.sent(sent, latency)
        if shot.pixels is not None:
            with self._exact_made:
                self._exact = shot
                self._exact_made.notify_all()

    def _is_exact(self) -> bool:
        return self._exact is not None and self._exact.ticket.wish is self._desk.wish

    def _send_sound(self, wish: Wish, sound: Sound, rate: int) -> None:
        if self._outbox is not None:
            channels = sound.samples.shape[1]
            header = {"serial": wish.serial, "seconds": float(sound.seconds), "rate": rate, "channels": channels}
            self._outbox.send({"kind": "sound", **header}, [sound.samples.astype("<i2").tobytes()])

    def _at_end(self, wish: Wish) -> None:
        if wish is self._desk.wish and wish.playing:
            self._hold()
            self._playing = False
            self._wish(ended=True)

    def _notice(self, text: str, level: str) -> None:
        if self._outbox is not None:
            self._outbox.tell({"tell": "notice", "text": text, "level": level})

    def _tell_state(self) -> None:
        """What is shown, where that is something else than was told last."""
        lane = self._lanes.live if self._playing else self._lanes.still
        state = {
            "tell": "state",
            "playing": self._playing,
            "serial": self._desk.wish.serial,
            "seconds": float(self._at),
            "model": self._settings.model,
            "scale": None if self._settings.scale is None else f"{float(self._settings.scale):g}",
            "size": [lane.stream.layout.width, lane.stream.layout.height] if lane is not None else None,
            "shown": lane.stream.settings.model if lane is not None else None,
            "crop": [lane.size[1], lane.size[0]] if lane is not None and lane.size is not None else None,
            "smooth": self._smooth,
            "loading": self._lanes.loading,
            "ended": self._ended,
        }
        if self._outbox is not None and state != self._told:
            self._told = state
            self._outbox.tell(state)
