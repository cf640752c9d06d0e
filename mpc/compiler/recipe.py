"""A program's weights made one by one, so that a model never lies in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from hush.mpc.compiler.interpret import evaluate
from hush.mpc.compiler.spec import WeightSpec
from hush.mpc.errors import ProgramError

if TYPE_CHECKING:
    from hush.mpc.compiler.program import Recipe


class LazyWeights(Mapping[str, Tensor]):
    """Weights by name, each made when it is asked for, from the parameters that it alone needs, and not kept.

    `tensors` gives the parameters by name, read when they are needed. ProgramError at once if it lacks one, or if by
    their `shapes` a weight comes out in another shape than the program's.
    """

    def __init__(
        self,
        recipe: Recipe,
        tensors: Mapping[str, Tensor],
        specs: Sequence[WeightSpec],
        shapes: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        check_names(recipe.graph, tensors)
        self._recipe, self._tensors = recipe, tensors
        self._specs = {spec.name: spec for spec in specs}
        output: Any = next(iter(reversed(recipe.graph.nodes)))
        self._nodes: dict[str, fx.Node] = dict(zip(self._specs, output.args[0], strict=True))
        if shapes is not None:
            self._check_shapes(shapes)

    def __getitem__(self, name: str) -> Tensor:
        node = self._nodes[name]
        graph, inputs = _alone(node)
        try:
            (made,) = evaluate(graph, [self._tensors[n].detach().cpu() for n in inputs], self._recipe.constants)
        except (RuntimeError, IndexError, ValueError) as error:
            raise _misfit(error) from error
        return checked(self._specs[name], made).contiguous()

    def __contains__(self, name: object) -> bool:
        return name in self._nodes  # the mapping's own would make the weight

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __repr__(self) -> str:
        return f"LazyWeights({len(self)})"

    def _check_shapes(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Make every weight on the meta device, where tensors have shapes and no elements."""
        constants = {name: value.to("meta") for name, value in self._recipe.constants.items()}
        for name, node in self._nodes.items():
            graph, inputs = _alone(node)
            try:
                (made,) = evaluate(graph, [torch.empty(tuple(shapes[n]), device="meta") for n in inputs], constants)
            except NotImplementedError:
                continue  # an operation that needs numbers: its result is checked when it is made
            except (RuntimeError, IndexError, ValueError) as error:
                raise _misfit(error) from error
            checked(self._specs[name], made)


def check_names(graph: fx.Graph, state: Mapping[str, Any]) -> set[str]:
    """The parameters that a recipe needs; ProgramError if the state lacks one."""
    needed = {str(n.target) for n in graph.nodes if n.op == "placeholder"}
    missing = sorted(name for name in needed if name not in state)
    if missing:
        raise ProgramError(
            f"the model lacks {missing[0]!r} ({len(missing)} parameters in all): not this program's model"
        )
    return needed


def checked(spec: WeightSpec, value: Tensor) -> Tensor:
    """A weight that has the program's shape; ProgramError for another."""
    if tuple(value.shape) != spec.shape:
        raise ProgramError(f"weight {spec.name!r} comes out as {tuple(value.shape)}, the program has {spec.shape}")
    return value


def _misfit(error: Exception) -> ProgramError:
    return ProgramError(f"the model's parameters do not fit this program: {error}")


def _alone(node: fx.Node) -> tuple[fx.Graph, list[str]]:
    """A graph that makes this one result, and the parameters it takes in order."""
    needed, waiting = set[fx.Node](), [node]
    while waiting:
        at = waiting.pop()
        if at not in needed:
            needed.add(at)
            waiting.extend(at.all_input_nodes)
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for each in node.graph.nodes:
        if each in needed:
            copies[each] = graph.node_copy(each, copies.__getitem__)
    graph.output([copies[node]])
    return graph, [str(n.target) for n in graph.nodes if n.op == "placeholder"]
