"""How much of a GPU's memory a program takes at a party: its weights, and a measure of what an inference holds.

All of it follows from the program, which is public. The measure is no bound. Its constants are those of runs on a CPU,
rounded up, whose peaks `tests/parties/test_parties_device_memory.py` compares with it; the limbs that a GPU's products
are made of are added by count.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from hush.mpc.compiler.execute import execute
from hush.mpc.compiler.ops import args_of, is_op, op_name
from hush.mpc.compiler.predict import blank_inputs, blank_weights
from hush.mpc.compiler.probe import Place
from hush.mpc.compiler.program import Program
from hush.mpc.compiler.types import Kind, Visibility, type_of
from hush.mpc.functions.chunks import MOST
from hush.parties.shares import numel
from hush.parties.streamed import streamed
from hush.protocols.replicated.cost import ReplicatedCost

_PRODUCT, _FUNCTION = 80, 120  # bytes for each element that a product, and a function, works on
_SORTED, _ROOTS, _INVERSES, _SOFTMAX = 1800, 850, 480, 220
_TAKES = {
    "aten.div.Tensor": _INVERSES,
    "aten.elu.default": _SOFTMAX,
    "aten.erf.default": _INVERSES,
    "aten.log.default": _INVERSES,
    "aten.log_softmax.int": _SOFTMAX,
    "aten.reciprocal.default": _INVERSES,
    "aten.rsqrt.default": _INVERSES,
    "aten.sigmoid.default": _INVERSES,
    "aten.sin.default": _SOFTMAX,
    "aten.cos.default": _SOFTMAX,
    "aten.sort.default": _SORTED,
    "aten.sqrt.default": _ROOTS,
    "aten.tanh.default": _INVERSES,
    "aten.topk.default": _SORTED,
    "hush.attend": _SOFTMAX,
    "hush.softmax": _SOFTMAX,
}  # the functions that take more
_EXPANDED = 3  # of a weight that was a seed: both components, and their sum
_LIMBS = 32  # and, on a GPU, for each element of a product's operand: limbs, and what they are made of
_LATER = ("hush.scores", "hush.shifted")  # put off: never there as a whole
_VIEWS = (
    "aten.expand.default",
    "aten.permute.default",
    "aten.reshape.default",
    "aten.select.int",
    "aten.slice.Tensor",
    "aten.split.Tensor",
    "aten.squeeze.dim",
    "aten.transpose.int",
    "aten.unsqueeze.default",
    "getitem",
)
_SUMS = (
    "aten.add.Tensor",
    "aten.cat.default",
    "aten.cumsum.default",
    "aten.neg.default",
    "aten.pad.default",
    "aten.sub.Tensor",
    "aten.sum.dim_IntList",
)  # without a product: what they take is their result
_CONVOLUTIONS = ("aten.conv1d.default", "aten.conv2d.default")
_PRODUCTS = ("hush.affine", "hush.affine_plus", "hush.matmul", "aten.bmm.default", "aten.mul.Tensor", *_CONVOLUTIONS)


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes on a device.

    Of the weights, `streamed` are those of one component of all that may stay seeds (`parties.streamed`). With those
    left as seeds a product of many rows expands one of them at a time: `scratch`.
    """

    weights: int
    work: int
    streamed: int = 0
    scratch: int = 0

    @property
    def whole(self) -> int:
        """Weights, all of them expanded, and work."""
        return self.weights + self.work

    def with_seeds(self, party: int) -> int:
        """Weights with seeds left: party 0 has two for each that may stay, the others a seed and a component."""
        return self.weights - (2 if party == 0 else 1) * self.streamed


def footprint(program: Program) -> Footprint:
    """That of a program and its weights, and of what is kept between turns once the context is full."""
    names = streamed(program)
    sizes = [program.ring.dtype.itemsize * numel(s.shape) for s in program.weight_specs if s.name in names]
    works = work(program.firsts[-1]) + _state(program)
    return Footprint(_weights(program), works, sum(sizes), _EXPANDED * max(sizes, default=0))


def _weights(program: Program) -> int:
    """Both components of what is secret; of what is public the float32 and the ring element."""
    element = program.ring.dtype.itemsize
    each = 2 * element if program.weights_mode == "secret" else 4 + element
    return each * sum(numel(spec.shape) for spec in program.weight_specs)


def _state(program: Program) -> int:
    generation = program.generation
    if generation is None:
        return 0
    kept = (numel(spec.shape_at(generation.context)) for spec in generation.then.inputs if spec.state)
    return 2 * program.ring.dtype.itemsize * sum(kept)


def work(program: Program) -> int:
    """Bytes that an inference holds at most, beside the weights: in any round the values that are still needed, and
    what the operators take that share it. The rounds are those of the cost model."""
    model, book = ReplicatedCost(program.ring, program.frac, program.schedule), _Book(program)
    for _ in execute(program, model, blank_weights(program, model), blank_inputs(program, model), probe=book):
        pass
    return book.most


class _Book:
    """Adds up, round by round, what is held."""

    def __init__(self, program: Program) -> None:
        self.most = self._alive = 0
        self._begun = dict[fx.Node, None]()
        self._owners, self._needed = dict[fx.Node, frozenset[fx.Node]](), Counter[fx.Node]()
        self._users = {node: len(node.users) for node in program.graph.nodes}

    def enter(self, place: Place) -> None:
        """An operator starts, or goes on."""
        if isinstance(place, fx.Node):
            self._begun[place] = None

    def exchange(self, nodes: Sequence[fx.Node], parts: Sequence[Any]) -> None:
        """These operators share a round; the others that began have ended."""
        for node in [n for n in self._begun if n not in nodes]:
            del self._begun[node]
            self._end(node)
        self.most = max(self.most, self._alive + sum(map(_working, nodes)))

    def _end(self, node: fx.Node) -> None:
        self._owners[node] = _holds(node, self._owners)
        for owner in self._owners[node] if self._users[node] else ():
            self._alive += 0 if self._needed[owner] else _bytes(owner)
            self._needed[owner] += 1
        for source in node.all_input_nodes:
            self._users[source] -= 1
            for owner in self._owners[source] if not self._users[source] else ():
                self._needed[owner] -= 1
                self._alive -= 0 if self._needed[owner] else _bytes(owner)


def _holds(node: fx.Node, held: Mapping[fx.Node, frozenset[fx.Node]]) -> frozenset[fx.Node]:
    """The nodes whose memory a value keeps: its own, or those of what it is a view of or made of later."""
    if is_op(node, *_VIEWS, *_LATER):
        return frozenset().union(*(held[source] for source in node.all_input_nodes))
    return frozenset((node,)) if _bytes(node) else frozenset()


def _bytes(node: fx.Node) -> int:
    """Of a value; none of a constant, and of a weight, which has been counted."""
    if node.op in ("get_attr", "output") or type_of(node).visibility is Visibility.PUBLIC:
        return 0
    return 2 * _elements(node) * (8 if type_of(node).ring > 32 else 4)


def _elements(node: fx.Node) -> int:
    typed = type_of(node)
    return math.prod(typed.shape) * (int(typed.bound) if typed.kind is Kind.ONEHOT else 1)


def _working(node: fx.Node) -> int:
    """What an operator takes for itself, of which chunks of functions bound the greater part."""
    if node.op != "call_function" or is_op(node, *_VIEWS, *_LATER, *_SUMS) or not _bytes(node):
        return 0
    elements = max(_elements(n) for n in (node, *node.all_input_nodes) if n.op != "get_attr")
    if is_op(node, *_PRODUCTS):
        return _PRODUCT * elements + _limbs(node)
    chunk = min(elements, MOST)
    return _TAKES.get(op_name(node.target), _FUNCTION) * chunk + _PRODUCT // 2 * (elements - chunk)


def _limbs(node: fx.Node) -> int:
    """Of both operands; convolutions find their windows in the limbs of their input."""
    left, right = (_elements(n) if isinstance(n, fx.Node) else 0 for n in args_of(node)[:2])
    return _LIMBS * (left + right // 3)
