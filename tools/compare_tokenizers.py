#!/usr/bin/env python3
"""Compares our tokenizer with Hugging Face's `tokenizers` (and `transformers`): merges, ids, files in both directions, speed.

    python3 tools/compare_tokenizers.py --input CORPUS... [--vocab-size 32768] [--model FILE.gguf] [--bin build/bin]

Input: .txt and .jsonl ("text") files and folders. Everything runs on the same cores in turns; ratios are of the best times, by the clock and
in processor time (which a busy machine disturbs less).
Exit status 0: all equal (or nothing to compare with, said in one line); 1: a difference; 2: slower.
"""
import argparse, array, hashlib, json, os, random, subprocess, sys, tempfile, time
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
try:
    import tokenizers
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
except ImportError:
    print("compare_tokenizers: skipped: the Python package `tokenizers` is not installed (pip install tokenizers)")
    sys.exit(0)

SPLIT = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,%d}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+")
SPECIALS = ["<|bos|>", "<|user_start|>", "<|user_end|>", "<|assistant_start|>", "<|assistant_end|>", "<|python_start|>",
            "<|python_end|>", "<|output_start|>", "<|output_end|>", "<|image|>", "<|image_start|>", "<|image_end|>", "<|video|>",
            "<|reserved_0|>", "<|reserved_1|>", "<|reserved_2|>"]


def pre_tokenizer(pattern):
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern in ("gpt2", "smollm"))
    if pattern == "gpt2":
        return byte_level
    first = pre_tokenizers.Digits(individual_digits=True) if pattern == "smollm" else \
        pre_tokenizers.Split(Regex(SPLIT % int(pattern[-1])), "isolated")
    return pre_tokenizers.Sequence([first, byte_level])


def timed(work):
    clock, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, (time.perf_counter() - clock, time.process_time() - cpu)


def train_theirs(documents, pattern, size):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizer(pattern)
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=[],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    return t, timed(lambda: t.train_from_iterator(documents, trainer))[1]


def read_documents(paths):
    for path in map(Path, paths):
        files = sorted(f for f in path.rglob("*") if f.suffix in (".txt", ".jsonl")) if path.is_dir() else [path]
        for f in files:
            text = f.read_text(encoding="utf-8")
            if f.suffix == ".jsonl":
                lines = (json.loads(line) for line in text.splitlines() if line.strip())
                yield from (d["text"] for d in lines if isinstance(d, dict) and d.get("text"))
            else:
                yield from (part for part in text.split("\f") if part.strip())


def hard_texts(count, seed):
    """Lines without a newline made of what tokenizers trip over."""
    rng = random.Random(seed)
    parts = ["don't", "WE'LL", "'s", " ", "  ", "\t", "\u00a0", "12", "12345", "\u0663\u0664", "\u2167", "caf\u00e9", "cafe\u0301",
             "\u4f60\u597d", "\U0001f600", "\U0001f469\u200d\U0001f4bb", "...", "!?", "_x_", "\x1c", "\x00", "\u2003", "the", " of", "<|",
             "|>", "\u212b", "\u1e9b\u0323", "\u0130", "a" * 40]
    for _ in range(count):
        yield "".join(rng.choice(parts + SPECIALS[:3]) for _ in range(rng.randrange(12)))


def ours(binary, *arguments, stdin=None):
    r = subprocess.run([binary, *arguments], input=stdin, capture_output=True)
    if r.returncode:
        sys.exit(f"compare_tokenizers: {' '.join(map(str, arguments[:2]))}: {r.stderr.decode().strip()}")
    return r.stdout.decode()


def encode_ours(binary, model, texts, special):
    out = ours(binary, "encode", "--model", model, "--json", *(["--special"] if special else []),
               stdin="".join(t + "\n" for t in texts).encode())
    return [json.loads(line)["ids"] for line in out.splitlines()]


def digest(encodings):
    ids = array.array("i")
    for e in encodings:
        ids.extend(e.ids)
    return hashlib.sha256(ids.tobytes()).hexdigest(), len(ids)


failures = []


def equal(what, a, b):
    same = a == b
    print(f"  {'same' if same else 'DIFFERENT'}: {what}")
    if not same:
        failures.append(what)
        if isinstance(a, list):
            i = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
            print(f"    first difference at {i} of {len(a)}/{len(b)}: {a[i:i + 1]} {b[i:i + 1]}")


def compare_files(binary, theirs, folder, texts):
    """Ids of their tokenizer and of ours reading `folder`, in ordinary text and with special tokens."""
    plain = [t for t in texts if "<|" not in t]
    equal(f"{folder.name}: ids of {len(plain)} texts", [theirs.encode(t, add_special_tokens=False).ids for t in plain],
          encode_ours(binary, folder, plain, False))
    equal(f"{folder.name}: ids of {len(texts)} texts with special tokens", [theirs.encode(t).ids for t in texts],
          encode_ours(binary, folder, texts, True))


def compare_transformers(binary, folder, texts):
    try:
        os.environ["HF_HUB_OFFLINE"] = "1"
        from transformers import AutoTokenizer
    except ImportError:
        print("  skipped: the Python package `transformers` is not installed")
        return
    auto = AutoTokenizer.from_pretrained(folder)
    equal(f"{folder.name}: AutoTokenizer's ids", [auto(t)["input_ids"] for t in texts], encode_ours(binary, folder, texts, True))
    plain = [t for t in texts if "<|" not in t]
    equal(f"{folder.name}: AutoTokenizer decodes to the text",
          [auto.decode(i, clean_up_tokenization_spaces=False) for i in encode_ours(binary, folder, plain, False)], plain)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--input", nargs="+", required=True)
    p.add_argument("--vocab-size", type=int, default=32768)
    p.add_argument("--model", help="a GGUF file or HF folder to convert and compare")
    p.add_argument("--bin", default="build/bin")
    p.add_argument("--rounds", type=int, default=3)
    a = p.parse_args()
    tokenizer, bench = Path(a.bin) / "tokenizer", Path(a.bin) / "bench_tokenizer"
    work = Path(tempfile.mkdtemp(prefix="compare_tokenizers"))
    documents = list(read_documents(a.input))
    corpus = work / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": d}) + "\n" for d in documents))
    megabytes = sum(len(d.encode()) for d in documents) / 1e6
    texts = list(hard_texts(400, 1))
    print(f"tokenizers {tokenizers.__version__}, {len(os.sched_getaffinity(0))} cores, {len(documents)} documents, {megabytes:.1f} MB")

    some, size = documents[::max(1, int(megabytes / 4))], 4096
    few = work / "some.jsonl"
    few.write_text("".join(json.dumps({"text": d}) + "\n" for d in some))
    print(f"merges and ids, each pattern, vocabulary {size}, {len(some)} of the documents:")
    for pattern in ("gpt4-2", "gpt4-1", "gpt4-3", "gpt2", "smollm"):
        folder = work / pattern
        theirs, _ = train_theirs(some, pattern, size - len(SPECIALS))
        ours(tokenizer, "train", "--quiet", "--input", few, "--vocab-size", str(size), "--pattern", pattern, "--output", folder)
        mine = json.loads((folder / "tokenizer.json").read_text())
        equal(f"{pattern}: merges", [list(m) for m in json.loads(theirs.to_str())["model"]["merges"]], mine["model"]["merges"])
        equal(f"{pattern}: pieces", theirs.get_vocab(), mine["model"]["vocab"])
        compare_files(tokenizer, Tokenizer.from_file(str(folder / "tokenizer.json")), folder, texts)
        compare_transformers(tokenizer, folder, texts)
        theirs.add_special_tokens(SPECIALS[:3])
        theirs.add_tokens([tokenizers.AddedToken("<|left|>", lstrip=True), tokenizers.AddedToken("cafe", single_word=True)])
        theirs.normalizer = normalizers.NFC() if pattern == "gpt4-1" else None
        (work / f"theirs-{pattern}").mkdir()
        theirs.save(str(work / f"theirs-{pattern}" / "tokenizer.json"))
        compare_files(tokenizer, theirs, work / f"theirs-{pattern}", texts + ["a  <|left|>b", "cafe cafes", "a cafe\u0301"])
    if a.model:
        folder = work / "converted"
        ours(tokenizer, "convert", "--model", a.model, "--output", folder)
        print(f"{a.model} written as a folder:")
        compare_files(tokenizer, Tokenizer.from_file(str(folder / "tokenizer.json")), folder, texts)
        equal("converted: ids from the file itself", encode_ours(tokenizer, a.model, texts, True), encode_ours(tokenizer, folder, texts, True))

    print(f"speed, vocabulary {a.vocab_size}, best of {a.rounds}:")
    train = [[], []]
    for _ in range(a.rounds):
        theirs, took = train_theirs(documents, "gpt4-2", a.vocab_size - len(SPECIALS))
        train[0].append(took)
        r = json.loads(ours(bench, "--json", "--rounds", "1", "--input", corpus, "--vocab-size", str(a.vocab_size)))
        train[1].append((r["train_seconds"], r["train_cpu_seconds"]))
    folder = work / "large"
    ours(tokenizer, "train", "--quiet", "--input", corpus, "--vocab-size", str(a.vocab_size), "--output", folder)
    equal(f"merges of {a.vocab_size}", [list(m) for m in json.loads(theirs.to_str())["model"]["merges"]],
          json.loads((folder / "tokenizer.json").read_text())["model"]["merges"])
    encode = [[], []]
    for _ in range(a.rounds):
        encodings, took = timed(lambda: theirs.encode_batch_fast(documents, add_special_tokens=False))
        encode[0].append(took)
        report = json.loads(ours(bench, "--json", "--rounds", "1", "--input", corpus, "--model", folder))
        encode[1].append((report["encode_seconds"], report["encode_cpu_seconds"]))
    equal(f"all {report['ids']} ids of the corpus", digest(encodings), (report["sha256"], report["ids"]))
    slower = False
    for name, (t, o) in (("training", train), ("encoding", encode)):
        for i, unit in enumerate(("by the clock", "processor time")):
            theirs_best, ours_best = min(x[i] for x in t), min(x[i] for x in o)
            slower |= ours_best > theirs_best
            print(f"  {name}, {unit}: tokenizers {theirs_best:.3f} s ({megabytes / theirs_best:.1f} MB/s), ours {ours_best:.3f} s "
                  f"({megabytes / ours_best:.1f} MB/s): {theirs_best / ours_best:.1f}x")
    if failures:
        sys.exit(f"compare_tokenizers: {len(failures)} differences: {'; '.join(failures)}")
    sys.exit(2 if slower else 0)


main()
