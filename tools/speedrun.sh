#!/usr/bin/env bash
# From nothing to a model that chats: corpus, tokenizer, pretraining, tuning, evaluation, report.
#   tools/speedrun.sh [build/bin [quick]]       quick: every stage for a few steps, to see that all of it works
# Every stage is skipped when its result is there; an interrupted stage goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${1:-build/bin}
out=out/speedrun report=report examples=200
base_words=() sft_words=()
if [ "${2:-}" = quick ]; then
    out=out/speedrun-quick report=out/speedrun-quick/report examples=8
    base_words=(steps=12 batch.rows=4 eval.every=6 eval.rows=8 sample.every=12 save.every=4)
    sft_words=(steps=8 batch.rows=4 eval.every=8 eval.rows=8 tasks.spelling=300 tasks.letter_count=100
               tasks.arithmetic=200 tasks.identity=50)
fi
mkdir -p "$out"

stage() { printf '\n== %s\n' "$1"; }
finished() { # the checkpoint of a run that reached its last step
    [ -f "$1/summary.json" ] && sed -n 's/.*"checkpoint": "\(.*\)".*/\1/p' "$1/summary.json" | head -n 1
}
clock() { # clock NAME command...: keeps the wall time of a stage for the report
    local name=$1 start=$SECONDS; shift
    "$@"
    echo "$((SECONDS - start))" >"$out/$name.seconds"
}
train() { # train PROGRAM CONFIG FOLDER
    clock "$1" "$bin/$1" "$2" out_dir="$3" resume=true "${@:4}"
    [ -f "$3/summary.json" ] || { echo "speedrun: stopped; run it again to go on"; exit 130; }
}

stage "corpus"
bash data/sources/get_corpus.sh data/cache/corpus

stage "tokenizer"
if [ ! -f "$out/tokenizer/tokenizer.json" ]; then
    clock tokenizer "$bin/tokenizer" train --input data/cache/corpus --vocab-size 4096 --output "$out/tokenizer"
fi

stage "pretraining"
[ -f "$out/base/summary.json" ] || train pretrain train/configs/speedrun_base.yaml "$out/base" \
    tokenizer.path="$out/tokenizer" data.cache="$out/tokens" "${base_words[@]}"
base=$(finished "$out/base")

stage "tuning"
[ -f "$out/sft/summary.json" ] || train sft train/configs/speedrun_sft.yaml "$out/sft" init_from="$base" \
    tokenizer.path="$out/tokenizer" data.cache="$out/chat" "${sft_words[@]}"
tuned=$(finished "$out/sft")

stage "evaluation"
[ -f "$out/base_chat.json" ] || "$bin/evaluate" chat --model "$base" --examples "$examples" --output "$out/base_chat.json" >/dev/null
[ -f "$out/sft_chat.json" ] || "$bin/evaluate" chat --model "$tuned" --examples "$examples" --output "$out/sft_chat.json"

stage "report"
"$bin/report" --run "$out" --output "$report"

printf '\nThe report: %s/index.html\nTo chat:    %s/chat --model %s\n' "$report" "$bin" "$tuned"
