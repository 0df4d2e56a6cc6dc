#!/usr/bin/env python3
"""Loads a checkpoint written here with `transformers` and compares logits with build/bin/forward.

usage: tools/check_interop.py CHECKPOINT_FOLDER [BIN_FOLDER]    exit 0: equal (or transformers is missing: says so), 1: they differ
"""
import os, subprocess, sys, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__.strip())
    try:
        import torch
        from safetensors.torch import load_file, save_file
        from transformers import AutoModelForCausalLM
    except ImportError as e:
        print(f"interop: skipped, {e}")
        return
    folder, binaries = sys.argv[1], sys.argv[2] if len(sys.argv) == 3 else f"{ROOT}/build/bin"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(0)
    ids = torch.randint(0, model.config.vocab_size, (2, 33))
    with tempfile.TemporaryDirectory() as t:
        save_file({"in.input_ids": ids}, f"{t}/in.safetensors")
        subprocess.run([f"{binaries}/forward", "--model", folder, "--inputs", f"{t}/in.safetensors",
                        "--output", f"{t}/out.safetensors"], check=True)
        ours = load_file(f"{t}/out.safetensors")["logits"]
    with torch.no_grad():
        theirs = model(ids).logits.float()
    worst = (ours - theirs).abs().max().item()
    print(f"interop: {type(model).__name__}, largest difference of a logit {worst:.2e} at scale {theirs.std().item():.2f}")
    if worst > 1e-4 * max(1.0, theirs.std().item()):
        sys.exit("interop: the logits differ")


if __name__ == "__main__":
    main()
