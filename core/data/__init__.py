"""Corpora, tokenizer, token shards, packing and scored text: from a corpus's name to batches and rows."""

from core.data.dataset import Dataset, prepare

__all__ = ["Dataset", "prepare"]
