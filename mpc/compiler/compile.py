"""From a module and an example call to a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from hush.mpc.compiler.capture import Draft, capture, placeholders_of
from hush.mpc.compiler.forms import check_forms
from hush.mpc.compiler.passes.algebra import combine_terms, fold_linears, fold_norms, fold_scales
from hush.mpc.compiler.passes.attention import defer_scores, join_attention
from hush.mpc.compiler.passes.calibrate import Typing, assign_types, score_bound
from hush.mpc.compiler.passes.canonical import canonical
from hush.mpc.compiler.passes.lookups import LOOKUPS, choose_lookups
from hush.mpc.compiler.passes.masks import public_masks, secret_masks
from hush.mpc.compiler.passes.partition import Split, partition
from hush.mpc.compiler.passes.public import fold_public, merge_constants
from hush.mpc.compiler.passes.recognise import recognise
from hush.mpc.compiler.program import Program
from hush.mpc.compiler.serialise import dump, parse
from hush.mpc.compiler.spec import InputSpec, OutputSpec, by_name
from hush.mpc.compiler.types import META, Kind, Visibility, dtype_name, type_of
from hush.mpc.errors import RangeError, UserError
from hush.mpc.functions.sets import SETS
from hush.mpc.ring import RING64, Ring

Ranges = Mapping[str, float] | Sequence[Any] | None
FRAC = 18


def compile_module(
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    public: Sequence[str] = (),
    weights: str = "secret",
    approx: str = "default",
    ranges: Ranges = None,
    lookup: str = "auto",
    frac: int = FRAC,
    ring: Ring = RING64,
) -> Program:
    """Compile a module for secure inference on calls shaped like the example.

    Every tensor argument is secret unless named in `public`; other arguments are constants. `weights` is "secret" or
    "public", `approx` the name of an approximation set. `ranges` widens the calibration: further example calls (tuples
    of arguments, or (args, kwargs) pairs), or largest magnitudes by input name. `lookup`: how secret integers that look
    rows up travel: "onehot" rows, "dpf" keys, as they are for "equality" tests, or "auto". UnsupportedOp for an op
    without a rule, or whose rule does not cover its arguments.
    """
    modes = checked_modes(weights, approx, lookup)
    draft = capture(module, args, kwargs or {}, public)
    explicit = dict(ranges) if isinstance(ranges, Mapping) else {}
    samples = _samples(draft, () if ranges is None or isinstance(ranges, Mapping) else ranges)
    samples += _stretched(draft, explicit)
    program = build(draft, Typing(samples, ring, frac, explicit, lookup), modes)
    return sealed(program, draft)


def checked_modes(weights: str, approx: str, lookup: str) -> tuple[str, str]:
    """(weights, approx); UserError unless all three are known."""
    if lookup not in LOOKUPS:
        raise UserError(f"lookup={lookup!r}: say one of {', '.join(LOOKUPS)}")
    if weights not in ("secret", "public"):
        raise UserError(f"weights={weights!r}: say 'secret' or 'public'")
    if approx not in SETS:
        raise UserError(f"approx={approx!r} is no approximation set: say one of {', '.join(SETS)}")
    return weights, approx


def build(draft: Draft, typing: Typing, modes: tuple[str, str]) -> Program:
    """The passes, and the program that they leave: without bytes and weights as yet."""
    log = _passes(draft, typing)
    check_forms(draft, approx=modes[1], weights=modes[0], ring=typing.ring, frac=typing.frac)
    outputs = _outputs(draft)
    split, line = partition(draft)
    program = _program(draft, split, outputs, modes, (typing.frac, typing.ring))
    program.passes = [*log, line]
    return program


def sealed(program: Program, *drafts: Draft) -> Program:
    """The program that the bytes say: everyone, the provider too, runs that. Its weights come from the drafts."""
    made = parse(dump(program))
    made.passes = program.passes
    tensors = {n: t for d in drafts for n, t in d.tensors.items() if d.owners[n] is Visibility.WEIGHT}
    return made.bind(tensors)


def _passes(draft: Draft, typing: Typing) -> list[str]:
    samples = typing.samples
    return [
        canonical(draft),
        fold_public(draft),
        recognise(draft),
        public_masks(draft),
        secret_masks(draft, lambda: score_bound(draft, samples)),
        fold_scales(draft),
        fold_linears(draft),
        fold_norms(draft),
        join_attention(draft),
        combine_terms(draft),
        merge_constants(draft),
        choose_lookups(draft, typing.lookup),
        assign_types(draft, typing),
        defer_scores(draft),
    ]


def _samples(draft: Draft, more: Sequence[Any]) -> list[list[Tensor]]:
    """Values of the secret arguments: the example's, then each further call's."""
    samples = [[a.value for a in draft.arguments]]
    for call in more:
        pair = isinstance(call, tuple) and len(call) == 2 and isinstance(call[1], Mapping)
        args, kwargs = call if pair else (call, {})
        args = args if isinstance(args, tuple | list) else (args,)
        named = by_name(draft.parameters, args) | dict(kwargs)
        sample = []
        for argument in draft.arguments:
            value: Any = named
            for step in argument.path:
                value = value[step]
            if value.shape != argument.value.shape:
                raise RangeError(
                    f"ranges: {argument.name!r} is {tuple(value.shape)}, not {tuple(argument.value.shape)} as compiled"
                )
            sample.append(value)
        samples.append(sample)
    return samples


def _stretched(draft: Draft, explicit: Mapping[str, float]) -> list[list[Tensor]]:
    """The example with every input of explicit range stretched to it, so that what follows is calibrated for it."""
    unknown = sorted(set(explicit) - {a.name for a in draft.arguments})
    if unknown:
        names = ", ".join(a.name for a in draft.arguments)
        raise UserError(f"ranges names {unknown[0]!r}, and the secret inputs are {names}")
    if not explicit:
        return []
    return [[_stretch(a.value, explicit[a.name]) if a.name in explicit else a.value for a in draft.arguments]]


def _stretch(value: Tensor, bound: float) -> Tensor:
    if value.dtype == torch.bool or not value.numel():
        return value
    most = float(value.double().abs().max())
    stretched = torch.full(value.shape, bound) if most == 0 else value.double() * (bound / most)
    return stretched.to(value.dtype)


def _inputs(draft: Draft) -> tuple[InputSpec, ...]:
    specs = []
    for argument, node in zip(draft.arguments, placeholders_of(draft.graph), strict=True):
        t = type_of(node)
        specs.append(InputSpec(argument.name, t.kind, t.shape, t.dtype, t.bound, t.frac, argument.path))
    return tuple(specs)


def _outputs(draft: Draft) -> tuple[OutputSpec, ...]:
    """Specs of all leaves; the graph's output keeps those that are secret."""
    specs: list[OutputSpec] = []
    secret: list[fx.Node] = []
    for leaf in draft.output.args[0]:  # type: ignore[union-attr]
        if not isinstance(leaf, fx.Node):
            specs.append(OutputSpec(None, (), "float32", 0, leaf))
        elif type_of(leaf).visibility is Visibility.PUBLIC:
            value = draft.tensors[str(leaf.target)]
            specs.append(OutputSpec(None, tuple(value.shape), dtype_name(value.dtype), 0, value))
        else:
            t = leaf.meta[META]
            kind = Kind.INT if t.kind is Kind.ONEHOT else t.kind
            specs.append(OutputSpec(kind, t.shape, t.dtype, t.frac))
            secret.append(leaf)
    draft.output.args = (secret,)
    return tuple(specs)


def _program(
    draft: Draft, split: Split, outputs: tuple[OutputSpec, ...], modes: tuple[str, str], numbers: tuple[int, Ring]
) -> Program:
    return Program(
        graph=draft.graph,
        constants=split.constants,
        inputs=_inputs(draft),
        outputs=outputs,
        structure=draft.structure,
        weight_specs=split.specs,
        recipe=split.recipe,
        parameters=draft.parameters,
        weights_mode=modes[0],
        approx=modes[1],
        frac=numbers[0],
        ring=numbers[1],
    )
