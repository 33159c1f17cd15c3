"""PyTorch state dicts as NumPy arrays, read from `.safetensors`, `.npz` or `.pt` files.

Only files of `torch.save` (`.pt`, `.pth`, any other suffix) need PyTorch. They are pickles, which
may run code, and are read by PyTorch's reader that takes tensors and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_robust.core.bounded_files import open_arrays, parse_json

# Where checkpoints keep the weights beside other things, such as an optimizer's state.
_INSIDE = ("state_dict", "model_state_dict", "model", "net")
_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "<i1", "U8": "<u1", "BOOL": "?",
}  # fmt: skip
_CONVERT = (
    'python -c "import sys, numpy, torch; '
    "d = torch.load(sys.argv[1], 'cpu', weights_only=True); "
    "d = {k: v.float().numpy() for k, v in d.get('state_dict', d).items()}; "
    'numpy.savez(sys.argv[2], **d)"'
)


def read_state_dict(source: Any) -> dict[str, np.ndarray]:
    """Reads the arrays of a state dict.

    Args:
        source: a `.safetensors` or `.npz` file, a file of `torch.save`, or a dictionary of arrays
            or tensors. A checkpoint that holds the weights under `"state_dict"`,
            `"model_state_dict"`, `"model"` or `"net"` is read there.

    Returns:
        name -> array, in the layout of PyTorch.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: a file of `torch.save`, and PyTorch is not installed; the message has the
            command that converts it.
        ValueError: a damaged file, or anything that is not an array.

    Example:
        >>> read_state_dict({"state_dict": {"fc.bias": [0.0, 1.0]}, "epoch": 3})
        {'fc.bias': array([0., 1.])}
    """
    if isinstance(source, Mapping):
        return _arrays(source, "The state dict")
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected a file of weights.")
    readers = {".safetensors": _read_safetensors, ".npz": _read_npz}
    reader = readers.get(path.suffix, _read_torch)
    try:
        found = reader(path)
    except ImportError:
        raise
    except Exception as error:  # damaged files raise errors of many classes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} cannot be read as a state dict: {reason}") from error
    return _arrays(found, str(path))


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with open_arrays(path) as arrays:
        return dict(arrays)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads the format directly: the header's length, the header as JSON, then the bytes."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = parse_json(content[8 : 8 + length]), memoryview(content)[8 + length :]
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        if not 0 <= begin <= end <= len(data):
            raise ValueError(f"{name} is not inside the file, which may be truncated.")
        if entry["dtype"] not in _TYPES:
            raise ValueError(f"{name} has the type {entry['dtype']}, which is not supported.")
        values = np.frombuffer(data[begin:end], _TYPES[entry["dtype"]])
        if entry["dtype"] == "BF16":  # the upper half of a float32
            values = (values.astype("<u4") << 16).view("<f4")
        arrays[name] = values.reshape(entry["shape"])
    return arrays


def _read_torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"Reading {path} needs PyTorch, which is not installed; .safetensors and .npz files do "
            f"not. Convert it where PyTorch is:\n{_CONVERT} {path} {path.with_suffix('.npz')}"
        ) from error
    try:
        # Never without `weights_only`: a pickle can run code.
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"PyTorch does not read it as tensors alone ({reason}), and other pickles can run "
            "code. Save `model.state_dict()`, without other objects."
        ) from error


def _arrays(found: Any, what: str) -> dict[str, np.ndarray]:
    """The arrays of a state dict, which may be inside a checkpoint."""
    if isinstance(found, Mapping):
        for key in _INSIDE:
            if isinstance(found.get(key), Mapping):
                found = found[key]
                break
    if not isinstance(found, Mapping) or not found:
        raise ValueError(
            f"{what} holds {type(found).__name__}; expected names with arrays, as of "
            "`model.state_dict()`."
        )
    return {str(name): _array(value, f"{what}: {name}") for name, value in found.items()}


def _array(value: Any, what: str) -> np.ndarray:
    if hasattr(value, "detach"):  # a tensor; NumPy has no bfloat16
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{what} is {type(value).__name__}; expected an array of numbers.")
    return array
