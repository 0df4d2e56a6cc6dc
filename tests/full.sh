#!/usr/bin/env bash
# The sweeps that are too slow for every change: whole real models, long comparisons. Called by `make test-full`.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${1:-build/bin}

echo "== SmolLM2 against the reference, whole text"
bash tools/get_smollm2.sh >/dev/null
"$bin/infer_tests" --gtest_also_run_disabled_tests --gtest_filter='*SmolLM2*' --gtest_brief=1

echo "== files written and read by other implementations"
"$bin/unit_tests" --gtest_also_run_disabled_tests --gtest_filter='*Interop*' --gtest_brief=1
