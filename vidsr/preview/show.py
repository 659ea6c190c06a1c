"""A file's preview: what plays, and the job that can be started from it."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidsr import models
from vidsr.errors import InputError, UsageError
from vidsr.job import Settings, check_span
from vidsr.media.encoder import ready
from vidsr.media.info import SourceInfo
from vidsr.media.picture import SUFFIXES, png_bytes
from vidsr.media.shown import Orientation, orientation_of
from vidsr.media.source import probe
from vidsr.preview import wire
from vidsr.preview.player import Player
from vidsr.preview.predict import Predictor
from vidsr.preview.session import Outbox, Which
from vidsr.preview.work import Work, default_target
from vidsr.resample import resized

__all__ = ["PreviewSession", "about", "picture_name", "upright"]

_SNAPSHOT_SECONDS = 20.0
_SCALES = ("1.5", "2", "3", "4")
_HDR = {16: "PQ", 18: "HLG"}
"""By the transfer curves of H.273."""


class PreviewSession:
    """The session of `vidsr preview`, see `Session`. Raises InputError, UsageError or ModelError for what cannot be
    shown.

    failure: what ended it, once `ended` is set.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.failure: str | None = None
        self.ended = Event()
        if path.suffix.lower() in SUFFIXES:
            raise UsageError(f"{path} is a picture: `vidsr compare {path} -o crops.png` shows what models make of it")
        self._source = probe(path)
        check_span(settings, self._source)
        self._models = _models(settings.model)
        model = models.choose(settings.model, settings.scale)
        self._scale = settings.scale or model.scale
        if model.scale == 1:
            raise UsageError(f"--model {settings.model}: it does not enlarge, so there is nothing to compare")
        self._work, self._predictor = Work(), Predictor()
        self._player = Player(self._source, settings, self._fail)
        self._player.start()

    @property
    def parting(self) -> str | None:
        """What became of a job that `close` has ended."""
        return self._work.parting

    def attach(self, outbox: Outbox) -> None:
        if self.failure is not None:
            outbox.tell({"tell": "broken", "text": self.failure})
            return
        target = str(default_target(self._source.path, self._scale))
        outbox.tell(
            about(self._source) | {"mode": "preview", "models": self._models, "target": target, "encoders": ready()}
        )
        self._work.look(outbox.tell)
        self._predictor.look(outbox.tell)
        self._player.attach(outbox)

    def detach(self) -> None:
        self._player.detach()
        self._work.look(None)
        self._predictor.look(None)

    def take(self, command: wire.Command) -> None:
        player = self._player
        match command:
            case wire.Play():
                player.play()
            case wire.Pause():
                player.pause(command.seconds)
            case wire.Seek():
                player.seek(command.seconds)
            case wire.Step():
                player.step(command.by)
            case wire.Choose():
                player.choose(command.model, None if command.scale is None else Fraction(command.scale))
            case wire.Smooth():
                player.smooth(command.how)
            case wire.Look():
                player.look(command.x, command.y)
            case wire.Clock():
                player.clock(command.seconds, command.shown, command.late)
            case wire.Predict():
                player.pause()  # what plays would take the machine from what is measured
                player.chosen(self._predict)
            case wire.Job():
                player.pause()
                player.chosen(lambda settings: self._start(settings, command))
            case wire.StopJob():
                self._work.stop()

    def snapshot(self, which: Which) -> tuple[str, bytes]:
        """Pauses where the viewer is."""
        shot = self._player.exact(_SNAPSHOT_SECONDS)
        if shot is None or shot.pixels is None:
            raise InputError("nothing is shown that could be kept")
        image = upright(shot.pixels, orientation_of(self._source.video.display_matrix), which)
        return picture_name(self._source.path, float(shot.ticket.held.seconds), which), png_bytes(image)

    def close(self) -> None:
        self._predictor.cancel()
        self._work.close()  # first, since what is done of a job needs the time
        self._predictor.close()
        self._player.close()

    def _predict(self, settings: Settings) -> None:
        if self._work.running:
            self._predictor.refuse("not while a job runs: it takes the machine")
        else:
            self._predictor.start(self._source.path, _whole(settings))

    def _start(self, settings: Settings, command: wire.Job) -> None:
        if self._work.running:
            self._player.notice("there is a job already: stop it first", "warning")
        else:
            self._work.start(self._source.path, _whole(settings), command)

    def _fail(self, text: str) -> None:
        self.failure = text
        self.ended.set()


def _whole(settings: Settings) -> Settings:
    """Of a job: `start` is only where the preview begins."""
    return replace(settings, start=None)


def about(source: SourceInfo) -> dict[str, Any]:
    """What the page must know of a source to show it."""
    video, layout = source.video, source.video.layout
    turned, ratio = orientation_of(video.display_matrix), video.sample_aspect_ratio or Fraction(1)
    curve = _HDR.get(video.color.transfer)
    return {
        "tell": "source",
        "name": source.path.name,
        "path": str(source.path),
        "width": layout.width,
        "height": layout.height,
        "aspect": f"{ratio.numerator}:{ratio.denominator}",
        "turn": turned.turn,
        "mirrored": turned.mirrored,
        "fps": float(video.rate) if video.rate else None,
        "seconds": float(source.duration_seconds) if source.duration_seconds else None,
        "sound": any(track.kind == "audio" for track in source.tracks),
        "notes": [f"HDR ({curve}) is shown without tone mapping: paler than it is"] if curve else [],
    }


def upright(pixels: tuple[NDArray[Any], NDArray[Any]], turned: Orientation, which: Which) -> NDArray[Any]:
    """Of (original, enlarged), uint8 [H, W, 3], what is wanted as it is to be seen; as a pair, side by side, both are
    of the enlarged one's size."""
    original, enlarged = pixels
    chosen = {"original": [original], "enlarged": [enlarged]}.get(which)
    images = chosen or [resized(original, *enlarged.shape[:2]), enlarged]
    return np.hstack([np.rot90(np.fliplr(image) if turned.mirrored else image, -turned.turn // 90) for image in images])


def picture_name(source: Path, seconds: float, which: Which) -> str:
    """`in-0h01m02.345s-pair.png`, of what every file system takes."""
    minutes, rest = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    stem = re.sub(r"[^\w.()-]+", "_", source.stem)[:80]
    return f"{stem}-{hours}h{minutes:02d}m{rest / 1000:06.3f}s-{which}.png"


def _models(given: str) -> list[dict[str, Any]]:
    """Those to choose from, `given` among them; one that is NAME by another factor goes with NAME."""
    named = {model.name: model for model in models.usable()}
    listed = {name: model for name, model in named.items() if re.sub(r"-x\d+$", "", name) not in named.keys() - {name}}
    if given not in listed:
        listed[given] = models.load(given)
    return [
        {"name": name, "own": f"{model.scale}", "scales": _SCALES, "about": model.metadata.get("for", "")}
        for name, model in listed.items()
        if model.scale > 1
    ]
