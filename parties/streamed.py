"""Which weights a party may keep as seeds: those that are nothing but matrices to multiply by."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from hush.mpc.compiler.ops import args_of, is_op
from hush.mpc.compiler.program import Program

_TURNED = ("aten.transpose.int", "aten.t.default", "aten.permute.default")
_MULTIPLIED = ("hush.affine", "hush.affine_plus", "hush.matmul")


def streamed(program: Program) -> frozenset[str]:
    """Names of the secret weights whose every use, in every turn, is as the second operand of a product of matrices.

    Such a product reads each element once, so it can as well be made where it is read. What is looked up, added or
    multiplied elementwise would be expanded whole at every use.
    """
    if program.weights_mode != "secret":
        return frozenset()
    graphs = [turn.graph for turn in _turns(program)]
    matrices = {spec.name for spec in program.weight_specs if len(spec.shape) == 2}
    return frozenset(matrices - {name for graph in graphs for name in _otherwise(graph)})


def _turns(program: Program) -> Iterator[Program]:
    yield from program.firsts
    if program.generation is not None:
        yield program.generation.then


def _otherwise(graph: fx.Graph) -> Iterator[str]:
    """The tensors of a graph that are used in another way."""
    for node in graph.nodes:
        if node.op == "get_attr" and not all(_multiplies(node, user) for user in node.users):
            yield str(node.target)


def _multiplies(operand: fx.Node, user: fx.Node) -> bool:
    if is_op(user, *_TURNED):
        return all(_multiplies(user, further) for further in user.users)
    arguments = args_of(user)
    return is_op(user, *_MULTIPLIED) and arguments[1] is operand and operand not in (arguments[0], *arguments[2:])
