"""The version manager without TensorFlow: the loaded versions are fakes."""

from __future__ import annotations

import threading

import pytest

from keras_robust.serving.server import version_manager
from keras_robust.serving.server.version_manager import (
    LONGEST_RETRY_SECONDS,
    RETRY_SECONDS,
    State,
    VersionManager,
    VersionState,
)
from keras_robust.serving.status import Code, ServingError


class Fake:
    def __init__(self, version):
        self.version = version
        self.closed = False

    def close(self):
        assert not self.closed
        self.closed = True


class Loader:
    """Loads fakes; versions in `broken` fail."""

    def __init__(self):
        self.made = {}
        self.broken = {}
        self.attempts = 0

    def __call__(self, path, version):
        self.attempts += 1
        if version in self.broken:
            raise self.broken[version]
        self.made[version] = Fake(version)
        return self.made[version]


@pytest.fixture
def base(tmp_path):
    (tmp_path / "1").mkdir()
    return tmp_path


@pytest.fixture
def loader():
    return Loader()


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def served(base, loader, clock):
    served = VersionManager("digits", base, loader, poll_wait_seconds=3600, clock=clock)
    yield served
    served.stop()


def states(served):
    return {state.version: state.state.name for state in served.states()}


def test_the_highest_number_is_served_and_other_names_are_ignored(base, loader, served):
    for name in ("2", "10", "9", "best", "11-tmp", ".12", "-3", "٣"):
        (base / name).mkdir()
    (base / "99").write_text("a file, no version")
    served.start()
    assert served.current == 10
    assert list(loader.made) == [10]


def test_a_new_version_takes_over_and_the_old_one_is_closed(base, loader, served):
    served.start()
    assert states(served) == {1: "AVAILABLE"}
    (base / "2").mkdir()
    served.poll()
    assert served.current == 2
    assert states(served) == {2: "AVAILABLE", 1: "END"}
    assert list(states(served)) == [2, 1]  # newest first, as TensorFlow Serving lists them
    assert loader.made[1].closed and not loader.made[2].closed
    served.poll()
    assert loader.attempts == 2


def test_the_old_version_stays_until_its_last_request_ends(base, loader, served):
    served.start()
    with served.lease() as first, served.lease(1) as again:
        assert first is again is loader.made[1]
        (base / "2").mkdir()
        served.poll()
        assert states(served) == {2: "AVAILABLE", 1: "UNLOADING"}
        with served.lease() as second:
            assert second is loader.made[2]
        with pytest.raises(ServingError, match="Specific.digits, 1."), served.lease(1):
            pass
        assert not first.closed
    assert first.closed
    assert states(served) == {2: "AVAILABLE", 1: "END"}


def test_the_previous_version_answers_while_the_next_one_loads(base, served, loader):
    served.start()
    loading, go = threading.Event(), threading.Event()

    def slow(path, version):
        loading.set()
        assert go.wait(10)
        return Fake(version)

    served._load = slow
    (base / "2").mkdir()
    poller = threading.Thread(target=served.poll)
    poller.start()
    assert loading.wait(10)
    with served.lease() as servable:
        assert servable.version == 1
    assert states(served) == {2: "LOADING", 1: "AVAILABLE"}
    go.set()
    poller.join()
    assert served.current == 2


def test_a_version_that_fails_to_load_changes_nothing(base, loader, served, clock):
    served.start()
    (base / "2").mkdir()
    loader.broken[2] = ServingError(Code.INVALID_ARGUMENT, "warm-up\nfailed")
    for _ in range(8):
        clock.now += LONGEST_RETRY_SECONDS
        served.poll()
    assert loader.attempts == 1 + 8
    assert served.current == 1
    failed = served.states(2)[0]
    assert (failed.state, failed.code) == (State.END, Code.INVALID_ARGUMENT)
    assert failed.message.endswith("failed to load: warm-up failed")
    # Removed, scanned, and exported again: it is tried at once.
    (base / "2").rmdir()
    served.poll()
    (base / "2").mkdir()
    loader.broken.clear()
    served.poll()
    assert served.current == 2


def test_a_failed_load_is_not_repeated_at_once(base, loader, served):
    served.start()
    (base / "2").mkdir()
    loader.broken[2] = OSError("half copied")
    served.poll()
    served.poll()
    assert loader.attempts == 2


@pytest.mark.parametrize("seconds", [30, 600, 7200])
def test_a_version_whose_copy_takes_long_is_served_in_the_end(base, loader, served, clock, seconds):
    served.start()
    (base / "2").mkdir()
    loader.broken[2] = OSError("half copied")
    copied = clock.now + seconds
    while clock.now < copied:
        served.poll()
        assert served.current == 1
        clock.now += 1
    loader.broken.clear()
    while served.current == 1:
        assert clock.now <= copied + LONGEST_RETRY_SECONDS + 1
        served.poll()
        clock.now += 1
    assert served.states(2)[0] == VersionState(2, State.AVAILABLE)
    assert loader.attempts <= 6 + seconds / LONGEST_RETRY_SECONDS + 2


def test_the_first_retries_come_soon_and_all_later_ones_each_minute(base, loader, served, clock):
    served.start()
    (base / "2").mkdir()
    loader.broken[2] = OSError("half copied")
    waited = []
    for _ in range(40):
        before, attempts = clock.now, loader.attempts
        while loader.attempts == attempts:
            served.poll()
            clock.now += 0.5
        waited.append(clock.now - before)
    assert waited[1:6] == [RETRY_SECONDS, 10, 20, 40, 60]
    assert set(waited[6:]) == {LONGEST_RETRY_SECONDS}


def test_a_higher_version_does_not_wait_for_a_broken_one(base, loader, served):
    served.start()
    (base / "2").mkdir()
    loader.broken[2] = OSError("half copied")
    served.poll()
    (base / "3").mkdir()
    served.poll()
    assert served.current == 3


def test_removing_the_newest_goes_back_and_removing_all_changes_nothing(base, loader, served):
    (base / "2").mkdir()
    served.start()
    (base / "2").rmdir()
    served.poll()
    assert served.current == 1
    (base / "1").rmdir()
    served.poll()
    base.rmdir()
    served.poll()
    assert served.current == 1


def test_an_empty_base_path_waits_for_a_version(tmp_path, loader):
    served = VersionManager("digits", tmp_path, loader, poll_wait_seconds=0.01)
    served.start()
    with pytest.raises(ServingError, match=r"Servable not found for request: Latest\(digits\)"):
        served.lease().__enter__()
    with pytest.raises(ServingError, match="Could not find any versions of model digits") as caught:
        served.states()
    assert caught.value.code is Code.NOT_FOUND
    (tmp_path / "7").mkdir()
    for _ in range(500):
        if served.current == 7:
            break
        threading.Event().wait(0.01)
    served.stop()
    assert loader.made[7].closed


def test_a_missing_base_path_is_refused(tmp_path, loader):
    with pytest.raises(FileNotFoundError, match="is not a directory; expected the parent of"):
        VersionManager("digits", tmp_path / "none", loader).start()


def test_a_first_version_that_does_not_load_is_refused(base, loader, served):
    loader.broken[1] = OSError("no SavedModel")
    with pytest.raises(ServingError, match="Version 1 of model digits .* no SavedModel"):
        served.start()


def test_stop_lets_a_request_under_way_end(loader, served):
    served.start()
    with served.lease() as servable:
        served.stop()
        assert not servable.closed
    assert servable.closed


def test_the_history_is_bounded(base, loader, served, monkeypatch):
    monkeypatch.setattr(version_manager, "MAX_STATES", 3)
    served.start()
    for version in range(2, 8):
        (base / str(version)).mkdir()
        served.poll()
    assert list(states(served)) == [7, 6, 5]


def test_state_numbers_are_those_of_the_message():
    from tensorflow_serving.apis import get_model_status_pb2

    numbers = get_model_status_pb2.ModelVersionStatus.State
    assert {state.name: state.value for state in State} == {
        name: value for name, value in numbers.items() if name != "UNKNOWN"
    }
    assert VersionState(1, State.START).code is Code.OK


def test_listeners_hear_of_each_change(base, served):
    heard = []
    served.subscribe(heard.append)
    served.start()
    (base / "2").mkdir()
    served.poll()
    served.poll()
    served.stop()
    assert heard == [None, 1, 2, None]
