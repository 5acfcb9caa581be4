"""Foreign tensors ↔ dav's parameter tree by a key table, nothing left over, nothing left out."""

import numpy as np

from dav.errors import DavError


def to_params(tensors, table, source):
    """{foreign name: array of any float type} → nested dict of float32 arrays with own memory.

    Raises one DavError naming `source` and all tensors that are missing, unknown, of the wrong
    shape, or not floating point.
    """
    problems = list(_problems(tensors, table))
    if problems:
        raise DavError(
            f"{source} does not hold the network that its size and names announce: "
            f"{'; '.join(problems)}; download it again or name another checkpoint"
        )
    return nest({row.leaf: _leaf([tensors[key] for key in row.keys], row.axes) for row in table})


def nest(flat):
    """{"a/b": value} → {"a": {"b": value}}."""
    tree = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def _problems(tensors, table):
    known = {key for row in table for key in row.keys}
    missing = [key for row in table for key in row.keys if key not in tensors]
    if missing:
        yield f"missing {', '.join(missing)}"
    unknown = [key for key in tensors if key not in known]
    if unknown:
        yield f"unknown {', '.join(map(shown, unknown))}"
    for row in table:
        expected = (row.shape[0] // len(row.keys), *row.shape[1:])
        for key in row.keys:
            if key in tensors and tensors[key].shape != expected:
                yield f"{key} has shape {list(tensors[key].shape)} instead of {list(expected)}"
            elif key in tensors and not _is_float(tensors[key].dtype):
                yield f"{key} is {tensors[key].dtype}, not floating point"


def shown(name):
    """A tensor's name as it may stand in a message of one line."""
    return name if name.isprintable() else ascii(name)


def _is_float(dtype):
    return np.issubdtype(dtype, np.floating) or dtype.name == "bfloat16"


def _leaf(parts, axes):
    joined = np.concatenate(parts, dtype=np.float32, casting="unsafe") if parts[1:] else parts[0]
    return np.array(joined.transpose(axes), np.float32, order="C")


def from_params(params, table):
    """A parameter tree as {foreign name: contiguous float32 array}; the inverse of to_params."""
    tensors = {}
    for row in table:
        leaf = params
        for name in row.leaf.split("/"):
            leaf = leaf[name]
        joined = np.asarray(leaf, np.float32).transpose(np.argsort(row.axes))
        for key, part in zip(row.keys, np.split(joined, len(row.keys)), strict=True):
            tensors[key] = np.ascontiguousarray(part)
    return tensors
