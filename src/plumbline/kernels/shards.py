"""Safetensors in and out, tensor by tensor: a checkpoint of any size in the memory of its largest tensor."""

from plumbline.kernels.shard_reading import DTYPES, Shards, header
from plumbline.kernels.shard_writing import write

__all__ = ["DTYPES", "Shards", "header", "write"]
