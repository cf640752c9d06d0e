from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Tensor(_message.Message):
    __slots__ = ("dtype", "shape", "data")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Values(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, items: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("node", "integer", "real", "flag", "text", "none", "list", "dtype")
    NODE_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    REAL_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    NONE_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    node: int
    integer: int
    real: float
    flag: bool
    text: str
    none: bool
    list: Values
    dtype: str
    def __init__(self, node: _Optional[int] = ..., integer: _Optional[int] = ..., real: _Optional[float] = ..., flag: bool = ..., text: _Optional[str] = ..., none: bool = ..., list: _Optional[_Union[Values, _Mapping]] = ..., dtype: _Optional[str] = ...) -> None: ...

class Argument(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: Value
    def __init__(self, name: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class Type(_message.Message):
    __slots__ = ("visibility", "kind", "shape", "dtype", "bound", "frac", "ring", "proven", "floor")
    VISIBILITY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    BOUND_FIELD_NUMBER: _ClassVar[int]
    FRAC_FIELD_NUMBER: _ClassVar[int]
    RING_FIELD_NUMBER: _ClassVar[int]
    PROVEN_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    visibility: int
    kind: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    bound: float
    frac: int
    ring: int
    proven: bool
    floor: float
    def __init__(self, visibility: _Optional[int] = ..., kind: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ..., bound: _Optional[float] = ..., frac: _Optional[int] = ..., ring: _Optional[int] = ..., proven: bool = ..., floor: _Optional[float] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("name", "op", "target", "args", "kwargs", "layer", "type")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OP_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    KWARGS_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    op: str
    target: str
    args: _containers.RepeatedCompositeFieldContainer[Value]
    kwargs: _containers.RepeatedCompositeFieldContainer[Argument]
    layer: str
    type: Type
    def __init__(self, name: _Optional[str] = ..., op: _Optional[str] = ..., target: _Optional[str] = ..., args: _Optional[_Iterable[_Union[Value, _Mapping]]] = ..., kwargs: _Optional[_Iterable[_Union[Argument, _Mapping]]] = ..., layer: _Optional[str] = ..., type: _Optional[_Union[Type, _Mapping]] = ...) -> None: ...

class NamedTensor(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: Tensor
    def __init__(self, name: _Optional[str] = ..., value: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class Graph(_message.Message):
    __slots__ = ("nodes", "constants")
    NODES_FIELD_NUMBER: _ClassVar[int]
    CONSTANTS_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    constants: _containers.RepeatedCompositeFieldContainer[NamedTensor]
    def __init__(self, nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ..., constants: _Optional[_Iterable[_Union[NamedTensor, _Mapping]]] = ...) -> None: ...

class Input(_message.Message):
    __slots__ = ("name", "kind", "shape", "dtype", "bound", "frac", "path", "state", "grows")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    BOUND_FIELD_NUMBER: _ClassVar[int]
    FRAC_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    GROWS_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    bound: float
    frac: int
    path: str
    state: str
    grows: int
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ..., bound: _Optional[float] = ..., frac: _Optional[int] = ..., path: _Optional[str] = ..., state: _Optional[str] = ..., grows: _Optional[int] = ...) -> None: ...

class Output(_message.Message):
    __slots__ = ("kind", "shape", "dtype", "frac", "constant", "literal", "keep")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    FRAC_FIELD_NUMBER: _ClassVar[int]
    CONSTANT_FIELD_NUMBER: _ClassVar[int]
    LITERAL_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    kind: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    frac: int
    constant: Tensor
    literal: Value
    keep: str
    def __init__(self, kind: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ..., frac: _Optional[int] = ..., constant: _Optional[_Union[Tensor, _Mapping]] = ..., literal: _Optional[_Union[Value, _Mapping]] = ..., keep: _Optional[str] = ...) -> None: ...

class Weight(_message.Message):
    __slots__ = ("name", "shape", "frac")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    FRAC_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    frac: int
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., frac: _Optional[int] = ...) -> None: ...

class Generation(_message.Message):
    __slots__ = ("then", "context", "reveals", "longer")
    THEN_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    REVEALS_FIELD_NUMBER: _ClassVar[int]
    LONGER_FIELD_NUMBER: _ClassVar[int]
    then: Program
    context: int
    reveals: str
    longer: _containers.RepeatedCompositeFieldContainer[Program]
    def __init__(self, then: _Optional[_Union[Program, _Mapping]] = ..., context: _Optional[int] = ..., reveals: _Optional[str] = ..., longer: _Optional[_Iterable[_Union[Program, _Mapping]]] = ...) -> None: ...

class Program(_message.Message):
    __slots__ = ("version", "weights", "approx", "frac", "ring", "graph", "recipe", "inputs", "outputs", "weight_specs", "structure", "parameters", "generation", "schedule")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    APPROX_FIELD_NUMBER: _ClassVar[int]
    FRAC_FIELD_NUMBER: _ClassVar[int]
    RING_FIELD_NUMBER: _ClassVar[int]
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_SPECS_FIELD_NUMBER: _ClassVar[int]
    STRUCTURE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    version: int
    weights: str
    approx: str
    frac: int
    ring: int
    graph: Graph
    recipe: Graph
    inputs: _containers.RepeatedCompositeFieldContainer[Input]
    outputs: _containers.RepeatedCompositeFieldContainer[Output]
    weight_specs: _containers.RepeatedCompositeFieldContainer[Weight]
    structure: str
    parameters: _containers.RepeatedScalarFieldContainer[str]
    generation: Generation
    schedule: str
    def __init__(self, version: _Optional[int] = ..., weights: _Optional[str] = ..., approx: _Optional[str] = ..., frac: _Optional[int] = ..., ring: _Optional[int] = ..., graph: _Optional[_Union[Graph, _Mapping]] = ..., recipe: _Optional[_Union[Graph, _Mapping]] = ..., inputs: _Optional[_Iterable[_Union[Input, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[Output, _Mapping]]] = ..., weight_specs: _Optional[_Iterable[_Union[Weight, _Mapping]]] = ..., structure: _Optional[str] = ..., parameters: _Optional[_Iterable[str]] = ..., generation: _Optional[_Union[Generation, _Mapping]] = ..., schedule: _Optional[str] = ...) -> None: ...
