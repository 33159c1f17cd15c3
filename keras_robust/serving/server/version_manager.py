"""Watches the version directories of a model and serves the newest version."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from keras_robust.serving.exporting.version_directory import versions
from keras_robust.serving.status import Code, ServingError

_LOG = logging.getLogger(__name__)
# A copy in progress takes seconds or hours: retries never end, at longer and longer intervals.
RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 60.0  # as TensorFlow Serving waits
# How long a stop waits for a version that is being loaded.
STOP_SECONDS = 1.0
# Each version adds an entry to the status; older entries are dropped.
MAX_STATES = 100


class State(enum.IntEnum):
    """The states of `tensorflow.serving.ModelVersionStatus`."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclasses.dataclass(frozen=True)
class VersionState:
    """The state of a version, with the error of a failed load."""

    version: int
    state: State
    code: Code = Code.OK
    message: str = ""


class Loaded(Protocol):
    """A loaded version, as `load` returns it."""

    version: int

    def close(self) -> None:
        """Frees its memory."""


L = TypeVar("L", bound=Loaded)


@dataclasses.dataclass
class _Entry(Generic[L]):
    servable: L
    users: int = 0


@dataclasses.dataclass(frozen=True)
class _Failure:
    loads: int = 0
    retry_at: float = 0.0


class VersionManager(Generic[L]):
    """Serves the highest version under a base path, and replaces it when a higher one appears.

    A new version is loaded and warmed up while the previous one still answers; then new requests go
    to it, and the previous version is closed after its last request. If a new version fails to
    load, or all directories disappear, the current version stays.

    Args:
        name: name of the model.
        base_path: parent of the version directories; other names in it are ignored.
        load: loads a version from its directory and number.
        poll_wait_seconds: time between two scans of the base path.
        clock: the seconds of a monotonic clock.
    """

    def __init__(
        self,
        name: str,
        base_path: Path,
        load: Callable[[Path, int], L],
        poll_wait_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.base_path = base_path
        self._load = load
        self._poll_wait_seconds = poll_wait_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._current: _Entry[L] | None = None
        self._states: dict[int, VersionState] = {}
        self._failures: dict[int, _Failure] = {}
        self._listeners: list[Callable[[int | None], None]] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Loads the newest version, if there is one, and starts watching.

        Raises:
            FileNotFoundError: the base path is not a directory.
            ServingError: the newest version cannot be loaded.
        """
        if not self.base_path.is_dir():
            raise FileNotFoundError(
                f"The model base path {self.base_path} is not a directory; expected the parent of "
                "version directories, as `keras-robust export` writes them."
            )
        self.poll()
        failed = [state for state in self._states.values() if state.code is not Code.OK]
        if failed:
            raise ServingError(failed[0].code, failed[0].message)
        self._thread = threading.Thread(target=self._watch, name="versions", daemon=True)
        self._thread.start()

    def stop(self) -> bool:
        """Stops watching, and closes the current version after its last request.

        Returns:
            False while a version is still being loaded; it is closed after its load.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
        self._replace(None)
        return self._thread is None or not self._thread.is_alive()

    @property
    def current(self) -> int | None:
        """The number of the current version; None without one."""
        with self._lock:
            return self._current.servable.version if self._current else None

    def subscribe(self, listener: Callable[[int | None], None]) -> None:
        """Calls a function with the number of the current version, now and after each change."""
        self._listeners.append(listener)
        listener(self.current)

    def states(self, version: int | None = None) -> list[VersionState]:
        """The states of all versions, newest first, or of one.

        Raises:
            ServingError: NOT_FOUND; an unknown version, or no version at all.
        """
        with self._lock:
            known = sorted(self._states.values(), key=lambda state: -state.version)
        if version is None:
            if not known:
                raise _not_found(f"Could not find any versions of model {self.name}")
            return known
        known = [state for state in known if state.version == version]
        if not known:
            raise _not_found(f"Could not find version {version} of model {self.name}")
        return known

    @contextlib.contextmanager
    def lease(self, version: int | None = None) -> Iterator[L]:
        """Yields the current version, which stays loaded until the `with` block ends.

        Raises:
            ServingError: NOT_FOUND; no version is loaded, or not the requested one.
        """
        with self._lock:
            entry = self._current
            if entry is None or version not in (None, entry.servable.version):
                raise no_servable(self.name, version)
            entry.users += 1
        try:
            yield entry.servable
        finally:
            with self._lock:
                entry.users -= 1
                last = entry is not self._current and not entry.users
            if last:
                self._close(entry.servable)

    def poll(self) -> None:
        """Scans the base path once; loads the highest version unless it is the current one."""
        found = self._found()
        # A version that was removed and exported again gets new attempts.
        self._failures = {v: self._failures[v] for v in self._failures if v in found}
        if not found or max(found) == self.current:
            return
        version, path = max(found.items())
        failure = self._failures.get(version, _Failure())
        if self._clock() < failure.retry_at:
            return
        with self._lock:
            self._record(VersionState(version, State.LOADING))
        started = self._clock()
        try:
            servable = self._load(path, version)
        except Exception as error:  # whatever is wrong with the files, the current version stays
            self._failed(version, path, error)
            return
        self._failures.pop(version, None)
        if self._stopping.is_set():
            servable.close()
            return
        self._replace(servable)
        seconds = self._clock() - started
        _LOG.info("Loaded %s version %d in %.1f s.", self.name, version, seconds)

    def _found(self) -> dict[int, Path]:
        try:
            return versions(self.base_path)
        except OSError as error:
            _LOG.warning("Cannot read the model base path: %s", error)
            return {}

    def _failed(self, version: int, path: Path, error: Exception) -> None:
        loads = self._failures.get(version, _Failure()).loads + 1
        wait = min(RETRY_SECONDS * 2.0 ** min(loads - 1, 16), LONGEST_RETRY_SECONDS)
        self._failures[version] = _Failure(loads, self._clock() + wait)
        code = error.code if isinstance(error, ServingError) else Code.UNKNOWN
        reason = " ".join(str(error).split()) or type(error).__name__
        message = f"Version {version} of model {self.name} in {path} failed to load: {reason}"
        with self._lock:
            self._record(VersionState(version, State.END, code, message))
        _LOG.warning("%s (attempt %d; the next in %g s)", message, loads, wait)

    def _replace(self, servable: L | None) -> None:
        with self._lock:
            previous = self._current
            self._current = None if servable is None else _Entry(servable)
            if servable is not None:
                self._record(VersionState(servable.version, State.AVAILABLE))
            if previous is not None:
                self._record(VersionState(previous.servable.version, State.UNLOADING))
            idle = previous is not None and not previous.users
        for listener in self._listeners:
            listener(self.current)
        if previous is not None and idle:
            self._close(previous.servable)

    def _close(self, servable: L) -> None:
        servable.close()
        with self._lock:
            self._record(VersionState(servable.version, State.END))
        _LOG.info("Unloaded %s version %d.", self.name, servable.version)

    def _record(self, state: VersionState) -> None:
        self._states[state.version] = state
        while len(self._states) > MAX_STATES:
            del self._states[min(self._states)]

    def _watch(self) -> None:
        while not self._stopping.wait(self._poll_wait_seconds):
            self.poll()


def no_servable(name: str, version: int | None) -> ServingError:
    """Makes the error of a request for a version that is not loaded; None stands for the newest."""
    request = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return _not_found(f"Servable not found for request: {request}")


def _not_found(message: str) -> ServingError:
    return ServingError(Code.NOT_FOUND, message)
