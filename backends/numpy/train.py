"""A bigram model made of counts: the smallest honest trainer.

The next token is predicted by what followed the last one, smoothed towards how often each token occurs at all.
Needs no framework, so it shows the whole loop on any machine and lets tests run real trials in a blink.
"""

import numpy as np

from core.trial import join

SEQUENCE_LENGTH = 64  # tune: one of 32, 64, 128, 256
TOTAL_BATCH_SIZE = 2048  # tune: log int 256 .. 16384
DEVICE_BATCH_SIZE = 32  # rows at once
DEPTH = 2  # tune: int 1 .. 2; tokens a prediction rests on, itself included: 1 is a unigram model
SMOOTHING = 0.5  # tune: log 0.001 .. 10; added to each unigram count
BACKOFF = 20.0  # tune: log 0.1 .. 1000; weight of the unigram distribution within each bigram row


def main():
    trial = join(device_rows=DEVICE_BATCH_SIZE)
    vocabulary = trial.facts.vocabulary
    counts_VV = np.zeros((vocabulary, vocabulary), np.float32)
    rows = max(1, TOTAL_BATCH_SIZE // SEQUENCE_LENGTH)
    trial.describe(flops_per_token=2.0, kernel="counts (nothing to choose)", dtype="float32 (counts)")
    for _ in trial.warmup(rows, SEQUENCE_LENGTH):
        break
    trial.rehearse({"counts": counts_VV}, restore)
    for step, tokens in enumerate(trial.batches(rows, SEQUENCE_LENGTH)):
        past, future = tokens[:, :-1].ravel(), tokens[:, 1:].ravel()
        if step % 16 == 0:
            trial.report(loss=loss_of(counts_VV, past, future))
        np.add.at(counts_VV, (past, future), 1.0)
    trial.finish({"counts": counts_VV})


def log_probabilities(counts_VV):
    """[V, V] natural logarithms: row i is the distribution of what follows token i."""
    unigram_V = counts_VV.sum(axis=0) + np.float32(SMOOTHING)
    unigram_V /= unigram_V.sum()
    if DEPTH == 1:
        return np.broadcast_to(np.log(unigram_V), counts_VV.shape)
    prior = np.float32(BACKOFF)
    return np.log((counts_VV + prior * unigram_V) / (counts_VV.sum(axis=1, keepdims=True) + prior))


def loss_of(counts_VV, past, future):
    return float(-log_probabilities(counts_VV)[past, future].mean())


def restore(weights, facts):
    table_VV = log_probabilities(weights["counts"])
    return lambda tokens_BT: table_VV[tokens_BT]


if __name__ == "__main__":
    main()
