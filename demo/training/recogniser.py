"""The training of the recogniser: 6,000 steps on short windows, then 3,500 on windows of up to 30 s.

Two things make the long windows work. CTC on characters at the encoder makes it learn to hear before the decoder
learns to guess. Guided attention tells five heads of the decoder where to look: without it the decoder went by the
clock (from the count of tokens to the time) more than by what it heard, and lost the end of long windows; a window
with 19 s of silence before 9 s of speech was read with 0.25 of its tokens right, against 0.94 without the silence.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import WhisperForConditionalGeneration
from whisperx.audio import HOP_LENGTH, N_FFT, mel_filters

from demo.training import whisper_model
from demo.training.corpus import Corpus
from demo.training.progress import Progress
from demo.training.resumable import SAVE_EVERY, TrainingState, prefetch
from demo.training.speech import SAMPLE_RATE_HZ, Word
from demo.training.whisper_model import LANGUAGES, N_MELS, POSITIONS_PER_S, WIDTH
from demo.training.windows import Mix, Window, compose

LONG_WINDOWS, GUIDED, SILENCES, FOCUS, LAST = 6000, 7200, 7800, 8600, 9500
"""Steps: long windows begin; guided attention begins; more silence in the windows until FOCUS; windows near the 12 s
of the product count most; the end."""

SHORT = [  # until step, window s (times 0.7 to 1.15), batch, share of demo voices, weight of the CTC loss
    (850, 3.5, 24, 0.0, 1.0),
    (1500, 6.0, 16, 0.0, 1.0),
    (4020, 6.0, 16, 0.0, 0.25),
    (4800, 10.0, 10, 0.0, 0.25),
    (LONG_WINDOWS, 9.0, 11, 0.75, 0.25),
]
LEARNING_RATE = [  # linear between these steps; a warm-up, a fall, and both again for the long windows
    (0, 1e-5),
    (150, 2e-3),
    (1500, 2e-3),
    (1501, 1.5e-3),
    (3000, 1.25e-3),
    (4000, 9.5e-4),
    (4800, 6e-4),
    (5400, 2.8e-4),
    (LONG_WINDOWS, 3e-5),
    (LONG_WINDOWS + 150, 1e-3),
    (SILENCES + 250, 1e-3),
    (FOCUS, 6e-4),
    (LAST, 5e-6),
]
SPEECH_PER_STEP_S = 112
"""Of the long windows: as many in a batch as make this together."""

CHARACTERS = "|'abcdefghijklmnopqrstuvwxyz"
"""Labels of the CTC loss, from 1; 0 is the blank."""
_FOLDED = str.maketrans({"ä": "a", "ö": "o", "ü": "u", "ß": "s"})


@dataclass(frozen=True)
class GuidedHead:
    """This head shall attend to the word of the input token (0) or of the token to predict (1)."""

    layer: int
    head: int
    token: int
    weight: float


GUIDED_HEADS = [
    GuidedHead(0, 1, 0, 0.4),
    GuidedHead(0, 2, 0, 0.5),
    GuidedHead(0, 3, 1, 0.2),
    GuidedHead(1, 2, 1, 0.2),
    GuidedHead(1, 3, 1, 0.2),
]


@dataclass(frozen=True)
class StepPlan:
    """What one step trains on."""

    length_s: float
    batch: int
    mix: Mix
    ctc_weight: float


def plan(step: int, r: random.Random) -> StepPlan:
    if step < LONG_WINDOWS:
        _, length_s, batch, demo, ctc = next(row for row in SHORT if step < row[0])
        return StepPlan(round(length_s * r.uniform(0.7, 1.15), 1), batch, Mix(demo=demo), ctc)
    length_s = round(_long_window_s(step, r), 1)
    silences = SILENCES <= step < FOCUS
    mix = Mix(
        demo=0.5 if step < SILENCES else 0.75,
        no_speech=0.07,
        cut=0.1,
        stop=0.015,
        long_pause=0.08 if silences else 0.04,
        late_start=0.25 if silences else 0.05,
    )
    return StepPlan(length_s, max(4, round(SPEECH_PER_STEP_S / length_s)), mix, 0.25)


def _long_window_s(step: int, r: random.Random) -> float:
    u = r.random()
    if step < FOCUS:
        longest_s = min(29.9, 14 + 16 * (step - LONG_WINDOWS) / 540)
        return r.uniform(3, 8) if u < 0.15 else r.uniform(8, 13) if u < 0.35 else r.uniform(13, longest_s)
    if u < 0.45:
        return r.uniform(3, 8) if u < 0.2 else r.uniform(8, 13)
    return r.uniform(13, 20) if u < 0.85 else r.uniform(20, 29.9)


def learning_rate(step: int) -> float:
    steps, rates = zip(*LEARNING_RATE, strict=True)
    return float(np.interp(step, steps, rates))


@dataclass(frozen=True)
class Batch:
    plan: StepPlan
    mel: Tensor
    """(batch, N_MELS, frames), of the window and ten frames of padding."""
    tokens: Tensor
    """(batch, n), the input of the decoder."""
    labels: Tensor
    """(batch, n), the token after each; -100 where nothing is to be predicted."""
    weights: Tensor
    """(batch, n), of the labels."""
    frames: Tensor
    """(batch, n + 1, 2), first and last + 1 position of each token's word; -1 where it is not known."""
    characters: Tensor
    character_counts: Tensor


class Batches:
    """Makes the batch of a step; the same step gives the same batch."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer) -> None:
        self._corpus, self._tokenizer = corpus, tokenizer
        token = tokenizer.token_to_id
        self._end = token("<|endoftext|>")
        start, transcribe, plain = (
            token("<|startoftranscript|>"),
            token("<|transcribe|>"),
            token("<|notimestamps|>"),
        )
        self._prompts = {lang: [start, token(f"<|{lang}|>"), transcribe, plain] for lang in LANGUAGES}
        self._prompt_without_language = [start, plain]

    def of_step(self, step: int) -> Batch:
        r = random.Random(step + 1)
        todo = plan(step, r)
        windows, prompts = [], []
        for _ in range(todo.batch):
            window = compose(self._corpus, todo.length_s, r, todo.mix)
            # An English-only prompt exists too: faster-whisper uses it for models that are not multilingual.
            without = window.language == "en" and r.random() < 0.1
            prompts.append(self._prompt_without_language if without else self._prompts[window.language])
            windows.append(window)
        return self._batch(todo, windows, prompts)

    def _batch(self, todo: StepPlan, windows: list[Window], prompts: list[list[int]]) -> Batch:
        texts = [self._text(window) for window in windows]
        lines = [prompt + ids + [self._end] for prompt, (ids, _) in zip(prompts, texts, strict=True)]
        n = max(map(len, lines))
        tokens = torch.full((len(lines), n), self._end)
        labels = torch.full((len(lines), n), -100)
        weights = torch.ones(len(lines), n)
        frames = torch.full((len(lines), n + 1, 2), -1)
        for b, (prompt, line, (_, places)) in enumerate(zip(prompts, lines, texts, strict=True)):
            first = len(prompt)
            tokens[b, : len(line)] = torch.tensor(line)
            labels[b, first - 1 : len(line) - 1] = torch.tensor(line[first:])
            if places:
                frames[b, first : first + len(places)] = torch.tensor(places)
            if len(line) == first + 1:
                weights[b, first - 1] = 5  # a window without speech has this one token only
            elif prompt is not self._prompt_without_language:
                labels[b, 0] = line[1]  # the language is to be learned too
        characters = [character_labels(window.text) for window in windows]
        return Batch(
            plan=todo,
            mel=self._mel(windows, todo.length_s),
            tokens=tokens,
            labels=labels,
            weights=weights,
            frames=frames,
            characters=torch.tensor([label for line in characters for label in line], dtype=torch.long),
            character_counts=torch.tensor([len(line) for line in characters]),
        )

    def _text(self, window: Window) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids, and for each token the positions of its word, with 80 ms on both sides."""
        if not window.text:
            return [], []
        encoded = self._tokenizer.encode(" " + window.text, add_special_tokens=False)
        word_of_token = np.cumsum([token[0] == "\u0120" for token in encoded.tokens]) - 1  # U+0120 marks a space
        words = window.words
        if not words or len(words) != word_of_token[-1] + 1:
            return encoded.ids, [(-1, -1)] * len(encoded.ids)
        return encoded.ids, [_positions(words[k]) for k in word_of_token]

    def _mel(self, windows: list[Window], length_s: float) -> Tensor:
        samples = torch.from_numpy(np.stack([window.samples for window in windows]))
        padded = functional.pad(samples, (0, SAMPLE_RATE_HZ // 5))
        return log_mel(padded)[..., : round(length_s * 100) + 2 * whisper_model.PADDING_POSITIONS]


def _positions(word: Word) -> tuple[int, int]:
    return max(0, round(word.start_s * POSITIONS_PER_S) - 4), round(word.end_s * POSITIONS_PER_S) + 4


def character_labels(text: str) -> list[int]:
    """Labels of letters, apostrophes and spaces; German letters lose their dots."""
    folded = text.lower().translate(_FOLDED)
    kept = "".join(c for c in folded if c in " '" or "a" <= c <= "z")
    return [CHARACTERS.index("|" if c == " " else c) + 1 for c in " ".join(kept.split())]


def log_mel(samples: Tensor) -> Tensor:
    """What whisperx.audio.log_mel_spectrogram gives, of a batch: (batch, n_samples) to (batch, N_MELS, frames)."""
    spectrum = torch.stft(samples, N_FFT, HOP_LENGTH, window=torch.hann_window(N_FFT), return_complex=True)
    mel = mel_filters(torch.device("cpu"), N_MELS) @ (spectrum[..., :-1].abs() ** 2)
    log = torch.clamp(mel, min=1e-10).log10()
    log = torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8.0)
    return (log + 4.0) / 4.0


class Recogniser(nn.Module):
    """The network and the CTC layer that only the training has."""

    def __init__(self, whisper: WhisperForConditionalGeneration) -> None:
        super().__init__()
        self.whisper = whisper
        self.ctc = nn.Linear(WIDTH, len(CHARACTERS) + 1)

    def losses(self, batch: Batch, thinning: int, heads: Sequence[GuidedHead]) -> tuple[Tensor, dict[str, float]]:
        """The loss to minimise, and the figures to show."""
        with torch.autocast("cpu", torch.bfloat16):
            encoded, n, mask = whisper_model.encode(self.whisper, batch.mel, thinning)
            logits, maps = whisper_model.decode(
                self.whisper, batch.tokens, encoded, mask, [(head.layer, head.head) for head in heads]
            )
            characters = self.ctc(encoded[:, :n])
        tokens = _token_loss(logits.float(), batch)
        heard = _ctc_loss(characters.float(), batch, n)
        guide = _guide_loss(maps, heads, batch.frames)
        right = (logits.argmax(-1) == batch.labels)[batch.labels != -100].float().mean().item()
        figures = {"tokens": tokens.item(), "ctc": heard.item(), "guide": guide.item(), "accuracy": right}
        if n > 20 * POSITIONS_PER_S:
            figures["accuracy_above_20s"] = right
        return tokens + batch.plan.ctc_weight * heard + guide, figures


def _token_loss(logits: Tensor, batch: Batch) -> Tensor:
    each = functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=-100, reduction="none")
    return (each * batch.weights.flatten()).sum() / (batch.weights * (batch.labels >= 0)).sum()


def _ctc_loss(characters: Tensor, batch: Batch, n: int) -> Tensor:
    log_probabilities = functional.log_softmax(characters, -1).transpose(0, 1)
    lengths = torch.full((log_probabilities.shape[1],), n)
    return functional.ctc_loss(log_probabilities, batch.characters, lengths, batch.character_counts, zero_infinity=True)


def _guide_loss(maps: Sequence[Tensor], heads: Sequence[GuidedHead], frames: Tensor) -> Tensor:
    """-log of the attention that lies on the word's positions, of each guided head."""
    loss = torch.zeros(())
    if not (frames >= 0).any():
        return loss
    for head, attention in zip(heads, maps, strict=True):
        mass = on_word(attention, frames[:, head.token :][:, : attention.shape[1]])
        loss = loss - head.weight * torch.log(mass + 1e-3).mean()
    return loss


def on_word(attention: Tensor, frames: Tensor) -> Tensor:
    """Attention (batch, tokens, positions) that lies on each token's word, of the tokens that have one."""
    position = torch.arange(attention.shape[2])
    known = frames[..., 0] >= 0
    first, end = frames[known][:, :1], frames[known][:, 1:]
    return (attention[known] * ((position >= first) & (position < end))).sum(-1)


def thinning(step: int) -> int:
    """Every how many positions of the padding one is kept; at the end some windows have all of them."""
    if step < LONG_WINDOWS:
        return 16
    return 1 if step > LAST - 300 and step % 10 == 0 else 8


def train(corpus: Corpus, folder: Path, stride: int = 1) -> None:
    """Train, or go on, and write the network for `transformers` to `folder`.

    A `stride` above 1 leaves steps of the schedule out: a run through all its phases in a few steps.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    tokenizer = whisper_model.make_tokenizer(folder)
    network = Recogniser(whisper_model.build(tokenizer))
    optimizer = torch.optim.AdamW(
        [p for p in network.parameters() if p.requires_grad], lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01
    )
    state = TrainingState(folder / "training.pt", network=network, optimizer=optimizer)
    schedule = range(0, LAST, stride)
    first = state.restore()
    batches = Batches(corpus, tokenizer)
    progress = Progress("recogniser", len(schedule))
    made = prefetch(lambda k: batches.of_step(schedule[k]), first, len(schedule))
    for done, batch in enumerate(made, first + 1):
        figures = _step(network, optimizer, batch, schedule[done - 1], before=schedule[max(0, done - 2)])
        progress.step(done, window_s=batch.plan.length_s, **figures)
        if done % SAVE_EVERY == 0 or done == len(schedule):
            state.save(done)
    network.whisper.save_pretrained(folder)


def _step(
    network: Recogniser, optimizer: torch.optim.Optimizer, batch: Batch, step: int, before: int
) -> dict[str, float]:
    if before < LONG_WINDOWS <= step:
        optimizer.state.clear()  # a fresh start on the long windows
    random.seed(step)  # chooses the kept positions of the padding
    rate = learning_rate(step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss, figures = network.losses(batch, thinning(step), GUIDED_HEADS if step >= GUIDED else [])
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return figures | {"rate": rate}
