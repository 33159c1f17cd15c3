"""Tensors of gRPC messages, checked against the signature before memory is allocated for them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from keras_robust.serving.status import ServingError, invalid

# The field of a TensorProto that holds the values of a type; other types have raw content only.
_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int8: "int_val",
    tf.int16: "int_val",
    tf.int32: "int_val",
    tf.uint8: "int_val",
    tf.uint16: "int_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.int64: "int64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
}


@dataclasses.dataclass(frozen=True)
class Slot:
    """A named input or output of a signature.

    Args:
        alias: the name that clients use.
        tensor: the name in the graph.
        dtype: type of the values.
        dims: the shape, with None for any length; None for an unknown rank.
    """

    alias: str
    tensor: str
    dtype: tf.DType
    dims: tuple[int | None, ...] | None

    @classmethod
    def of(cls, alias: str, info: meta_graph_pb2.TensorInfo) -> Slot:
        """Reads an input or output of a SignatureDef."""
        shape = info.tensor_shape
        dims = None
        if not shape.unknown_rank:
            dims = tuple(None if dim.size < 0 else dim.size for dim in shape.dim)
        return cls(alias, info.name, tf.dtypes.as_dtype(info.dtype), dims)

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises on a shape that does not fit the signature, and on an empty batch."""
        if self.dims is None:
            return
        fits = len(shape) == len(self.dims) and all(
            dim is None or dim == length for dim, length in zip(self.dims, shape, strict=True)
        )
        if not fits:
            raise invalid(
                f'Input "{self.alias}" has shape {_shown(shape)}; expected {self.shape_text()}.'
            )
        if shape and shape[0] == 0 and self.dims[0] is None:
            raise invalid(f'Input "{self.alias}" is an empty batch; expected at least one example.')

    def shape_text(self) -> str:
        """The shape for messages: `[batch, 8, 8, 1]`."""
        if self.dims is None:
            return "any shape"
        words = ["?" if dim is None else str(dim) for dim in self.dims]
        if words and self.dims[0] is None:
            words[0] = "batch"
        return f"[{', '.join(words)}]"


def decode(slot: Slot, proto: tensor_pb2.TensorProto, max_bytes: int) -> np.ndarray:
    """Decodes the array in a message.

    As in TensorFlow, one number and a shape stand for a tensor filled with that number.

    Args:
        slot: the input of the signature.
        proto: the message as received; its shape may contradict its content.
        max_bytes: largest size of the tensor.

    Returns:
        An array of the input's type and shape.

    Raises:
        ServingError: INVALID_ARGUMENT; type, shape, size or content do not fit.
    """
    if proto.dtype != slot.dtype.as_datatype_enum:
        raise invalid(
            f'Input "{slot.alias}" is {_type_name(proto.dtype)}; expected {slot.dtype.name}.'
        )
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(length < 0 for length in shape):
        raise invalid(f'Input "{slot.alias}" has no complete shape; expected {slot.shape_text()}.')
    slot.check_shape(shape)
    count = math.prod(shape)
    if count * slot.dtype.size > max_bytes:
        raise invalid(
            f'Input "{slot.alias}" declares the shape {_shown(shape)}, {count * slot.dtype.size} '
            f"bytes; expected at most {max_bytes}. Send smaller batches."
        )
    return _values(slot, proto, count).reshape(shape)


def encode(array: np.ndarray, dtype: tf.DType) -> tensor_pb2.TensorProto:
    """Encodes an array as TensorFlow Serving does, with the values in the field of their type.

    Example:
        >>> encode(np.array([1, 2]), tf.int64).int64_val
        [1, 2]
    """
    if dtype not in _FIELDS:
        return tf.make_tensor_proto(array, dtype)
    dims = [tensor_shape_pb2.TensorShapeProto.Dim(size=length) for length in array.shape]
    shape = tensor_shape_pb2.TensorShapeProto(dim=dims)
    values = {_FIELDS[dtype]: array.ravel().tolist()}
    return tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum, tensor_shape=shape, **values)


def _values(slot: Slot, proto: tensor_pb2.TensorProto, count: int) -> np.ndarray:
    numpy_type = slot.dtype.as_numpy_dtype
    field = _FIELDS.get(slot.dtype, "")
    if slot.dtype != tf.string and (proto.tensor_content or not field):
        if len(proto.tensor_content) != count * slot.dtype.size:
            raise _wrong_content(slot, f"{len(proto.tensor_content)} bytes", count)
        return np.frombuffer(proto.tensor_content, numpy_type)
    values = getattr(proto, field)
    if len(values) != count and (len(values) != 1 or slot.dtype == tf.string):
        raise _wrong_content(slot, f"{len(values)} values", count)
    if slot.dtype == tf.string:
        array = np.empty(count, object)
        array[:] = values
        return array
    array = _fitted(slot, np.array(values))
    return array if len(values) == count else np.repeat(array, count)


def _fitted(slot: Slot, array: np.ndarray) -> np.ndarray:
    """Casts to the input's type; the fields of a message are wider than some of the types."""
    numpy_type = slot.dtype.as_numpy_dtype
    if slot.dtype.is_integer and array.size:
        limits = np.iinfo(numpy_type)
        if array.min() < limits.min or array.max() > limits.max:
            raise invalid(
                f'Input "{slot.alias}" holds values from {array.min()} to {array.max()}; '
                f"expected {slot.dtype.name}."
            )
    return array.astype(numpy_type)


def _wrong_content(slot: Slot, found: str, count: int) -> ServingError:
    return invalid(
        f'tensor parsing error: input "{slot.alias}" holds {found}; its shape stands for {count} '
        f"values of {slot.dtype.name}."
    )


def _type_name(number: int) -> str:
    try:
        return tf.dtypes.as_dtype(number).name
    except TypeError:
        return f"of the unknown type {number}"


def _shown(shape: Sequence[int]) -> str:
    """A shape for messages, shortened: a request may declare thousands of dimensions."""
    words = [str(length) for length in shape[:8]] + (["..."] if len(shape) > 8 else [])
    return f"[{', '.join(words)}]"
