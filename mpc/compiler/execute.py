"""Running a program under any protocol.

A node starts in the round after its last operand is ready, and everything that runs shares its rounds: the order in
which nodes start, and so the order of random draws, follows from the program alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from torch import Tensor, fx

from hush.mpc.compiler.ops import args_of
from hush.mpc.compiler.probe import Probe
from hush.mpc.compiler.program import Program
from hush.mpc.compiler.rules import Rule, Site, rule_for
from hush.mpc.compiler.types import Kind, layer_of, type_of
from hush.mpc.errors import ProgramError
from hush.mpc.points import Points
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step

Observer = Callable[[str], None]


def execute(
    program: Program,
    protocol: Protocol,
    weights: Mapping[str, Shared | Tensor],
    inputs: Sequence[Shared | Points],
    observer: Observer | None = None,
    probe: Probe | None = None,
) -> Step[list[Shared]]:
    """The secret leaves of the program's result, in order.

    `inputs` are in the order of `program.inputs`, `weights` by name: handles, or float tensors if they are public.
    `observer` is called before each round with the layer that the round counts to: that of the earliest unfinished op.
    `probe` is told of each op before it starts or goes on, and of each round. Values are dropped after their last use.
    """
    if len(inputs) != len(program.inputs):
        raise ProgramError(f"{len(inputs)} inputs where the program takes {len(program.inputs)}")
    run = _Run(program, protocol, weights, inputs, probe)
    run.start_ready()
    while run.active:
        order = sorted(run.active)
        parts = [run.active[i] for i in order]
        if observer is not None:
            observer(group_of(layer_of(run.nodes[order[0]])))
        if probe is not None:
            probe.exchange([run.nodes[i] for i in order], parts)
        kind = type(parts[0])
        answer = yield kind.merge(parts)
        for index, own in zip(order, kind.split(parts, answer), strict=True):
            run.advance(index, own)
        run.start_ready()
    return run.results


def group_of(layer: str) -> str:
    """The layer of a table that a module path belongs to: "encoder.layer.0" of "encoder.layer.0.attention.self"."""
    parts = layer.split(".")
    for index, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: index + 1])
    return parts[0] or "(top)"


def _plain(node: fx.Node, args: Any, kwargs: Any) -> Any:
    """An op whose operands are all public: a row looked up at a public place, rearranged."""
    assert callable(node.target)
    return node.target(*args, **kwargs)


class _Run:
    """The state of one execution: values, operations under way, and what waits for whom."""

    def __init__(
        self,
        program: Program,
        protocol: Protocol,
        weights: Mapping[str, Shared | Tensor],
        inputs: Sequence[Shared | Points],
        probe: Probe | None,
    ) -> None:
        self._probe = probe
        self.program, self.protocol, self.weights = program, protocol, weights
        self.nodes: list[fx.Node] = list(program.graph.nodes)
        self.place = {node: i for i, node in enumerate(self.nodes)}
        self.values: dict[fx.Node, Any] = {}
        self.active: dict[int, Any] = {}
        self.steps: dict[int, Generator[Any, Any, Any]] = {}
        self.results: list[Shared] = []
        self._feed = iter(inputs)
        self._uses = {node: len(node.users) for node in self.nodes}
        self._missing = {node: len(node.all_input_nodes) for node in self.nodes}
        self._ready = [i for i, node in enumerate(self.nodes) if not self._missing[node]]
        heapq.heapify(self._ready)

    def start_ready(self) -> None:
        """Start every node whose operands are there, in the program's order; local ones finish at once."""
        while self._ready:
            index = heapq.heappop(self._ready)
            if self._probe is not None:
                self._probe.enter(self.nodes[index])
            made = self._begin(self.nodes[index])
            if isinstance(made, Generator):
                self.steps[index] = made
                self.advance(index, None)
            else:
                self._finish(index, made)

    def advance(self, index: int, answer: Any) -> None:
        """Give a running operation its answer; it asks for another round or is finished."""
        if self._probe is not None:
            self._probe.enter(self.nodes[index])
        try:
            self.active[index] = self.steps[index].send(answer)
        except StopIteration as stop:
            self.active.pop(index, None)
            del self.steps[index]
            self._finish(index, stop.value)

    def _finish(self, index: int, value: Any) -> None:
        node = self.nodes[index]
        if self._uses[node]:
            self.values[node] = value
        for source in node.all_input_nodes:
            self._uses[source] -= 1
            if not self._uses[source]:
                del self.values[source]
        for user in node.users:
            self._missing[user] -= 1
            if not self._missing[user]:
                heapq.heappush(self._ready, self.place[user])

    def _begin(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return next(self._feed)
        if node.op == "get_attr":
            return self._constant(str(node.target))
        if node.op == "output":
            self.results = [self._result(leaf) for leaf in args_of(node)[0]]
            return None
        rule, site = rule_for(node), Site(self.protocol, node, self.program.approx)

        def fetch(operand: fx.Node) -> Any:
            return self._operand(site, rule, operand)

        args = fx.map_arg(args_of(node), fetch)
        kwargs = fx.map_arg(node.kwargs, fetch)
        if all(isinstance(self.values[n], Tensor) for n in node.all_input_nodes):
            return _plain(node, args, kwargs)
        return rule.body(site, *args, **kwargs)

    def _constant(self, name: str) -> Any:
        if name in self.program.constants:
            return self.program.constants[name]
        if name not in self.weights:
            raise ProgramError(f"weight {name!r} is missing: deploy the program's weights first")
        return self.weights[name]

    def _operand(self, site: Site, rule: Rule, operand: fx.Node) -> Any:
        """A value in the form that the rule takes."""
        value, kind = self.values[operand], type_of(operand).kind
        if kind is Kind.ONEHOT and not rule.onehot:
            return site.integer(value)
        if kind is Kind.REAL and not rule.exact and isinstance(value, Shared):
            return site.as_real(value)
        return value

    def _result(self, leaf: Any) -> Shared:
        value = self.values[leaf]
        typed, p = type_of(leaf), self.protocol
        if not isinstance(value, Shared):
            return p.constant(value, frac=typed.frac)
        if typed.kind is Kind.ONEHOT:
            return Site(p, leaf, self.program.approx).integer(value)
        return value if value.frac == typed.frac else p.rescale(value, typed.frac)
