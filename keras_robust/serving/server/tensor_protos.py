"""Tensors of gRPC messages, checked against the signature before anything of their size is made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from keras_robust.serving.status import ServingError, invalid

# Which field of a TensorProto holds the values of a type. Of any other type, only the raw content.
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
        dtype: of the values.
        dims: the shape, None where any length goes; or None when nothing is known of it.
    """

    alias: str
    tensor: str
    dtype: tf.DType
    dims: tuple[int | None, ...] | None

    @classmethod
    def of(cls, alias: str, info: meta_graph_pb2.TensorInfo) -> Slot:
        """The slot that a SignatureDef describes."""
        shape = info.tensor_shape
        dims = None
        if not shape.unknown_rank:
            dims = tuple(None if dim.size < 0 else dim.size for dim in shape.dim)
        return cls(alias, info.name, tf.dtypes.as_dtype(info.dtype), dims)

    def check_shape(self, shape: Sequence[int]) -> None:
        """Refuses a shape that the signature does not take, and an empty batch."""
        if self.dims is None:
            return
        agrees = len(shape) == len(self.dims) and all(
            wanted is None or wanted == length
            for wanted, length in zip(self.dims, shape, strict=True)
        )
        if not agrees:
            raise invalid(
                f'Input "{self.alias}" has shape {_shown(shape)}; expected {self.shape_text()}.'
            )
        if shape and shape[0] == 0 and self.dims[0] is None:
            raise invalid(f'Input "{self.alias}" is an empty batch; expected at least one example.')

    def shape_text(self) -> str:
        """The shape for people: `[batch, 8, 8, 1]`."""
        if self.dims is None:
            return "any shape"
        words = ["?" if dim is None else str(dim) for dim in self.dims]
        if words and self.dims[0] is None:
            words[0] = "batch"
        return f"[{', '.join(words)}]"


def decode(slot: Slot, proto: tensor_pb2.TensorProto, max_bytes: int) -> np.ndarray:
    """The array in a message, if it is one that the slot takes.

    As TensorFlow does, one number and a shape stand for a tensor filled with that number.

    Args:
        slot: the input that it is for.
        proto: as received: its shape may have nothing to do with its content.
        max_bytes: the size that no tensor may exceed.

    Returns:
        An array of the slot's type, and of a shape that it takes.

    Raises:
        ServingError: INVALID_ARGUMENT when type, shape or content are not as they should be.
    """
    if proto.dtype != slot.dtype.as_datatype_enum:
        raise invalid(
            f'Input "{slot.alias}" is {_type_name(proto.dtype)}; expected {slot.dtype.name}.'
        )
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(length < 0 for length in shape):
        raise invalid(f'Input "{slot.alias}" has no full shape; expected {slot.shape_text()}.')
    slot.check_shape(shape)
    count = math.prod(shape)
    if count * slot.dtype.size > max_bytes:
        raise invalid(
            f'Input "{slot.alias}" declares the shape {_shown(shape)}, {count * slot.dtype.size} '
            f"bytes; expected at most {max_bytes}. Send smaller batches."
        )
    return _values(slot, proto, count).reshape(shape)


def encode(array: np.ndarray, dtype: tf.DType) -> tensor_pb2.TensorProto:
    """An array as TensorFlow Serving answers it: the values in the field of their type.

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
    """The array in the slot's type; the fields of a message are wider than some of the types."""
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
    """A shape for people, of which a hostile request may have sent thousands of dimensions."""
    words = [str(length) for length in shape[:8]] + (["..."] if len(shape) > 8 else [])
    return f"[{', '.join(words)}]"
