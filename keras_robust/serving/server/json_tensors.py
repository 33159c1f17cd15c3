"""JSON tensors of REST requests and answers, in TensorFlow Serving's row and column formats."""

from __future__ import annotations

import base64
import binascii
import itertools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.serving.server.tensor_protos import Slot
from keras_robust.serving.status import invalid

_WHITE_SPACE = b" \t\n\v\f\r"
_JSON_TYPES = {
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
    bool: "Bool",
    type(None): "Null",
}


def _first_of_equal_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


_DECODER = json.JSONDecoder(object_pairs_hook=_first_of_equal_names)


def parse(body: bytes) -> dict[str, Any]:
    r"""Parses the body of a request to a JSON object, as TensorFlow Serving does.

    It ends at the end of the object, whatever follows. Of equal names the first counts. Bytes that
    are not UTF-8 are no error inside of strings.

    Raises:
        ServingError: INVALID_ARGUMENT; not JSON, or not an object.

    Example:
        >>> parse(b' {"inputs": [1], "inputs": [2]} and more')
        {'inputs': [1]}
    """
    text = body.decode("utf-8", "surrogateescape").lstrip(" \t\n\r")
    if not text:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document, _ = _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        raise invalid(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    except RecursionError as error:
        raise invalid("JSON Parse error: The document is nested too deeply") from error
    except ValueError as error:  # an integer of thousands of digits
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value of type {_type(document)} is not object")
    return document


def decode_inputs(
    document: Mapping[str, Any], slots: Mapping[str, Slot]
) -> tuple[dict[str, np.ndarray], bool]:
    """Decodes the arrays of a predict request.

    Args:
        document: the parsed body.
        slots: the inputs of the signature.

    Returns:
        `{alias: array}`, and whether the request (and so the answer) is in row format.

    Raises:
        ServingError: INVALID_ARGUMENT; a malformed request, or one that does not fit the signature.
    """
    by_row, by_column = "instances" in document, "inputs" in document
    if by_row and by_column:
        raise invalid('Expected one of the keys "instances" and "inputs"; both were received')
    if not by_row and not by_column:
        raise invalid("Missing 'inputs' or 'instances' key")
    columns = (
        _columns_of_rows(document["instances"], slots)
        if by_row
        else _columns(document["inputs"], slots)
    )
    return {alias: to_array(slots[alias], value) for alias, value in columns.items()}, by_row


def encode_outputs(outputs: Mapping[str, np.ndarray], by_row: bool) -> dict[str, Any]:
    """Encodes the answer to a predict request as an object for `json`.

    As in TensorFlow Serving, numbers that are not finite become NaN, Infinity and -Infinity, which
    are not standard JSON but are read by Python.

    Args:
        outputs: `{alias: array}`.
        by_row: one entry per example under "predictions", else one per output under "outputs".

    Raises:
        ServingError: INVALID_ARGUMENT; row format, and the outputs differ in their number of rows.

    Example:
        >>> encode_outputs({"classes": np.array([3, 5])}, by_row=True)
        {'predictions': [3, 5]}
    """
    values = {alias: _to_json(alias, array) for alias, array in outputs.items()}
    if not by_row:
        return {"outputs": values if len(values) > 1 else next(iter(values.values()))}
    sizes = set()
    for alias, array in outputs.items():
        if array.ndim == 0:
            raise invalid(f"Tensor name: {alias} has no shape information ")
        sizes.add(len(array))
    if len(sizes) != 1 or sizes == {0}:
        raise invalid(f"The outputs have {sorted(sizes)} rows; row format needs equal numbers")
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    rows = zip(*values.values(), strict=True)
    return {"predictions": [dict(zip(values, row, strict=True)) for row in rows]}


def to_array(slot: Slot, value: Any) -> np.ndarray:
    """Converts nested JSON lists to an array of the input's type and shape.

    Args:
        slot: the input.
        value: numbers, strings or `{"b64": ...}` in lists of equal length.

    Raises:
        ServingError: INVALID_ARGUMENT; ragged lists, or values of another type.
    """
    # Level by level, so that the work per number is done in C: recursion per pixel is slow.
    shape: list[int] = []
    flat = [value]
    while (kinds := set(map(type, flat))) == {list}:
        lengths = set(map(len, flat))
        if len(lengths) > 1:
            raise invalid(
                f'Input "{slot.alias}" has lists of different lengths ({min(lengths)} to '
                f"{max(lengths)}) at one level; expected {slot.shape_text()}"
            )
        shape.append(lengths.pop())
        flat = list(itertools.chain.from_iterable(flat))
    if list in kinds:
        raise invalid(f'Input "{slot.alias}" has lists and values at one level of nesting')
    slot.check_shape(shape)
    return _leaves(slot, flat, kinds).reshape(shape)


def _leaves(slot: Slot, flat: list[Any], kinds: set[type]) -> np.ndarray:
    if slot.dtype == tf.string:
        array = np.empty(len(flat), object)
        array[:] = [_to_bytes(slot, leaf) for leaf in flat]
        return array
    accepted: set[type] = {int, float} if slot.dtype.is_floating else {int}
    accepted = {bool} if slot.dtype == tf.bool else accepted
    if not kinds <= accepted:
        odd = next(leaf for leaf in flat if type(leaf) not in accepted)
        raise invalid(
            f'JSON Value: {json.dumps(odd)[:40]} Type: {_type(odd)} of input "{slot.alias}" is not '
            f"of expected type: {slot.dtype.name}"
        )
    try:
        with np.errstate(over="ignore"):  # overflow gives infinity, which the model rejects
            return np.array(flat, slot.dtype.as_numpy_dtype)
    except OverflowError as error:
        raise invalid(
            f'Input "{slot.alias}" holds a number that {slot.dtype.name} cannot hold'
        ) from error


def _to_bytes(slot: Slot, leaf: Any) -> bytes:
    if isinstance(leaf, str):
        try:
            return leaf.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise invalid(f'Input "{slot.alias}" holds half of a surrogate pair') from error
    if _is_base64(leaf):
        try:
            return decode_base64(leaf["b64"])
        except (binascii.Error, ValueError) as error:
            raise invalid(f'Input "{slot.alias}": unable to base64 decode: {error}') from error
    raise invalid(
        f'JSON Value of Type: {_type(leaf)} of input "{slot.alias}" is not of expected type: '
        'string or {"b64": "..."}'
    )


def decode_base64(text: str) -> bytes:
    r"""Decodes base64 as TensorFlow Serving does: with white space, and with or without padding.

    Raises:
        ValueError: another character, a length that no bytes have, or padding of another length.

    Example:
        >>> decode_base64("aG\r\nk"), decode_base64("aGk=")
        (b'hi', b'hi')
    """
    compact = text.encode("ascii").translate(None, _WHITE_SPACE)
    digits = compact.rstrip(b"=")
    padding, needed = len(compact) - len(digits), -len(digits) % 4
    if padding not in (0, needed):
        raise ValueError(f"{len(digits)} digits are followed by {padding} '='; expected {needed}")
    return base64.b64decode(digits + b"=" * needed, validate=True)


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def _columns_of_rows(instances: Any, slots: Mapping[str, Slot]) -> dict[str, Any]:
    if not isinstance(instances, list):
        raise invalid("Expecting 'instances' value to be an list/array")
    if not instances:
        raise invalid("Expecting 'instances' value to be non-empty: no values in it")
    if not isinstance(instances[0], dict) or _is_base64(instances[0]):
        if len(slots) > 1:
            raise invalid(
                "instances is a plain list, but expecting list of objects as multiple input "
                f"tensors required: {', '.join(sorted(slots))}"
            )
        return dict.fromkeys(slots, instances)
    for index, row in enumerate(instances):
        if not isinstance(row, dict):
            raise invalid(
                f"Failed to process element: {index} of 'instances' list. Error: Expecting object "
                f"but got {_type(row)}"
            )
        _check_names(row, slots, f"Failed to process element: {index} of 'instances' list. Error: ")
    return {alias: [row[alias] for row in instances] for alias in slots}


def _columns(inputs: Any, slots: Mapping[str, Slot]) -> dict[str, Any]:
    if isinstance(inputs, dict) and not _is_base64(inputs):
        _check_names(inputs, slots, "")
        return {alias: inputs[alias] for alias in slots}
    if len(slots) > 1:
        raise invalid(
            "inputs is a plain value/list, but expecting an object as multiple input tensors "
            f"required: {', '.join(sorted(slots))}"
        )
    return dict.fromkeys(slots, inputs)


def _check_names(named: Mapping[str, Any], slots: Mapping[str, Slot], where: str) -> None:
    extra, missing = sorted(set(named) - set(slots)), sorted(set(slots) - set(named))
    if extra:
        raise invalid(
            f"{where}JSON object: does not have named input: {extra[0]}; expected "
            f"{', '.join(sorted(slots))}"
        )
    if missing:
        raise invalid(f"{where}Missing named input: {missing[0]}")


def _to_json(alias: str, array: np.ndarray) -> Any:
    if array.dtype == object:
        return _strings(array.tolist(), alias.endswith("_bytes"))
    if array.dtype.kind == "f" and array.dtype.itemsize < 8:
        # The shortest digits that give the same float back: 0.1, not 0.10000000149011612.
        return array.astype(str).astype(np.float64).tolist()
    return array.tolist()


def _strings(value: Any, as_base64: bool) -> Any:
    if isinstance(value, list):
        return [_strings(item, as_base64) for item in value]
    if as_base64:
        return {"b64": base64.b64encode(value).decode("ascii")}
    return value.decode("utf-8", "replace")


def _type(value: Any) -> str:
    return _JSON_TYPES.get(type(value), type(value).__name__)
