from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Abort(_message.Message):
    __slots__ = ("party", "reason", "detail")
    PARTY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    party: int
    reason: str
    detail: str
    def __init__(self, party: _Optional[int] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("version", "party", "session", "roster", "program", "deployment", "client", "certificate", "public_key")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PARTY_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    version: int
    party: int
    session: bytes
    roster: bytes
    program: bytes
    deployment: bytes
    client: bytes
    certificate: bytes
    public_key: bytes
    def __init__(self, version: _Optional[int] = ..., party: _Optional[int] = ..., session: _Optional[bytes] = ..., roster: _Optional[bytes] = ..., program: _Optional[bytes] = ..., deployment: _Optional[bytes] = ..., client: _Optional[bytes] = ..., certificate: _Optional[bytes] = ..., public_key: _Optional[bytes] = ...) -> None: ...

class Confirm(_message.Message):
    __slots__ = ("proof",)
    PROOF_FIELD_NUMBER: _ClassVar[int]
    proof: bytes
    def __init__(self, proof: _Optional[bytes] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("version", "session", "model", "program", "roster")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    version: int
    session: bytes
    model: str
    program: bytes
    roster: bytes
    def __init__(self, version: _Optional[int] = ..., session: _Optional[bytes] = ..., model: _Optional[str] = ..., program: _Optional[bytes] = ..., roster: _Optional[bytes] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("party",)
    PARTY_FIELD_NUMBER: _ClassVar[int]
    party: int
    def __init__(self, party: _Optional[int] = ...) -> None: ...

class Choice(_message.Message):
    __slots__ = ("temperature", "top_k")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_k: int
    def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ...) -> None: ...

class Invoke(_message.Message):
    __slots__ = ("continues", "choice", "first", "profile")
    CONTINUES_FIELD_NUMBER: _ClassVar[int]
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    continues: bool
    choice: Choice
    first: int
    profile: bool
    def __init__(self, continues: bool = ..., choice: _Optional[_Union[Choice, _Mapping]] = ..., first: _Optional[int] = ..., profile: bool = ...) -> None: ...

class Layer(_message.Message):
    __slots__ = ("name", "bytes_sent", "messages", "depth", "seconds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BYTES_SENT_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    bytes_sent: int
    messages: int
    depth: int
    seconds: float
    def __init__(self, name: _Optional[str] = ..., bytes_sent: _Optional[int] = ..., messages: _Optional[int] = ..., depth: _Optional[int] = ..., seconds: _Optional[float] = ...) -> None: ...

class Profile(_message.Message):
    __slots__ = ("begin", "ops", "span_ops", "span_kinds", "span_ns", "rounds", "left_out")
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    OPS_FIELD_NUMBER: _ClassVar[int]
    SPAN_OPS_FIELD_NUMBER: _ClassVar[int]
    SPAN_KINDS_FIELD_NUMBER: _ClassVar[int]
    SPAN_NS_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    begin: int
    ops: _containers.RepeatedCompositeFieldContainer[ProfiledOp]
    span_ops: _containers.RepeatedScalarFieldContainer[int]
    span_kinds: _containers.RepeatedScalarFieldContainer[int]
    span_ns: _containers.RepeatedScalarFieldContainer[int]
    rounds: _containers.RepeatedCompositeFieldContainer[ProfiledRound]
    left_out: int
    def __init__(self, begin: _Optional[int] = ..., ops: _Optional[_Iterable[_Union[ProfiledOp, _Mapping]]] = ..., span_ops: _Optional[_Iterable[int]] = ..., span_kinds: _Optional[_Iterable[int]] = ..., span_ns: _Optional[_Iterable[int]] = ..., rounds: _Optional[_Iterable[_Union[ProfiledRound, _Mapping]]] = ..., left_out: _Optional[int] = ...) -> None: ...

class ProfiledOp(_message.Message):
    __slots__ = ("name", "layer")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    name: str
    layer: str
    def __init__(self, name: _Optional[str] = ..., layer: _Optional[str] = ...) -> None: ...

class ProfiledRound(_message.Message):
    __slots__ = ("first", "spans", "ops", "bytes_sent", "depth")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    OPS_FIELD_NUMBER: _ClassVar[int]
    BYTES_SENT_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    first: int
    spans: int
    ops: _containers.RepeatedScalarFieldContainer[int]
    bytes_sent: _containers.RepeatedScalarFieldContainer[int]
    depth: int
    def __init__(self, first: _Optional[int] = ..., spans: _Optional[int] = ..., ops: _Optional[_Iterable[int]] = ..., bytes_sent: _Optional[_Iterable[int]] = ..., depth: _Optional[int] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("bytes_sent", "messages", "depth", "seconds", "peak_rss", "layers", "profile")
    BYTES_SENT_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    PEAK_RSS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    bytes_sent: int
    messages: int
    depth: int
    seconds: float
    peak_rss: int
    layers: _containers.RepeatedCompositeFieldContainer[Layer]
    profile: Profile
    def __init__(self, bytes_sent: _Optional[int] = ..., messages: _Optional[int] = ..., depth: _Optional[int] = ..., seconds: _Optional[float] = ..., peak_rss: _Optional[int] = ..., layers: _Optional[_Iterable[_Union[Layer, _Mapping]]] = ..., profile: _Optional[_Union[Profile, _Mapping]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("layer",)
    LAYER_FIELD_NUMBER: _ClassVar[int]
    layer: str
    def __init__(self, layer: _Optional[str] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("report",)
    REPORT_FIELD_NUMBER: _ClassVar[int]
    report: Report
    def __init__(self, report: _Optional[_Union[Report, _Mapping]] = ...) -> None: ...

class Deploy(_message.Message):
    __slots__ = ("version", "model", "deployment", "program", "program_size", "dtypes", "resumable")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_SIZE_FIELD_NUMBER: _ClassVar[int]
    DTYPES_FIELD_NUMBER: _ClassVar[int]
    RESUMABLE_FIELD_NUMBER: _ClassVar[int]
    version: int
    model: str
    deployment: bytes
    program: bytes
    program_size: int
    dtypes: _containers.RepeatedScalarFieldContainer[str]
    resumable: bool
    def __init__(self, version: _Optional[int] = ..., model: _Optional[str] = ..., deployment: _Optional[bytes] = ..., program: _Optional[bytes] = ..., program_size: _Optional[int] = ..., dtypes: _Optional[_Iterable[str]] = ..., resumable: bool = ...) -> None: ...

class Held(_message.Message):
    __slots__ = ("weights", "copies")
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    weights: int
    copies: Copies
    def __init__(self, weights: _Optional[int] = ..., copies: _Optional[_Union[Copies, _Mapping]] = ...) -> None: ...

class Sent(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Discard(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: bytes
    def __init__(self, deployment: _Optional[bytes] = ...) -> None: ...

class Discarded(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Verified(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Commit(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Deployed(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Remove(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class Removed(_message.Message):
    __slots__ = ("found",)
    FOUND_FIELD_NUMBER: _ClassVar[int]
    found: bool
    def __init__(self, found: bool = ...) -> None: ...

class Compare(_message.Message):
    __slots__ = ("deployment", "party")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    PARTY_FIELD_NUMBER: _ClassVar[int]
    deployment: bytes
    party: int
    def __init__(self, deployment: _Optional[bytes] = ..., party: _Optional[int] = ...) -> None: ...

class Copies(_message.Message):
    __slots__ = ("own", "next", "common")
    OWN_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    COMMON_FIELD_NUMBER: _ClassVar[int]
    own: bytes
    next: bytes
    common: bytes
    def __init__(self, own: _Optional[bytes] = ..., next: _Optional[bytes] = ..., common: _Optional[bytes] = ...) -> None: ...

class InfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "program", "deployment", "program_size")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_SIZE_FIELD_NUMBER: _ClassVar[int]
    name: str
    program: bytes
    deployment: bytes
    program_size: int
    def __init__(self, name: _Optional[str] = ..., program: _Optional[bytes] = ..., deployment: _Optional[bytes] = ..., program_size: _Optional[int] = ...) -> None: ...

class Info(_message.Message):
    __slots__ = ("party", "version", "roster", "models", "sessions")
    PARTY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    party: int
    version: str
    roster: bytes
    models: _containers.RepeatedCompositeFieldContainer[Model]
    sessions: int
    def __init__(self, party: _Optional[int] = ..., version: _Optional[str] = ..., roster: _Optional[bytes] = ..., models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., sessions: _Optional[int] = ...) -> None: ...

class ProgramRequest(_message.Message):
    __slots__ = ("program",)
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    program: bytes
    def __init__(self, program: _Optional[bytes] = ...) -> None: ...
