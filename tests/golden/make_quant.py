#!/usr/bin/env python3
"""Writes tests/golden/quant/*.safetensors: random blocks of every type and the values that the format's
reference (the numpy code of the `gguf` package) gives them; and quantised rows for the types we write.
Needs: pip install numpy gguf safetensors.   usage: python3 tests/golden/make_quant.py"""
import os

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize, quantize
from safetensors.numpy import save_file

np.seterr(all="ignore")
folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "quant")
random = np.random.default_rng(20261124)

# f16 patterns for scales: zeros, denormals, normal, the largest, infinities, NaN
SPECIAL = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x3C00, 0xB555, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00, 0xFFFF]
# where each type keeps its f16 fields
HALVES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108],
          T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.IQ4_NL: [0], T.IQ4_XS: [0], T.MXFP4: [], T.F16: None, T.BF16: None}


def blocks_of(t):
    elements, size = GGML_QUANT_SIZES[t]
    if HALVES[t] is None:  # a plain type: special patterns and random ones
        bits = np.concatenate([np.array(SPECIAL), random.integers(0, 65536, 243)]).astype(np.uint16)
        return bits.view(np.uint8)
    b = random.integers(0, 256, (14 if elements == 32 else 6, size), dtype=np.uint8)
    for at in HALVES[t]:  # the first row ordinary, the others special
        h = np.array([0x2A3B] + list(random.permutation(SPECIAL)), np.uint16)[: len(b)]
        b[:, at : at + 2] = h[:, None].view(np.uint8).reshape(-1, 2)
    if t == T.MXFP4:
        b[:5, 0] = [0, 1, 2, 127, 254]
    return b


out = {}
for t in HALVES:
    b = blocks_of(t)
    name = t.name.lower()
    out[name + ".bytes"] = b.reshape(-1)
    out[name + ".values"] = dequantize(b, t).astype(np.float32).reshape(-1)
# not in the package: f32 scale, 256 i8, 16 i16 sums
q8k = random.integers(0, 256, (3, 292), dtype=np.uint8)
q8k[:, :4] = np.array([1e-3, -np.inf, 1e-45], np.float32).view(np.uint8).reshape(3, 4)
out["q8_k.bytes"] = q8k.reshape(-1)
out["q8_k.values"] = (q8k[:, :4].copy().view(np.float32) * q8k[:, 4:260].view(np.int8).astype(np.float32)).reshape(-1)
save_file(out, os.path.join(folder, "blocks.safetensors"))

rows = random.standard_normal((16, 32)).astype(np.float32)
rows[1] = 0
rows[2] *= 1e-9
rows[3] *= 1000
rows[4] = 3.0
rows[5] = np.arange(-16, 16) / 2  # ties
rows[6, 3] = -rows[6].max()
rows[7] = -np.abs(rows[7])
out = {"x": rows.reshape(-1)}
for t in (T.Q8_0, T.Q4_0, T.Q4_1, T.BF16, T.F16):
    out[t.name.lower()] = quantize(rows, t).view(np.uint8).reshape(-1)
save_file(out, os.path.join(folder, "quantized.safetensors"))
