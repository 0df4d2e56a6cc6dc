#!/usr/bin/env bash
# Format, file length and the direction of includes: train, infer, tools -> models -> kernels -> engine.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0
mapfile -t files < <(git ls-files -- '*.cpp' '*.h' '*.cu' '*.cuh')

if command -v clang-format >/dev/null; then
    clang-format --dry-run --Werror "${files[@]}" || { echo "style: run clang-format -i on the files above"; failed=1; }
else
    echo "style: clang-format is not installed; run tools/setup.sh"; failed=1
fi

for f in "${files[@]}"; do
    n=$(wc -l <"$f")
    if ((n > 600)); then echo "style: $f has $n lines, the limit is 600"; failed=1; fi
done

# layer: folders it must not include
check_layer() {
    local layer=$1; shift
    for forbidden in "$@"; do
        if grep -rnE "#include \"$forbidden/" "$layer" --include='*.h' --include='*.cpp' --include='*.cu' --include='*.cuh'; then
            echo "style: $layer must not include $forbidden"; failed=1
        fi
    done
}
check_layer engine kernels models data infer train tools tests bench
check_layer kernels models data infer train tools tests bench
check_layer data kernels models infer train tools tests bench
check_layer models data infer train tools tests bench
check_layer infer train tools tests bench
check_layer train tools tests bench
exit $failed
