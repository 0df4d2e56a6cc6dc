#!/usr/bin/env python3
"""A whole training step here and in PyTorch, alternating in one run: tokens per second and their ratio.

usage: bench/compare_step.py [--model gpt2-124m|qwen3-small] [--dtype f32|bf16] [--rounds 3]

Needs torch and transformers (a virtual environment will do). PyTorch runs eager with SDPA attention, bf16 by autocast,
and fused AdamW on the same cores; both sides report the best step of each round.
"""
import argparse, json, os, subprocess, sys, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CASES = {"gpt2-124m": (4, 64), "qwen3-small": (8, 256)}


def torch_model(name):
    from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM
    if name == "gpt2-124m":
        c = GPT2Config(vocab_size=50304, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
        c._attn_implementation = "sdpa"
        return GPT2LMHeadModel(c), 50304
    c = Qwen3Config(vocab_size=4096, hidden_size=256, intermediate_size=768, num_hidden_layers=6, num_attention_heads=4,
                    num_key_value_heads=2, head_dim=64, tie_word_embeddings=True, max_position_embeddings=1024)
    c._attn_implementation = "sdpa"
    return Qwen3ForCausalLM(c), 4096


class Torch:
    def __init__(self, name, dtype):
        import torch
        self.torch, self.bf16 = torch, dtype == "bf16"
        torch.manual_seed(0)
        self.model, vocab = torch_model(name)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)
        batch, length = CASES[name]
        self.ids = torch.randint(0, vocab, (batch, length + 1))
        self.tokens = batch * length

    def best(self, steps):
        torch, best = self.torch, 1e9
        for _ in range(steps):
            start = time.perf_counter()
            self.optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                logits = self.model(self.ids[:, :-1]).logits
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), self.ids[:, 1:].flatten())
            loss.backward()
            self.optimizer.step()
            best = min(best, time.perf_counter() - start)
        return self.tokens / best


def ours(name, dtype, steps):
    batch, length = CASES[name]
    out = subprocess.run([f"{ROOT}/build/bin/bench_step", "--model", name, "--batch", str(batch), "--sequence", str(length),
                          "--steps", str(steps), "--dtype", dtype, "--json"], check=True, capture_output=True, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])["tokens_per_second_best"]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model", default="gpt2-124m", choices=CASES)
    p.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--steps", type=int, default=6)
    a = p.parse_args()
    try:
        peer = Torch(a.model, a.dtype)
    except ImportError as e:
        sys.exit(f"compare_step: {e}; install torch and transformers to compare")
    peer.best(2)
    best = [0.0, 0.0]
    for r in range(a.rounds):
        theirs, mine = peer.best(a.steps), ours(a.model, a.dtype, a.steps)
        best = [max(best[0], theirs), max(best[1], mine)]
        print(f"round {r + 1}: PyTorch {theirs:7.1f} tok/s   nanochat_vl {mine:7.1f} tok/s   ratio {mine / theirs:.2f}", flush=True)
    print(f"best   : PyTorch {best[0]:7.1f} tok/s   nanochat_vl {best[1]:7.1f} tok/s   ratio {best[1] / best[0]:.2f}")


if __name__ == "__main__":
    main()
