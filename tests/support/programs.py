"""Running compiled programs in tests: under `Fixed`, and on shares in lockstep at the predicted cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.utils._pytree as pytree
from support.trio import Trio
from torch import Tensor

from hush.mpc.compiler import InputSpec, Kind, Program, compile_module, execute, predict, scheduled
from hush.mpc.cost import Cost, total
from hush.mpc.points import Points
from hush.mpc.ring import Ring
from hush.mpc.secret import Shared
from hush.mpc.session import simulate
from hush.mpc.step import Step
from hush.protocols.fixed import Fixed
from hush.protocols.replicated.cost import ReplicatedCost

T = TypeVar("T")
Kwargs = Mapping[str, Any] | None


def finish(step: Step[T]) -> T:
    """The result of a step that needs no messages."""
    try:
        while True:
            next(step)
    except StopIteration as stop:
        value: T = stop.value
        return value


def run_fixed(program: Program, args: Sequence[Any], kwargs: Kwargs = None, *, strict: bool = True) -> Any:
    """The program's result under `Fixed`; a value that leaves its range is an error if `strict`."""
    p = Fixed(program.ring, program.frac, strict=strict)
    p.schedule = program.schedule
    elements = program.encode_inputs(args, kwargs)
    inputs = [_alone(e, s, program.ring) for e, s in zip(elements, program.inputs, strict=True)]
    assert program.weights is not None
    weights: dict[str, Any] = dict(program.weights)
    if program.weights_mode == "secret":
        weights = {s.name: p.enter(program.weights[s.name], frac=s.frac) for s in program.weight_specs}
    outputs = finish(execute(program, p, weights, inputs))
    return program.decode_outputs([o.parts[0] for o in outputs])


def run_shares(program: Program, args: Sequence[Any], kwargs: Kwargs = None) -> tuple[Any, Cost]:
    """The program's result on shares, and the measured cost."""
    trio = Trio(program.ring, program.frac, schedule=program.schedule)
    pairs = zip(program.encode_inputs(args, kwargs), program.inputs, strict=True)
    inputs = [among_three(trio, e, s) for e, s in pairs]
    assert program.weights is not None
    weights: list[dict[str, Any]] = [dict(program.weights) for _ in range(3)]
    if program.weights_mode == "secret":
        shared = {s.name: trio.share(program.weights[s.name], frac=s.frac) for s in program.weight_specs}
        weights = [{name: secret[i] for name, secret in shared.items()} for i in range(3)]
    steps = [execute(program, trio.protocols[i], weights[i], [x[i] for x in inputs]) for i in range(3)]
    results, traffic = simulate(steps)
    outputs = [trio.elements(list(parts)) for parts in zip(*results, strict=True)]
    return program.decode_outputs(outputs), total(traffic)


def _alone(element: Tensor, spec: InputSpec, ring: Ring) -> Shared | Points:
    if spec.kind is Kind.POINT:
        return Points((element[..., None],), int(spec.bound))
    return Shared((element,), spec.frac, ring)


def among_three(trio: Trio, element: Tensor, spec: InputSpec) -> list[Any]:
    """The three parties' handles of an input."""
    if spec.kind is Kind.POINT:
        return trio.deal_places(element, int(spec.bound))
    return trio.share_elements(element, frac=spec.frac)


def compiled(
    module: torch.nn.Module, args: Sequence[Any], kwargs: Kwargs = None, *, schedule: str = "lan", **options: Any
) -> Program:
    """Compile a module and predict its cost."""
    program = scheduled(compile_module(module.eval(), args, kwargs, **options), schedule)
    return predict(program, ReplicatedCost(program.ring, program.frac, program.schedule))


def check(
    module: torch.nn.Module, args: Sequence[Any], kwargs: Kwargs = None, *, bound: float, **options: Any
) -> Program:
    """Compile, run under `Fixed` and on shares, compare both with torch and the cost with the prediction."""
    program = compiled(module, args, kwargs, **options)
    with torch.no_grad():
        plain = module(*args, **(kwargs or {}))
    assert largest_error(run_fixed(program, args, kwargs), plain) <= bound
    secure, cost = run_shares(program, args, kwargs)
    assert largest_error(secure, plain) <= bound
    assert cost == program.cost
    return program


def largest_error(result: Any, expected: Any) -> float:
    """Largest difference of two results of one structure; tensors of integers and bits must be equal."""
    got, want = pytree.tree_leaves(result), pytree.tree_leaves(expected)
    assert len(got) == len(want)
    worst = 0.0
    for a, b in zip(got, want, strict=True):
        if not isinstance(b, Tensor):
            assert a == b
            continue
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        if not b.is_floating_point():
            assert torch.equal(a, b)
        elif b.numel():
            worst = max(worst, float((a.double() - b.double()).abs().max()))
    return worst
