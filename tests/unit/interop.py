"""The other side of tests/unit/interop.cpp: reads and writes files with the reference packages.

  safetensors IN OUT   loads IN, checks it, saves the same tensors to OUT
  gguf IN OUT          the same with the gguf package
  values FILE [all]    name and sha256 of the f32 values of the smallest tensor of each type (or of all)
"""
import hashlib
import sys

import numpy as np

command, *paths = sys.argv[1:]
if command == "safetensors":
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(paths[0], framework="numpy") as f:
        tensors = {name: f.get_tensor(name) for name in f.keys()}
        metadata = f.metadata()
    assert metadata == {"format": "pt"}, metadata
    assert tensors["f32"].tolist() == [[0, 0.5, 1], [1.5, 2, 2.5]], tensors["f32"]
    assert tensors["i64"].dtype == np.int64 and tensors["i64"].tolist() == [0, -1, 2], tensors["i64"]
    assert tensors["f16"].dtype == np.float16 and tensors["f16"].tolist() == [0, 0.5, 1], tensors["f16"]
    assert tensors["empty"].shape == (0, 3) and tensors["scalar"].shape == (), tensors
    save_file(tensors, paths[1], metadata=metadata)
else:
    from gguf import GGMLQuantizationType as T
    from gguf import GGUFReader, GGUFWriter
    from gguf.quants import dequantize, quantize

    tensors = {t.name: t for t in GGUFReader(paths[0]).tensors}
    if command == "values":
        smallest = {}
        for t in tensors.values():
            if t.tensor_type not in smallest or t.n_elements < smallest[t.tensor_type].n_elements:
                smallest[t.tensor_type] = t
        for t in tensors.values() if paths[1:] == ["all"] else smallest.values():
            values = np.ascontiguousarray(dequantize(t.data, t.tensor_type), dtype=np.float32)
            assert not np.isnan(values).any()
            print(t.name, hashlib.sha256(values.tobytes()).hexdigest())
    else:
        fields = GGUFReader(paths[0]).fields
        assert fields["general.architecture"].contents() == "test"
        assert fields["names"].contents() == ["a", "b c"], fields["names"].contents()
        assert fields["numbers"].contents() == [1.5, -2], fields["numbers"].contents()
        assert list(tensors["x"].shape) == [32, 2], tensors["x"].shape  # ne: the fastest dimension first
        x = dequantize(tensors["x"].data, tensors["x"].tensor_type)
        assert x.shape == (2, 32) and x[1, 3] == 35, x
        w = GGUFWriter(paths[1], "test")
        w.add_array("names", ["a", "b c"])
        w.add_array("numbers", [1.5, -2.0])
        w.add_uint32("count", 7)
        w.add_tensor("x", quantize(x, T.Q8_0), raw_dtype=T.Q8_0)
        w.add_tensor("y", x)
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()
