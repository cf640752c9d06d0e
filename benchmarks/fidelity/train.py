"""Training on CPU with fixed seeds, its results kept as safetensors: the same text and settings train once."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

from fidelity.corpus import digest

END, PAD, CLS = "<|end|>", "<|pad|>", "<|cls|>"
Loss = Callable[[nn.Module, torch.Generator], Tensor]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast: AdamW with a warm-up of a tenth and a cosine to a tenth of the rate."""

    steps: int
    rate: float
    seed: int = 7

    def rate_at(self, step: int) -> float:
        """The learning rate of a step."""
        warm = max(1, self.steps // 10)
        if step < warm:
            return self.rate * (step + 1) / warm
        along = (step - warm) / max(1, self.steps - warm)
        return self.rate * (0.55 + 0.45 * math.cos(math.pi * along))


def tokenizer(texts: list[str], vocabulary: int, folder: Path) -> Tokenizer:
    """A byte-level BPE of that many tokens, trained on the texts or read from the folder."""
    path = folder / f"bpe-{vocabulary}-{digest(texts)}.json"
    if path.is_file():
        return Tokenizer.from_file(str(path))
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END, PAD, CLS], initial_alphabet=sorted(alphabet), show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    made.save(str(path))
    return made


def stream(tokens: Tokenizer, texts: list[str]) -> Tensor:
    """All texts as one row of ids, each ended by END."""
    end = tokens.token_to_id(END)
    return torch.tensor([i for encoded in tokens.encode_batch(texts) for i in (*encoded.ids, end)])


def windows(row: Tensor, width: int, count: int) -> Tensor:
    """[count, width]: pieces spread evenly over a row, apart from each other."""
    step = (len(row) - width) // max(1, count - 1) if count > 1 else 0
    if count > 1 and step < width:
        raise ValueError(f"{len(row)} tokens do not hold {count} pieces of {width}")
    return torch.stack([row[i * step : i * step + width] for i in range(count)])


def next_token_loss(row: Tensor, length: int, batch: int) -> Loss:
    """Cross entropy of the next token, over random pieces of a row."""

    def loss(module: nn.Module, generator: torch.Generator) -> Tensor:
        starts = torch.randint(0, len(row) - length, (batch,), generator=generator)
        piece = torch.stack([row[s : s + length + 1] for s in starts])
        return nn.functional.cross_entropy(module(piece[:, :-1]).flatten(0, 1), piece[:, 1:].flatten())

    return loss


def class_loss(ids: Tensor, mask: Tensor, labels: Tensor, batch: int) -> Loss:
    """Cross entropy of the class, over random examples."""

    def loss(module: nn.Module, generator: torch.Generator) -> Tensor:
        rows = torch.randint(0, len(ids), (batch,), generator=generator)
        return nn.functional.cross_entropy(module(ids[rows], mask[rows]), labels[rows])

    return loss


def train(module: nn.Module, loss: Loss, schedule: Schedule, say: Say = lambda line: None) -> float:
    """Train in place; seconds taken. The module is left in eval mode."""
    generator = torch.Generator().manual_seed(schedule.seed)
    decayed = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=schedule.rate, betas=(0.9, 0.95))
    begin = time.perf_counter()
    module.train()
    for step in range(schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate_at(step)
        value = loss(module, generator)
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 99:
            so_far = f"loss {float(value.detach()):.3f}, {time.perf_counter() - begin:.0f} s"
            say(f"step {step + 1} of {schedule.steps}: {so_far}")
    module.eval()
    return time.perf_counter() - begin


def trained(module: nn.Module, loss: Loss, schedule: Schedule, path: Path, say: Say = lambda line: None) -> nn.Module:
    """The module with the weights that lie at `path`, else trained and written there; in eval mode."""
    if not path.is_file():
        seconds = train(module, loss, schedule, say)
        say(f"trained in {seconds:.0f} s: {path.name}")
        save_file({name: p.detach().contiguous() for name, p in module.state_dict().items()}, path)
    module.load_state_dict(load_file(path))
    return module.eval()


def weights_digest(module: nn.Module) -> str:
    """Of all parameters, to say which network was measured."""
    whole = hashlib.sha256()
    for name, parameter in sorted(module.named_parameters()):
        whole.update(name.encode())
        whole.update(parameter.detach().contiguous().numpy().tobytes())
    return whole.hexdigest()[:16]
