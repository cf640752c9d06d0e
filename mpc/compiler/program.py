"""A compiled program: a typed FX graph with what a client, a provider and a party must know of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from hush.mpc.compiler.interpret import evaluate
from hush.mpc.compiler.recipe import LazyWeights, check_names, checked
from hush.mpc.compiler.spec import InputSpec, OutputSpec, Structure, WeightSpec, by_name, rebuild
from hush.mpc.compiler.types import Kind
from hush.mpc.cost import Cost
from hush.mpc.errors import ConfigError, ProgramError
from hush.mpc.ring import Ring
from hush.mpc.schedule import LAN, Schedule


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the provider makes the program's weights from a module's parameters: it names them, and holds none."""

    graph: fx.Graph
    constants: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, repr=False)
class Generation:
    """How a program goes on, token after token, with what the parties keep of each turn (`mpc.compiler.generate`).

    `then` follows the program and itself. `longer` are other first turns, for longer prompts, in order of length. The
    weights of them all are among the program's. Prompt and answer take at most `context` positions. The client is shown
    the chosen `token`, or the `logits` beside it.
    """

    then: Program
    context: int
    reveals: str = "token"
    longer: tuple[Program, ...] = ()


@dataclass(slots=True, repr=False)
class Program:
    """A module compiled for secure inference.

    `graph` is an FX graph whose nodes carry a `hush.mpc.compiler.types.Type`: placeholders are the inputs in the order
    of `inputs`, get_attr nodes are constants (by name in `constants`) and weights (by name in `weight_specs`), calls
    have a rule each, and the output lists the secret leaves of the result. `weights` holds the provider's tensors after
    compilation or `bind`, and is None in a loaded program. `cost` is a prediction that whoever knows the protocol sets
    (`hush.mpc.compiler.predict`).
    """

    graph: fx.Graph
    constants: Mapping[str, Tensor]
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    structure: Structure
    weight_specs: tuple[WeightSpec, ...]
    recipe: Recipe
    parameters: tuple[str, ...]
    weights_mode: str
    approx: str
    frac: int
    ring: Ring
    generation: Generation | None = None
    schedule: Schedule = LAN
    data: bytes = b""
    weights: Mapping[str, Tensor] | None = None
    cost: Cost | None = None
    layer_costs: dict[str, Cost] = field(default_factory=dict)
    op_costs: dict[str, Cost] = field(default_factory=dict)
    passes: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """SHA-256 of the program's bytes as sent, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the program's bytes. Weights are not among them. ConfigError if the file cannot be written."""
        try:
            Path(path).write_bytes(self.data)
        except OSError as error:
            raise ConfigError(f"the program cannot be written to {path}: {error.strerror}") from error

    def bind(self, source: torch.nn.Module | Mapping[str, Tensor]) -> Program:
        """Fill `weights` from a module, or parameters by name; ProgramError if they do not fit. Returns self."""
        state = _state(source) if isinstance(source, torch.nn.Module) else source
        self.weights = make_weights(self.recipe, state, self.weight_specs)
        return self

    def bind_lazily(self, tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]] | None = None) -> Program:
        """As `bind`, for parameters that are read one by one: each weight is made anew whenever it is asked for, and
        never are two in memory. `shapes` of the parameters let misfits be found here already. Returns self."""
        self.weights = LazyWeights(self.recipe, tensors, self.weight_specs, shapes)
        return self

    def encode_inputs(self, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> list[Tensor]:
        """Ring elements of a call's secret inputs, in order; ShapeError or RangeError if they are not as declared."""
        call = by_name(self.parameters, args) | dict(kwargs or {})
        return [spec.encode(spec.fetch(call), self.ring) for spec in self.inputs if spec.dealt]

    def decode_turn(self, elements: Sequence[Tensor]) -> dict[str, Tensor]:
        """What a turn of a program that generates shows: "token" [B], and "logits" [B, V] where the program says so."""
        logits = self.logits
        values = zip(
            ("token", "logits"), elements, (replace(logits, kind=Kind.INT, dtype="int64"), logits), strict=False
        )
        return {name: spec.decode(element, self.ring) for name, element, spec in values}

    @property
    def firsts(self) -> tuple[Program, ...]:
        """The first turns of a program that generates, in order of the prompts that they take: itself, and others."""
        return (self, *(() if self.generation is None else self.generation.longer))

    @property
    def logits(self) -> OutputSpec:
        """The output that tokens are chosen from."""
        return next(spec for spec in self.outputs if spec.keep == "logits")

    def decode_outputs(self, elements: Sequence[Tensor]) -> Any:
        """The module's result, nested as the module returns it, from the ring elements of the secret leaves."""
        rest = iter(elements)
        leaves = [s.literal if s.kind is None else s.decode(next(rest), self.ring) for s in self.outputs]
        return rebuild(self.structure, leaves)

    def __repr__(self) -> str:
        return f"Program({self.digest[:12]}, {len(self.graph.nodes)} nodes, weights={self.weights_mode})"

    def __str__(self) -> str:
        from hush.mpc.compiler.show import show

        return show(self)


def _state(module: torch.nn.Module) -> dict[str, Tensor]:
    named = dict(module.named_buffers(remove_duplicate=False))
    return named | dict(module.named_parameters(remove_duplicate=False))


def make_weights(recipe: Recipe, state: Mapping[str, Tensor], specs: Sequence[WeightSpec]) -> dict[str, Tensor]:
    """Evaluate a recipe on a module's parameters."""
    needed = check_names(recipe.graph, state)
    tensors = {name: state[name].detach().cpu() for name in needed}
    try:
        made = evaluate(recipe.graph, [tensors[str(n.target)] for n in _placeholders(recipe.graph)], recipe.constants)
    except (RuntimeError, IndexError, ValueError) as error:
        raise ProgramError(f"the model's parameters do not fit this program: {error}") from error
    return {spec.name: checked(spec, value).contiguous() for spec, value in zip(specs, made, strict=True)}


def _placeholders(graph: fx.Graph) -> list[fx.Node]:
    return [n for n in graph.nodes if n.op == "placeholder"]
