"""The compiler: a module becomes a typed graph, the graph a program, and the program runs under any protocol."""

from hush.mpc.compiler.compile import compile_module
from hush.mpc.compiler.execute import Observer, execute, group_of
from hush.mpc.compiler.generate import Turn, turn
from hush.mpc.compiler.generator import compile_generator
from hush.mpc.compiler.predict import Forecast, foresee, predict
from hush.mpc.compiler.probe import Probe
from hush.mpc.compiler.program import Generation, Program, Recipe
from hush.mpc.compiler.scheduling import scheduled
from hush.mpc.compiler.serialise import load, parse
from hush.mpc.compiler.show import leakage, listing
from hush.mpc.compiler.spec import InputSpec, OutputSpec, WeightSpec
from hush.mpc.compiler.types import Kind, Type, Visibility

__all__ = [
    "Forecast",
    "Generation",
    "InputSpec",
    "Kind",
    "Observer",
    "OutputSpec",
    "Probe",
    "Program",
    "Recipe",
    "Turn",
    "Type",
    "Visibility",
    "WeightSpec",
    "compile_generator",
    "compile_module",
    "execute",
    "foresee",
    "group_of",
    "leakage",
    "listing",
    "load",
    "parse",
    "predict",
    "scheduled",
    "turn",
]
