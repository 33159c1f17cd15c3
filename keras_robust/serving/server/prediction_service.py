"""The methods of the server, shared by gRPC and REST."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
)

from keras_robust.serving.metrics.request_record import current_record
from keras_robust.serving.server.servable import Servable
from keras_robust.serving.server.version_manager import VersionManager, no_servable
from keras_robust.serving.status import Code, ServingError, invalid

SIGNATURE_FIELD = "signature_def"


class PredictionService:
    """The methods of TensorFlow Serving's PredictionService and ModelService.

    Each raises `ServingError` for a bad request.

    Args:
        versions: versions of the served model.
    """

    def __init__(self, versions: VersionManager[Servable]) -> None:
        self._versions = versions

    def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Runs a signature."""
        self._check_spec(request)
        with self.lease(request.model_spec) as servable:
            response = servable.predict(request)
        response.model_spec.name = request.model_spec.name
        return response

    def get_model_metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Returns the signatures of a version."""
        self._check_spec(request)
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != SIGNATURE_FIELD:
                raise invalid(f"Metadata field {field} is not supported")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self.lease(request.model_spec) as servable:
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for name, definition in servable.definitions.items():
                signatures.signature_def[name].CopyFrom(definition)
            response.model_spec.version.value = servable.version
        response.model_spec.name = request.model_spec.name
        response.metadata[SIGNATURE_FIELD].Pack(signatures)
        return response

    def get_model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns the states of all versions, or of one."""
        self._check_spec(request)
        name, version = request.model_spec.name, _version(request.model_spec)
        if name != self._versions.name:
            which = "any versions" if version is None else f"version {version}"
            raise ServingError(Code.NOT_FOUND, f"Could not find {which} of model {name}")
        response = get_model_status_pb2.GetModelStatusResponse()
        for state in self._versions.states(version):
            entry = response.model_version_status.add(version=state.version, state=int(state.state))
            entry.status.error_code = int(state.code)
            entry.status.error_message = state.message
        return response

    @contextlib.contextmanager
    def lease(self, spec: model_pb2.ModelSpec) -> Iterator[Servable]:
        """Yields the requested version, which stays loaded until the `with` block ends."""
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        version = _version(spec)
        if spec.name != self._versions.name:
            raise no_servable(spec.name, version)
        with self._versions.lease(version) as servable:
            if (record := current_record()) is not None:
                record.model = spec.name
            yield servable

    @staticmethod
    def _check_spec(
        request: predict_pb2.PredictRequest
        | get_model_metadata_pb2.GetModelMetadataRequest
        | get_model_status_pb2.GetModelStatusRequest,
    ) -> None:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")


def _version(spec: model_pb2.ModelSpec) -> int | None:
    choice = spec.WhichOneof("version_choice")
    if choice == "version_label":
        # Labels belong to TensorFlow Serving's configuration file, which this server does not have.
        raise invalid(f"Unrecognized servable version label: {spec.version_label}")
    return spec.version.value if choice == "version" else None
