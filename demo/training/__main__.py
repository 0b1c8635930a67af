"""From nothing to measured models: python -m demo.training WORKDIR [--quick]

The finished models are in WORKDIR/models, their figures in WORKDIR/summary.json and on stdout. A run that was killed
goes on where it was when it is started again with the same WORKDIR.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.training.corpus import Corpus, CorpusSize, synthesise
from demo.training.espeak import MissingSynthesiser
from demo.training.progress import say
from demo.training.voices import require_synthesisers


@dataclass(frozen=True)
class Scale:
    """How much of everything. The schedules go by steps, so that a fast and a slow machine make the same models."""

    corpus: CorpusSize
    speaker_steps: int
    aligner_steps: int
    recogniser_stride: int
    """1: every step of the schedule; n: every n-th."""
    conversations: tuple[tuple[int, int, int], ...]
    """Seed, seconds and speakers of what is evaluated; seeds that no training uses."""


FULL = Scale(
    corpus=CorpusSize(),
    speaker_steps=800,
    aligner_steps=1200,
    recogniser_stride=1,
    conversations=((1, 30, 2), (2, 180, 3), (4, 600, 3), (3, 1200, 4)),
)
QUICK = Scale(
    corpus=CorpusSize(english=1300, flite=40, german=60, demo=300),
    speaker_steps=5,
    aligner_steps=5,
    recogniser_stride=470,  # 21 steps, of all phases of the schedule; the last one sees the whole padding
    conversations=((1, 30, 2),),
)


@dataclass(frozen=True)
class Run:
    """The stages of one run, in the order in which they go. Each does nothing when its work is done."""

    folder: Path
    scale: Scale
    threads: int

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def stages(self) -> list[Callable[[], None]]:
        """The short trainings first: an error in them shows within minutes."""
        return [self.corpus, self.speakers, self.aligner, self.recogniser, self.manifest, self.conversations]

    def corpus(self) -> None:
        synthesise(self.folder / "corpus", self.scale.corpus, processes=self.threads)

    def speakers(self) -> None:
        from demo.training import diarization, speakers

        embedding = speakers.train(self._corpus(), self.folder / "speakers.pt", self.scale.speaker_steps)
        diarization.save(embedding, self.models / "diarization")

    def aligner(self) -> None:
        from demo.training import aligner

        aligner.train(self._corpus(), self.folder / "aligner.pt", self.models / "align", self.scale.aligner_steps)

    def recogniser(self) -> None:
        from demo.training import convert, recogniser

        source = self.folder / "recogniser"
        recogniser.train(self._corpus(), source, self.scale.recogniser_stride)
        convert.recogniser(source, self.models / "asr")

    def manifest(self) -> None:
        from demo.training import convert

        convert.sentence_splitter(self.models / "nltk_data")
        convert.manifest(self.models)

    def conversations(self) -> None:
        from demo.training import conversation

        for recording, (seed, seconds, speakers) in zip(self._recordings(), self.scale.conversations, strict=True):
            if not conversation.truth_file(recording).exists():
                recording.parent.mkdir(exist_ok=True)
                conversation.write_in_fresh_process(recording, seed, seconds, speakers)

    def summary(self) -> dict[str, Any]:
        from demo.training.evaluate import PlainWhisperX, measure

        whisperx = PlainWhisperX(self.models)
        return {
            "quick": self.scale is QUICK,
            "conversations": [measure(whisperx, r) for r in self._recordings()],
        }

    def _corpus(self) -> Corpus:
        return Corpus(self.folder / "corpus")

    def _recordings(self) -> list[Path]:
        return [self.folder / "conversations" / f"seed-{seed}.flac" for seed, _, _ in self.scale.conversations]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.training", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workdir", type=Path, help="about 4 GB; keep it to go on with a killed run")
    parser.add_argument("--quick", action="store_true", help="a few steps of everything, to try the code")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    try:
        require_synthesisers()
    except MissingSynthesiser as missing:
        print(missing, file=sys.stderr)
        return 2
    run = Run(chosen.workdir, QUICK if chosen.quick else FULL, chosen.threads)
    _keep_to_one_scale(run)
    for stage in run.stages:
        say(f"stage: {stage.__name__}")
        stage()
        _use_threads(chosen.threads)
    say("stage: evaluation")
    summary = json.dumps(run.summary(), indent=1)
    (run.folder / "summary.json").write_text(summary + "\n")
    print(summary)
    return 0


def _keep_to_one_scale(run: Run) -> None:
    """A quick corpus must not get under a full training, nor the other way round."""
    run.folder.mkdir(parents=True, exist_ok=True)
    mark, scale = run.folder / "scale.txt", repr(run.scale)
    if mark.exists() and mark.read_text() != scale:
        raise SystemExit(f"{run.folder} holds a run of another scale; take another folder: {mark.read_text()}")
    mark.write_text(scale)


def _use_threads(threads: int) -> None:
    """After the corpus, whose processes are forked: torch must not have started threads before."""
    import torch

    torch.set_num_threads(threads)


if __name__ == "__main__":
    sys.exit(main())
