"""The approximation sets: which function serves under which name. A compiler takes one set object."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hush.mpc.functions.declare import Elementwise
from hush.mpc.functions.exp import exp, exp_nonpositive, exp_puma
from hush.mpc.functions.gelu import gelu, gelu_puma, gelu_tanh
from hush.mpc.functions.relu import absolute, leaky_relu, relu, sign
from hush.mpc.functions.sigmoid import sigmoid, tanh
from hush.mpc.functions.silu import silu, silu_puma


@dataclass(frozen=True, slots=True)
class ApproximationSet:
    """Functions by name; each is written in primitives and knows no protocol."""

    name: str
    exp: Elementwise = exp
    exp_nonpositive: Elementwise = exp_nonpositive
    gelu: Elementwise = gelu
    gelu_tanh: Elementwise = gelu_tanh
    silu: Elementwise = silu
    sigmoid: Elementwise = sigmoid
    tanh: Elementwise = tanh
    relu: Elementwise = relu
    leaky_relu: Elementwise = leaky_relu
    absolute: Elementwise = absolute
    sign: Elementwise = sign


default = ApproximationSet("default")
puma = replace(
    default,
    name="puma",
    gelu=gelu_puma,
    gelu_tanh=gelu_puma,
    silu=silu_puma,
    exp_nonpositive=exp_puma,
)
SETS = {s.name: s for s in (default, puma)}
