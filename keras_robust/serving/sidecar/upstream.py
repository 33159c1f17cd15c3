"""What is known of a model server: its models' versions and signatures, asked for over REST."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any
from urllib.parse import unquote

import aiohttp
import yarl

from keras_robust.serving.metrics.request_metrics import Version

REFRESH_SECONDS = 5.0
MAX_MODELS = 100
_BYTES = 2**24


@dataclasses.dataclass
class Model:
    """A served model: `(version, state, status)` of each version, and its signatures."""

    states: list[tuple[int, str, str]] = dataclasses.field(default_factory=list)
    signatures: frozenset[str] = frozenset()
    asked: float = -REFRESH_SECONDS

    @property
    def newest(self) -> int | None:
        """The newest version that answers."""
        available = [version for version, state, _ in self.states if state == "AVAILABLE"]
        return max(available, default=None)


class Upstream:
    """A model server, asked at most every 5 seconds about each model.

    Args:
        address: `host:port` of its REST interface.
        session: the HTTP client.
    """

    def __init__(self, address: str, session: aiohttp.ClientSession) -> None:
        self.base = f"http://{address}"
        self._session = session
        self._models: dict[str, Model] = {}
        self._lock = asyncio.Lock()

    async def model(self, name: str) -> Model:
        """What is known of a model that has answered, or of a label; its name as in paths."""
        async with self._lock:
            model = self._models.get(name)
            if model is None:
                model = Model()
                if len(self._models) < MAX_MODELS:
                    self._models[name] = model
            if time.monotonic() - model.asked >= REFRESH_SECONDS:
                await self._refresh(name, model)
            return model

    def versions(self) -> list[Version]:
        """The states of all versions of the models that have answered."""
        found = {
            (unquote(name.split("/")[0]), version, state, status)
            for name, model in list(self._models.items())
            for version, state, status in model.states
        }
        return sorted(found)

    async def _refresh(self, name: str, model: Model) -> None:
        model.asked = time.monotonic()
        status = await self._get(f"/v1/models/{name}")
        states = [_state(entry) for entry in status.get("model_version_status", [])]
        previous, model.states = model.newest, [state for state in states if state is not None]
        if model.newest != previous or not model.signatures:
            found = await self._get(f"/v1/models/{name}/metadata")
            model.signatures = _signatures(found)

    async def _get(self, path: str) -> dict[str, Any]:
        """The JSON object at a path; an empty one if there is none."""
        url = yarl.URL(self.base + path, encoded=True)
        try:
            async with self._session.get(url) as response:
                if response.status != 200 or (response.content_length or 0) > _BYTES:
                    return {}
                found = await response.json(content_type=None)
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _state(entry: Any) -> tuple[int, str, str] | None:
    try:
        status = entry.get("status", {}).get("error_code", "OK")
        return int(entry["version"]), str(entry["state"]), str(status)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _signatures(metadata: dict[str, Any]) -> frozenset[str]:
    try:
        return frozenset(map(str, metadata["metadata"]["signature_def"]["signature_def"]))
    except (KeyError, TypeError):
        return frozenset()
