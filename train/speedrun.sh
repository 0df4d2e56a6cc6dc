#!/usr/bin/env bash
# From nothing to a model that chats: corpus, tokenizer, pretraining, tuning, evaluation, report.
#   train/speedrun.sh [build/bin]
# Every stage is skipped when its result is there; an interrupted stage goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${1:-build/bin}
out=out/speedrun
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
[ -f "$out/base/summary.json" ] || train pretrain train/configs/speedrun_base.yaml "$out/base"
base=$(finished "$out/base")

stage "tuning"
[ -f "$out/sft/summary.json" ] || train sft train/configs/speedrun_sft.yaml "$out/sft" init_from="$base"
tuned=$(finished "$out/sft")

stage "evaluation"
[ -f "$out/base_chat.json" ] || "$bin/evaluate" chat --model "$base" --examples 100 --output "$out/base_chat.json" >/dev/null
[ -f "$out/sft_chat.json" ] || "$bin/evaluate" chat --model "$tuned" --examples 200 --output "$out/sft_chat.json"

stage "report"
"$bin/report" --run "$out" --output report

printf '\nThe report: report/index.html\nTo chat:    %s/chat --model %s\n' "$bin" "$tuned"
