"""Training of the demo models, from nothing to measured figures: `python -m demo.training WORKDIR`.

The files in the order in which the work goes:

    grammar        sentences of a closed vocabulary
    espeak, voices speech with word times, from espeak-ng and flite
    corpus         28 hours of such speech on disk
    windows        what one training example is made of: sentences, pauses, noise, silence
    speakers       the speaker embedding           (TinyXVector, 800 steps)
    diarization    the pyannote pipeline around it
    aligner        the word aligner                (wav2vec2 with CTC, 1,200 steps)
    whisper_model  the recogniser's network        (Whisper, 128 wide)
    recogniser     its training                    (9,500 steps, most of the time)
    convert        the recogniser for CTranslate2
    conversation   conversations with their truth, for the evaluation and the recordings
    evaluate       word, word time and speaker errors of plain WhisperX
    install        finished models into demo/models/tiny, when they are good enough

`resumable` and `progress` hold what the three trainings share: a killed run goes on where it was.
"""
