"""A local HF checkpoint of any architecture, through transformers: `hf:FOLDER`. Nothing is ever fetched."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from hush.models.checkpoint import Checkpoint
from hush.models.text import LONGEST, SHORTEST, excerpt, tokenise
from hush.mpc.errors import HushWarning, ModelError, UserError
from hush.parties.cli.hf_inputs import (
    Facts,
    decoder_ids,
    decodes,
    drawn,
    padding,
    positions,
    text_arguments,
    vocabulary,
)
from hush.parties.cli.inputs import arrange, parameters, read_call
from hush.parties.compare import tensors

HF = "hf:"
PUBLIC_TEXT = "The quick brown fox jumps over the lazy dog. "
_DRAWN = ("pixel_values", "input_features", "input_values", "past_values")
_VOCABULARIES = ("vocab*", "*.model", "merges.txt", "*.tiktoken")
Named = dict[str | int, Tensor]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint's network and the calls that a source is made of: a public example, further ones, the one to run."""

    module: nn.Module
    example: tuple[Any, ...]
    call: tuple[Any, ...]
    calls: tuple[tuple[Any, ...], ...] = ()


def load(spec: str, length: int | None = None, text: str | None = None, file: Path | None = None) -> Loaded:
    """The network of `hf:FOLDER` with its input: a text, a file's arguments, or an example that its config asks for."""
    folder = Path(spec.removeprefix(HF)).expanduser()
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; {HF}PATH names a local checkpoint in the HF layout")
    checkpoint = Checkpoint(folder)
    _ = checkpoint.config
    module, facts = network(folder)
    if file is not None:
        given = read_call(file, module)
        return Loaded(module, given, given)
    return _Inputs(spec, checkpoint, module, facts, length).calls(text)


# ---------------------------------------------------------------------- the network
def network(folder: Path) -> tuple[nn.Module, Facts]:
    """The network that the checkpoint names, in float32 and evaluation mode, and its configuration.

    ModelError if transformers does not know the architecture, or weights are missing or misshapen; superfluous ones are
    warned of.
    """
    try:
        import transformers
    except ImportError:
        raise ModelError(f"{HF}PATH needs transformers: pip install transformers") from None
    _check_architecture(transformers, folder)
    with _silent(transformers), _explained(folder):
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        made, report = _class(transformers, config, folder).from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            use_safetensors=True,  # never a pickle
            ignore_mismatched_sizes=True,  # which are named below
            output_loading_info=True,
        )
    _check(folder, report)
    module: nn.Module = made.float().eval()
    configs: list[Any] = [getattr(part, "config", None) for part in module.modules()]
    for own in configs:
        if getattr(own, "use_cache", None):
            own.use_cache = False  # a cache is no result
    return module, dict(config.to_dict(), architectures=[type(module).__name__])


def _check_architecture(transformers: Any, folder: Path) -> None:
    kind = Checkpoint(folder).config.get("model_type")
    if kind not in transformers.CONFIG_MAPPING:
        raise ModelError(
            f"{folder}: unknown architecture {kind!r}: transformers {transformers.__version__} has none of that "
            "model_type, and code that comes with a checkpoint is never run"
        )


def _class(transformers: Any, config: Any, folder: Path) -> Any:
    """The class that the configuration names, heads and all; the bare network if it names none."""
    named = list(getattr(config, "architectures", None) or [])
    if not named:
        return transformers.AutoModel
    found = getattr(transformers, named[0], None)
    if found is None or not hasattr(found, "from_pretrained"):
        raise ModelError(
            f"{folder}: unknown architecture {named[0]!r}: transformers {transformers.__version__} has no such class"
        )
    return found


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # transformers fails in as many ways as files can be wrong
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{folder} is no checkpoint that transformers can load: {lines[0]}") from None


@contextmanager
def _silent(transformers: Any) -> Iterator[None]:
    """Without transformers' own reports and progress bars."""
    log = transformers.utils.logging
    level, bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bar:
            log.enable_progress_bar()


def _check(folder: Path, report: Mapping[str, Any]) -> None:
    missing, misshapen = sorted(report["missing_keys"]), sorted(report["mismatched_keys"])
    if missing:
        raise ModelError(f"{folder}: weights missing from the checkpoint: {_some(missing)}")
    if misshapen:
        name, found, due = misshapen[0]
        raise ModelError(f"{folder}: weight {name} has shape {tuple(found)}, the network needs {tuple(due)}")
    if report["unexpected_keys"]:
        unused = _some(sorted(report["unexpected_keys"]))
        warnings.warn(f"{folder}: weights that the network has no place for: {unused}", HushWarning, stacklevel=2)


def _some(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# ---------------------------------------------------------------------- its inputs
@dataclass(frozen=True, slots=True)
class _Inputs:
    """What a network takes, as its configuration has it."""

    spec: str
    checkpoint: Checkpoint
    module: nn.Module
    facts: Facts
    length: int | None

    def calls(self, text: str | None) -> Loaded:
        """The call for a text, or a drawn one; the program is compiled on public examples of the same shapes."""
        if text is None and not self._reads():
            sets = [self._drawn(seed) for seed in range(3)]
        else:
            sets = self._texts(text)
        named = self._unmasked(self._completed(sets))
        example, call, more = (self._arranged(n) for n in named)
        return Loaded(self.module, example, call, (more,))

    def _reads(self) -> bool:
        """Whether the main input is a text, and there is a tokenizer for it."""
        return self._main == "input_ids" and self._tokenizer() is not None

    @property
    def _takes(self) -> list[str]:
        return parameters(self.module)

    @property
    def _main(self) -> str:
        main = str(getattr(self.module, "main_input_name", "input_ids"))
        return main if main in self._takes else next(iter(self._takes), main)

    def _texts(self, text: str | None) -> list[Named]:
        """The public text that fills the length, the text itself, and a short one."""
        if "input_ids" not in self._takes:
            raise UserError(f"{self.spec} takes no text, but {self._main}: give it in a file (--input), or nothing")
        tokenizer, pad, most = self._tokenizer(), padding(self.facts), self._context()
        if tokenizer is None:
            raise ModelError(f"{self.checkpoint.folder} has no tokenizer that can be read: give token ids by --input")
        if text is None:
            own = excerpt(tokenizer, PUBLIC_TEXT, self.length or min(SHORTEST, most), pad)
        else:
            own = tokenise(tokenizer, text, self.length, pad, most)
        size = own[0].shape[1]
        filled, short = (excerpt(tokenizer, words, size, pad) for words in (PUBLIC_TEXT * size, "Yes."))
        self._check_vocabulary(max(int(ids.max()) for ids, _ in (own, filled, short)))
        return [text_arguments(self.checkpoint, self.facts, ids, mask) for ids, mask in (filled, own, short)]

    def _check_vocabulary(self, largest: int) -> None:
        known = vocabulary(self.facts)
        if largest >= known:
            raise ModelError(
                f"{self.checkpoint.folder}: its tokenizer gives id {largest}, and the model knows {known} tokens"
            )

    def _context(self) -> int:
        """The longest text: no more than the positions, of which some tables keep a few for padding."""
        limits = [n for n in (positions(self.facts),) if n is not None]
        for name, part in self.module.named_modules():
            if name.endswith("position_embeddings") and isinstance(part, nn.Embedding) and part.padding_idx is not None:
                limits.append(part.num_embeddings - part.padding_idx - 1)
        most = min(limits, default=LONGEST)
        if self.length is not None and self.length > most:
            raise UserError(f"{self.spec} takes 1 to {most} positions, not {self.length}")
        return most

    def _tokenizer(self) -> Tokenizer | None:
        """The one of tokenizer.json, or what transformers makes of the files that older tokenizers have."""
        if (self.checkpoint.folder / "tokenizer.json").is_file():
            return self.checkpoint.tokenizer
        if not any(found for pattern in _VOCABULARIES for found in self.checkpoint.folder.glob(pattern)):
            return None  # transformers would make one that knows no word
        import transformers

        try:
            with _silent(transformers):
                made = transformers.AutoTokenizer.from_pretrained(self.checkpoint.folder, local_files_only=True)
        except Exception:  # whatever is wrong, there is none
            return None
        found = getattr(made, "backend_tokenizer", None)
        return found if isinstance(found, Tokenizer) else None

    def _drawn(self, seed: int) -> Named:
        """The main input as the configuration describes it."""
        main = self._main
        if main == "input_ids":
            self._context()  # which checks the length
        value = drawn(self.facts, main, self.length, seed)
        if value is None:
            raise UserError(f"{self.spec} takes {', '.join(self._takes[:4])}: give its arguments in a file (--input)")
        if main == "input_ids":
            return text_arguments(self.checkpoint, self.facts, value, torch.ones_like(value))
        found: Named = {main: value}
        if decodes(self.facts):
            found["decoder_input_ids"] = decoder_ids(self.checkpoint, self.facts)
        return found

    def _completed(self, sets: list[Named]) -> list[Named]:
        """With what else the network insists on, drawn: images beside a text. UserError if it still does not run."""
        sets = [{n: t for n, t in named.items() if n in self._takes} for named in sets]
        reason = self._fails(sets[0])
        for name in _DRAWN if reason else ():
            if name not in self._takes or name in sets[0]:
                continue
            more = [drawn(self.facts, name, None, seed) for seed in range(len(sets))]
            sets = [named | ({name: t} if t is not None else {}) for named, t in zip(sets, more, strict=True)]
            reason = self._fails(sets[0])
            if not reason:
                break
        if reason:
            given = ", ".join(map(str, sets[0]))
            raise UserError(f"{self.spec} does not run on {given} ({reason}): give its arguments in a file (--input)")
        return sets

    def _unmasked(self, sets: list[Named]) -> list[Named]:
        """Without the mask, if nothing that the network says of a text's tokens depends on the padding behind them.

        So it is with causal networks: positions are public then, and scores are masked by what everyone knows.
        """
        masks = [named["attention_mask"] for named in sets if "attention_mask" in named]
        if not masks or "input_ids" not in sets[0]:
            return sets
        most = min(range(len(masks)), key=lambda i: int(masks[i].sum()))
        bare = [{n: t for n, t in named.items() if n != "attention_mask"} for named in sets]
        ids, kept = bare[most]["input_ids"], int(masks[most].sum())
        other = torch.cat([ids[:, :kept], (ids[:, kept:] + 1) % vocabulary(self.facts)], 1)
        calls = [sets[most], bare[most], bare[most] | {"input_ids": other}]
        masked, plain, changed = (self._of_tokens(named, ids.shape[1], kept) for named in calls)
        blind = all(map(torch.equal, plain, changed))
        return bare if blind and all(map(_near, masked, plain)) else sets

    def _of_tokens(self, named: Named, length: int, kept: int) -> list[Tensor]:
        """What the network gives, of the first `kept` of `length` tokens where it gives something of each."""
        with torch.no_grad():
            made = self.module(*self._arranged(named))
        return [t[:, :kept] if t.ndim > 1 and t.shape[1] == length else t for t in tensors(made)]

    def _fails(self, named: Named) -> str:
        """Why the network does not run on these arguments, in a line; nothing if it does."""
        try:
            with torch.no_grad():
                self.module(*self._arranged(named))
        except Exception as error:  # what a module raises where an argument is missing is its own affair
            return (str(error).strip().splitlines() or [type(error).__name__])[0]
        return ""

    def _arranged(self, named: Named) -> tuple[Any, ...]:
        return arrange(named, self._takes, self.checkpoint.folder)


def _near(a: Tensor, b: Tensor) -> bool:
    return bool(torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(a.abs().max())))
