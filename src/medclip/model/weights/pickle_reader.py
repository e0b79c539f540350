"""Pickles as data: containers, numbers and text, and calls of the functions on a list. Nothing is imported or run.

Python's own unpickler with an allow-list still calls `__setstate__`, allocates what an opcode's length claims and
overflows its C stack on deep nesting; this one executes the few opcodes that checkpoints are made of.
"""

from __future__ import annotations

import io
import pickle  # for the names of its opcodes alone
import struct
from collections.abc import Callable, Mapping
from typing import Any

MAX_OPCODES = 1_000_000
OPAQUE = object()
"""Stands for a harmless object that nobody needs, such as the arguments of a training run."""
Stream = io.BufferedReader | io.BytesIO
_MAX_LENGTH = 2**20
_CONSTANTS = {pickle.NONE: None, pickle.NEWTRUE: True, pickle.NEWFALSE: False, pickle.EMPTY_TUPLE: ()}
_NUMBERS = {pickle.BININT: "<i", pickle.BININT1: "<B", pickle.BININT2: "<H", pickle.BINFLOAT: ">d"}
_PUT, _GET = {pickle.BINPUT: "<B", pickle.LONG_BINPUT: "<I"}, {pickle.BINGET: "<B", pickle.LONG_BINGET: "<I"}
_IGNORED = {pickle.PROTO: "<B", pickle.FRAME: "<Q"}
_TUPLES = {pickle.TUPLE1: 1, pickle.TUPLE2: 2, pickle.TUPLE3: 3}
_COUNTED: dict[bytes, tuple[str, Callable[[bytes], Any]]] = {
    pickle.BINUNICODE: ("<I", bytes.decode),
    pickle.SHORT_BINUNICODE: ("<B", bytes.decode),
    pickle.BINSTRING: ("<I", lambda data: data.decode("latin-1")),  # Python 2
    pickle.SHORT_BINSTRING: ("<B", lambda data: data.decode("latin-1")),
    pickle.BINBYTES: ("<I", bytes),
    pickle.SHORT_BINBYTES: ("<B", bytes),
    pickle.LONG1: ("<B", lambda data: int.from_bytes(data, "little", signed=True)),
}
_KEY_TYPES = (str, bytes, int, float, type(None))  # a deep tuple as key would overflow the stack when it is hashed


class ForeignObject(ValueError):
    """A pickle names a class or function that is not on the list; `args[0]` is its name."""


def read_pickle(stream: Stream, known: Mapping[str, Any], load_persistent: Callable[[Any], Any] | None = None) -> Any:
    """The object of the pickle at the stream's position, which is left behind its end.

    `known` maps "module name" to what stands for that global: a function, which may be called with the arguments of the
    pickle, a value, or OPAQUE. Raises ForeignObject for any other global, ValueError for other opcodes and for damage.
    """
    machine = _Machine(stream, known, load_persistent)
    for _ in range(MAX_OPCODES):
        if (opcode := stream.read(1)) == pickle.STOP:
            return machine.pop(1)[0]
        machine.execute(opcode)
    raise ValueError(f"its pickle has more than {MAX_OPCODES:,} operations")


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self, stream: Stream, known: Mapping[str, Any], load_persistent: Callable[[Any], Any] | None):
        self.stream, self.known, self.load_persistent = stream, known, load_persistent
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.num_items = 0
        """Of what functions were given: one list may be given many times."""
        self.actions: dict[bytes, Callable[[], None]] = {
            pickle.MARK: self._mark,
            pickle.EMPTY_LIST: lambda: self._push([]),
            pickle.EMPTY_DICT: lambda: self._push({}),
            pickle.TUPLE: lambda: self._push(tuple(self._pop_items())),
            pickle.APPEND: lambda: self._append(self.pop(1)),
            pickle.APPENDS: lambda: self._append(self._pop_items()),
            pickle.SETITEM: lambda: self._set_items(self.pop(2)),
            pickle.SETITEMS: lambda: self._set_items(self._pop_items()),
            pickle.MEMOIZE: lambda: self._memoize(len(self.memo)),
            pickle.GLOBAL: lambda: self._push_global(self._read_line(), self._read_line()),
            pickle.STACK_GLOBAL: lambda: self._push_global(*self.pop(2)),
            pickle.REDUCE: lambda: self._call(*self.pop(2)),
            pickle.NEWOBJ: lambda: self._call(*self.pop(2)),
            pickle.BUILD: self._discard_state,
            pickle.BINPERSID: self._push_persistent,
        }

    def execute(self, opcode: bytes) -> None:
        """Carry out one opcode."""
        if opcode in self.actions:
            self.actions[opcode]()
        elif opcode in _COUNTED:
            size, decode = _COUNTED[opcode]
            self._push(decode(self._read_counted(size)))
        elif opcode in _NUMBERS:
            self._push(self._read(_NUMBERS[opcode]))
        elif opcode in _CONSTANTS:
            self._push(_CONSTANTS[opcode])
        elif opcode in _TUPLES:
            self._push(tuple(self.pop(_TUPLES[opcode])))
        elif opcode in _PUT:
            self._memoize(self._read(_PUT[opcode]))
        elif opcode in _GET:
            if (index := self._read(_GET[opcode])) not in self.memo:
                raise ValueError("its pickle recalls what it never stored")
            self._push(self.memo[index])
        elif opcode in _IGNORED:
            self._read(_IGNORED[opcode])
        elif opcode:
            raise ValueError(f"its pickle has the operation {opcode!r}, which no checkpoint needs")
        else:
            raise ValueError("its pickle does not end")

    def pop(self, count: int) -> list[Any]:
        """The topmost values, taken off the stack."""
        if len(self.stack) < count:
            raise ValueError("its pickle takes more from the stack than there is")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def _read(self, form: str) -> Any:
        return struct.unpack(form, self.stream.read(struct.calcsize(form)))[0]

    def _read_counted(self, form: str) -> bytes:
        length = self._read(form)
        if length > _MAX_LENGTH:
            raise ValueError(f"its pickle has a text or number of {length:,} bytes")
        if len(data := self.stream.read(length)) < length:
            raise ValueError("its pickle does not end")
        return data

    def _read_line(self) -> str:
        line = self.stream.readline(_MAX_LENGTH)
        if not line.endswith(b"\n"):
            raise ValueError("its pickle does not end")
        return line[:-1].decode()

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def _pop_items(self) -> list[Any]:
        """What lies above the last mark, which goes too."""
        if not self.marked:
            raise ValueError("its pickle closes what it never opened")
        items, self.stack = self.stack, self.marked.pop()
        return items

    def _top(self) -> Any:
        if not self.stack:
            raise ValueError("its pickle takes more from the stack than there is")
        return self.stack[-1]

    def _memoize(self, index: int) -> None:
        self.memo[index] = self._top()

    def _append(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(items)
        elif target is not OPAQUE:
            raise ValueError("its pickle appends to what is not a list")

    def _set_items(self, items: list[Any]) -> None:
        target, keys = self._top(), items[::2]
        if target is OPAQUE:
            return
        if not isinstance(target, dict) or len(items) % 2 or not all(isinstance(key, _KEY_TYPES) for key in keys):
            raise ValueError("its pickle sets items of what is not a dictionary of plain keys")
        target.update(zip(keys, items[1::2], strict=True))

    def _push_global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("its pickle names a global by what is not text")
        if (full_name := f"{module} {name}") not in self.known:
            raise ForeignObject(full_name)
        self._push(self.known[full_name])

    def _call(self, function: Any, arguments: Any) -> None:
        if function is OPAQUE:
            self._push(OPAQUE)
        elif not callable(function) or not isinstance(arguments, tuple):
            raise ValueError("its pickle calls what is not a function")
        else:
            self.num_items += sum(len(argument) for argument in arguments if isinstance(argument, list | tuple | dict))
            if self.num_items > MAX_OPCODES:
                raise ValueError(f"its pickle gives functions more than {MAX_OPCODES:,} items")
            self._push(function(*arguments))

    def _discard_state(self) -> None:
        """Of a state dictionary (torch's `_metadata`) or an opaque object; nothing else has state."""
        self.pop(1)
        if self._top() is not OPAQUE and not isinstance(self._top(), dict):
            raise ValueError("its pickle sets the state of an object")

    def _push_persistent(self) -> None:
        if self.load_persistent is None:
            raise ValueError("its pickle refers to data outside of it")
        self._push(self.load_persistent(self.pop(1)[0]))
