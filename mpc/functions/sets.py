"""The approximation sets: which function serves under which name. A compiler takes one set object."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from hush.mpc.functions import relu as family
from hush.mpc.functions import trig
from hush.mpc.functions.declare import Declared, Elementwise, declared
from hush.mpc.functions.exp import exp, exp_nonpositive, exp_puma
from hush.mpc.functions.gelu import gelu, gelu_puma, gelu_tanh, quick_gelu
from hush.mpc.functions.sigmoid import erf, sigmoid, tanh
from hush.mpc.functions.silu import silu, silu_puma, softplus


@dataclass(frozen=True, slots=True)
class ApproximationSet:
    """Elementwise functions by name, written in primitives, knowing no protocol.

    Those of a whole row (softmax, norms, reciprocal...) take the set's name as `approx`.
    """

    name: str
    exp: Elementwise = exp
    exp_nonpositive: Elementwise = exp_nonpositive
    gelu: Elementwise = gelu
    gelu_tanh: Elementwise = gelu_tanh
    quick_gelu: Elementwise = quick_gelu
    silu: Elementwise = silu
    softplus: Elementwise = softplus
    sigmoid: Elementwise = sigmoid
    tanh: Elementwise = tanh
    erf: Elementwise = erf
    sin: Elementwise = trig.sin
    cos: Elementwise = trig.cos
    relu: Elementwise = family.relu
    absolute: Elementwise = family.absolute
    sign: Elementwise = family.sign
    leaky_relu: Elementwise = family.leaky_relu
    elu: Elementwise = family.elu
    relu6: Elementwise = family.relu6
    hardtanh: Elementwise = family.hardtanh
    hardsigmoid: Elementwise = family.hardsigmoid
    hardswish: Elementwise = family.hardswish

    def functions(self) -> dict[str, Elementwise]:
        """Every function of the set, by field name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "name"}

    def declarations(self) -> dict[str, Declared]:
        """What each function promises."""
        return {name: declared(function) for name, function in self.functions().items()}


default = ApproximationSet("default")

puma = replace(
    default,
    name="puma",
    gelu=gelu_puma,
    gelu_tanh=gelu_puma,
    silu=silu_puma,
    exp_nonpositive=exp_puma,
)
"""As published where PUMA published a formula (GELU, SiLU, softmax's exp); elsewhere the default set's functions."""

SETS = {s.name: s for s in (default, puma)}
