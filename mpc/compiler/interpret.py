"""The plain interpretation of a graph: torch itself, values freed after their last use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx


def evaluate(
    graph: fx.Graph,
    inputs: Sequence[Any],
    tensors: Mapping[str, Tensor],
    watch: Callable[[fx.Node, Any], None] | None = None,
) -> list[Any]:
    """Run a graph in torch: placeholders from `inputs`, get_attr nodes from `tensors`; the list the output node holds.

    `watch` sees every node with its value.
    """
    feed = iter(inputs)
    values: dict[fx.Node, Any] = {}
    left = {node: len(node.users) for node in graph.nodes}
    with torch.no_grad():
        for node in graph.nodes:
            if node.op == "output":
                return [values[a] if isinstance(a, fx.Node) else a for a in node.args[0]]
            values[node] = _value(node, values, feed, tensors)
            if watch is not None:
                watch(node, values[node])
            for operand in node.all_input_nodes:
                left[operand] -= 1
                if not left[operand]:
                    del values[operand]
    raise ValueError("a graph without an output")


def _value(node: fx.Node, values: Mapping[fx.Node, Any], feed: Any, tensors: Mapping[str, Tensor]) -> Any:
    if node.op == "placeholder":
        return next(feed)
    if node.op == "get_attr":
        return tensors[str(node.target)]
    args = fx.map_arg(node.args, values.__getitem__)
    kwargs = fx.map_arg(node.kwargs, values.__getitem__)
    assert callable(node.target)
    return node.target(*args, **kwargs)
