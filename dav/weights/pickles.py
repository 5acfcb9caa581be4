"""Reads the pickles of PyTorch checkpoints without running anything that they name.

A pickle is a small program. This one is interpreted here: it may build dicts, lists, tuples and
plain values, and describe tensors. Whatever else it asks for is refused by name.
"""

import pickletools
from dataclasses import dataclass

from dav.errors import DavError

LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
PLAIN = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"),
}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
KEY_TYPES = (str, int, float, type(None))  # hashing a tuple of shared tuples can take for ever

STORAGES = {
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.DoubleStorage": "float64",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
INERT = {f"torch.{name}" for name in STORAGES.values()}  # data types, which may stand in settings
CALLABLE = {
    "collections.OrderedDict",
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
}


@dataclass(frozen=True)
class Storage:
    """A run of `count` values of one NumPy type, named `key` in the file."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class TensorView:
    """A tensor as the pickle describes it: nothing in here has been checked."""

    storage: Storage
    offset: int
    shape: tuple
    strides: tuple


@dataclass(frozen=True)
class Symbol:
    """A name that the pickle asks for; it stands for itself and is never imported."""

    name: str


class Mark:
    """Where a group of stack entries begins."""


def unpickle(stream, source, storages=None):
    """The object in a pickle; `stream` (bytes or a file) is read up to its end, not further.

    Tensors come as TensorView; `storages`, a dict, collects every storage by its key. Raises
    DavError for what is neither plain data nor a tensor; a damaged pickle raises any of Python's
    own errors.
    """
    stack, memo = [], {}
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name in ("PROTO", "FRAME"):
            continue
        if name in PLAIN:
            stack.append(argument)
        elif name in LITERALS:
            stack.append(LITERALS[name])
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name == "MARK":
            stack.append(Mark)
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(_symbol(argument, stack, source))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_call(stack.pop(), arguments))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
            if storages is not None:
                storages[stack[-1].key] = stack[-1]
        else:
            _collect(name, stack, source)
    raise ValueError("the pickle has no end")


def _collect(name, stack, source):
    """The instructions that put stack entries into a container."""
    if name in TUPLES:
        entries = tuple(stack[-TUPLES[name] :])
        del stack[-TUPLES[name] :]
        stack.append(entries)
    elif name in ("TUPLE", "LIST", "DICT"):
        entries = _pop_group(stack)
        stack.append({"TUPLE": tuple, "LIST": list, "DICT": _pairs}[name](entries))
    elif name in ("SETITEM", "SETITEMS"):
        entries = _pop_group(stack) if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
        _expect(stack[-1], dict).update(_pairs(entries))
    elif name in ("APPEND", "APPENDS"):
        entries = _pop_group(stack) if name == "APPENDS" else [stack.pop()]
        _expect(stack[-1], list).extend(entries)
    elif name == "BUILD":  # attributes of a dict: state dicts carry their version so
        stack.pop()
        _expect(stack[-1], dict)
    else:
        raise _more_than_tensors(source, f"instruction {name}")


def _pop_group(stack):
    """Removes and returns the entries above the last mark, and the mark."""
    start = len(stack) - 1
    while stack[start] is not Mark:
        if start == 0:
            raise ValueError("a group without beginning")
        start -= 1
    entries = stack[start + 1 :]
    del stack[start:]
    return entries


def _pairs(entries):
    for key in entries[::2]:
        _expect(key, KEY_TYPES)
    return dict(zip(entries[::2], entries[1::2], strict=True))


def _expect(value, kind):
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} in a place where it makes no sense")
    return value


def _symbol(argument, stack, source):
    if argument is None:  # STACK_GLOBAL
        name, module = _expect(stack.pop(), str), _expect(stack.pop(), str)
    else:
        module, _, name = argument.partition(" ")
    name = f"{module}.{name}"
    if name not in STORAGES and name not in INERT and name not in CALLABLE:
        raise _more_than_tensors(source, name)
    return Symbol(name)


def _more_than_tensors(source, what):
    return DavError(
        f"{source} is a pickle that holds more than tensors ({what[:80]!r}); dav loads tensors "
        "only, so save the state dict by itself, best as .safetensors"
    )


def _call(symbol, arguments):
    """What a call would give, for the few that occur in state dicts."""
    name, arguments = _expect(symbol, Symbol).name, _expect(arguments, tuple)
    if name == "collections.OrderedDict":
        pairs = arguments[0] if arguments else []
        return _pairs([part for pair in pairs for part in _expect(pair, (list, tuple))])
    if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
        storage, offset, shape, strides = arguments[:4]
        return TensorView(_expect(storage, Storage), offset, shape, strides)
    if name.startswith("torch._utils._rebuild_parameter"):
        return _expect(arguments[0], TensorView)
    return arguments


def _storage(description):
    """('storage', type, key, device, count), and in old files a view, which must be None."""
    kind, symbol, key, _, count, *view = _expect(description, tuple)
    if kind != "storage" or any(part is not None for part in view):
        raise ValueError("a tensor's values are described in an unknown way")
    dtype = STORAGES[_expect(symbol, Symbol).name]
    return Storage(_expect(key, str), dtype, _expect(count, int))
