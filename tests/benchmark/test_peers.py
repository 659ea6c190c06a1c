"""Peers beside vidsr: whether an output is right, how rounds become ratios, and each script where its needs are."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.peers import environment
from benchmarks.peers.check import Findings, Span, check, span
from benchmarks.peers.environment import Missing, folder_of, installed, python_of
from benchmarks.peers.measure import Contestant, Failed, Run, Tally, in_turn, peer_command, play, ratio
from benchmarks.peers.peer import PEERS, Peer
from benchmarks.peers.table import kept, table
from tests.test_verify import STEP, encode, enlarged, picture
from vidsr import models

TICKS = [STEP * index for index in range(8)]
UNEVEN = [0, 700, 1100, 3000, 3400, 4800, 5100, 6000]
HERE = {name: folder_of(name).parent for name in {peer.environment for peer in PEERS} if installed(name)}


def written(path: Path, ticks: list[int], *, large: bool = True, skip: int | None = None) -> Path:
    shown = ((pts, picture(index)) for index, pts in enumerate(ticks) if index != skip)
    return encode(path, ((pts, enlarged(rgb) if large else rgb) for pts, rgb in shown))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return written(tmp_path / "source.mp4", TICKS, large=False)


def wrong(output: Path, expected: Span) -> str:
    return "; ".join(check(output, expected, 2).wrong)


def test_right(tmp_path: Path, source: Path) -> None:
    assert check(written(tmp_path / "out.mp4", TICKS), span(source, 8), 2) == Findings()


def test_first_frames_only(tmp_path: Path, source: Path) -> None:
    part = span(source, 5)
    assert (part.frames, part.end) == (5, Fraction(9 * STEP, 2 * 12800))
    assert not wrong(written(tmp_path / "five.mp4", TICKS[:5]), part)
    assert "frames: there is a frame too many" in wrong(written(tmp_path / "six.mp4", TICKS[:6]), part)
    assert span(source, 100) == Span(clip=source, frames=8, end=None)


def test_dropped_frame(tmp_path: Path, source: Path) -> None:
    assert "frames: the frame at 0.160 s is missing" in wrong(
        written(tmp_path / "out.mp4", TICKS, skip=4), span(source, 8)
    )


def test_dropped_frame_behind_which_everything_moves_up(tmp_path: Path, source: Path) -> None:
    pictures = [picture(index) for index in range(8) if index != 3]
    output = encode(tmp_path / "out.mp4", zip(TICKS, map(enlarged, pictures), strict=False))
    found = wrong(output, span(source, 8))
    assert "is missing" in found
    assert "shows the picture of 0.160 s" in found


@pytest.mark.parametrize(
    ("ticks", "off"),
    [([tick + 512 for tick in TICKS], "0.040 s"), ([tick * 25 // 24 for tick in TICKS], "0.011641 s")],
    ids=["late", "slower"],
)
def test_shifted_times(tmp_path: Path, source: Path, ticks: list[int], off: str) -> None:
    assert wrong(written(tmp_path / "out.mp4", ticks), span(source, 8)) == f"times: off by up to {off}"


def test_times_may_be_rounded(tmp_path: Path, source: Path) -> None:
    rounded = [tick + index % 3 for index, tick in enumerate(TICKS)]
    assert not wrong(written(tmp_path / "out.mp4", rounded), span(source, 8))


def test_variable_rate(tmp_path: Path) -> None:
    source = written(tmp_path / "source.mp4", UNEVEN, large=False)
    assert not wrong(written(tmp_path / "kept.mp4", UNEVEN), span(source, 8))
    steady = [UNEVEN[-1] * index // 7 for index in range(8)]
    assert "times: off by up to" in wrong(written(tmp_path / "steady.mp4", steady), span(source, 8))


def test_size(tmp_path: Path, source: Path) -> None:
    found = wrong(written(tmp_path / "out.mp4", TICKS, large=False), span(source, 8))
    assert found == "size: 320x180 instead of 640x360"


def test_picture(tmp_path: Path, source: Path) -> None:
    black = encode(tmp_path / "out.mp4", ((tick, np.zeros((360, 640, 3), np.uint8)) for tick in TICKS))
    assert "pictures: the frame at 0.000 s is black, and 7 more" in wrong(black, span(source, 8))


def test_no_video(tmp_path: Path, source: Path) -> None:
    (tmp_path / "out.mp4").write_text("nothing")
    assert len(check(tmp_path / "out.mp4", span(source, 8), 2).wrong) == 1


def run(fps: float, *wrong: str) -> Run:
    return Run(fps=fps, other_seconds=1.0, findings=Findings(wrong=wrong))


def test_everybody_once_a_round_and_first_in_turn() -> None:
    order = list(in_turn(["a", "b", "c"], 4))
    assert [name for number, name in order if number == 1] == ["b", "c", "a"]
    assert [name for _, name in order[::3]] == ["a", "b", "c", "a"]
    assert len(set(order)) == 12


def test_ratio_is_paired() -> None:
    """A machine that slows down for both changes no ratio, and a round that one did not play is left out."""
    ours = Tally(runs={number: run(fps) for number, fps in enumerate([4, 2, 8, 1, 6, 100])})
    theirs = Tally(runs={number: run(fps) for number, fps in enumerate([2, 1, 4, 0.5, 2])})
    found = ratio(ours, theirs)
    assert found is not None
    assert (found.middle, found.low, found.high, found.enough) == (2, 2, 3, True)
    assert ratio(ours, Tally()) is None


def test_table_says_what_is_wrong() -> None:
    peers = {name: Peer(name=name, what="", script="", environment="") for name in ("quick", "gone")}
    quick = Tally(runs={0: run(40, "frames: one is missing"), 1: run(40, "frames: one is missing")})
    tallies = {"vidsr": Tally(runs={0: run(4), 1: run(4)}), "quick": quick, "gone": Tally(failed="not here: why")}
    lines = table(peers, tallies)
    assert "right" in lines[1]
    assert "0.100 [0.100, 0.100, 50%]" in lines[2]
    assert "WRONG" in lines[2]
    assert [line.strip() for line in lines[3:]] == ["frames: one is missing", "gone             not here: why"]
    asked = SimpleNamespace(clip=Path("a/clip.mp4"), frames=8, rounds=2, model="span", preset="fast", crf="18")
    rows = kept(peers, tallies, asked)["contestants"]
    assert rows["quick"]["wrong"] == ("frames: one is missing",)
    assert rows["quick"]["vidsr_over_it"]["middle"] == pytest.approx(0.1)
    assert rows["gone"]["failed"] == "not here: why"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; sys.exit('no such model')", "no such model"),
        ("raise SystemExit(3)", "it ended with 3 and without a word"),
        ("print('frames: 8')", "without a word"),
        ('print(\'{"frames": 8, "seconds": 1}\')', "it made no output"),
    ],
)
def test_run_that_comes_to_nothing(tmp_path: Path, source: Path, code: str, says: str) -> None:
    contestant = Contestant(name="it", command=lambda output: [sys.executable, "-c", code], span=span(source, 8))
    with pytest.raises(Failed, match=says):
        play(contestant, tmp_path, 2)


def test_stale_output_is_not_taken_for_a_new_one(tmp_path: Path, source: Path) -> None:
    written(tmp_path / "it.mp4", TICKS)
    code = 'print(\'{"frames": 8, "seconds": 1}\')'
    contestant = Contestant(name="it", command=lambda output: [sys.executable, "-c", code], span=span(source, 8))
    with pytest.raises(Failed, match="it made no output"):
        play(contestant, tmp_path, 2)


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSR_PEERS", str(tmp_path / "venvs"))
    monkeypatch.setattr(environment, "_REQUIREMENTS", tmp_path)
    needs = tmp_path / "none.txt"
    needs.write_text("# nothing\n")
    assert not installed("none")
    python = python_of("none", (3, 11))
    assert python.is_relative_to(tmp_path / "venvs" / "none")
    assert installed("none")
    needs.write_text("# something else\n")
    assert not installed("none")
    needs.write_text("./no-such-package\n")
    with pytest.raises(Missing, match="no-such-package"):
        python_of("none", (3, 11))
    assert not installed("none")


def test_peers_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSR_PEERS", str(tmp_path))
    monkeypatch.delenv("VIDSR_PEERS_TAS", raising=False)
    with pytest.raises(Missing, match=r"needs Python 3\.99"):
        python_of("openvino", (3, 99))
    with pytest.raises(Missing, match="VIDSR_PEERS_TAS"):
        python_of("theanimescripter", (3, 11))


def test_each_has_its_files() -> None:
    folder = Path(environment.__file__).parent
    for peer in PEERS:
        assert (folder / "scripts" / peer.script).exists()
        assert peer.script == "theanimescripter.py" or (folder / "requirements" / f"{peer.environment}.txt").exists()


@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.network != "other"], ids=lambda peer: peer.name)
def test_peer(tmp_path: Path, source: Path, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    if peer.environment not in HERE:
        pytest.skip(f"the environment {peer.environment} is not here: `python -m benchmarks.peers` makes those it can")
    monkeypatch.setenv("VIDSR_PEERS", str(HERE[peer.environment]))
    part = span(source, 5)
    asked = SimpleNamespace(preset="veryfast", crf="18")
    command = peer_command(peer, part, models.load("span-fast").path, asked)
    assert play(Contestant(name=peer.name, command=command, span=part), tmp_path, 2).findings.wrong == ()
