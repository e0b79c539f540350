"""A traced JAX function as an ONNX graph, for the few primitives that the towers are made of.

What depends on weights and constants alone is computed here, so a graph holds only what depends on its inputs.
Operators: https://onnx.ai/onnx/operators/, primitives: https://docs.jax.dev/en/latest/jax.lax.html.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import jax
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, Var

from medclip.errors import UserError
from medclip.model.towers import Params
from medclip.require import require

OPSET = 20
MAX_BYTES = 2**31 - 1  # of a protobuf message
_IR_VERSION = 10
_OPERATORS = {
    "add": "Add",
    "and": "And",
    "div": "Div",
    "eq": "Equal",
    "erf": "Erf",
    "exp": "Exp",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "logistic": "Sigmoid",
    "lt": "Less",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "neg": "Neg",
    "or": "Or",
    "sqrt": "Sqrt",
    "sub": "Sub",
    "tanh": "Tanh",
}
_CALLS = dict.fromkeys(("jit", "pjit", "checkpoint", "remat2"), "jaxpr") | {"custom_jvp_call": "call_jaxpr"}
Value = str | np.ndarray
"""The name of what a node or an input gives; or what is known without the inputs."""


def onnx_bytes(
    function: Callable[..., Any], params: Params, inputs: Mapping[str, jax.ShapeDtypeStruct], output: str
) -> bytes:
    """The ONNX file of `function` of params, which it holds, and of `inputs` in order; `output` names its one array.

    A size of an input may be a symbol of `jax.export.symbolic_shape`: it stays free. Raises UserError where onnx is not
    installed, where a primitive or shape has no translation, and where the weights exceed MAX_BYTES.
    """
    onnx = require("onnx")
    ours = {name: jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype)) for name, x in inputs.items()}
    traced = jax.make_jaxpr(function)(params, *ours.values())
    builder = _Builder(onnx, inputs)
    given = [
        name if x.dtype == ours[name].dtype else builder.cast(name, ours[name].dtype) for name, x in inputs.items()
    ]
    (result,) = builder.run(traced, [*map(np.asarray, jax.tree.leaves(params)), *given])
    builder.add("Identity", [result], name=output)
    if sum(len(tensor.raw_data) for tensor in builder.graph.initializer) > MAX_BYTES:
        raise UserError("the tower is larger than 2 GB, which an ONNX file does not hold.")
    builder.graph.name = "encoder"
    builder.graph.input.extend(builder.describe(name, x) for name, x in inputs.items())
    builder.graph.output.append(builder.describe(output, *traced.out_avals))
    return builder.model.SerializeToString()


def _array(variable: Var | Literal) -> ShapedArray:
    """Type and shape of a value: an array, in every jaxpr of arrays."""
    assert isinstance(variable.aval, ShapedArray)
    return variable.aval


class _Builder:
    """The nodes and constants of a graph that is being built."""

    def __init__(self, onnx: Any, inputs: Mapping[str, jax.ShapeDtypeStruct]) -> None:
        self.onnx = onnx
        opset = onnx.helper.make_opsetid("", OPSET)
        self.model = onnx.ModelProto(ir_version=_IR_VERSION, opset_import=[opset])
        self.graph = self.model.graph  # filled where it lies: protobuf copies what is put in, weights too
        self._values: dict[Var, Value] = {}
        self._sizes = {str(n): (name, axis) for name, x in inputs.items() for axis, n in enumerate(x.shape)}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], list[tuple[np.ndarray, str]]] = {}

    def run(self, closed: ClosedJaxpr, arguments: Sequence[Value]) -> list[Value]:
        """The values of the outputs of a jaxpr."""
        jaxpr = closed.jaxpr
        self._values |= dict(zip(jaxpr.constvars, map(np.asarray, closed.consts), strict=True))
        self._values |= dict(zip(jaxpr.invars, arguments, strict=True))
        for equation in jaxpr.eqns:
            self._values |= dict(zip(equation.outvars, self._outputs(equation), strict=True))
        return [self._value(variable) for variable in jaxpr.outvars]

    def add(self, operator: str, inputs: Sequence[Value], name: str = "", **attributes: Any) -> str:
        """Add a node; returns the name of its output."""
        name = name or f"{operator}_{len(self.graph.node)}"
        self.graph.node.append(
            self.onnx.helper.make_node(operator, list(map(self._name, inputs)), [name], **attributes)
        )
        return name

    def cast(self, x: Value, dtype: Any) -> str:
        """Add a change of type."""
        return self.add("Cast", [x], to=self._type(dtype))

    def describe(self, name: str, value: Any) -> Any:
        """The type and shape of an input or output."""
        return self.onnx.helper.make_tensor_value_info(name, self._type(value.dtype), self._numbers(value.shape, str))

    def _type(self, dtype: Any) -> int:
        return self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def _numbers(self, shape: Sequence[Any], free: Callable[[Any], Any]) -> list[Any]:
        return [n if isinstance(n, int) else free(n) for n in shape]

    def _value(self, variable: Var | Literal) -> Value:
        if isinstance(variable, Literal):
            return np.asarray(variable.val, _array(variable).dtype)
        return self._values[variable]

    def _name(self, value: Value) -> str:
        """The name of a value; equal constants are stored once."""
        if isinstance(value, str):
            return value
        content = np.ascontiguousarray(value).reshape(-1)
        # few that are not equal have equal beginnings
        like = content.dtype.str, np.shape(value), content[:64].tobytes()
        for other, name in self._constants.setdefault(like, []):
            if np.array_equal(content.view(np.uint8), other.view(np.uint8)):
                return name
        tensor = self.graph.initializer.add(name=f"constant_{len(self.graph.initializer)}", dims=np.shape(value))
        tensor.data_type, tensor.raw_data = self._type(content.dtype), content.tobytes()
        self._constants[like].append((content, tensor.name))
        return tensor.name

    def _outputs(self, equation: JaxprEqn) -> Sequence[Value]:
        primitive, inputs = equation.primitive, [self._value(variable) for variable in equation.invars]
        shapes = [_array(variable).shape for variable in equation.outvars]
        if primitive.name in _CALLS:
            body = equation.params[_CALLS[primitive.name]]
            return self.run(body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, ()), inputs)
        if primitive.name in ("copy", "stop_gradient"):
            return inputs
        if primitive.name == "dim_as_value":
            size = self.add("Squeeze", [self._size(equation.params["dim"])])
            return [self.cast(size, _array(equation.outvars[0]).dtype)]
        is_known = all(isinstance(x, np.ndarray) for x in inputs)
        if is_known and all(isinstance(n, int) for shape in shapes for n in shape):
            outputs = primitive.bind(*inputs, **equation.params)
            return list(map(np.asarray, outputs if primitive.multiple_results else [outputs]))
        if primitive.name == "split":
            return self._split(inputs[0], list(map(int, equation.params["sizes"])), equation.params["axis"])
        if primitive.name in _OPERATORS:
            return [self.add(_OPERATORS[primitive.name], inputs)]
        return [self._translate(equation, inputs, shapes[0])]

    def _translate(self, equation: JaxprEqn, inputs: list[Value], shape: Sequence[Any]) -> Value:
        parameters, shapes = equation.params, [_array(variable).shape for variable in equation.invars]
        x = inputs[0] if inputs else ""  # of iota alone
        match equation.primitive.name:
            case "square":
                return self.add("Mul", [x, x])
            case "rsqrt":
                return self.add("Reciprocal", [self.add("Sqrt", [x])])
            case "erfc":
                return self.add("Sub", [np.asarray(1, np.float32), self.add("Erf", [x])])
            case "integer_pow":
                return self.add("Pow", [x, np.asarray(parameters["y"], np.float32)])
            case "ne":
                return self.add("Not", [self.add("Equal", inputs)])
            case "select_n":
                return self._select(inputs, _array(equation.outvars[0]).dtype)
            case "convert_element_type":
                return self.cast(x, parameters["new_dtype"])
            case "reshape":
                return self._reshape(x, shape)
            case "squeeze":
                return self.add("Squeeze", [x, np.asarray(parameters["dimensions"])])
            case "transpose":
                return self._transpose(x, parameters["permutation"])
            case "broadcast_in_dim":
                return self._broadcast(x, shapes[0], shape, parameters["broadcast_dimensions"])
            case "concatenate":
                return self.add("Concat", inputs, axis=parameters["dimension"])
            case "slice":
                return self._slice(x, **parameters)
            case "reduce_sum" | "reduce_max" as name:
                operator = "ReduceSum" if name == "reduce_sum" else "ReduceMax"
                return self.add(operator, [x, np.asarray(parameters["axes"])], keepdims=0)
            case "argmax":
                return self._argmax(x, **parameters)
            case "cumsum":
                return self.add("CumSum", [x, np.asarray(parameters["axis"])])
            case "iota":
                return self._iota(shape, parameters["dimension"], parameters["dtype"])
            case "dot_general":
                return self._dot(inputs, shapes, parameters["dimension_numbers"])
            case "gather":
                return self._gather(inputs, shapes, shape, **parameters)
            case "conv_general_dilated":
                return self._convolve(inputs, parameters["window_strides"], parameters["padding"])
            case name:
                raise UserError(f"this model has no ONNX graph: {name} of {shapes} has no translation.")

    def _size(self, symbol: Any) -> Value:
        """A sum of products of free sizes and of numbers, as i64 (1,): read from the inputs."""
        size: Value = np.asarray([0])
        for sign, product in re.findall(r"(^|[+-] )(\S+)", str(symbol)):
            term = reduce(lambda a, b: self.add("Mul", [a, b]), map(self._factor, product.split("*")))
            size = self.add("Sub" if sign == "- " else "Add", [size, term])
        return size

    def _factor(self, name: str) -> Value:
        if name.isdecimal():
            return np.asarray([int(name)])
        if name not in self._sizes:
            raise UserError(f"this model has no ONNX graph: a size of {name} has no translation.")
        given, axis = self._sizes[name]
        return self.add("Shape", [given], start=axis, end=axis + 1)

    def _shape(self, shape: Sequence[Any]) -> Value:
        """A shape as i64 (n,)."""
        parts = [np.asarray([n]) if isinstance(n, int) else self._size(n) for n in shape]
        if all(isinstance(part, np.ndarray) for part in parts):
            return np.asarray(shape, np.int64)
        return self.add("Concat", parts, axis=0)

    def _reshape(self, x: Value, shape: Sequence[Any]) -> str:
        sizes = self._numbers(shape, lambda _: -1)  # one size may be left to ONNX
        return self.add("Reshape", [x, np.asarray(sizes) if sizes.count(-1) < 2 else self._shape(shape)])

    def _transpose(self, x: Value, axes: Sequence[int]) -> Value:
        if isinstance(x, np.ndarray):
            return x.transpose(axes)
        return x if list(axes) == sorted(axes) else self.add("Transpose", [x], perm=list(axes))

    def _broadcast(self, x: Value, before: Sequence[Any], after: Sequence[Any], axes: Sequence[int]) -> Value:
        new = [axis for axis in range(len(after)) if axis not in axes]
        if new:
            x = self.add("Unsqueeze", [x, np.asarray(new)])
        sizes = dict(zip(axes, before, strict=True))
        same = all(sizes.get(axis, 1) == n for axis, n in enumerate(after))
        return x if same else self.add("Expand", [x, self._shape(after)])

    def _select(self, inputs: Sequence[Value], dtype: Any) -> str:
        """The third input where the first is true, else the second. ONNX Runtime has no Where of booleans."""
        condition, otherwise, chosen = inputs
        if np.dtype(dtype).kind != "b":
            return self.add("Where", [condition, chosen, otherwise])
        parts = [self.add("And", [condition, chosen]), self.add("And", [self.add("Not", [condition]), otherwise])]
        return self.add("Or", parts)

    def _split(self, x: Value, sizes: Sequence[int], axis: int) -> list[Value]:
        ends = np.cumsum(sizes)
        slices = zip(ends - sizes, ends, strict=True)
        return [self.add("Slice", [x, *(np.asarray([n]) for n in (start, end, axis))]) for start, end in slices]

    def _slice(self, x: Value, start_indices: Any, limit_indices: Any, strides: Any) -> str:
        steps = np.asarray(strides or [1] * len(start_indices))
        return self.add("Slice", [x, *map(self._shape, (start_indices, limit_indices)), np.arange(len(steps)), steps])

    def _argmax(self, x: Value, axes: Sequence[int], index_dtype: Any) -> str:
        index = self.add("ArgMax", [self.cast(x, np.int32)], axis=axes[0], keepdims=0)  # ONNX compares no booleans
        return self.cast(index, index_dtype)

    def _iota(self, shape: Sequence[Any], axis: int, dtype: Any) -> Value:
        length = self.add("Squeeze", [self._shape(shape[axis : axis + 1])])
        count = self.cast(self.add("Range", [np.asarray(0), length, np.asarray(1)]), dtype)
        return self._broadcast(count, shape[axis : axis + 1], shape, [axis])

    def _dot(self, inputs: Sequence[Value], shapes: Sequence[Any], dimension_numbers: Any) -> Value:
        """A product over one axis: of a matrix on the right, or of one free axis each beside axes of a batch."""
        contracted, batches = dimension_numbers
        free = [
            [axis for axis in range(len(shape)) if axis not in (*over, *batch)]
            for shape, over, batch in zip(shapes, contracted, batches, strict=True)
        ]
        if [len(over) for over in contracted] != [1, 1] or len(free[1]) != 1 or (batches[0] and len(free[0]) != 1):
            raise UserError(f"this model has no ONNX graph: dot_general of {shapes} has no translation.")
        rows = [(*batch, *rest, *over) for batch, rest, over in zip(batches, free, contracted, strict=True)]
        columns = [(*batch, *over, *rest) for batch, rest, over in zip(batches, free, contracted, strict=True)]
        n = len(batches[0])
        if n and list(rows[1]) == sorted(rows[1]) and list(rows[0]) != sorted(rows[0]):
            # the right factor, the attention of all pairs of tokens, is larger: it stays as it lies
            product = self.add("MatMul", [self._transpose(inputs[1], rows[1]), self._transpose(inputs[0], columns[0])])
            return self._transpose(product, [*range(n), n + 1, n])
        return self.add("MatMul", [self._transpose(inputs[0], rows[0]), self._transpose(inputs[1], columns[1])])

    def _gather(
        self,
        inputs: Sequence[Value],
        shapes: Sequence[Any],
        shape: Sequence[Any],
        dimension_numbers: Any,
        slice_sizes: Sequence[Any],
        **_: Any,
    ) -> Value:
        """A part from a place on; or items of one axis, at indices or for each row of a batch at its own index."""
        (x, indices), numbers = inputs, dimension_numbers
        axes = numbers.start_index_map
        if numbers.collapsed_slice_dims == axes and len(axes) == 1:
            places = self.add("Squeeze", [indices, np.asarray([len(shapes[1]) - 1])])
            n = len(numbers.operand_batching_dims)
            if n:
                return self.add("GatherND", [x, self.cast(indices, np.int64)], batch_dims=n)
            # ONNX puts the axes of the indices where `axis` was
            rest, ours = list(numbers.offset_dims), [i for i in range(len(shape)) if i not in numbers.offset_dims]
            order = [*rest[: axes[0]], *ours, *rest[axes[0] :]]
            return self._transpose(self.add("Gather", [x, places], axis=axes[0]), np.argsort(order).tolist())
        if numbers.collapsed_slice_dims:
            raise UserError(f"this model has no ONNX graph: gather of {shapes} has no translation.")
        start = self.cast(indices, np.int64)
        end = self.add("Add", [start, self._shape([slice_sizes[axis] for axis in axes])])
        return self.add("Slice", [x, start, end, np.asarray(axes)])

    def _convolve(self, inputs: Sequence[Value], strides: Sequence[int], padding: Sequence[tuple[int, int]]) -> Value:
        """Of pixels (b, h, w, c) with a kernel (out, in, h, w)."""
        pads = [low for low, _ in padding] + [high for _, high in padding]
        x = self.add("Conv", [self._transpose(inputs[0], (0, 3, 1, 2)), inputs[1]], strides=list(strides), pads=pads)
        return self._transpose(x, (0, 2, 3, 1))
