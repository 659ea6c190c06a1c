"""Plans between runs: found again for exactly what they were made for, never when anything is wrong with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from threading import Event, Thread

import pytest

from vidsr.backends.trt.key import PlanKey
from vidsr.backends.trt.plans import Cleared, Found, PlanCache
from vidsr.errors import Cancelled

KEY = PlanKey(
    model="span",
    model_sha256="a" * 64,
    graph="b" * 64,
    layout="yuv 8 bits chroma 2x2 left to yuv 8 bits chroma 2x2 left",
    precision="fp16",
    planes="bytes",
    smallest=(360, 640),
    largest=(360, 640),
    tensorrt="10.16.1.11",
    device="NVIDIA GeForce RTX 4090",
    capability="8.9",
    multiprocessors=128,
    memory_bytes=24 * 2**30,
    driver="13000",
    platform="Linux x86_64",
    builder=1,
    level=3,
    workspace_bytes=2**30,
)
PLAN = bytes(range(256)) * 40


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "tensorrt")


@pytest.fixture
def kept(cache: PlanCache) -> PlanCache:
    with cache.building(KEY, Event()) as obstacle:
        assert obstacle is None
        cache.put(KEY, PLAN, 61.5)
    return cache


def file(cache: PlanCache, suffix: str) -> Path:
    assert cache.folder is not None
    (path,) = cache.folder.glob(f"*{suffix}")
    return path


def test_found_again(kept: PlanCache) -> None:
    assert kept.get(KEY) == Found(plan=PLAN)
    (entry,) = kept.entries()
    assert (entry.key, entry.bytes, entry.took) == (KEY, len(PLAN), 61.5)
    assert entry.path.name.startswith("span-640x360-fp16-")


@pytest.mark.parametrize("name", [field.name for field in fields(PlanKey)])
def test_anything_else_is_another_plan(kept: PlanCache, name: str) -> None:
    value = getattr(KEY, name)
    other = {str: f"{value}x", int: 7, tuple: (2, 2)}[type(value)]
    assert kept.get(replace(KEY, **{name: other})) == Found()


def test_description_is_for_people(kept: PlanCache) -> None:
    told = json.loads(file(kept, ".json").read_text())
    assert told["key"]["device"] == "NVIDIA GeForce RTX 4090"
    assert told["key"]["largest"] == [360, 640]


@pytest.mark.parametrize("position", [0, len(PLAN) // 2, len(PLAN) - 1])
def test_flipped_bit(kept: PlanCache, position: int) -> None:
    path = file(kept, ".plan")
    data = bytearray(path.read_bytes())
    data[position] ^= 16
    path.write_bytes(data)
    found = kept.get(KEY)
    assert found.plan is None
    assert found.reason is not None and found.spoiled and "damaged" in found.reason


@pytest.mark.parametrize("length", [0, 1, len(PLAN) - 1])
def test_cut_short(kept: PlanCache, length: int) -> None:
    os.truncate(file(kept, ".plan"), length)
    found = kept.get(KEY)
    assert found.plan is None
    assert found.reason is not None and found.spoiled and "damaged" in found.reason


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": null}', '{"key": {}}', '{"key": {"model": 1}}'])
def test_damaged_description(kept: PlanCache, content: str) -> None:
    file(kept, ".json").write_text(content)
    found = kept.get(KEY)
    assert found.plan is None
    assert found.reason is not None and found.spoiled and "description" in found.reason
    (entry,) = kept.entries()
    assert entry.key is None


@pytest.mark.parametrize("value", [5, None, [1], ["a", "b"], "360"])
def test_description_of_another_shape(kept: PlanCache, value: object) -> None:
    """JSON, but no key: neither this plan nor others trip over it."""
    path = file(kept, ".json")
    told = json.loads(path.read_text())
    told["key"]["smallest"] = value
    path.write_text(json.dumps(told))
    assert kept.get(KEY).plan is None
    (entry,) = kept.entries()
    assert entry.key is None


def test_build_that_was_cut_off(kept: PlanCache) -> None:
    """The description comes last: a plan without one was never finished."""
    file(kept, ".json").unlink()
    found = kept.get(KEY)
    assert found.plan is None
    assert found.reason is not None and found.spoiled and "never finished" in found.reason


def test_made_for_another_card(kept: PlanCache) -> None:
    """A description somebody renamed or edited: the reason names what differs."""
    path = file(kept, ".json")
    told = json.loads(path.read_text())
    told["key"] |= {"device": "Tesla T4", "driver": "12080"}
    path.write_text(json.dumps(told))
    found = kept.get(KEY)
    assert found.plan is None
    assert found.reason is not None and "device was Tesla T4, is NVIDIA GeForce RTX 4090" in found.reason


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs POSIX permissions")
@pytest.mark.parametrize("what", ["folder", "plan", "link"])
def test_what_others_can_write_is_not_loaded(kept: PlanCache, what: str) -> None:
    path = file(kept, ".plan")
    if what == "folder":
        path.parent.chmod(0o777)
    elif what == "plan":
        path.chmod(0o666)
    else:
        moved = path.rename(path.with_name("elsewhere"))
        path.symlink_to(moved)
    found = kept.get(KEY)
    assert found.plan is None
    assert found.reason is not None and not found.spoiled and str(path.parent) in found.reason


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs to be root to give files away")
@pytest.mark.parametrize("what", ["folder", "plan"])
def test_what_belongs_to_others_is_not_loaded(kept: PlanCache, what: str) -> None:
    path = file(kept, ".plan")
    os.chown(path if what == "plan" else path.parent, 12345, -1)
    found = kept.get(KEY)
    assert found.plan is None
    assert found.reason is not None and not found.spoiled and "belongs to somebody else" in found.reason
    if what == "folder":
        with kept.building(KEY, Event()) as obstacle:
            assert obstacle is not None and "belongs to somebody else" in obstacle


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs POSIX permissions")
def test_folder_is_private(kept: PlanCache) -> None:
    assert file(kept, ".plan").parent.stat().st_mode & 0o077 == 0
    assert file(kept, ".plan").stat().st_mode & 0o077 == 0


def test_failed_write_leaves_what_was_there(kept: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        kept.put(replace(KEY, driver="13010"), PLAN, 1.0)
    monkeypatch.undo()
    assert kept.get(KEY) == Found(plan=PLAN)
    assert [entry.key for entry in kept.entries()] == [KEY]
    assert not list(file(kept, ".plan").parent.glob("*.part"))


def test_timing_cache(cache: PlanCache) -> None:
    assert cache.timing(KEY) == b""
    with cache.building(KEY, Event()):
        cache.put_timing(KEY, b"measurements")
    assert cache.timing(KEY) == b"measurements"
    # Another size shares it, another driver does not.
    assert cache.timing(replace(KEY, largest=(720, 1280), graph="c" * 64)) == b"measurements"
    assert cache.timing(replace(KEY, driver="13010")) == b""


@pytest.mark.parametrize("position", [0, 30, -1])
def test_damaged_timing_cache_is_not_given_to_tensorrt(cache: PlanCache, position: int) -> None:
    with cache.building(KEY, Event()):
        cache.put_timing(KEY, b"measurements")
    path = file(cache, ".timing")
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    assert cache.timing(KEY) == b""


def test_second_process_waits(cache: PlanCache) -> None:
    """Until the first has put the plan there; only one of them builds."""
    assert cache.folder is not None
    code = (
        "import sys; from pathlib import Path; from threading import Event\n"
        "from tests.test_plans import KEY; from vidsr.backends.trt.plans import PlanCache\n"
        "cache = PlanCache(Path(sys.argv[1]))\n"
        "print('waiting', flush=True)\n"
        "with cache.building(KEY, Event()):\n"
        "    print(cache.get(KEY).plan is not None, flush=True)\n"
    )
    with cache.building(KEY, Event()):
        other = subprocess.Popen(
            [sys.executable, "-c", code, str(cache.folder)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[1],
        )
        assert other.stdout is not None
        assert other.stdout.readline() == "waiting\n"
        assert other.poll() is None
        cache.put(KEY, PLAN, 1.0)
    assert other.communicate(timeout=60)[0] == "True\n"


def test_waiting_can_be_stopped(cache: PlanCache) -> None:
    stop, errors = Event(), []

    def wait() -> None:
        try:
            with cache.building(KEY, stop):
                pass
        except Cancelled as error:
            errors.append(str(error))

    with cache.building(KEY, Event()):
        thread = Thread(target=wait)
        thread.start()
        stop.set()
        thread.join(60)
    assert errors == ["stopped while another process builds the same TensorRT plan"]


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with PlanCache(tmp_path / "file" / "tensorrt").building(KEY, Event()) as obstacle:
        assert obstacle is not None and str(tmp_path / "file") in obstacle


def test_no_folder() -> None:
    cache = PlanCache(None)
    with cache.building(KEY, Event()) as obstacle:
        assert obstacle is None
        cache.put(KEY, PLAN, 1.0)
        cache.put_timing(KEY, b"measurements")
    assert cache.get(KEY) == Found()
    assert cache.timing(KEY) == b""
    assert not list(cache.entries())
    assert cache.clear() == Cleared()


@pytest.mark.parametrize(
    ("name", "text"),
    [("built", "1e300"), ("built", "NaN"), ("built", "-1"), ("built", "1" + "0" * 400), ("took", "Infinity")],
)
def test_description_with_an_impossible_time(kept: PlanCache, name: str, text: str) -> None:
    path = file(kept, ".json")
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {name: "HERE"}).replace('"HERE"', text))
    (entry,) = kept.entries()
    assert (entry.key, entry.built, entry.took) == (None, 0, 0)
    assert kept.get(KEY).spoiled


def test_description_without_end(kept: PlanCache) -> None:
    file(kept, ".json").write_text("[" * 100_000)
    (entry,) = kept.entries()
    assert entry.key is None
    assert kept.get(KEY).spoiled


def test_reason_holds_nothing_that_a_terminal_obeys(kept: PlanCache) -> None:
    path = file(kept, ".json")
    told = json.loads(path.read_text())
    told["key"]["device"] = "\x1b[2Jcard\nline"
    path.write_text(json.dumps(told))
    reason = kept.get(KEY).reason
    assert reason is not None and reason.isprintable() and "[2Jcard?line" in reason


def test_clear(kept: PlanCache) -> None:
    """What the cache made and what it left half done; neither what else lies there nor the locks."""
    assert kept.folder is not None
    kept.put(replace(KEY, driver="13010", smallest=(16, 16)), PLAN, 1.0)
    kept.put_timing(KEY, b"measurements")
    (kept.folder / f"{KEY.stem}.plan.123.part").touch()
    others = {"notes.txt", "package.json", "yarn.lock", "other.plan", "x.timing", "paper-0123456789abcdef.json"}
    for name in others:
        (kept.folder / name).touch()
    assert kept.clear() == Cleared(removed=2)
    left = {path.name for path in kept.folder.iterdir() if path.suffix != ".lock" or path.name in others}
    assert left == others
    assert kept.get(KEY) == Found()
    assert not list(kept.entries())


def test_clear_leaves_a_lock_that_is_held(kept: PlanCache) -> None:
    with kept.building(KEY, Event()):
        lock = file(kept, ".lock")
        kept.clear()
        assert lock.exists()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs POSIX permissions")
def test_clear_where_others_can_write(kept: PlanCache) -> None:
    assert kept.folder is not None
    kept.folder.chmod(0o777)
    cleared = kept.clear()
    assert cleared.removed == 0
    assert "others may write" in cleared.obstacles[0]
    kept.folder.chmod(0o700)
    assert kept.get(KEY) == Found(plan=PLAN)


def test_clear_counts_what_is_gone(kept: PlanCache) -> None:
    """A folder of that name cannot be removed as a file."""
    path = file(kept, ".plan")
    path.unlink()
    path.mkdir()
    cleared = kept.clear()
    assert cleared.removed == 0
    assert str(path) in cleared.obstacles[0]


def test_drop(kept: PlanCache) -> None:
    kept.drop(KEY)
    assert kept.get(KEY) == Found()
    kept.drop(KEY)


def test_profile_covers() -> None:
    key = replace(KEY, smallest=(240, 320), largest=(1080, 1920))
    assert key.covers(720, 1280)
    assert not key.covers(720, 1922)
    assert not key.covers(200, 400)
    assert "320x240-1920x1080" in key.stem
